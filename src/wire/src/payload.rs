//! Arguments of an event: opaque bytes with a media type, and how the two codecs carry them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::codec::Codec;

/// The media type of JSON arguments.
pub const JSON: &str = "application/json";

/// Levels of JSON arguments that are handed on as JSON: readers have bounds of their own.
pub const JSON_DEPTH_MAX: usize = 64;

/// Whether JSON has at most [`JSON_DEPTH_MAX`] levels of lists and objects. Of what is no JSON it
/// says nothing.
///
/// ```
/// use ackord_wire::payload::is_shallow;
/// assert!(is_shallow(br#"{"a": ["]]]]"]}"#));
/// assert!(!is_shallow("[".repeat(65).as_bytes()));
/// ```
pub fn is_shallow(json: &[u8]) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            return false;
        }
    }
    true
}

/// The arguments of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Their media type.
    pub content_type: String,
    /// The encoded arguments.
    pub data: Bytes,
}

/// The three fields that carry a payload in a frame.
pub type PayloadFields = (Option<String>, Option<Box<RawValue>>, Option<Data>);

impl Payload {
    /// JSON arguments from their text.
    pub fn json(text: impl Into<Bytes>) -> Self {
        Self { content_type: JSON.to_owned(), data: text.into() }
    }

    /// The fields `(content_type, args, data)` for a frame in this codec; `None` is a null-event.
    pub fn to_fields(payload: Option<&Self>, codec: Codec) -> PayloadFields {
        let Some(payload) = payload else { return (None, None, None) };
        let is_json = payload.content_type == JSON;
        if is_json && codec == Codec::Json && is_shallow(&payload.data) {
            let raw = std::str::from_utf8(&payload.data)
                .ok()
                .filter(|text| text.trim() != "null")
                .and_then(|text| serde_json::from_str::<Box<RawValue>>(text).ok())
                // Space around it would be lost: opaque bytes arrive as they were.
                .filter(|raw| raw.get().len() == payload.data.len());
            if let Some(raw) = raw {
                return (None, Some(raw), None);
            }
        }
        let content_type = (!is_json).then(|| payload.content_type.clone());
        (content_type, None, Some(Data(payload.data.clone())))
    }

    /// The payload that a frame's fields carry; `None` is a null-event. `args` wins over `data`.
    pub fn from_fields(
        content_type: Option<String>,
        args: Option<Box<RawValue>>,
        data: Option<Data>,
    ) -> Option<Self> {
        match (args, data) {
            (Some(raw), _) => Some(Self::json(String::from(Box::<str>::from(raw)))),
            (None, Some(Data(data))) => {
                Some(Self { content_type: content_type.unwrap_or_else(|| JSON.to_owned()), data })
            }
            (None, None) => None,
        }
    }
}

/// Bytes: base64 text in a human-readable format, a byte string otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data(pub Bytes);

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
            let bytes = STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
            Ok(Self(bytes.into()))
        } else {
            Ok(Self(serde_bytes::ByteBuf::deserialize(deserializer)?.into_vec().into()))
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Data {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Data".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Bytes, base64.", "type": "string", "contentEncoding": "base64",
        })
    }
}
