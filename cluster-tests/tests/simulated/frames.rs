//! Frames over a connection of the simulated network, in place of WebSocket: `[length][kind][bytes]`.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// One message of a connection.
#[derive(Debug)]
pub enum Message {
    Frame(Bytes),
    Ping,
    Pong,
    Close,
}

/// No frame is longer.
const BYTES_MAX: usize = 1 << 20;

pub async fn write(to: &mut (impl AsyncWrite + Unpin), message: &Message) -> io::Result<()> {
    let (kind, bytes): (u8, &[u8]) = match message {
        Message::Frame(bytes) => (0, bytes),
        Message::Ping => (1, &[]),
        Message::Pong => (2, &[]),
        Message::Close => (3, &[]),
    };
    let mut out = Vec::with_capacity(bytes.len() + 5);
    out.extend((bytes.len() as u32).to_be_bytes());
    out.push(kind);
    out.extend(bytes);
    to.write_all(&out).await
}

/// The next message. Not to be given up in the middle.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let length = from.read_u32().await? as usize;
    let kind = from.read_u8().await?;
    if length > BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    match kind {
        0 => Ok(Message::Frame(bytes.into())),
        1 => Ok(Message::Ping),
        2 => Ok(Message::Pong),
        3 => Ok(Message::Close),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
