//! The way of spans to the collector: OTLP over HTTP, protobuf, from a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::mpsc;

use super::{Span, Work};
use crate::metrics::Metrics;

/// Spans of one request.
const BATCH_MAX: usize = 512;
/// How long the first span of a request may wait for others.
const GATHER: Duration = Duration::from_millis(500);
/// Where traces are taken, below the address of a collector.
const TRACES_PATH: &str = "v1/traces";

/// The address that spans are sent to.
pub(super) fn address(endpoint: &str) -> Result<reqwest::Url, String> {
    let base = reqwest::Url::parse(endpoint).map_err(|error| error.to_string())?;
    if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
        return Err("must be http://HOST[:PORT] or https://HOST[:PORT]".to_owned());
    }
    if !base.username().is_empty() || base.password().is_some() {
        // It would stand in the log with every failure.
        return Err("must have no user and password".to_owned());
    }
    let whole = format!("{}/{TRACES_PATH}", base.as_str().trim_end_matches('/'));
    reqwest::Url::parse(&whole).map_err(|error| error.to_string())
}

/// Starts the thread that exports; it ends when nobody can send spans any more.
pub(super) fn start(
    endpoint: &str,
    timeout: Duration,
    node: u64,
    metrics: Arc<Metrics>,
    waiting: mpsc::Receiver<Span>,
) -> Result<(), String> {
    let address = address(endpoint)?;
    let client = reqwest::Client::builder()
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(address.as_str())
        .with_timeout(timeout)
        .build()
        .map_err(|error| error.to_string())?;
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "ackord"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.to_string()),
        ])
        .build();
    exporter.set_resource(&resource);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let run = move || runtime.block_on(export(exporter, metrics, waiting));
    let thread = std::thread::Builder::new().name("ackord-spans".to_owned()).spawn(run);
    thread.map(drop).map_err(|error| error.to_string())
}

async fn export(exporter: SpanExporter, metrics: Arc<Metrics>, mut waiting: mpsc::Receiver<Span>) {
    let mut failing = false;
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let until = tokio::time::Instant::now() + GATHER;
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            match tokio::time::timeout_at(until, waiting.recv_many(&mut batch, room)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let count = batch.len() as u64;
        let spans = batch.drain(..).map(span_data).collect();
        match exporter.export(spans).await {
            Ok(()) => {
                metrics.spans_exported.inc_by(count);
                failing = false;
            }
            Err(error) => {
                metrics.span_dropped("collector", count);
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the collector takes no spans: they are dropped");
                }
            }
        }
    }
}

fn span_data(span: Span) -> SpanData {
    let Span { trace_id, id, parent, state, link, .. } = span;
    let trace_id = TraceId::from_bytes(trace_id);
    // What was checked when it came in is a list of entries.
    let state: TraceState = state.parse().unwrap_or_default();
    let context = |id: [u8; 8], remote: bool| {
        let id = SpanId::from_bytes(id);
        SpanContext::new(trace_id, id, TraceFlags::SAMPLED, remote, state.clone())
    };
    let mut events = SpanEvents::default();
    let moment = |(name, at): &(&'static str, _)| Event::new(*name, *at, Vec::new(), 0);
    events.events = span.moments.iter().map(moment).collect();
    let mut links = SpanLinks::default();
    links.links = link.map(|id| Link::new(context(id, true), Vec::new(), 0)).into_iter().collect();
    SpanData {
        span_context: context(id, false),
        parent_span_id: SpanId::from_bytes(parent),
        parent_span_is_remote: true,
        span_kind: match span.work {
            Work::Served => SpanKind::Server,
            Work::Sent => SpanKind::Producer,
        },
        name: span.name.into(),
        start_time: span.begun,
        end_time: span.ended,
        attributes: span
            .facts
            .into_iter()
            .map(|(name, value)| KeyValue::new(name, value))
            .collect(),
        dropped_attributes_count: 0,
        events,
        links,
        status: span.failed.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("ackord").build(),
    }
}
