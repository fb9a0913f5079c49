//! What nodes say to each other, and how raft's types are written in it.
//!
//! These are our own types, so that an upgrade of raft does not change the wire. Log entries go as
//! they are in the log, with the format byte they have there; commands as the site machine encodes
//! them. Variants are appended, never reordered or reused.

use std::io;

use ackord_machine::site::Outcome;
use ackord_store::{Entry as StoreEntry, Mark};
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::hello::Disk;
use crate::error::ProposeError;
use crate::types::{
    LeaderId, NodeId, RaftLogId, RaftVote, TypeConfig, decode_entry, encode_entry, log_id_of,
    mark_of,
};

/// A vote, or the leadership it became.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Vote {
    term: u64,
    node: NodeId,
    committed: bool,
}

impl Vote {
    pub(super) fn of(vote: &RaftVote) -> Self {
        let LeaderId { term, voted_for } = vote.leader_id;
        Self { term, node: voted_for, committed: vote.committed }
    }

    pub(super) fn raft(self) -> RaftVote {
        let leader_id = LeaderId { term: self.term, voted_for: self.node };
        RaftVote { leader_id, committed: self.committed }
    }
}

/// The position of a log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    term: u64,
    index: u64,
}

impl Position {
    pub(super) fn of(id: &RaftLogId) -> Self {
        let Mark { term, node: _, index } = mark_of(id);
        Self { term, index }
    }

    pub(super) fn raft(self) -> RaftLogId {
        log_id_of(Mark { term: self.term, node: 0, index: self.index })
    }
}

/// Entries for a follower's log. All of a stream are of one group.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Append {
    pub(super) group: u32,
    vote: Vote,
    previous: Option<Position>,
    committed: Option<Position>,
    entries: Vec<(Position, Bytes)>,
}

impl Append {
    pub(super) fn of(group: u32, request: &AppendEntriesRequest<TypeConfig>) -> io::Result<Self> {
        let entry = |entry| {
            let StoreEntry { mark, data } = encode_entry(entry)?;
            Ok((Position { term: mark.term, index: mark.index }, data))
        };
        Ok(Self {
            group,
            vote: Vote::of(&request.vote),
            previous: request.prev_log_id.as_ref().map(Position::of),
            committed: request.leader_commit.as_ref().map(Position::of),
            entries: request.entries.iter().map(entry).collect::<io::Result<_>>()?,
        })
    }

    /// The first entry that the leader did not know to be committed.
    pub(super) fn committed_next(&self) -> u64 {
        self.committed.map_or(0, |committed| committed.index + 1)
    }

    /// As raft takes it, if it is for `group`.
    pub(super) fn raft_of(self, group: u32) -> io::Result<AppendEntriesRequest<TypeConfig>> {
        if self.group != group {
            let text = format!("an append for group {} on a stream of group {group}", self.group);
            return Err(io::Error::other(text));
        }
        let entry = |(position, data): (Position, Bytes)| {
            let mark = Mark { term: position.term, node: 0, index: position.index };
            decode_entry(&StoreEntry { mark, data })
        };
        Ok(AppendEntriesRequest {
            vote: self.vote.raft(),
            prev_log_id: self.previous.map(Position::raft),
            leader_commit: self.committed.map(Position::raft),
            entries: self.entries.into_iter().map(entry).collect::<io::Result<_>>()?,
        })
    }

    /// Roughly what it takes on the wire.
    pub(super) fn bytes(&self) -> usize {
        64 + self.entries.iter().map(|(_, data)| 16 + data.len()).sum::<usize>()
    }
}

/// What a follower says to one [`Append`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Appended {
    /// Everything up to here is durable there.
    Upto(Option<Position>),
    /// The follower has another entry here.
    Conflict(Position),
    /// The follower knows a newer vote.
    Newer(Vote),
}

impl Appended {
    pub(super) fn of(result: &StreamAppendResult<TypeConfig>) -> Self {
        match result {
            Ok(upto) => Self::Upto(upto.as_ref().map(Position::of)),
            Err(StreamAppendError::Conflict(at)) => Self::Conflict(Position::of(at)),
            Err(StreamAppendError::HigherVote(vote)) => Self::Newer(Vote::of(vote)),
        }
    }

    pub(super) fn raft(self) -> StreamAppendResult<TypeConfig> {
        match self {
            Self::Upto(upto) => Ok(upto.map(Position::raft)),
            Self::Conflict(at) => Err(StreamAppendError::Conflict(at.raft())),
            Self::Newer(vote) => Err(StreamAppendError::HigherVote(vote.raft())),
        }
    }
}

