//! Spans of what happens to events whose trace is recorded, for a collector that speaks OTLP.
//!
//! `publish, deliver, request ─▶ Spans ─try_send▶ bounded queue ─▶ a thread of its own ─▶ collector`
//!
//! Invariants: nobody waits for a collector: what finds no room, or is not taken, is dropped and counted.
//! Where no collector is configured nothing is kept, measured or asked of the clock. A span belongs to the
//! trace that its event came with; the broker changes no context that it was given.

mod export;
mod session;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ackord_machine::site::{Incarnation, InstanceId, NewEvent, ServiceId, SiteName};
use ackord_wire::TraceContext;
use ackord_wire::frame::Accepted;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::broker::{Broker, Refused};
use crate::metrics::Metrics;
use crate::{token, translate};

pub(crate) use session::SessionSpans;

/// Where spans go, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanOptions {
    /// The collector's address, without `/v1/traces`; `None` for no spans at all.
    pub endpoint: Option<String>,
    /// Of a million events that come without a context, so many begin a trace.
    pub sample_per_million: u32,
    /// Spans that wait to be exported; one more is dropped and counted.
    pub queue_max: usize,
    /// How long the collector may take for a request.
    pub timeout: Duration,
}

impl Default for SpanOptions {
    fn default() -> Self {
        let timeout = Duration::from_secs(10);
        Self { endpoint: None, sample_per_million: 0, queue_max: 8192, timeout }
    }
}

/// What somebody did, from one moment to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub name: String,
    pub work: Work,
    pub trace_id: [u8; 16],
    pub id: [u8; 8],
    /// All zero for the first of its trace.
    pub parent: [u8; 8],
    pub state: String,
    /// Another span of the same trace that this one comes from.
    pub link: Option<[u8; 8]>,
    pub begun: SystemTime,
    pub ended: SystemTime,
    /// Moments in between.
    pub moments: Vec<(&'static str, SystemTime)>,
    pub facts: Vec<(&'static str, String)>,
    /// Why it came to nothing.
    pub failed: Option<String>,
}

/// What kind of work a span is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Somebody's request was answered.
    Served,
    /// Somebody was sent something.
    Sent,
}

/// Takes spans, or nothing. Cloning copies a pointer.
#[derive(Clone, Default)]
pub struct Spans {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    queue: mpsc::Sender<Span>,
    metrics: Arc<Metrics>,
    sample_per_million: u32,
}

/// Something that is under way and becomes a span.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    trace: TraceContext,
    /// The number of a span that begins its trace.
    root: Option<[u8; 8]>,
    at: SystemTime,
}

impl Spans {
    /// Exports to where the options say.
    ///
    /// # Errors
    /// When the address is none, or there is no thread.
    pub(crate) fn begin(
        options: &SpanOptions,
        node: u64,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let Some(endpoint) = &options.endpoint else { return Ok(Self::default()) };
        let (queue, waiting) = mpsc::channel(options.queue_max.max(1));
        export::start(endpoint, options.timeout, node, metrics.clone(), waiting)?;
        let sample_per_million = options.sample_per_million;
        Ok(Self { inner: Some(Arc::new(Inner { queue, metrics, sample_per_million })) })
    }

    /// Whether an address may be configured.
    ///
    /// # Errors
    /// Why not.
    pub fn check_endpoint(endpoint: &str) -> Result<(), String> {
        export::address(endpoint).map(drop)
    }

    /// Whether there is a collector.
    pub fn is_on(&self) -> bool {
        self.inner.is_some()
    }

    /// The raise of an event begins. Its context, if it has none, is that of a trace that begins here, for
    /// as many events as the options say.
    pub(crate) fn publish(&self, trace: &mut Option<TraceContext>) -> Option<Begun> {
        let inner = self.inner.as_ref()?;
        match trace {
            Some(trace) if trace.is_sampled() => {
                Some(Begun { trace: trace.clone(), root: None, at: SystemTime::now() })
            }
            Some(_) => None,
            None => {
                let context = inner.sampled()?;
                *trace = Some(context.clone());
                let root = Some(context.parent_id);
                Some(Begun { trace: context, root, at: SystemTime::now() })
            }
        }
    }

    /// A request begins, with the context of its headers.
    pub fn request(&self, trace: impl FnOnce() -> Option<TraceContext>) -> Option<RequestSpan> {
        self.inner.as_ref()?;
        let begun = self.publish(&mut trace())?;
        Some(RequestSpan { spans: self.clone(), begun })
    }

    pub(crate) fn end(&self, span: Span) {
        let Some(inner) = &self.inner else { return };
        if inner.queue.try_send(span).is_err() {
            inner.metrics.span_dropped("queue-full", 1);
        }
    }
}

