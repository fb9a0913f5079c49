//! Spans of a real broker, as a collector takes them: OTLP over HTTP, protobuf.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

use crate::support::{Broker, run};

/// How long something may take that happens by itself.
const LIMIT: Duration = Duration::from_secs(30);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector on a port of this machine.
#[derive(Clone, Default)]
struct Collector {
    taken: Arc<(Mutex<Vec<Span>>, Condvar)>,
}

impl Collector {
    /// Starts one; its address.
    fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let taking = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let taking = taking.clone();
                std::thread::spawn(move || taking.serve(stream));
            }
        });
        (collector, url)
    }

    fn serve(&self, stream: TcpStream) {
        let mut answers = stream.try_clone().unwrap();
        let mut requests = BufReader::new(stream);
        loop {
            let (mut length, mut head) = (0, Vec::new());
            loop {
                let mut line = String::new();
                if requests.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                let line = line.trim().to_ascii_lowercase();
                if let Some(given) = line.strip_prefix("content-length:") {
                    length = given.trim().parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
                head.push(line);
            }
            assert_eq!(head[0], "post /v1/traces http/1.1");
            assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
            let mut body = vec![0; length];
            requests.read_exact(&mut body).unwrap();
            let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
            let mut taken = self.taken.0.lock().unwrap();
            for resource in request.resource_spans {
                let of = &resource.resource.as_ref().unwrap().attributes;
                assert!(of.iter().any(|attribute| attribute.key == "service.name"));
                taken.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
            self.taken.1.notify_all();
            drop(taken);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
            if answers.write_all(answer).is_err() {
                return;
            }
        }
    }

    /// Waits until it has so many spans; all of them.
    fn wait_for(&self, count: usize) -> Vec<Span> {
        let (taken, came) = &*self.taken;
        let taken = taken.lock().unwrap();
        let few = |taken: &mut Vec<Span>| taken.len() < count;
        let (taken, result) = came.wait_timeout_while(taken, LIMIT, few).unwrap();
        assert!(!result.timed_out(), "{count} spans, was {}: {taken:#?}", taken.len());
        taken.clone()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fact<'a>(span: &'a Span, name: &str) -> &'a str {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let found = span.attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|found| found.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{name}: {other:?} of {span:#?}"),
    }
}

