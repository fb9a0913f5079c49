//! The raft types of this crate and how an entry is written into the log.
//!
//! An entry in the log is `[FORMAT][kind][body]`: a blank entry has no body, a batch is carried as
//! encoded by the site machine, a membership is postcard. Decoding is total. Standard leader ids:
//! one leader per term, so (term, index) identifies an entry. Kinds are retired, never reused.

use std::fmt;
use std::io;

use ackord_machine::site::Outcome;
use ackord_store::{Entry as StoreEntry, Mark};
use bytes::{BufMut, Bytes, BytesMut};
use openraft::impls::leader_id_std;
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, EntryPayload, LogId, Membership, OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};

use crate::runtime::Runtime;

/// The version of what this crate writes into log entries, votes and metadata.
pub(crate) const FORMAT: u8 = 1;

const KIND_BLANK: u8 = 0;
const KIND_BATCH: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// A raft node's number; that of the data directory's identity.
pub(crate) type NodeId = u64;

/// What openraft is instantiated with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Outcomes;
    type NodeId = NodeId;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = RaftVote;
    type Payload = EntryPayload<Proposal, NodeId, BasicNode>;
    type Entry = RaftEntry;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Answer<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
pub(crate) type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub(crate) type RaftLogId = LogId<CommittedLeaderId>;
pub(crate) type RaftEntry =
    openraft::Entry<CommittedLeaderId, EntryPayload<Proposal, NodeId, BasicNode>>;
pub(crate) type RaftVote = openraft::Vote<LeaderId>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, NodeId, BasicNode>;
pub(crate) type Snapshot =
    openraft::Snapshot<CommittedLeaderId, NodeId, BasicNode, crate::snapshot::SnapshotFile>;
pub(crate) type RaftState = openraft::RaftState<TypeConfig>;
pub(crate) type Raft = openraft::Raft<TypeConfig, crate::state_machine::StateMachine>;

/// An encoded batch of commands. Opaque to raft.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Proposal(pub(crate) Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What the commands of an applied batch came to, in their order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcomes(pub(crate) Vec<Outcome>);

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} outcomes", self.0.len())
    }
}

/// Called with the result of a proposal on the thread that has it, so that no task in between has
/// to wake. Dropped uncalled when raft stops first.
pub(crate) struct Answer<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Answer<T> {
    pub(crate) fn new(call: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(call))
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Answer<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// The store's name for a log id.
pub(crate) fn mark_of(id: &RaftLogId) -> Mark {
    // With one leader per term its number adds nothing to the term.
    Mark { term: id.committed_leader_id().term, node: 0, index: id.index() }
}

/// The log id that the store keeps as `mark`.
pub(crate) fn log_id_of(mark: Mark) -> RaftLogId {
    RaftLogId::new_term_index(mark.term, mark.index)
}

/// A log entry as the store keeps it.
pub(crate) fn encode_entry(entry: &RaftEntry) -> io::Result<StoreEntry> {
    let data = match &entry.payload {
        EntryPayload::Blank => Bytes::from_static(&[FORMAT, KIND_BLANK]),
        EntryPayload::Normal(proposal) => {
            let mut data = BytesMut::with_capacity(2 + proposal.0.len());
            data.put_u8(FORMAT);
            data.put_u8(KIND_BATCH);
            data.put_slice(&proposal.0);
            data.freeze()
        }
        EntryPayload::Membership(membership) => {
            let data = postcard::to_extend(membership, vec![FORMAT, KIND_MEMBERSHIP])
                .map_err(io::Error::other)?;
            Bytes::from(data)
        }
    };
    Ok(StoreEntry { mark: mark_of(&entry.log_id), data })
}

/// The log entry that the store kept.
pub(crate) fn decode_entry(entry: &StoreEntry) -> io::Result<RaftEntry> {
    let bad = |what: &str| {
        io::Error::new(io::ErrorKind::InvalidData, format!("log entry {}: {what}", entry.mark))
    };
    let [format, kind, body @ ..] = &entry.data[..] else { return Err(bad("too short")) };
    if *format != FORMAT {
        return Err(bad("unknown format"));
    }
    let payload = match *kind {
        KIND_BLANK => EntryPayload::Blank,
        KIND_BATCH => EntryPayload::Normal(Proposal(entry.data.slice(2..))),
        KIND_MEMBERSHIP => {
            let membership: Membership<NodeId, BasicNode> =
                postcard::from_bytes(body).map_err(|_| bad("malformed membership"))?;
            EntryPayload::Membership(membership)
        }
        _ => return Err(bad("unknown kind")),
    };
    Ok(RaftEntry { log_id: log_id_of(entry.mark), payload })
}

/// Postcard with a leading format byte.
pub(crate) fn encode_versioned<T: Serialize>(value: &T) -> io::Result<Bytes> {
    postcard::to_extend(value, vec![FORMAT]).map(Bytes::from).map_err(io::Error::other)
}

/// The inverse of [`encode_versioned`].
pub(crate) fn decode_versioned<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    what: &str,
) -> io::Result<T> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {why}"));
    match bytes {
        [FORMAT, body @ ..] => postcard::from_bytes(body).map_err(|_| bad("malformed")),
        [] => Err(bad("empty")),
        _ => Err(bad("unknown format")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn check(payload: EntryPayload<Proposal, NodeId, BasicNode>) {
        let entry = RaftEntry { log_id: RaftLogId::new_term_index(3, 7), payload };
        let stored = encode_entry(&entry).unwrap();
        let back = decode_entry(&stored).unwrap();
        assert_eq!(back.log_id, entry.log_id);
        assert_eq!(format!("{:?}", back.payload), format!("{:?}", entry.payload));
    }

    #[test]
    fn given_each_kind_of_entry_when_stored_then_it_comes_back() {
        check(EntryPayload::Blank);
        check(EntryPayload::Normal(Proposal(Bytes::from_static(b"batch"))));
        check(EntryPayload::Membership(Membership::new_with_defaults(
            vec![BTreeSet::from([1, 2, 3])],
            [4],
        )));
    }

    #[test]
    fn given_bytes_that_are_no_entry_when_decoded_then_it_is_an_error() {
        for data in
            [&b""[..], &[FORMAT], &[9, KIND_BLANK], &[FORMAT, 77], &[FORMAT, KIND_MEMBERSHIP, 255]]
        {
            let entry = StoreEntry {
                mark: Mark { term: 1, node: 0, index: 1 },
                data: Bytes::copy_from_slice(data),
            };
            assert!(decode_entry(&entry).is_err(), "{data:?}");
        }
    }
}
