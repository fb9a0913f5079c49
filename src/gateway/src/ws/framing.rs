//! WebSocket framing of a server (RFC 6455, section 5): bytes to messages and back. Pure.
//!
//! Invariants: a length is judged before anything is buffered for it; the fragments of a message
//! are bounded in number, the empty ones too, and together stay below the limit; extensions,
//! unmasked frames and broken UTF-8 are malformed.

use bytes::{Buf as _, Bytes, BytesMut};

/// Longest payload of a control frame, bytes (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// What a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A text message; its bytes are UTF-8.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// A ping, to be answered with the same bytes.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// The peer closes, for this reason.
    Close(Option<u16>),
}

/// What a peer must not send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A message larger than the limit.
    TooLarge,
    /// A message in more fragments than the limit.
    TooManyFragments,
    /// Something that is not a frame, or not one in this place.
    Malformed(&'static str),
}

/// Kinds of frames (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong]
            .into_iter()
            .find(|opcode| *opcode as u8 == bits)
    }

    fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// The head of a frame.
struct Head {
    last: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the head itself.
    bytes: usize,
    /// Bytes of the payload behind it.
    payload: usize,
}

/// Collects messages from bytes.
#[derive(Debug)]
pub struct Decoder {
    bytes_max: usize,
    fragments_max: usize,
    /// Boxed: most messages are whole.
    partial: Option<Box<Partial>>,
}

/// The fragments so far of a message.
#[derive(Debug)]
struct Partial {
    is_text: bool,
    fragments: usize,
    bytes: BytesMut,
}

impl Decoder {
    /// A decoder of messages of at most this size, in at most so many fragments.
    pub fn new(bytes_max: usize, fragments_max: usize) -> Self {
        Self { bytes_max, fragments_max, partial: None }
    }

    /// Whether a message has begun and its last fragment is not there.
    pub fn is_within_message(&self) -> bool {
        self.partial.is_some()
    }

    /// The next message of `input`, if it holds a whole one. After a violation nothing that
    /// follows has a meaning.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Message>, Violation> {
        loop {
            let Some(head) = head(input)? else { return Ok(None) };
            let collected = self.partial.as_ref().map_or(0, |partial| partial.bytes.len());
            if !head.opcode.is_control() && head.payload > self.bytes_max - collected {
                return Err(Violation::TooLarge);
            }
            if input.len() < head.bytes + head.payload {
                return Ok(None);
            }
            input.advance(head.bytes);
            let mut payload = input.split_to(head.payload);
            unmask(&mut payload, head.mask);
            if let Some(message) = self.take(&head, payload)? {
                return Ok(Some(message));
            }
        }
    }

    fn take(&mut self, head: &Head, payload: BytesMut) -> Result<Option<Message>, Violation> {
        match head.opcode {
            Opcode::Ping => Ok(Some(Message::Ping(payload.freeze()))),
            Opcode::Pong => Ok(Some(Message::Pong)),
            Opcode::Close => close(&payload).map(Some),
            Opcode::Continuation => {
                let Some(partial) = self.partial.as_mut() else {
                    return Err(Violation::Malformed("a continuation of nothing"));
                };
                partial.fragments += 1;
                if partial.fragments > self.fragments_max {
                    return Err(Violation::TooManyFragments);
                }
                partial.bytes.extend_from_slice(&payload);
                if !head.last {
                    return Ok(None);
                }
                match self.partial.take() {
                    Some(partial) => whole(partial.is_text, partial.bytes).map(Some),
                    None => Ok(None),
                }
            }
            Opcode::Text | Opcode::Binary => {
                let is_text = head.opcode == Opcode::Text;
                if self.partial.is_some() {
                    return Err(Violation::Malformed("a new message inside a fragmented one"));
                }
                if head.last {
                    return whole(is_text, payload).map(Some);
                }
                self.partial = Some(Box::new(Partial { is_text, fragments: 1, bytes: payload }));
                Ok(None)
            }
        }
    }
}

