//! The arguments of an event as an HTTP caller sends them: bytes that are what their media type
//! says, as far as it is JSON or CBOR. Pure.

use ackord_machine::site::Arguments;
use ackord_machine::site::limits::CONTENT_TYPE_BYTES_MAX;
use ackord_wire::cbor;
use ackord_wire::payload::{self, JSON};
use actix_web::web::Bytes;

/// The media type of CBOR arguments.
const CBOR: &str = "application/cbor";

/// What is wrong with arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// With their media type.
    ContentType(String),
    /// With themselves.
    Data(String),
}

/// A media type without its parameters.
pub fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Whether this is JSON, in the way of CloudEvents: `…/json` or `…/…+json`.
pub fn is_json_like(content_type: &str) -> bool {
    let Some((_, subtype)) = essence(content_type).split_once('/') else { return false };
    let subtype = subtype.to_ascii_lowercase();
    subtype == "json" || subtype.ends_with("+json")
}

/// Arguments of this media type, if they are.
pub fn check(content_type: &str, data: Bytes) -> Result<Arguments, Wrong> {
    let length = content_type.len();
    if !(1..=CONTENT_TYPE_BYTES_MAX).contains(&length) {
        let detail = format!("1..={CONTENT_TYPE_BYTES_MAX} characters, was {length}");
        return Err(Wrong::ContentType(detail));
    }
    let media_type = essence(content_type);
    if media_type.eq_ignore_ascii_case(JSON) {
        // What is announced as JSON reaches JSON readers as it is, so it must be.
        serde_json::from_slice::<serde::de::IgnoredAny>(&data)
            .map_err(|error| Wrong::Data(format!("not JSON: {error}")))?;
        if !payload::is_shallow(&data) {
            let detail = format!("JSON of at most {} levels", payload::JSON_DEPTH_MAX);
            return Err(Wrong::Data(detail));
        }
        return Ok(Arguments { content_type: JSON.to_owned(), data });
    }
    if media_type.eq_ignore_ascii_case(CBOR) {
        cbor::well_formed(&data).map_err(|error| Wrong::Data(format!("not CBOR: {error}")))?;
    }
    Ok(Arguments { content_type: content_type.to_owned(), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_what_they_say() {
        let ok =
            |content_type: &str, data: &'static [u8]| check(content_type, data.into()).unwrap();
        assert_eq!(ok("Application/JSON; charset=utf-8", b" {} ").content_type, JSON);
        assert_eq!(ok("application/cbor", &[0xa0]).content_type, CBOR);
        assert_eq!(ok("application/cbor-seq", &[0xff]).data.len(), 1, "of others nothing is known");
        let wrong =
            |content_type: &str, data: &'static [u8]| check(content_type, data.into()).unwrap_err();
        assert!(matches!(wrong(JSON, b"{} {}"), Wrong::Data(_)));
        let deep = |levels: usize| Bytes::from("[".repeat(levels) + &"]".repeat(levels));
        assert!(check(JSON, deep(payload::JSON_DEPTH_MAX)).is_ok());
        assert!(check(JSON, deep(payload::JSON_DEPTH_MAX + 1)).is_err());
        assert!(matches!(wrong("application/cbor", &[0xa1, 0x00]), Wrong::Data(_)));
        assert!(matches!(wrong("application/cbor", &[0x00, 0x00]), Wrong::Data(_)));
        assert!(matches!(wrong("", b"x"), Wrong::ContentType(_)));
        let long = format!("text/{}", "x".repeat(CONTENT_TYPE_BYTES_MAX));
        assert!(matches!(wrong(&long, b"x"), Wrong::ContentType(_)));
    }
}
