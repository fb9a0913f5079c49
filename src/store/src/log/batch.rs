//! The engine's file format, read only: enough to verify a file without letting the engine at it.
//!
//! Layout (raft-engine 0.4, format 2, no compression, no alignment), all lengths checked:
//! ```text
//! file   = magic | version u64 BE | alignment u64 BE | batch*
//! batch  = (len << 8 | compression) u64 BE | footer offset u64 BE | entries | crc u32 LE | footer
//! footer = count | item* | (crc ^ file number) u32 LE
//! item   = group | 1 | count | first index | end offset*     entries
//!        | group | 2 | 1                                     clean
//!        | group | 2 | 2 | index                             compact
//!        | group | 3 | op | key | value                      key and value
//! ```
//! The crc behind the entries is absent when there are none. Decoding is total.

use std::ops::Range;

pub(crate) const FILE_HEAD: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
pub(crate) const FILE_HEAD_BYTES: usize = FILE_HEAD.len() + 16;
pub(crate) const BATCH_HEAD_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
const FILE_VERSION: u64 = 2;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    Entries {
        region: u64,
        first: u64,
        /// Each entry's message.
        messages: Vec<&'a [u8]>,
    },
    Clean {
        region: u64,
    },
    Compact {
        region: u64,
        index: u64,
    },
    Put {
        region: u64,
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        region: u64,
        key: &'a [u8],
    },
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn chunk(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        self.take(len)
    }
}

fn big_endian(raw: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(raw.get(..8)?.try_into().ok()?))
}

fn little_endian(raw: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(raw.get(..4)?.try_into().ok()?))
}

/// Whether a file begins as one of the engine's does.
pub(crate) fn has_file_head(raw: &[u8]) -> bool {
    let at = FILE_HEAD.len();
    raw.starts_with(FILE_HEAD)
        && raw.get(at..).and_then(big_endian) == Some(FILE_VERSION)
        && raw.get(at + 8..).and_then(big_endian) == Some(0)
}

/// Decodes the batch at the start of `raw`, of the file numbered `seq`: its items and length.
pub(crate) fn decode(raw: &[u8], seq: u64) -> Option<(Vec<Item<'_>>, usize)> {
    let head = big_endian(raw)?;
    if head & 0xFF != 0 {
        return None;
    }
    let len = usize::try_from(head >> 8).ok()?;
    let footer_at = usize::try_from(big_endian(raw.get(8..)?)?).ok()?;
    if footer_at < BATCH_HEAD_BYTES || footer_at > len {
        return None;
    }
    let batch = raw.get(..len)?;
    let entries = match &batch[BATCH_HEAD_BYTES..footer_at] {
        [] => &[],
        block => {
            let (entries, crc) = block.split_at_checked(block.len().checked_sub(CRC_BYTES)?)?;
            if little_endian(crc)? != crc32fast::hash(entries) {
                return None;
            }
            entries
        }
    };
    let footer = &batch[footer_at..];
    let (items, crc) = footer.split_at_checked(footer.len().checked_sub(CRC_BYTES)?)?;
    if little_endian(crc)? ^ seq as u32 != crc32fast::hash(items) {
        return None;
    }
    let mut input = Input(items);
    let mut out = Vec::new();
    let mut used = 0;
    for _ in 0..input.number()? {
        out.push(item(&mut input, entries, &mut used)?);
    }
    (input.0.is_empty() && used == entries.len()).then_some((out, len))
}

fn item<'a>(input: &mut Input<'a>, entries: &'a [u8], used: &mut usize) -> Option<Item<'a>> {
    let region = input.number()?;
    match input.byte()? {
        1 => {
            let count = input.number()?;
            let first = if count > 0 { input.number()? } else { 0 };
            let mut messages = Vec::new();
            for _ in 0..count {
                let end = usize::try_from(input.number()?).ok()?;
                let span: Range<usize> = *used..end;
                messages.push(entries.get(span)?);
                *used = end;
            }
            Some(Item::Entries { region, first, messages })
        }
        2 => match input.byte()? {
            1 => Some(Item::Clean { region }),
            2 => Some(Item::Compact { region, index: input.number()? }),
            _ => None,
        },
        3 => match input.byte()? {
            1 => Some(Item::Put { region, key: input.chunk()?, value: input.chunk()? }),
            2 => Some(Item::Delete { region, key: input.chunk()? }),
            _ => None,
        },
        _ => None,
    }
}

/// The value of a `BytesValue` message as the engine stores it.
pub(crate) fn message_value(raw: &[u8]) -> Option<&[u8]> {
    let mut input = Input(raw);
    if input.byte()? != 0x0A {
        return None;
    }
    let value = input.chunk()?;
    input.0.is_empty().then_some(value)
}
