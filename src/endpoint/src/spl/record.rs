//! How store operations look in a file. Integers are little-endian, lengths come first.
//!
//! Decoding is total: any bytes give operations or `None`, never a panic and never an allocation
//! beyond the input's size.

use std::sync::Arc;

use ackord_wire::structure::Category;
use ackord_wire::{Payload, TraceContext};
use bytes::Bytes;

use super::{StoreOp, StoreUid, StoredEvent};
use crate::event::Event;

const BEGIN: u8 = 1;
const PUT: u8 = 2;
const NUMBER: u8 = 3;
const REMOVE: u8 = 4;
/// The uid and last number of a rewritten file; the events follow.
const STATE: u8 = 5;

const HAS_SEQ: u8 = 1;
const HAS_PAYLOAD: u8 = 2;
const HAS_CLIENT: u8 = 4;
const HAS_LIFETIME: u8 = 8;
const HAS_TRACE: u8 = 16;
const FLAGS: u8 = HAS_SEQ | HAS_PAYLOAD | HAS_CLIENT | HAS_LIFETIME | HAS_TRACE;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A change.
    Op(StoreOp),
    /// Where a rewritten file starts from.
    State {
        /// The uid.
        uid: StoreUid,
        /// The highest number given.
        last_number: u64,
    },
}

/// Appends an entry.
pub fn encode(entry: &Entry, out: &mut Vec<u8>) {
    match entry {
        Entry::State { uid, last_number } => {
            out.push(STATE);
            out.extend_from_slice(&uid.0);
            out.extend_from_slice(&last_number.to_le_bytes());
        }
        Entry::Op(op) => encode_op(op, out),
    }
}

/// Appends an operation.
pub fn encode_op(op: &StoreOp, out: &mut Vec<u8>) {
    match op {
        StoreOp::Begin { uid } => {
            out.push(BEGIN);
            out.extend_from_slice(&uid.0);
        }
        StoreOp::Put(stored) => encode_event(stored, out),
        StoreOp::Number { ticket, seq } => {
            out.push(NUMBER);
            out.extend_from_slice(&ticket.to_le_bytes());
            out.extend_from_slice(&seq.to_le_bytes());
        }
        StoreOp::Remove { ticket } => {
            out.push(REMOVE);
            out.extend_from_slice(&ticket.to_le_bytes());
        }
    }
}