/// A request to a broker; the status and the body.
fn ask(broker: &Broker, method: &str, path: &str, more: &str, body: &str) -> (u16, String) {
    let address = broker.urls[0].strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    let head =
        format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n{more}");
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

fn raise(broker: &Broker, traceparent: &str) {
    let path = format!("/v1/sites/{}/events/reading", broker.site);
    let token = &broker.service_token;
    let more = format!("authorization: Bearer {token}\r\ntraceparent: {traceparent}\r\n");
    let (status, answer) = ask(broker, "POST", &path, &more, "{\"n\":1}");
    assert_eq!(status, 200, "{answer}");
}

/// Waits until a metric has a line that begins like this and is above zero.
fn until_counted(broker: &Broker, line: &str) {
    let begun = Instant::now();
    loop {
        let (_, page) = ask(broker, "GET", "/metrics", "", "");
        let counts = |it: &str| it.strip_prefix(line).is_some_and(|rest| rest.trim() != "0");
        if page.lines().any(counts) {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "no {line} in {page}");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_raised_in_a_recorded_trace_gives_spans_of_publishing_and_delivering_and_nothing_else_does()
 {
    let (collector, url) = Collector::start();
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["--set", &format!("otel.endpoint={url}")]);
    // Not recorded, no context, none at all; then one over HTTP and one by a session.
    raise(&broker, &format!("00-{}-{PARENT}-00", "1".repeat(32)));
    raise(&broker, "nonsense");
    raise(&broker, &format!("00-{TRACE}-{PARENT}-01"));
    let other = "a".repeat(32);
    let parent = format!("00-{other}-{PARENT}-01");
    broker.raise(&["reading", "--args", "2", "--traceparent", &parent], "").expect(0);
    let lines = broker.subscribe(&["reading", "--count", "4"]).expect(0).lines();
    assert_eq!(lines[2]["traceparent"], format!("00-{TRACE}-{PARENT}-01"));
    assert_eq!(lines[3]["traceparent"], parent.as_str());

    let spans = collector.wait_for(4);
    assert_eq!(spans.len(), 4, "{spans:#?}");
    for (trace, line) in [(TRACE, &lines[2]), (&*other, &lines[3])] {
        let of_trace: Vec<&Span> =
            spans.iter().filter(|span| hex(&span.trace_id) == trace).collect();
        let named = |name: &str| {
            let found = of_trace.iter().find(|span| span.name == name);
            *found.unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
        };
        let (publish, deliver) = (named("publish reading"), named("deliver reading"));
        for span in [publish, deliver] {
            assert_eq!(hex(&span.parent_span_id), PARENT);
            assert_eq!(fact(span, "ackord.site"), broker.site);
            assert_eq!(fact(span, "messaging.message.id"), line["instance_id"].to_string());
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        }
        assert_eq!((publish.kind(), deliver.kind()), (SpanKind::Server, SpanKind::Producer));
        assert_eq!(fact(publish, "ackord.outcome"), "accepted");
        assert_eq!(fact(deliver, "ackord.client"), broker.client_id);
        assert_eq!(deliver.links[0].span_id, publish.span_id);
        let moments: Vec<&str> = deliver.events.iter().map(|event| &*event.name).collect();
        assert_eq!(moments, ["acknowledged", "committed"]);
    }
    // A request of the administration, in a trace and in none.
    let token = format!("authorization: Bearer {}\r\n", broker.admin_token);
    let traced = format!("{token}traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    assert_eq!(ask(&broker, "GET", "/v1/sites", &token, "").0, 200);
    assert_eq!(ask(&broker, "GET", "/v1/sites", &traced, "").0, 200);
    let spans = collector.wait_for(5);
    assert_eq!(spans.len(), 5, "{spans:#?}");
    assert_eq!(fact(&spans[4], "http.request.method"), "GET");
    assert_eq!(fact(&spans[4], "http.response.status_code"), "200");
    assert_eq!(hex(&spans[4].parent_span_id), PARENT);
}

#[test]
fn an_event_without_a_context_begins_a_trace_as_often_as_is_asked_for() {
    let (collector, url) = Collector::start();
    let dir = tempfile::tempdir().unwrap();
    let set = format!("otel.endpoint={url}");
    let all = ["--set", &set, "--set", "otel.sample_per_million=1000000"];
    let broker = Broker::start(dir.path(), &all);
    raise(&broker, "");
    broker.raise(&["reading", "--args", "2"], "").expect(0);
    let lines = broker.subscribe(&["reading", "--count", "2"]).expect(0).lines();
    let spans = collector.wait_for(4);
    for line in &lines {
        let context = line["traceparent"].as_str().unwrap();
        let of = |name: &str| {
            let found =
                spans.iter().find(|it| it.name == name && hex(&it.trace_id) == context[3..35]);
            found.unwrap_or_else(|| panic!("no {name} of {context} in {spans:#?}"))
        };
        let (publish, deliver) = (of("publish reading"), of("deliver reading"));
        assert_eq!(publish.parent_span_id, [0_u8; 0], "it begins its trace");
        assert_eq!(hex(&publish.span_id), context[36..52]);
        assert_eq!(deliver.parent_span_id, publish.span_id);
    }
}

#[test]
fn a_collector_that_is_away_or_slow_costs_spans_and_no_event() {
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap();
    let away = format!("otel.endpoint=http://{}", refusing.local_addr().unwrap());
    drop(refusing);
    // Takes connections and answers nothing.
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("otel.endpoint=http://{}", slow.local_addr().unwrap());
    for (endpoint, reason) in [(away, "collector"), (silent, "queue-full")] {
        let dir = tempfile::tempdir().unwrap();
        let set = ["--set", &endpoint, "--set", "otel.queue_max=1"];
        let broker = Broker::start(dir.path(), &set);
        let line = format!("ackord_spans_dropped_total{{reason=\"{reason}\"}}");
        let parent = format!("00-{TRACE}-{PARENT}-01");
        for _ in 0..600 {
            raise(&broker, &parent);
        }
        until_counted(&broker, &line);
        let lines = broker.subscribe(&["reading", "--count", "600"]).expect(0).lines();
        assert_eq!(lines.len(), 600);
        let (code, _) = broker.stop("TERM");
        assert_eq!(code, Some(0), "a collector keeps nobody from stopping");
    }
}

#[test]
fn an_address_that_is_none_is_a_wrong_configuration() {
    for wrong in
        ["collector:4318", "ftp://collector", "http://", "http://user:secret@collector:4318"]
    {
        let set = format!("otel.endpoint={wrong}");
        let ended = run(&["dev", "--set", &set]).expect(2);
        assert!(
            ended.err.contains("otel.endpoint") && !ended.err.contains("secret"),
            "{}",
            ended.err
        );
    }
}
