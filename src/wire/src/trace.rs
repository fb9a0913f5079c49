//! W3C Trace Context as events carry it: `traceparent` and `tracestate`.
//!
//! Invariant: whatever stands where a context is expected, a raise is not refused for it. What is not
//! a `traceparent` is none; a `tracestate` that is malformed or too long is left out alone.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The length of a `traceparent` of version 00, bytes.
pub const TRACEPARENT_BYTES: usize = 55;
/// The longest `tracestate` that is kept, bytes.
pub const TRACESTATE_BYTES_MAX: usize = 512;
/// The most entries that a `tracestate` has.
const MEMBERS_MAX: usize = 32;
/// The longest key and the longest value of an entry.
const MEMBER_PART_MAX: usize = 256;

/// The trace that an event was raised in, and where in it.
///
/// ```
/// use ackord_wire::TraceContext;
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context = TraceContext::parse(text, Some("vendor=value")).expect("it is one");
/// assert!(context.is_sampled());
/// assert_eq!(context.traceparent(), text);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not zero.
    pub trace_id: [u8; 16],
    /// The span in which the event was raised; not zero.
    pub parent_id: [u8; 8],
    /// The flags; the lowest says that the trace is recorded.
    pub flags: u8,
    /// The `tracestate`; empty for none.
    pub state: String,
}

impl TraceContext {
    /// The context of these texts; `None` where the first is none. Of a version that is not known as much is
    /// taken as version 00 has.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let text = traceparent.as_bytes();
        let (own, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
        let version: [u8; 1] = hex(&own[..2])?;
        let dashes = [2, 35, 52].iter().all(|at| own[*at] == b'-');
        let ends = match (version, rest) {
            ([0xff], _) => false,
            (_, []) => true,
            ([0], _) => false,
            (_, [first, ..]) => *first == b'-',
        };
        if !dashes || !ends {
            return None;
        }
        let [flags] = hex(&own[53..])?;
        let context = Self {
            trace_id: hex(&own[3..35])?,
            parent_id: hex(&own[36..52])?,
            flags: if version == [0] { flags } else { flags & 1 },
            state: tracestate.and_then(state).unwrap_or_default(),
        };
        context.sound()
    }

