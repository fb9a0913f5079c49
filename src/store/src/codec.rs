//! Little-endian bytes in and out, and the checksum over them.
//!
//! Decoding is total: every read says `None` at the end of the input, and no length field is
//! trusted before the bytes are there.

use bytes::Bytes;

use crate::types::Mark;

/// A random number of one data directory, mixed into every checksum of its log, so that bytes
/// that somebody sent as data never verify as records.
pub(crate) type Salt = u64;

/// CRC-32 over the salt and the parts, in order.
pub(crate) fn checksum(salt: Salt, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

#[derive(Default)]
pub(crate) struct Encoder(pub Vec<u8>);

impl Encoder {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    /// A length of 32 bits and the bytes. Callers bound what they pass far below 4 GiB.
    pub fn bytes(&mut self, value: &[u8]) {
        debug_assert!(u32::try_from(value.len()).is_ok());
        self.u32(value.len() as u32);
        self.raw(value);
    }

    pub fn optional_bytes(&mut self, value: Option<&Bytes>) {
        match value {
            Some(bytes) => {
                self.u8(1);
                self.bytes(bytes);
            }
            None => self.u8(0),
        }
    }

    pub fn mark(&mut self, mark: &Mark) {
        self.u64(mark.term);
        self.u64(mark.node);
        self.u64(mark.index);
    }

    pub fn optional_mark(&mut self, mark: Option<&Mark>) {
        match mark {
            Some(mark) => {
                self.u8(1);
                self.mark(mark);
            }
            None => self.u8(0),
        }
    }
}

pub(crate) struct Decoder<'a>(pub &'a [u8]);

impl<'a> Decoder<'a> {
    pub fn raw(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.raw(1).map(|raw| raw[0])
    }

    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.raw(2)?.try_into().ok()?))
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.raw(4)?.try_into().ok()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.raw(8)?.try_into().ok()?))
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.raw(len as usize)
    }

    pub fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub fn optional_bytes(&mut self) -> Option<Option<Bytes>> {
        if !self.flag()? {
            return Some(None);
        }
        Some(Some(Bytes::copy_from_slice(self.bytes()?)))
    }

    pub fn mark(&mut self) -> Option<Mark> {
        Some(Mark { term: self.u64()?, node: self.u64()?, index: self.u64()? })
    }

    pub fn optional_mark(&mut self) -> Option<Option<Mark>> {
        if !self.flag()? {
            return Some(None);
        }
        Some(Some(self.mark()?))
    }

    /// `Some` only when nothing is left over.
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
