//! What goes to standard error, and how that is changed while the program runs.
//!
//! `tracing events, what commands say, failures, panics ─▶ one line each: text for people | JSON`
//!
//! Invariant: with [`Lines::Json`] every line of standard error is one JSON object, whoever writes it,
//! from the moment that the format is known.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};

use serde_json::{Map, Value, json};
use tracing::field::Visit;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::exit::Failure;

/// How a line of standard error is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Lines {
    /// For people.
    Text,
    /// As one JSON object.
    Json,
}

impl Lines {
    /// The names, as the configuration has them.
    pub const NAMES: &'static [&'static str] = &["text", "json"];

    /// The format of this name; text for any other, which the configuration refuses.
    pub fn named(name: &str) -> Self {
        if name == Self::Json.name() { Self::Json } else { Self::Text }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// What a line is about, in the words of the levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something is wrong and a person must act.
    Error,
    /// Something is unwise or unusual.
    Warn,
    /// Worth knowing.
    Info,
}

/// Whether lines are JSON.
static JSON: AtomicBool = AtomicBool::new(false);
/// The number of the node that this process is; 0 while it is none.
static NODE: AtomicU64 = AtomicU64::new(0);
/// What no field may be called: each has a meaning of its own in every line.
const RESERVED: &[&str] = &["timestamp", "level", "target", "message", "node_id"];
/// What our own lines are about.
const OWN_TARGET: &str = "ackord";

/// From now on lines are written like this.
pub fn speak(lines: Lines) {
    static HOOK: Once = Once::new();
    JSON.store(lines == Lines::Json, Ordering::Relaxed);
    if lines == Lines::Json {
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if !is_json() {
                    return previous(info);
                }
                let thread = std::thread::current();
                let at = info.location().map(ToString::to_string);
                let said = info.payload_as_str().unwrap_or("a panic without words");
                let more = json!({"location": at, "thread": thread.name()});
                line(Level::Error, &format!("panic: {said}"), more);
            }));
        });
    }
}

/// Whether lines are JSON.
pub fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// From now on lines say that they are of this node.
pub fn node(id: u64) {
    NODE.store(id, Ordering::Relaxed);
}

/// Writes a line of our own as JSON, whatever the filter lets through, with the fields of an object.
pub fn line(level: Level, message: &str, more: Value) {
    let level = match level {
        Level::Error => "ERROR",
        Level::Warn => "WARN",
        Level::Info => "INFO",
    };
    let more = match more {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    let text = written(level, OWN_TARGET, message.to_owned(), more);
    // Nobody to read it is no failure.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// A line with its end.
fn written(level: &str, target: &str, message: String, fields: Map<String, Value>) -> String {
    let mut timestamp = String::new();
    // A text takes anything; a time that cannot be written is an empty one.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let mut out = Map::new();
    out.insert("timestamp".to_owned(), timestamp.into());
    out.insert("level".to_owned(), level.into());
    out.insert("target".to_owned(), target.into());
    out.insert("message".to_owned(), message.into());
    let node = NODE.load(Ordering::Relaxed);
    if node > 0 {
        out.insert("node_id".to_owned(), node.into());
    }
    for (name, value) in fields {
        let reserved = RESERVED.contains(&name.as_str());
        out.insert(if reserved { format!("field_{name}") } else { name }, value);
    }
    let mut text = Value::Object(out).to_string();
    text.push('\n');
    text
}

/// Events as JSON lines: the fields of spans, the outer first, and of the event beside each other; of
/// two with one name the inner one counts.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let mut fields = Map::new();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            if let Some(formatted) = extensions.get::<FormattedFields<N>>()
                && let Ok(Value::Object(of_span)) = serde_json::from_str(&formatted.fields)
            {
                fields.extend(of_span);
            }
        }
        let mut own = Collected::default();
        event.record(&mut own);
        fields.extend(own.fields);
        let (level, target) = (event.metadata().level().as_str(), event.metadata().target());
        writer.write_str(&written(level, target, own.message, fields))
    }
}

/// The fields of an event.
#[derive(Default)]
struct Collected {
    message: String,
    fields: Map<String, Value>,
}

impl Collected {
    fn put(&mut self, field: &tracing::field::Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => drop(self.fields.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Collected {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &tracing::field::Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &tracing::field::Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &tracing::field::Field, value: bool) {
        self.put(field, value.into());
    }
}

/// Changes what is logged. Cloning copies a pointer.
#[derive(Clone)]
pub struct Logging {
    set: Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl Logging {
    /// Begins to log what this filter lets through. Once per process.
    pub fn begin(filter: &str) -> Result<Self, Failure> {
        let filter = parse(filter)?;
        let lines = tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal() && !is_json());
        let set: Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync> = if is_json() {
            let lines = lines.fmt_fields(JsonFields::new()).event_format(JsonLine);
            let builder = lines.with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Arc::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        } else {
            let builder = lines.with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Arc::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        };
        Ok(Self { set })
    }

    /// From now on this filter counts.
    pub fn set(&self, filter: &str) -> Result<(), Failure> {
        (self.set)(parse(filter)?).map_err(|error| Failure::configuration(format!("log: {error}")))
    }
}

/// A filter from its text.
pub fn parse(filter: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(filter).map_err(|error| Failure::usage(format!("--log {filter}: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// What a subscriber of our format wrote.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .fmt_fields(JsonFields::new())
            .event_format(JsonLine)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn an_event_is_one_object_with_the_fields_of_its_spans_beside_its_own() {
        let lines = lines(|| {
            let outer = tracing::info_span!("session", site = "demo", peer = "a");
            let _outer = outer.enter();
            let inner = tracing::info_span!("lane", subscription = 7_u32, peer = "b");
            let _inner = inner.enter();
            tracing::warn!(count = 3, slow = true, share = 0.5, why = ?Some("x\ny"), "it \"ends\"\n");
            tracing::warn!(subscription = 8, "again");
        });
        let [first, second] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(first["level"], "WARN");
        assert_eq!(first["message"], "it \"ends\"\n");
        assert!(first["target"].as_str().is_some_and(|target| target.starts_with("ackord")));
        let timestamp = first["timestamp"].as_str().unwrap();
        let format = &time::format_description::well_known::Rfc3339;
        assert!(time::OffsetDateTime::parse(timestamp, format).is_ok(), "{timestamp}");
        let fields = ["site", "peer", "subscription", "count", "slow", "share", "why"];
        let wanted = json!(["demo", "b", 7, 3, true, 0.5, "Some(\"x\\ny\")"]);
        assert_eq!(Value::from(fields.map(|name| first[name].clone()).to_vec()), wanted);
        assert_eq!(second["subscription"], 8);
    }

    #[test]
    fn a_field_cannot_take_the_place_of_what_every_line_has() {
        let lines = lines(|| tracing::error!(level = "none", target_ = 1, timestamp = 0, "said"));
        assert_eq!(lines[0]["level"], "ERROR");
        assert_eq!(
            (&lines[0]["field_level"], &lines[0]["field_timestamp"]),
            (&json!("none"), &json!(0))
        );
        assert_eq!(lines[0]["message"], "said");
    }

    #[test]
    fn the_formats_have_the_names_of_the_configuration() {
        for name in Lines::NAMES {
            assert_eq!(Lines::named(name).name(), *name);
        }
    }
}