/// A candidate's question.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ballot {
    vote: Vote,
    last: Option<Position>,
    by_transfer: bool,
}

impl Ballot {
    pub(super) fn of(request: &VoteRequest<TypeConfig>) -> Self {
        Self {
            vote: Vote::of(&request.vote),
            last: request.last_log_id.as_ref().map(Position::of),
            by_transfer: request.leadership_transfer,
        }
    }

    pub(super) fn raft(self) -> VoteRequest<TypeConfig> {
        let mut request = VoteRequest::new(self.vote.raft(), self.last.map(Position::raft));
        request.leadership_transfer = self.by_transfer;
        request
    }
}

/// The answer to a candidate.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Voted {
    vote: Vote,
    granted: bool,
    last: Option<Position>,
}

impl Voted {
    pub(super) fn of(response: &VoteResponse<TypeConfig>) -> Self {
        Self {
            vote: Vote::of(&response.vote),
            granted: response.vote_granted,
            last: response.last_log_id.as_ref().map(Position::of),
        }
    }

    pub(super) fn raft(self) -> VoteResponse<TypeConfig> {
        VoteResponse::new(self.vote.raft(), self.last.map(Position::raft), self.granted)
    }
}

/// A leader's wish that another node lead.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Transfer {
    from: Vote,
    to: NodeId,
    last: Option<Position>,
}

impl Transfer {
    pub(super) fn of(request: &TransferLeaderRequest<TypeConfig>) -> Self {
        Self {
            from: Vote::of(request.from_leader()),
            to: *request.to_node_id(),
            last: request.last_log_id().map(Position::of),
        }
    }

    pub(super) fn raft(self) -> TransferLeaderRequest<TypeConfig> {
        TransferLeaderRequest::new(self.from.raft(), self.to, self.last.map(Position::raft))
    }
}

/// What is asked once and answered once.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Call {
    /// What time is it there?
    Clock,
    /// A real election.
    Vote { group: u32, ballot: Ballot },
    /// Would you vote?
    PreVote { group: u32, ballot: Ballot },
    /// Please lead.
    Transfer { group: u32, transfer: Transfer },
    /// Up to where must be applied for a read to be linearizable?
    ReadIndex { group: u32 },
    /// A snapshot is about to come; where shall it go on?
    SnapshotBegin { group: u32, id: String },
    /// A piece of it.
    SnapshotPiece { group: u32, id: String, offset: u64, bytes: Bytes },
    /// That was all of it: verify and install it.
    SnapshotEnd { group: u32, id: String, vote: Vote },
    /// As [`Call::Clock`], and how far the stores of both are.
    Pulse(Disk),
}

/// What a [`Call`] is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Milliseconds since 1970 by the wall clock.
    Clock { wall_ms: u64 },
    /// To both kinds of ballots.
    Voted(Voted),
    /// Whether the wish was taken up; if not, why.
    Transferred(Result<(), String>),
    /// The index that must be applied.
    ReadIndex(u64),
    /// Bytes of the snapshot that are there.
    Received(u64),
    /// The snapshot is installed, or this newer vote is known.
    Installed(Vote),
    /// It was not done, and nothing of it.
    Refused(String),
    /// To a pulse; milliseconds since 1970 by the wall clock.
    Pulse { wall_ms: u64, disk: Disk },
}

/// Commands for the leader's queue, in order. All of a stream are of one group.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Forward {
    pub(super) group: u32,
    pub(super) number: u64,
    /// As the site machine encodes a batch; its stamp means nothing.
    pub(super) batch: Bytes,
}

/// What became of the commands of one [`Forward`], in order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Forwarded {
    pub(super) number: u64,
    /// Entries below this index had been applied by the leader when it answered.
    pub(super) applied_next: u64,
    pub(super) results: Vec<Result<Outcome, Fate>>,
}

/// [`ProposeError`] on the wire.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Fate {
    Busy,
    OverCapacity,
    DiskFull,
    Unavailable,
    Unknown,
}

impl From<ProposeError> for Fate {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Busy => Self::Busy,
            ProposeError::OverCapacity => Self::OverCapacity,
            ProposeError::DiskFull => Self::DiskFull,
            ProposeError::Unavailable => Self::Unavailable,
            ProposeError::Unknown => Self::Unknown,
        }
    }
}

impl From<Fate> for ProposeError {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Busy => Self::Busy,
            Fate::OverCapacity => Self::OverCapacity,
            Fate::DiskFull => Self::DiskFull,
            Fate::Unavailable => Self::Unavailable,
            Fate::Unknown => Self::Unknown,
        }
    }
}