    /// Itself, if its numbers name something and its state is within its bound.
    pub fn sound(self) -> Option<Self> {
        let named = self.trace_id != [0; 16] && self.parent_id != [0; 8];
        (named && (self.state.is_empty() || is_state(&self.state))).then_some(self)
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The text of its numbers.
    pub fn traceparent(&self) -> String {
        self.to_string()
    }

    /// What vendors add, if there is anything.
    pub fn tracestate(&self) -> Option<&str> {
        (!self.state.is_empty()).then_some(&*self.state)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.parent_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

/// Bytes of lowercase hex digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn state(text: &str) -> Option<String> {
    let text = text.trim_matches([' ', '\t']);
    is_state(text).then(|| text.to_owned())
}

/// Whether a text is a list of entries as the recommendation has them.
fn is_state(text: &str) -> bool {
    let members = || text.split(',').map(|member| member.trim_matches([' ', '\t']));
    let members = || members().filter(|member| !member.is_empty());
    let mut keys: Vec<&str> = Vec::new();
    let mut fits = |member: &'_ str| {
        let start = member.as_ptr() as usize - text.as_ptr() as usize;
        let Some((key, value)) = text[start..start + member.len()].split_once('=') else {
            return false;
        };
        let is_new = !keys.contains(&key);
        keys.push(key);
        is_new && is_key(key) && is_value(value)
    };
    text.len() <= TRACESTATE_BYTES_MAX
        && (1..=MEMBERS_MAX).contains(&members().count())
        && members().all(&mut fits)
}

fn is_key(key: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let rest = |byte: u8| first(byte) || b"_-*/@".contains(&byte);
    let bytes = key.as_bytes();
    (1..=MEMBER_PART_MAX).contains(&bytes.len())
        && first(bytes[0])
        && bytes.iter().all(|byte| rest(*byte))
        && bytes.iter().filter(|byte| **byte == b'@').count() <= 1
}

fn is_value(value: &str) -> bool {
    let fits = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b',' && byte != b'=';
    value.len() <= MEMBER_PART_MAX && !value.is_empty() && value.bytes().all(fits)
}

/// Reads a text; whatever else stands there is none.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    struct Lenient;
    impl<'de> Visitor<'de> for Lenient {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("anything")
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.to_owned()))
        }
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_i128<E>(self, _: i128) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_u128<E>(self, _: u128) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_bytes<E>(self, _: &[u8]) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
            from.deserialize_any(self)
        }
        fn visit_newtype_struct<D: Deserializer<'de>>(
            self,
            from: D,
        ) -> Result<Self::Value, D::Error> {
            from.deserialize_any(self)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok(None)
        }
        fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(None)
        }
    }
    from.deserialize_any(Lenient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Codec;
    use crate::frame::ServiceFrame;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_taken_as_the_recommendation_says_and_comes_out_as_it_went_in() {
        let check = |text: &str, out: Option<&str>| {
            let parsed = TraceContext::parse(text, None).map(|context| context.traceparent());
            assert_eq!(parsed.as_deref(), out, "{text:?}");
        };
        check(GOOD, Some(GOOD));
        for flags in ["00", "02", "ff"] {
            let text = format!("{}{flags}", &GOOD[..53]);
            check(&text, Some(&text));
        }
        // A later version has at least what this one has.
        let later = |rest: &str| format!("cc{}{rest}", &GOOD[2..]);
        check(&later(""), Some(GOOD));
        check(&later("-what-comes"), Some(GOOD));
        check(&later("what"), None);
        check(&format!("{GOOD}-"), None);
        check(&format!("ff{}", &GOOD[2..]), None);
        check(&GOOD.to_uppercase(), None);
        check(&GOOD[..54], None);
        check(&format!(" {GOOD}"), None);
        check("", None);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", None);
        check("00-4bf92f3577b34da6a3ce929d0e0e473ü-0f067aa0ba902b7-01", None);
        check(&"ü".repeat(28), None);
        check(&format!("{GOOD},{GOOD}"), None);
    }

    #[test]
    fn a_tracestate_is_kept_as_it_is_or_left_out() {
        let check = |text: &str, kept: bool| {
            let context = TraceContext::parse(GOOD, Some(text)).expect("the parent stands");
            let wanted = kept.then(|| text.trim_matches([' ', '\t']));
            assert_eq!(context.tracestate(), wanted, "{text:?}");
        };
        for good in ["a=1", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", " a=1 , ,b=2\t", "0t@v=x y"]
        {
            check(good, true);
        }
        let long = format!("a={}", "x".repeat(256));
        check(&long, true);
        check(&format!("a={}", "x".repeat(257)), false);
        check(&format!("{long},b={}", "x".repeat(251)), true);
        check(&format!("{long},b={}", "x".repeat(252)), false);
        let many =
            |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        check(&many(32), true);
        check(&many(33), false);
        for bad in [
            "", " ", ",", "a", "=", "a=", "A=1", "a=1,a=2", "a=b=c", "a=ü", "a@b@c=1", "é=1",
            "a=\u{7f}",
        ] {
            check(bad, false);
        }
        assert_eq!(TraceContext::parse("nonsense", Some("a=1")), None);
    }

    #[test]
    fn whatever_stands_in_a_frame_where_a_context_is_expected_it_is_a_frame() {
        let frame = |value: &str| {
            let rest = format!("\"traceparent\":{value},\"tracestate\":{value}");
            let text = format!("{{\"raise\":{{\"seq\":1,\"event\":\"e\",\"args\":1,{rest}}}}}");
            let decoded = Codec::Json.decode::<ServiceFrame>(text.as_bytes());
            let Ok(ServiceFrame::Raise(raise)) = decoded else { panic!("{value}: {decoded:?}") };
            // The same in the other codec.
            let value: serde_json::Value = serde_json::from_str(value).expect("it is JSON");
            let other =
                serde_json::json!({"raise": {"seq": 1, "event": "e", "traceparent": value}});
            let decoded = Codec::Cbor.decode::<ServiceFrame>(&Codec::Cbor.encode(&other));
            let Ok(ServiceFrame::Raise(cbor)) = decoded else { panic!("{value}: {decoded:?}") };
            assert_eq!(cbor.traceparent, raise.traceparent);
            raise.traceparent
        };
        for other in
            ["null", "true", "5", "-5", "1e300", "18446744073709551615", "[1,{}]", "{\"a\":[]}"]
        {
            assert_eq!(frame(other), None, "{other}");
        }
        assert_eq!(frame("\"ü\"").as_deref(), Some("ü"));
    }
}
