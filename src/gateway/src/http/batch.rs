//! Many events in one request: read one by one, raised in their order, answered one by one.
//!
//! Invariants: what is wrong with one event for good does not stop the others; one that is refused
//! for now stops those behind it, so that none is stored before it; every event has a line in the
//! answer, in the order of the request. A request with a key gives each event without one of its
//! own the key `<key>/<index>`, so that the whole of it may be repeated.

use ackord_agents::{Fate, KeyedEvent, translate};
use ackord_machine::site::limits::KEY_BYTES_MAX;
use ackord_machine::site::{NewEvent, ServiceId, SiteName, TraceContext};
use ackord_wire::payload::{Data, JSON};
use ackord_wire::resource::{BatchItem, BatchResult};
use ackord_wire::{Code, Problem};
use actix_web::web::Bytes;

use super::answer::Answer;
use super::arguments::{self, Wrong};
use super::exchange::Allowed;
use super::raise::{Fields, Raise, from_cloudevent, is_key, own_key, problem, until_a_key_is_free};
use super::{RETRY_AFTER_S, body, cloudevents};
use crate::options::GatewayLimits;

/// The longest key of a request that carries a batch: an index is added for each event.
pub const BATCH_KEY_BYTES_MAX: usize = KEY_BYTES_MAX - INDEX_BYTES_MAX;
/// `/99999`: the index of the last event that a batch may have.
const INDEX_BYTES_MAX: usize = 6;
/// The most events that a batch may be allowed to have.
pub const BATCH_ITEMS_CEILING: usize = 100_000;

/// One event of a batch.
pub struct Entry {
    /// Its name, as far as it could be read.
    name: Option<String>,
    raise: Result<Raise, Problem>,
}

impl Entry {
    /// In the trace of the request, where the event has none of its own.
    pub fn within(mut self, trace: Option<&TraceContext>) -> Self {
        if let (Ok(raise), Some(trace)) = (&mut self.raise, trace) {
            raise.within(trace);
        }
        self
    }

    /// Leaves the key to the request.
    pub fn without_key(self) -> Self {
        Self { raise: self.raise.map(|raise| Raise { key: None, ..raise }), ..self }
    }
}

/// An event that was read, and what its key is called in the request; `None` if it has none.
struct Place {
    index: usize,
    key: Option<&'static str>,
}

/// The events of a body of lines.
///
/// # Errors
/// When there are too many.
pub fn lines(limits: &GatewayLimits, body: &[u8]) -> Result<Vec<Entry>, Problem> {
    let lines = || body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let lines = || lines().filter(|line| !line.is_empty());
    check_count(limits, lines().count())?;
    Ok(lines().map(|line| entry(limits, line, read_line)).collect())
}

/// The events of a list of CloudEvents; the address may name them all.
///
/// # Errors
/// When it is no list, or too long.
pub fn envelopes(
    limits: &GatewayLimits,
    body: &[u8],
    named: Option<&str>,
) -> Result<Vec<Entry>, Problem> {
    let envelopes = cloudevents::batched(body)?;
    check_count(limits, envelopes.len())?;
    let read = |envelope: &[u8]| match cloudevents::structured(envelope) {
        Ok(event) => {
            let raise = from_cloudevent(event, named);
            Entry { name: Some(raise.event.name.to_string()), raise: Ok(raise) }
        }
        Err(problem) => Entry { name: None, raise: Err(problem) },
    };
    Ok(envelopes.iter().map(|raw| entry(limits, raw.get().as_bytes(), read)).collect())
}

fn check_count(limits: &GatewayLimits, count: usize) -> Result<(), Problem> {
    let most = limits.batch_items_max;
    if count <= most {
        return Ok(());
    }
    let detail = format!("at most {most} events, was {count}");
    Err(Problem::new(Code::TooLarge, detail).field("body"))
}

fn entry(limits: &GatewayLimits, bytes: &[u8], read: impl Fn(&[u8]) -> Entry) -> Entry {
    let most = limits.batch_item_bytes_max;
    if bytes.len() <= most {
        let Entry { name, raise } = read(bytes);
        // It is what the request calls its body elsewhere.
        let raise = raise.map_err(|problem| match problem.field.as_deref() {
            Some("body") => problem.field("item"),
            Some(_) | None => problem,
        });
        return Entry { name, raise };
    }
    let detail = format!("at most {most} bytes, was {}", bytes.len());
    Entry { name: None, raise: Err(Problem::new(Code::TooLarge, detail).field("item")) }
}

fn read_line(line: &[u8]) -> Entry {
    match body::decode::<BatchItem>(line) {
        Ok(item) => Entry { name: Some(item.event.clone()), raise: of_item(item) },
        Err(problem) => Entry { name: None, raise: Err(problem) },
    }
}

