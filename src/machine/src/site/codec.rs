//! The bytes of batches, rows and keys: [`FORMAT_VERSION`], then postcard.
//!
//! Decoding is total and exact: any bytes give a value or an error, and bytes left over are an
//! error. Whether a value makes sense is judged by [`super::decide`], not here.

use bytes::Bytes;
use postcard::ser_flavors::{AllocVec, Flavor};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::command::{Batch, FORMAT_VERSION};
use super::row::{Row, RowKey};

/// Why bytes are not what they should be. Decoding the same bytes again never helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing there.
    #[error("empty encoding")]
    Empty,
    /// Written by another version.
    #[error("format version {found} is not {FORMAT_VERSION}")]
    Version {
        /// The version that was found.
        found: u8,
    },
    /// Not an encoding of the type that was asked for.
    #[error("malformed encoding")]
    Malformed,
    /// More bytes than the value has.
    #[error("{bytes} bytes after the end of the encoding")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

impl DecodeError {
    /// Whether trying again may help.
    pub fn retryable(self) -> bool {
        match self {
            Self::Empty | Self::Version { .. } | Self::Malformed | Self::Trailing { .. } => false,
        }
    }
}

fn encode(value: &impl Serialize) -> Bytes {
    // Cannot fail: a Vec takes any number of bytes, and no type of ours has sequences of unknown
    // length or a serializer of its own, the only other errors that postcard knows.
    #[allow(clippy::expect_used)]
    let bytes = versioned(value).expect("encodes into a Vec");
    Bytes::from(bytes)
}

/// Through the flavor that copies slices whole: arguments are most of what is encoded.
fn versioned(value: &impl Serialize) -> postcard::Result<Vec<u8>> {
    let mut bytes = AllocVec::new();
    bytes.try_push(FORMAT_VERSION)?;
    postcard::serialize_with_flavor(value, bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (version, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if *version != FORMAT_VERSION {
        return Err(DecodeError::Version { found: *version });
    }
    let (value, rest) =
        postcard::take_from_bytes(rest).map_err(|_postcard| DecodeError::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::Trailing { bytes: rest.len() }) }
}

/// The bytes of a batch.
pub fn encode_batch(batch: &Batch) -> Bytes {
    encode(batch)
}

/// The batch of these bytes.
pub fn decode_batch(bytes: &[u8]) -> Result<Batch, DecodeError> {
    decode(bytes)
}

/// The bytes of a row.
pub fn encode_row(row: &Row) -> Bytes {
    encode(row)
}

/// The row of these bytes.
pub fn decode_row(bytes: &[u8]) -> Result<Row, DecodeError> {
    decode(bytes)
}

/// The bytes of a key.
pub fn encode_key(key: &RowKey) -> Bytes {
    encode(key)
}

/// The key of these bytes.
pub fn decode_key(bytes: &[u8]) -> Result<RowKey, DecodeError> {
    decode(bytes)
}
