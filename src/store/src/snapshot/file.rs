//! The file of a snapshot: what other nodes receive byte for byte.
//!
//! ```text
//! file  = head | chunk* | end
//! head  = magic | group u32 | id | crc u32
//! chunk = 1 | length u32 | crc u32 | (record length u32 | record)*
//! end   = 2 | length u32 | crc u32 | chunks u64 | records u64 | sha256 of all chunks' data | meta
//! ```
//! A chunk's CRC covers its position, so chunks cannot be lost or change places; the end says
//! how many there are, and nothing may follow it. No salt: the file travels between nodes.

use std::fs::File;
use std::io::{self, BufReader, Read};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::SnapshotInfo;
use crate::codec::{Decoder, Encoder, checksum};
use crate::types::GroupId;

const MAGIC: [u8; 8] = *b"AKSNAP1\n";
pub(crate) const KIND_CHUNK: u8 = 1;
const KIND_END: u8 = 2;
const FRAME_HEAD_BYTES: usize = 1 + 4 + 4;
/// A chunk is closed when it reaches this.
const CHUNK_BYTES: usize = 128 * 1024;
/// The most bytes of a record, and so of a chunk.
pub(super) const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;
const FRAME_BYTES_MAX: usize = RECORD_BYTES_MAX + CHUNK_BYTES + 4;

fn head(group: GroupId, id: &str) -> Vec<u8> {
    let mut out = Encoder::default();
    out.raw(&MAGIC);
    out.u32(group.0);
    out.bytes(id.as_bytes());
    let crc = checksum(0, &[&out.0]);
    out.u32(crc);
    out.0
}

pub(crate) fn frame(kind: u8, position: u64, data: &[u8]) -> Vec<u8> {
    let mut out = Encoder(Vec::with_capacity(FRAME_HEAD_BYTES + data.len()));
    out.u8(kind);
    // Bounded by FRAME_BYTES_MAX.
    out.u32(data.len() as u32);
    out.u32(frame_crc(kind, position, data));
    out.raw(data);
    out.0
}

fn frame_crc(kind: u8, position: u64, data: &[u8]) -> u32 {
    checksum(position, &[&[kind], data])
}

/// Turns records into the bytes of a file.
pub(crate) struct Builder {
    chunk: Encoder,
    chunks: u64,
    records: u64,
    hash: Sha256,
}

impl Builder {
    /// The builder, and the head to write first.
    pub fn new(group: GroupId, id: &str) -> (Builder, Vec<u8>) {
        let builder =
            Builder { chunk: Encoder::default(), chunks: 0, records: 0, hash: Sha256::new() };
        (builder, head(group, id))
    }

    /// Takes a record; gives bytes to write when a chunk is full.
    pub fn put(&mut self, record: &[u8]) -> Option<Vec<u8>> {
        self.chunk.bytes(record);
        self.records += 1;
        (self.chunk.0.len() >= CHUNK_BYTES).then(|| self.close_chunk())
    }

    fn close_chunk(&mut self) -> Vec<u8> {
        let data = std::mem::take(&mut self.chunk).0;
        self.hash.update(&data);
        let out = frame(KIND_CHUNK, self.chunks, &data);
        self.chunks += 1;
        out
    }

    /// The bytes that end the file.
    pub fn finish(mut self, meta: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.chunk.0.is_empty() {
            out = self.close_chunk();
        }
        let mut end = Encoder::default();
        end.u64(self.chunks);
        end.u64(self.records);
        end.raw(&self.hash.finalize());
        end.raw(meta);
        out.extend(frame(KIND_END, self.chunks, &end.0));
        out
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads a file from its beginning, verifying as it goes.
pub(crate) struct Walker<R> {
    file: BufReader<R>,
    position: u64,
    records: u64,
    hash: Sha256,
    chunk: Bytes,
    end: Option<Bytes>,
}

impl<R: Read> Walker<R> {
    /// Reads the head; the file must be of this group. Returns the id it carries.
    pub fn open(file: R, group: GroupId) -> io::Result<(Self, String)> {
        let mut file = BufReader::with_capacity(CHUNK_BYTES, file);
        let mut fixed = [0; 16];
        file.read_exact(&mut fixed)?;
        let mut input = Decoder(&fixed[12..]);
        let len = input.u32().unwrap_or(u32::MAX) as usize;
        if len > super::ID_BYTES_MAX {
            return Err(broken("the head does not verify"));
        }
        let mut rest = vec![0; len + 4];
        file.read_exact(&mut rest)?;
        let id = String::from_utf8(rest[..len].to_vec());
        let id = id.map_err(|_| broken("the head does not verify"))?;
        if [&fixed[..], &rest].concat() != head(group, &id) {
            return Err(broken("the head does not verify"));
        }
        let walker = Walker {
            file,
            position: 0,
            records: 0,
            hash: Sha256::new(),
            chunk: Bytes::new(),
            end: None,
        };
        Ok((walker, id))
    }

    fn next_frame(&mut self) -> io::Result<(u8, Bytes)> {
        let mut fixed = [0; FRAME_HEAD_BYTES];
        self.file.read_exact(&mut fixed)?;
        let kind = fixed[0];
        let mut input = Decoder(&fixed[1..]);
        let len = input.u32().unwrap_or(u32::MAX) as usize;
        let crc = input.u32();
        if len > FRAME_BYTES_MAX {
            return Err(broken("a chunk does not verify"));
        }
        // Grows as bytes arrive: a wrong length must not allocate.
        let mut data = Vec::new();
        let got = (&mut self.file).take(len as u64).read_to_end(&mut data)?;
        if got != len || crc != Some(frame_crc(kind, self.position, &data)) {
            return Err(broken("a chunk does not verify"));
        }
        Ok((kind, Bytes::from(data)))
    }

    /// The next record; `None` after the last.
    pub fn next_record(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if !self.chunk.is_empty() {
                let mut input = Decoder(&self.chunk);
                let record = input.bytes().ok_or_else(|| broken("a chunk is malformed"))?;
                let record = self.chunk.slice_ref(record);
                let used = self.chunk.len() - input.0.len();
                self.chunk = self.chunk.slice(used..);
                self.records += 1;
                return Ok(Some(record));
            }
            if self.end.is_some() {
                return Ok(None);
            }
            let (kind, data) = self.next_frame()?;
            match kind {
                KIND_CHUNK => {
                    self.hash.update(&data);
                    self.chunk = data;
                    self.position += 1;
                }
                KIND_END => self.check_end(data)?,
                _ => return Err(broken("a chunk is of an unknown kind")),
            }
        }
    }

    fn check_end(&mut self, data: Bytes) -> io::Result<()> {
        let mut input = Decoder(&data);
        let is_whole = input.u64() == Some(self.position)
            && input.u64() == Some(self.records)
            && input.raw(32) == Some(self.hash.finalize_reset().as_slice());
        if !is_whole {
            return Err(broken("the end does not fit what is before it"));
        }
        if self.file.read(&mut [0])? != 0 {
            return Err(broken("bytes follow the end"));
        }
        let used = data.len() - input.0.len();
        self.end = Some(data.slice(used..));
        Ok(())
    }
}

/// Reads a whole file and verifies it.
pub(super) fn verify(file: File, group: GroupId) -> io::Result<SnapshotInfo> {
    let bytes = file.metadata()?.len();
    let (mut walker, id) = Walker::open(file, group)?;
    while walker.next_record()?.is_some() {}
    Ok(SnapshotInfo { id, meta: walker.end.unwrap_or_default(), records: walker.records, bytes })
}
