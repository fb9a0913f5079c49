//! What an endpoint put on the wire: the WebSocket messages in the bytes of one connection
//! (RFC 6455, section 5.2). Only the direction endpoint to broker, unfragmented data frames.

use ackord_wire::{ClientFrame, Codec, ServiceFrame};
use serde::de::DeserializeOwned;

const TEXT: u8 = 1;
const BINARY: u8 = 2;

/// The complete data messages behind the HTTP upgrade request, with their opcode.
fn messages(sent: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let upgrade = sent.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(upgrade) = upgrade else { return Vec::new() };
    let mut rest = &sent[upgrade + 4..];
    let mut messages = Vec::new();
    while let Some((opcode, payload, behind)) = frame(rest) {
        if opcode == TEXT || opcode == BINARY {
            messages.push((opcode, payload));
        }
        rest = behind;
    }
    messages
}

/// The first frame: its opcode, its unmasked payload and what follows it.
fn frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, &[u8])> {
    let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match second & 0x7f {
        126 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (u64::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk::<8>()?;
            (u64::from_be_bytes(*length), rest)
        }
        short => (u64::from(short), rest),
    };
    let (mask, rest) = match second & 0x80 {
        0 => ([0; 4], rest),
        _ => rest.split_first_chunk::<4>().map(|(mask, rest)| (*mask, rest))?,
    };
    let (payload, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let unmasked = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
    Some((first & 0x0f, unmasked.collect(), behind))
}

fn decoded<T: DeserializeOwned>(sent: &[u8]) -> Vec<T> {
    let decode = |(opcode, payload): (u8, Vec<u8>)| {
        let codec = if opcode == TEXT { Codec::Json } else { Codec::Cbor };
        codec.decode(&payload).expect("an endpoint sends frames")
    };
    messages(sent).into_iter().map(decode).collect()
}

/// The frames that a client sent on one connection.
///
/// # Panics
/// When a message is not a frame.
pub fn client_frames(sent: &[u8]) -> Vec<ClientFrame> {
    decoded(sent)
}

/// The frames that a service sent on one connection.
///
/// # Panics
/// When a message is not a frame.
pub fn service_frames(sent: &[u8]) -> Vec<ServiceFrame> {
    decoded(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_and_long_frames_are_read_and_a_cut_one_is_not() {
        let mut sent = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        sent.extend([0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]);
        sent.extend([0x89, 0x80, 0, 0, 0, 0]);
        sent.extend([0x82, 126, 0, 200]);
        sent.extend([7; 200]);
        sent.extend([0x81, 0x85, 1, 2]);
        let found = messages(&sent);
        assert_eq!(found, vec![(TEXT, b"hi".to_vec()), (BINARY, vec![7; 200])]);
    }
}
