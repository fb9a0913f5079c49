//! How a message crosses a peer connection: `[version][postcard]` inside a gRPC frame.
//!
//! Decoding is total, and nothing but one whole message of the negotiated version is taken. The
//! length is judged by tonic before anything is buffered for it.

use std::marker::PhantomData;

use bytes::{Buf, BufMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

/// See the module. `E` is sent, `D` is received.
pub(super) struct PeerCodec<E, D> {
    version: u8,
    types: PhantomData<fn(E) -> D>,
}

impl<E, D> PeerCodec<E, D> {
    /// A codec of the version that the hello agreed on.
    pub(super) fn new(version: u8) -> Self {
        Self { version, types: PhantomData }
    }
}

impl<E, D> Codec for PeerCodec<E, D>
where
    E: Serialize + Send + 'static,
    D: DeserializeOwned + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = PeerEncoder<E>;
    type Decoder = PeerDecoder<D>;

    fn encoder(&mut self) -> PeerEncoder<E> {
        PeerEncoder { version: self.version, types: PhantomData }
    }

    fn decoder(&mut self) -> PeerDecoder<D> {
        PeerDecoder { version: self.version, types: PhantomData }
    }
}

/// Writes messages.
pub(super) struct PeerEncoder<E> {
    version: u8,
    types: PhantomData<fn(E)>,
}

impl<E: Serialize> Encoder for PeerEncoder<E> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_u8(self.version);
        postcard::serialize_with_flavor(&item, Into(into))
            .map_err(|error| Status::internal(format!("a message cannot be encoded: {error}")))
    }
}

/// Lets postcard write where the frame is built.
struct Into<'a, 'b>(&'a mut EncodeBuf<'b>);

impl postcard::ser_flavors::Flavor for Into<'_, '_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Reads messages.
pub(super) struct PeerDecoder<D> {
    version: u8,
    types: PhantomData<fn() -> D>,
}

impl<D: DeserializeOwned> Decoder for PeerDecoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        message(self.version, &bytes).map(Some)
    }
}

/// The message that these bytes are, in this version.
pub(super) fn message<D: DeserializeOwned>(wanted: u8, bytes: &[u8]) -> Result<D, Status> {
    let [version, body @ ..] = bytes else { return Err(garbage("an empty message")) };
    if *version != wanted {
        return Err(garbage("a message of another version"));
    }
    match postcard::take_from_bytes(body) {
        Ok((item, [])) => Ok(item),
        Ok(_) => Err(garbage("a message with something behind it")),
        Err(_) => Err(garbage("a malformed message")),
    }
}

fn garbage(what: &str) -> Status {
    Status::data_loss(what)
}

/// Whether the peer sent what no peer sends: the connection is not to be used any further.
pub(super) fn is_garbage(status: &Status) -> bool {
    // The second is tonic's answer to a length above the bound.
    matches!(status.code(), Code::DataLoss | Code::OutOfRange | Code::Unimplemented)
}