fn of_item(mut item: BatchItem) -> Result<Raise, Problem> {
    let (parent, state) = (item.traceparent.take(), item.tracestate.take());
    let trace = parent.and_then(|parent| translate::trace(&parent, state.as_deref()));
    let BatchItem { event, args, data, content_type, client, lifetime_s, key, null, .. } = item;
    let wrong = |field: &str, detail: String| Problem::new(Code::Invalid, detail).field(field);
    if key.as_deref().is_some_and(|key| !is_key(key)) {
        let detail = format!("1..={KEY_BYTES_MAX} visible ASCII characters");
        return Err(wrong("key", detail));
    }
    let (content_type, field, data) = match (args, data) {
        (Some(_), Some(_)) => return Err(wrong("data", "not beside `args`".to_owned())),
        (Some(_), None) if content_type.is_some() => {
            return Err(wrong("content_type", "only beside `data`".to_owned()));
        }
        (Some(raw), None) => {
            (JSON.to_owned(), "args", Some(Bytes::from(String::from(Box::<str>::from(raw)))))
        }
        (None, Some(Data(bytes))) => {
            (content_type.unwrap_or_else(|| JSON.to_owned()), "data", Some(bytes))
        }
        (None, None) => (String::new(), "args", None),
    };
    let arguments = match (data, null) {
        (Some(_), true) => {
            return Err(wrong("null", "a null-event has neither `args` nor `data`".to_owned()));
        }
        (None, true) => None,
        (None, false) => {
            let detail = "missing; a null-event is raised with `\"null\": true`".to_owned();
            return Err(wrong("args", detail));
        }
        (Some(data), false) => {
            Some(arguments::check(&content_type, data).map_err(|error| match error {
                Wrong::ContentType(detail) => wrong("content_type", detail),
                Wrong::Data(detail) => wrong(field, detail),
            })?)
        }
    };
    let name = event.into();
    let event = NewEvent {
        name,
        category: None,
        arguments,
        client: client.map(Into::into),
        lifetime_s,
        trace,
    };
    Ok(Raise { key, event })
}

/// Raises what could be read, and says of each event what became of it.
///
/// # Errors
/// When the key of the request leaves no room for an index.
pub async fn raise_all(
    allowed: &Allowed<'_>,
    site: &str,
    service: &ServiceId,
    key: Option<String>,
    entries: Vec<Entry>,
    fields: Fields,
) -> Result<Answer, Problem> {
    if let Some(key) = key.as_ref().filter(|key| key.len() > BATCH_KEY_BYTES_MAX) {
        let detail = format!("1..={BATCH_KEY_BYTES_MAX} for a batch, was {}", key.len());
        return Err(Problem::new(Code::Invalid, detail).field("Idempotency-Key"));
    }
    let mut results = Vec::with_capacity(entries.len());
    let mut events = Vec::with_capacity(entries.len());
    let mut places = Vec::with_capacity(entries.len());
    for (index, Entry { name, raise }) in entries.into_iter().enumerate() {
        let result = BatchResult { event: name, ..empty(index) };
        match raise {
            Err(problem) => results.push(BatchResult { error: Some(problem), ..result }),
            Ok(Raise { key: own, event }) => {
                let (field, given) = match (own, &key) {
                    (Some(own), _) => (Some(fields.key), own),
                    (None, Some(key)) => (Some("Idempotency-Key"), format!("{key}/{index}")),
                    (None, None) => (None, own_key()),
                };
                places.push(Place { index, key: field });
                events.push(KeyedEvent { key: given, event });
                results.push(result);
            }
        }
    }
    let site = SiteName::from(site);
    let broker = &allowed.context.broker;
    let fates = broker.raise_in_order(&site, service, &events).await;
    for (place, fate) in places.iter().zip(fates) {
        let result = &mut results[place.index];
        match fate {
            Fate::Accepted(accepted) => {
                result.instance_id = accepted.instance_id;
                result.duplicate = Some(accepted.duplicate);
                result.ignored = Some(accepted.ignored);
            }
            Fate::Refused(refused) => {
                let fields = Fields { key: place.key.unwrap_or(fields.key), ..fields };
                let problem = problem(refused, &fields, place.key.is_some());
                result.error = Some(until_a_key_is_free(broker, &site, service, problem));
            }
            Fate::NotAttempted { code, behind } => {
                let behind = places[behind].index;
                let detail = format!("not attempted: the event with index {behind} comes first");
                result.attempted = Some(false);
                let problem = Problem::new(code, detail).retry_after(RETRY_AFTER_S);
                result.error = Some(until_a_key_is_free(broker, &site, service, problem));
            }
        }
    }
    Ok(Answer::lines(&results))
}

fn empty(index: usize) -> BatchResult {
    BatchResult {
        // Bounded by the ceiling of a batch.
        index: u32::try_from(index).unwrap_or(u32::MAX),
        event: None,
        instance_id: None,
        duplicate: None,
        ignored: None,
        attempted: None,
        error: None,
    }
}
