//! How a row becomes pieces of at most 4 KiB, each with its own CRC.
//!
//! ```text
//! key   = group u32 BE | tag | key length u16 BE | key | piece u16 BE
//! value = crc u32 | pieces u16 | hash of the row u128, in piece 0 only | data
//! ```
//! The CRC covers the whole stored key, so a piece in the wrong place does not verify. Larger
//! values would go to files that sled never syncs.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::codec::{Decoder, Encoder, Salt, checksum};
use crate::types::GroupId;

/// Data bytes of one piece; with key and head a stored value stays below 4 KiB.
const PIECE_BYTES: usize = 4000;

pub(crate) const TAG_META: u8 = 0;
pub(crate) const TAG_ROW: u8 = 1;

/// The key of a piece.
pub(crate) fn piece_key(group: GroupId, tag: u8, key: &[u8], piece: u16) -> Vec<u8> {
    let mut out = prefix(group, tag);
    // Bounded by CHECKPOINT_KEY_BYTES_MAX.
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(&piece.to_be_bytes());
    out
}

/// What all keys of a group begin with.
pub(crate) fn prefix(group: GroupId, tag: u8) -> Vec<u8> {
    let mut out = group.0.to_be_bytes().to_vec();
    out.push(tag);
    out
}

/// Row key and piece number of a stored key.
pub(crate) fn parse_key(stored: &[u8]) -> Option<(&[u8], u16)> {
    let rest = stored.get(5..)?;
    let (len, rest) = rest.split_at_checked(2)?;
    let len = u16::from_be_bytes(len.try_into().ok()?) as usize;
    let (key, piece) = rest.split_at_checked(len)?;
    Some((key, u16::from_be_bytes(piece.try_into().ok()?)))
}

/// The hash of a row: rows are added up, so it must be hard to make two rows cancel out.
pub(crate) fn row_hash(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = Sha256::new();
    hasher.update((key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let digest = hasher.finalize();
    let mut head = [0; 16];
    head.copy_from_slice(&digest[..16]);
    u128::from_le_bytes(head)
}

/// What piece 0 says about its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub pieces: u16,
    pub hash: u128,
}

/// How many pieces a value takes; `None`: too many.
pub(crate) fn count_pieces(value: &[u8]) -> Option<u16> {
    u16::try_from(value.len().div_ceil(PIECE_BYTES).max(1)).ok()
}

/// The pieces of a row, with their stored keys.
pub(crate) fn split(
    salt: Salt,
    (group, tag): (GroupId, u8),
    key: &[u8],
    value: &[u8],
    head: Head,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pieces = Vec::with_capacity(head.pieces as usize);
    for piece in 0..head.pieces {
        let stored_key = piece_key(group, tag, key, piece);
        let from = piece as usize * PIECE_BYTES;
        let data = &value[from..value.len().min(from + PIECE_BYTES)];
        let mut body = Encoder::default();
        body.u16(head.pieces);
        if piece == 0 {
            body.raw(&head.hash.to_le_bytes());
        }
        body.raw(data);
        let mut stored = Encoder::default();
        stored.u32(checksum(salt, &[&stored_key, &body.0]));
        stored.raw(&body.0);
        pieces.push((stored_key, stored.0));
    }
    pieces
}

/// A verified piece.
pub(crate) struct Piece<'a> {
    pub pieces: u16,
    /// In piece 0.
    pub hash: Option<u128>,
    pub data: &'a [u8],
}

/// Verifies a stored piece.
pub(crate) fn decode<'a>(
    salt: Salt,
    stored_key: &[u8],
    piece: u16,
    stored: &'a [u8],
) -> Option<Piece<'a>> {
    let mut input = Decoder(stored);
    let crc = input.u32()?;
    if checksum(salt, &[stored_key, input.0]) != crc {
        return None;
    }
    let pieces = input.u16()?;
    let hash = match piece {
        0 => Some(u128::from_le_bytes(input.raw(16)?.try_into().ok()?)),
        _ => None,
    };
    Some(Piece { pieces, hash, data: input.0 })
}

/// Puts pieces that come in key order together again.
pub(crate) struct Joiner {
    salt: Salt,
    open: Option<Joining>,
}

struct Joining {
    key: Bytes,
    head: Head,
    next: u16,
    value: Vec<u8>,
}

pub(crate) struct Joined {
    pub key: Bytes,
    pub value: Bytes,
    pub head: Head,
}

impl Joiner {
    pub fn new(salt: Salt) -> Joiner {
        Joiner { salt, open: None }
    }

    /// Takes the next piece; `Some(None)` when its row is not complete yet, `None` when it does
    /// not verify or does not fit.
    pub fn push(&mut self, stored_key: &[u8], stored: &[u8]) -> Option<Option<Joined>> {
        let (key, number) = parse_key(stored_key)?;
        let piece = decode(self.salt, stored_key, number, stored)?;
        let mut joining = match self.open.take() {
            None => {
                if number != 0 {
                    return None;
                }
                Joining {
                    key: Bytes::copy_from_slice(key),
                    head: Head { pieces: piece.pieces, hash: piece.hash? },
                    next: 0,
                    value: Vec::new(),
                }
            }
            Some(joining) => joining,
        };
        let fits = joining.key == key
            && joining.next == number
            && joining.head.pieces == piece.pieces
            && number < piece.pieces;
        if !fits {
            return None;
        }
        joining.value.extend_from_slice(piece.data);
        joining.next = number + 1;
        if joining.next < joining.head.pieces {
            self.open = Some(joining);
            return Some(None);
        }
        let value = Bytes::from(joining.value);
        if row_hash(&joining.key, &value) != joining.head.hash {
            return None;
        }
        Some(Some(Joined { key: joining.key, value, head: joining.head }))
    }

    /// Whether no row is left incomplete.
    pub fn is_complete(&self) -> bool {
        self.open.is_none()
    }
}