fn encode_event(stored: &StoredEvent, out: &mut Vec<u8>) {
    let event = &*stored.event;
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    out.push(PUT);
    out.extend_from_slice(&stored.ticket.to_le_bytes());
    out.push(
        flag(stored.seq.is_some(), HAS_SEQ)
            | flag(event.payload.is_some(), HAS_PAYLOAD)
            | flag(event.client.is_some(), HAS_CLIENT)
            | flag(event.lifetime_s.is_some(), HAS_LIFETIME)
            | flag(event.trace.is_some(), HAS_TRACE),
    );
    out.push(match event.category {
        None => 0,
        Some(Category::Replacing) => 1,
        Some(Category::Queueing) => 2,
        Some(Category::Private) => 3,
    });
    put_bytes(event.name.as_bytes(), out);
    if let Some(seq) = stored.seq {
        out.extend_from_slice(&seq.to_le_bytes());
    }
    if let Some(payload) = &event.payload {
        put_bytes(payload.content_type.as_bytes(), out);
        put_bytes(&payload.data, out);
    }
    if let Some(client) = &event.client {
        put_bytes(client.as_bytes(), out);
    }
    if let Some(lifetime) = event.lifetime_s {
        out.extend_from_slice(&lifetime.to_le_bytes());
    }
    if let Some(trace) = &event.trace {
        out.extend_from_slice(&trace.trace_id);
        out.extend_from_slice(&trace.parent_id);
        out.push(trace.flags);
        put_bytes(trace.state.as_bytes(), out);
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // Names and arguments are bounded far below 4 GiB by the store's capacity.
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The entries of one record; `None` when it is malformed.
pub fn decode(record: &[u8]) -> Option<Vec<Entry>> {
    let mut reader = Reader(record);
    let mut entries = Vec::new();
    while !reader.0.is_empty() {
        entries.push(reader.entry()?);
    }
    Some(entries)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(usize::try_from(length).ok()?)
    }

    fn text(&mut self) -> Option<String> {
        self.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::to_owned)
    }

    fn entry(&mut self) -> Option<Entry> {
        Some(match self.array::<1>()?[0] {
            BEGIN => Entry::Op(StoreOp::Begin { uid: StoreUid(self.array()?) }),
            PUT => Entry::Op(StoreOp::Put(self.event()?)),
            NUMBER => Entry::Op(StoreOp::Number { ticket: self.u64()?, seq: self.u64()? }),
            REMOVE => Entry::Op(StoreOp::Remove { ticket: self.u64()? }),
            STATE => Entry::State { uid: StoreUid(self.array()?), last_number: self.u64()? },
            _ => return None,
        })
    }

    fn trace(&mut self) -> Option<TraceContext> {
        let (trace_id, parent_id, [flags]) = (self.array()?, self.array()?, self.array()?);
        TraceContext { trace_id, parent_id, flags, state: self.text()? }.sound()
    }

    fn event(&mut self) -> Option<StoredEvent> {
        let ticket = self.u64()?;
        let flags = self.array::<1>()?[0];
        if flags & !FLAGS != 0 {
            return None;
        }
        let category = match self.array::<1>()?[0] {
            0 => None,
            1 => Some(Category::Replacing),
            2 => Some(Category::Queueing),
            3 => Some(Category::Private),
            _ => return None,
        };
        let name = self.text()?;
        let seq = if flags & HAS_SEQ != 0 { Some(self.u64()?) } else { None };
        let payload = if flags & HAS_PAYLOAD != 0 {
            let content_type = self.text()?;
            Some(Payload { content_type, data: Bytes::copy_from_slice(self.bytes()?) })
        } else {
            None
        };
        let client = if flags & HAS_CLIENT != 0 { Some(self.text()?) } else { None };
        let lifetime_s =
            if flags & HAS_LIFETIME != 0 { Some(u32::from_le_bytes(self.array()?)) } else { None };
        let trace = if flags & HAS_TRACE != 0 { Some(self.trace()?) } else { None };
        let event = Arc::new(Event { name, category, payload, client, lifetime_s, trace });
        Some(StoredEvent { ticket, seq, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event() -> impl Strategy<Value = Event> {
        let category = prop_oneof![
            Just(None),
            Just(Some(Category::Replacing)),
            Just(Some(Category::Queueing)),
            Just(Some(Category::Private))
        ];
        let payload =
            proptest::option::of((".{0,20}", proptest::collection::vec(any::<u8>(), 0..99)));
        let trace = (any::<[u8; 16]>(), 1..=u8::MAX, any::<u8>(), "[a-z]=[a-z0-9]{1,9}");
        let trace = trace.prop_map(|(mut trace_id, id, flags, state)| {
            trace_id[0] = id;
            TraceContext { trace_id, parent_id: [id; 8], flags, state }
        });
        let (client, trace) = (proptest::option::of(".{0,9}"), proptest::option::of(trace));
        (".{0,30}", category, payload, client, any::<Option<u32>>(), trace).prop_map(
            |(name, category, payload, client, lifetime_s, trace)| Event {
                name,
                category,
                payload: payload
                    .map(|(content_type, data)| Payload { content_type, data: data.into() }),
                client,
                lifetime_s,
                trace,
            },
        )
    }

    fn entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            any::<[u8; 16]>().prop_map(|uid| Entry::Op(StoreOp::Begin { uid: StoreUid(uid) })),
            (any::<u64>(), any::<Option<u64>>(), event()).prop_map(|(ticket, seq, event)| {
                Entry::Op(StoreOp::Put(StoredEvent { ticket, seq, event: Arc::new(event) }))
            }),
            (any::<u64>(), any::<u64>())
                .prop_map(|(ticket, seq)| Entry::Op(StoreOp::Number { ticket, seq })),
            any::<u64>().prop_map(|ticket| Entry::Op(StoreOp::Remove { ticket })),
            (any::<[u8; 16]>(), any::<u64>())
                .prop_map(|(uid, last_number)| Entry::State { uid: StoreUid(uid), last_number }),
        ]
    }

    proptest! {
        #[test]
        fn entries_survive_the_file(entries in proptest::collection::vec(entry(), 0..9)) {
            let mut bytes = Vec::new();
            entries.iter().for_each(|entry| encode(entry, &mut bytes));
            prop_assert_eq!(decode(&bytes), Some(entries));
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn an_event_takes_no_more_than_is_accounted(event in event()) {
            let accounted = super::super::event_bytes(&event);
            let mut bytes = Vec::new();
            let stored = StoredEvent { ticket: u64::MAX, seq: None, event: Arc::new(event) };
            encode_op(&StoreOp::Put(stored), &mut bytes);
            encode_op(&StoreOp::Number { ticket: 1, seq: 1 }, &mut bytes);
            encode_op(&StoreOp::Remove { ticket: 1 }, &mut bytes);
            prop_assert!(bytes.len() as u64 <= accounted);
        }
    }
}
