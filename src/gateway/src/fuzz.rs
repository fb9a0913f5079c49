//! The decoders of the front for the fuzz targets. No part of the interface.
//!
//! Nothing here may panic, whatever the bytes.

mod credentials;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::{Bytes, BytesMut};
pub use credentials::{jwt, seeds, tokens};

use crate::http::authority::bearer;
use crate::http::cors::Page;
use crate::http::query::Query;
use crate::http::{batch, cloudevents};
use crate::options::GatewayLimits;
use crate::route::Route;
use crate::ws::admit::subprotocol;
use crate::ws::framing::{Decoder, Message, Violation};

/// WebSocket frames; the first two bytes say how large a message may be and how the bytes arrive.
pub fn websocket(data: &[u8]) {
    let [bytes_max, piece, bytes @ ..] = data else { return };
    let bytes_max = usize::from(*bytes_max) * 16;
    let at_once = decode([bytes], bytes_max);
    let piece = usize::from(*piece).max(1);
    assert_eq!(at_once, decode(bytes.chunks(piece), bytes_max), "it depends on how bytes arrive");
    for message in at_once.0 {
        match message {
            Message::Text(bytes) => {
                assert!(bytes.len() <= bytes_max);
                assert!(std::str::from_utf8(&bytes).is_ok());
            }
            Message::Binary(bytes) => assert!(bytes.len() <= bytes_max),
            Message::Ping(bytes) => assert!(bytes.len() <= 125),
            Message::Pong | Message::Close(_) => {}
        }
    }
}

fn decode<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    bytes_max: usize,
) -> (Vec<Message>, Option<Violation>) {
    const FRAGMENTS_MAX: usize = 16;
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

/// A CloudEvent in each mode; in binary mode the headers stand before an empty line.
pub fn cloudevents(data: &[u8]) {
    if let Ok(event) = cloudevents::structured(data) {
        assert!(!event.kind.is_empty() && event.key.len() <= 255);
    }
    for raw in cloudevents::batched(data).unwrap_or_default() {
        let _event = cloudevents::structured(raw.get().as_bytes());
    }
    let (headers, body) = split(data);
    let content_type = headers.get("content-type").and_then(|value| value.to_str().ok());
    let _mode = cloudevents::mode(content_type.unwrap_or_default(), &headers);
    if let Ok(event) = cloudevents::binary(&headers, content_type, Bytes::copy_from_slice(body)) {
        assert_eq!(event.arguments.is_none(), body.is_empty(), "no data is a null-event");
    }
}

/// The lines of a batch.
pub fn batch_lines(data: &[u8]) {
    let limits = GatewayLimits {
        batch_items_max: 64,
        batch_item_bytes_max: 256,
        ..GatewayLimits::default()
    };
    let entries = batch::lines(&limits, data).unwrap_or_default();
    assert!(entries.len() <= limits.batch_items_max);
    let lines = data.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    assert!(entries.is_empty() || entries.len() == lines.count(), "one entry for each line");
    let _envelopes = batch::envelopes(&limits, data, None);
}

/// What the head of a request says: an address with its query in the first line, then headers.
pub fn request_head(data: &[u8]) {
    let (headers, _) = split(data);
    let address = String::from_utf8_lossy(data);
    let address = address.lines().next().unwrap_or_default();
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    if let Some(route) = Route::parse(path) {
        assert!(!route.methods().is_empty() && !route.label().is_empty());
    }
    if let Ok(query) = Query::parse(query, &["limit", "after", "consistency", "null"]) {
        let _values = (query.window(), query.consistency(), query.flag("null"));
    }
    if let Ok(Some(token)) = bearer(&headers) {
        assert!(!token.is_empty());
        if let Some((id, _hash)) = ackord_agents::token::parse(token) {
            assert!(token.contains(id.as_str()));
        }
    }
    let _text = ackord_agents::token::parse(address);
    let _page = Page::of(&["https://app.example".to_owned()], &headers);
    let _codec = subprotocol(&headers);
}

/// The headers of the lines before an empty one, as far as they are some, and what follows it.
fn split(data: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let end = data.windows(2).position(|window| window == b"\n\n");
    let (head, body) = end.map_or((data, &data[..0]), |end| (&data[..end], &data[end + 2..]));
    for line in head.split(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':');
        let Some((name, value)) = colon.map(|colon| (&line[..colon], &line[colon + 1..])) else {
            continue;
        };
        let name = HeaderName::from_bytes(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.trim_ascii())) {
            headers.append(name, value);
        }
    }
    (headers, body)
}