impl Inner {
    /// A context for one that has none, as often as is wanted.
    fn sampled(&self) -> Option<TraceContext> {
        if self.sample_per_million == 0
            || u32::from_le_bytes(token::random()) % 1_000_000 >= self.sample_per_million
        {
            return None;
        }
        let (trace_id, parent_id) = (token::random(), token::random());
        TraceContext { trace_id, parent_id, flags: 1, state: String::new() }.sound()
    }
}

/// What is said of a raise when it is over.
pub(crate) struct Published<'a> {
    pub site: &'a SiteName,
    pub service: &'a str,
    pub event: &'a str,
    /// `accepted`, `duplicate`, or the code of why it is not stored.
    pub outcome: &'a str,
    pub instance: Option<(Incarnation, u64)>,
    pub stored: bool,
}

impl Begun {
    /// The span of a raise that is over.
    pub fn published(self, what: &Published<'_>) -> Span {
        let Published { site, service, event, outcome, instance, stored } = what;
        let mut facts = vec![
            ("messaging.system", "ackord".to_owned()),
            ("messaging.operation.name", "publish".to_owned()),
            ("messaging.destination.name", (*event).to_owned()),
            ("ackord.site", site.to_string()),
            ("ackord.service", (*service).to_owned()),
            ("ackord.outcome", (*outcome).to_owned()),
        ];
        facts.extend(instance.map(|(_, id)| ("messaging.message.id", id.to_string())));
        let ended = SystemTime::now();
        let id = self.root.unwrap_or_else(|| match instance {
            Some((incarnation, id)) => publish_id(&self.trace, *incarnation, InstanceId(*id)),
            None => token::random(),
        });
        Span {
            // The answer leaves with the commit; what was refused was committed nowhere.
            moments: if *stored { vec![("committed", ended)] } else { Vec::new() },
            failed: (!*stored).then(|| (*outcome).to_owned()),
            ended,
            ..self.span(format!("publish {event}"), Work::Served, id, facts)
        }
    }

    fn span(
        self,
        name: String,
        work: Work,
        id: [u8; 8],
        facts: Vec<(&'static str, String)>,
    ) -> Span {
        let Self { trace, root, at } = self;
        let parent = if root.is_some() { [0; 8] } else { trace.parent_id };
        let TraceContext { trace_id, state, .. } = trace;
        let (moments, link, failed) = (Vec::new(), None, None);
        Span {
            name,
            work,
            trace_id,
            id,
            parent,
            state,
            link,
            begun: at,
            ended: at,
            moments,
            facts,
            failed,
        }
    }
}

/// The number of the span in which an instance was published: every node that delivers it knows it.
fn publish_id(trace: &TraceContext, incarnation: Incarnation, instance: InstanceId) -> [u8; 8] {
    let mut hash = Sha256::new_with_prefix(trace.trace_id);
    hash.update(trace.parent_id);
    hash.update(incarnation.0.to_le_bytes());
    hash.update(instance.0.to_le_bytes());
    let mut id = [0; 8];
    id.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    // Zero would be none.
    if id == [0; 8] { [1; 8] } else { id }
}

impl Broker {
    /// The raise of an event begins. Where no spans are wanted this is all there is.
    pub(crate) fn publishing(&self, event: &mut NewEvent) -> Option<Begun> {
        if !self.spans().is_on() {
            return None;
        }
        let mut trace = event.trace.as_deref().and_then(translate::trace_to_wire);
        let begun = self.spans().publish(&mut trace);
        event.trace = trace.map(translate::trace_from_wire);
        begun
    }

    pub(crate) fn published(
        &self,
        begun: Begun,
        (site, service, event): (&SiteName, &ServiceId, &str),
        result: Result<&Accepted, &Refused>,
    ) {
        let incarnation = self.read_site(site.as_str(), |site, _| site.incarnation());
        let id = result.ok().and_then(|accepted| accepted.instance_id);
        let (outcome, stored) = match result {
            Ok(accepted) if accepted.duplicate => ("duplicate", true),
            Ok(_) => ("accepted", true),
            Err((code, _)) => (code.as_str(), false),
        };
        let service = service.as_str();
        let instance = incarnation.zip(id);
        let published = Published { site, service, event, outcome, instance, stored };
        self.spans().end(begun.published(&published));
    }
}

/// A request that is being answered.
pub struct RequestSpan {
    spans: Spans,
    begun: Begun,
}

impl RequestSpan {
    /// It was answered.
    pub fn answered(self, method: &str, route: &str, status: u16) {
        let facts = vec![
            ("http.request.method", method.to_owned()),
            ("http.route", route.to_owned()),
            ("http.response.status_code", status.to_string()),
        ];
        let id = self.begun.root.unwrap_or_else(token::random);
        let name = format!("{method} {route}");
        let span = self.begun.span(name, Work::Served, id, facts);
        let failed = (status >= 500).then(|| status.to_string());
        self.spans.end(Span { ended: SystemTime::now(), failed, ..span });
    }
}