fn head(input: &[u8]) -> Result<Option<Head>, Violation> {
    let [first, second, rest @ ..] = input else { return Ok(None) };
    if first & 0b0111_0000 != 0 {
        return Err(Violation::Malformed("reserved bits, but no extension was agreed on"));
    }
    let Some(opcode) = Opcode::from_bits(first & 0x0f) else {
        return Err(Violation::Malformed("an unknown kind of frame"));
    };
    if second & 0x80 == 0 {
        return Err(Violation::Malformed("an unmasked frame"));
    }
    let last = first & 0x80 != 0;
    let short = usize::from(second & 0x7f);
    if opcode.is_control() && (!last || short > CONTROL_BYTES_MAX) {
        return Err(Violation::Malformed("a control frame that is fragmented or too long"));
    }
    let (length_bytes, payload) = match short {
        126 => match rest.first_chunk::<2>() {
            Some(length) => (2, usize::from(u16::from_be_bytes(*length))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            // A length beyond the address space is beyond every limit.
            Some(length) => (8, usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX)),
            None => return Ok(None),
        },
        short => (0, short),
    };
    let Some(mask) = rest.get(length_bytes..).and_then(|rest| rest.first_chunk::<4>()) else {
        // The length is known already: it is judged before its mask is waited for.
        let mask = [0; 4];
        let unfinished = Head { last, opcode, mask, bytes: usize::MAX / 2, payload };
        return Ok((length_bytes == 8).then_some(unfinished));
    };
    Ok(Some(Head { last, opcode, mask: *mask, bytes: 2 + length_bytes + 4, payload }))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn whole(is_text: bool, payload: BytesMut) -> Result<Message, Violation> {
    if !is_text {
        return Ok(Message::Binary(payload.freeze()));
    }
    if std::str::from_utf8(&payload).is_err() {
        return Err(Violation::Malformed("a text message that is not UTF-8"));
    }
    Ok(Message::Text(payload.freeze()))
}

fn close(payload: &[u8]) -> Result<Message, Violation> {
    match payload {
        [] => Ok(Message::Close(None)),
        [high, low, reason @ ..] if std::str::from_utf8(reason).is_ok() => {
            match u16::from_be_bytes([*high, *low]) {
                // Those that a frame may carry (RFC 6455, 7.4, and its registry).
                number @ (1000..=1003 | 1007..=1014 | 3000..=4999) => {
                    Ok(Message::Close(Some(number)))
                }
                _ => Err(Violation::Malformed("a close frame with a number that none may have")),
            }
        }
        _ => Err(Violation::Malformed("a close frame without a number or with a broken reason")),
    }
}

/// Appends a frame to `out`.
pub fn encode(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode as u8);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Appends a close frame; the reason is cut to what fits.
pub fn encode_close(number: u16, reason: &str, out: &mut Vec<u8>) {
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.extend_from_slice(&number.to_be_bytes());
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    encode(Opcode::Close, &payload, out);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];
    const FRAGMENTS_MAX: usize = 2_000;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        encode(Opcode::Text, payload, &mut plain);
        let head = plain.len() - payload.len();
        plain[0] = first;
        plain[1] |= 0x80;
        let mut masked = payload.to_vec();
        unmask(&mut masked, MASK);
        plain.truncate(head);
        plain.extend_from_slice(&MASK);
        plain.extend_from_slice(&masked);
        plain
    }

    fn decode(bytes: &[u8], bytes_max: usize) -> Result<Vec<Message>, Violation> {
        let mut decoder = Decoder::new(bytes_max, FRAGMENTS_MAX);
        let mut input = BytesMut::new();
        let mut messages = Vec::new();
        // One byte at a time: the decoder must not depend on how the bytes arrive.
        for byte in bytes {
            input.extend_from_slice(&[*byte]);
            while let Some(message) = decoder.next(&mut input)? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn messages_of_every_length_class_arrive() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let text = decode(&frame(0x81, &payload), 100_000).unwrap();
            assert_eq!(text, [Message::Text(payload.clone().into())]);
            let binary = decode(&frame(0x82, &payload), 100_000).unwrap();
            assert_eq!(binary, [Message::Binary(payload.into())]);
        }
    }

    #[test]
    fn fragments_are_joined_around_control_frames() {
        let mut bytes = frame(0x01, "gr\u{fc}".as_bytes().split_at(3).0);
        bytes.extend(frame(0x89, b"ping"));
        bytes.extend(frame(0x00, "gr\u{fc}".as_bytes().split_at(3).1));
        bytes.extend(frame(0x80, b"ss"));
        bytes.extend(frame(0x88, &[0x03, 0xe8]));
        let expected = [
            Message::Ping(Bytes::from_static(b"ping")),
            Message::Text("gr\u{fc}ss".into()),
            Message::Close(Some(1000)),
        ];
        assert_eq!(decode(&bytes, 100).unwrap(), expected);
    }

    #[test]
    fn sizes_are_bounded_before_anything_is_buffered() {
        assert!(decode(&frame(0x81, &[b'x'; 100]), 100).is_ok());
        assert_eq!(decode(&frame(0x81, &[b'x'; 101]), 100), Err(Violation::TooLarge));
        // Only the head of a frame that claims 2^63 - 1 bytes.
        let mut huge = vec![0x82, 0xff];
        huge.extend_from_slice(&(u64::MAX >> 1).to_be_bytes());
        assert_eq!(decode(&huge, 100), Err(Violation::TooLarge));
        let mut fragments = frame(0x01, &[b'x'; 60]);
        fragments.extend(frame(0x00, &[b'x'; 41]));
        assert_eq!(decode(&fragments, 100), Err(Violation::TooLarge));
    }

    #[test]
    fn fragments_are_counted_also_when_they_are_empty() {
        let fragments = |count: usize| {
            let more = std::iter::repeat_n(frame(0x00, b""), count - 2).flatten();
            let frames = frame(0x02, b"x").into_iter().chain(more).chain(frame(0x80, b""));
            decode(&frames.collect::<Vec<u8>>(), 10)
        };
        assert_eq!(fragments(FRAGMENTS_MAX), Ok(vec![Message::Binary("x".into())]));
        assert_eq!(fragments(FRAGMENTS_MAX + 1), Err(Violation::TooManyFragments));
    }

    #[test]
    fn what_is_no_frame_is_malformed() {
        let check = |bytes: &[u8]| {
            assert!(matches!(decode(bytes, 100), Err(Violation::Malformed(_))), "{bytes:x?}");
        };
        check(&frame(0xc1, b"compressed"));
        check(&frame(0x83, b"unknown"));
        check(&[0x81, 0x01, b'x']);
        check(&frame(0x80, b"continuation of nothing"));
        check(&frame(0x09, b"fragmented ping"));
        check(&frame(0x89, &[0; 126]));
        check(&frame(0x81, &[0xff]));
        check(&frame(0x88, &[0x03]));
        for number in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000_u16] {
            check(&frame(0x88, &number.to_be_bytes()));
        }
        let mut nested = frame(0x01, b"a");
        nested.extend(frame(0x81, b"b"));
        check(&nested);
    }

    #[test]
    fn a_long_close_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        encode_close(4500, &"\u{fc}".repeat(100), &mut out);
        assert_eq!(out[1], 124);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }

    /// What a decoder makes of bytes that arrive in these pieces, up to the first violation.
    fn decode_pieces<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        bytes_max: usize,
    ) -> (Vec<Message>, Option<Violation>) {
        let (mut decoder, mut input) = (Decoder::new(bytes_max, FRAGMENTS_MAX), BytesMut::new());
        let mut messages = Vec::new();
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                match decoder.next(&mut input) {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(violation) => return (messages, Some(violation)),
                }
            }
        }
        (messages, None)
    }

    /// Bytes that look like frames at first sight, or do not.
    fn nearly_frames() -> impl Strategy<Value = Vec<u8>> {
        let framed = (any::<u8>(), vec(any::<u8>(), 0..300)).prop_map(|(first, payload)| {
            let kinds = [0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0xc1];
            frame(kinds[usize::from(first) % kinds.len()], &payload)
        });
        let garbage = vec(any::<u8>(), 0..24);
        vec(prop_oneof![8 => framed, 1 => garbage], 0..8).prop_map(|frames| frames.concat())
    }

    proptest! {
        #[test]
        fn messages_do_not_depend_on_how_bytes_arrive(
            bytes in nearly_frames(),
            size in 1_usize..50,
            bytes_max in 0_usize..600,
        ) {
            let at_once = decode_pieces([bytes.as_slice()], bytes_max);
            prop_assert_eq!(&at_once, &decode_pieces(bytes.chunks(size), bytes_max));
            for message in at_once.0 {
                if let Message::Text(payload) | Message::Binary(payload) = message {
                    prop_assert!(payload.len() <= bytes_max);
                }
            }
        }

        #[test]
        fn fragments_come_together(payload in vec(any::<u8>(), 1..2_000), size in 1_usize..500) {
            let count = payload.chunks(size).len();
            let frames = payload.chunks(size).enumerate().map(|(at, fragment)| {
                let last = if at + 1 == count { 0x80 } else { 0 };
                frame(if at == 0 { 0x02 } else { 0 } | last, fragment)
            });
            let bytes = frames.collect::<Vec<_>>().concat();
            let expected = (vec![Message::Binary(payload.clone().into())], None);
            prop_assert_eq!(decode_pieces([bytes.as_slice()], payload.len()), expected);
            let refused = (Vec::new(), Some(Violation::TooLarge));
            prop_assert_eq!(decode_pieces([bytes.as_slice()], payload.len() - 1), refused);
        }
    }
}
