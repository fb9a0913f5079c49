//! The decoders of what other nodes say, for the fuzz targets. No part of the product.

use ackord_machine::site::{Batch, Command, Outcome, Stamp, encode_batch};
use bytes::Bytes;
use futures_util::FutureExt as _;
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, VoteRequest, VoteResponse};
use serde::Serialize;

use super::codec::message;
use super::hello::{self, Disk, Hello, VERSIONS};
use super::stranger::{Ask, Told};
use super::wire::{Answer, Append, Appended, Ballot, Call, Fate, Forward, Forwarded, Vote, Voted};
use crate::error::ProposeError;
use crate::types::{LeaderId, Proposal, RaftEntry, RaftLogId, RaftVote};

/// A message; the first byte says of which kind. What can be read is given to raft's types.
pub(crate) fn envelope(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let version = *VERSIONS.end();
    match kind % 6 {
        0 => {
            if let Ok(append) = message::<Append>(version, bytes) {
                let (group, size) = (append.group, append.bytes());
                assert!(append.committed_next() >= 1 || size >= 64);
                if let Ok(request) = append.raft_of(group) {
                    assert!(Append::of(group, &request).is_ok(), "it cannot be sent on");
                }
            }
        }
        1 => {
            if let Ok(appended) = message::<Appended>(version, bytes) {
                let _again = Appended::of(&appended.raft());
            }
        }
        2 => drop(message::<Call>(version, bytes).map(call)),
        3 => drop(message::<Answer>(version, bytes).map(answer)),
        4 => {
            if let Ok(forward) = message::<Forward>(version, bytes) {
                let _commands = ackord_machine::site::decode_batch(&forward.batch);
            }
        }
        _ => {
            if let Ok(forwarded) = message::<Forwarded>(version, bytes) {
                let fates = forwarded.results.into_iter().filter_map(Result::err);
                let _again: Vec<Fate> = fates.map(|fate| ProposeError::from(fate).into()).collect();
            }
        }
    }
}

fn call(call: Call) {
    match call {
        Call::Vote { ballot, .. } | Call::PreVote { ballot, .. } => {
            let _again = Ballot::of(&ballot.raft());
        }
        Call::Transfer { transfer, .. } => drop(transfer.raft()),
        Call::SnapshotEnd { vote, .. } => {
            let _again = Vote::of(&vote.raft());
        }
        Call::Clock
        | Call::Pulse(_)
        | Call::ReadIndex { .. }
        | Call::SnapshotBegin { .. }
        | Call::SnapshotPiece { .. } => {}
    }
}

fn answer(answer: Answer) {
    match answer {
        Answer::Voted(voted) => {
            let _again = Voted::of(&voted.raft());
        }
        Answer::Installed(vote) => {
            let _again = Vote::of(&vote.raft());
        }
        Answer::Clock { .. }
        | Answer::Pulse { .. }
        | Answer::Transferred(_)
        | Answer::ReadIndex(_)
        | Answer::Received(_)
        | Answer::Refused(_) => {}
    }
}

/// The first words of a connection, with their frame and without.
pub(crate) fn greeting(data: &[u8]) {
    let mut stream = data;
    // All bytes are there, so nothing is waited for.
    let _greeting = hello::greeting(&mut stream).now_or_never();
    let _parts = (
        hello::parse::<Hello>(data).map(drop),
        hello::parse::<Ask>(data).map(drop),
        hello::parse::<Told>(data).map(drop),
    );
}

fn sealed(kind: u8, message: &impl Serialize) -> Vec<u8> {
    // A Vec takes any number of bytes.
    postcard::to_extend(message, vec![kind, *VERSIONS.end()]).unwrap_or_default()
}

/// Messages as nodes send them.
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let commands = vec![Command::Tick { limit: 5 }, Command::Compare];
    let batch = encode_batch(&Batch { stamp: Stamp(300), commands });
    let at = RaftLogId::new_term_index(3, 7);
    let vote = RaftVote { leader_id: LeaderId { term: 3, voted_for: 2 }, committed: true };
    let payload = EntryPayload::Normal(Proposal(batch.clone()));
    let entries = vec![
        RaftEntry { log_id: at, payload },
        RaftEntry { log_id: RaftLogId::new_term_index(3, 8), payload: EntryPayload::Blank },
    ];
    let append =
        AppendEntriesRequest { vote, prev_log_id: Some(at), leader_commit: Some(at), entries };
    let ballot = || Ballot::of(&VoteRequest::new(vote, Some(at)));
    let voted = Voted::of(&VoteResponse::new(vote, Some(at), true));
    let piece = Bytes::from_static(b"bytes");
    let id = || "1-2-3".to_owned();
    let results = vec![Ok(Outcome::Done), Err(Fate::Busy)];
    let mut seeds = vec![
        ("envelope", "appended", sealed(1, &Appended::of(&Ok(Some(at))))),
        ("envelope", "vote", sealed(2, &Call::Vote { group: 1, ballot: ballot() })),
        ("envelope", "pre-vote", sealed(2, &Call::PreVote { group: 1, ballot: ballot() })),
        ("envelope", "begin", sealed(2, &Call::SnapshotBegin { group: 1, id: id() })),
        (
            "envelope",
            "piece",
            sealed(2, &Call::SnapshotPiece { group: 1, id: id(), offset: 9, bytes: piece }),
        ),
        (
            "envelope",
            "end",
            sealed(2, &Call::SnapshotEnd { group: 1, id: id(), vote: Vote::of(&vote) }),
        ),
        ("envelope", "pulse", sealed(2, &Call::Pulse(Disk { run: 1, stored: 2 }))),
        ("envelope", "voted", sealed(3, &Answer::Voted(voted))),
        ("envelope", "refused", sealed(3, &Answer::Refused("no".to_owned()))),
        ("envelope", "forward", sealed(4, &Forward { group: 1, number: 2, batch })),
        ("envelope", "forwarded", sealed(5, &Forwarded { number: 2, applied_next: 3, results })),
        ("greeting", "who", postcard::to_stdvec(&Ask::Who).unwrap_or_default()),
        ("greeting", "frame", [&b"ACKORD-S"[..], &[1, 0, 0]].concat()),
        ("greeting", "member", [&b"ACKORD-P"[..], &[3, 0, 1, 1, 0]].concat()),
    ];
    if let Ok(append) = Append::of(1, &append) {
        seeds.push(("envelope", "append", sealed(0, &append)));
    }
    seeds
}
