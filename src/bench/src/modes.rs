//! What each delivery mode comes to over each transport: one subscription, one publisher.
//!
//! `paced raises ─▶ latency`, then `as many raises as the publisher can ─▶ deliveries per second`
//!
//! In the second part a subscription that is slower than the publisher has its oldest events evicted, as in
//! life; what is counted is what arrived.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ackord_endpoint::{
    ClientEndpoint, ClientLevel, Delivery, Event, HandlerError, Mode, Payload, ServiceEndpoint,
    Subscription,
};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::callback::{Callback, Manner};
use crate::error::Error;
use crate::ground::{self, Account, Ground, Kind};
use crate::latency::Recorder;
use crate::meter::Moment;
use crate::options::{Options, Workload};
use crate::publish::{self, EVENT};
use crate::report::{Figures, ModeFigures, Report};
use crate::verify::Checks;

/// Instances that the queue keeps.
const QUEUE_SIZE: u32 = 1000;
/// Raises of the paced part.
const PACE: Duration = Duration::from_millis(10);
/// From a change to the measurement.
const WARM_UP: Duration = Duration::from_millis(300);
/// Of `twoway`.
const WINDOW: u32 = 64;
/// Of `batch`.
const FLUSH_MS: u32 = 20;
/// How long an endpoint may take to close, and the last event to arrive.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// The parts that the time is shared out over.
const PARTS: u32 = 2 * ROWS.len() as u32;

/// How events get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    WebSocket,
    Push,
    Udp,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Push => "push",
            Self::Udp => "udp",
        }
    }
}

const ROWS: [(Transport, Mode); 11] = [
    (Transport::WebSocket, Mode::Ordered),
    (Transport::WebSocket, Mode::Twoway),
    (Transport::WebSocket, Mode::Oneway),
    (Transport::WebSocket, Mode::Batch),
    (Transport::WebSocket, Mode::Datagram),
    (Transport::Push, Mode::Ordered),
    (Transport::Push, Mode::Twoway),
    (Transport::Push, Mode::Oneway),
    (Transport::Push, Mode::Batch),
    (Transport::Udp, Mode::Datagram),
    (Transport::Udp, Mode::Batch),
];

/// What has arrived.
struct Inner {
    latency: Recorder,
    timed: u64,
    counted: u64,
    /// What arrives in between is counted.
    between: Option<(Instant, Instant)>,
}

/// Where arrivals are noted.
#[derive(Clone)]
struct Heard {
    epoch: Instant,
    inner: Arc<Mutex<Inner>>,
}

impl Heard {
    fn new() -> Self {
        let inner = Inner { latency: Recorder::new(), timed: 0, counted: 0, between: None };
        Self { epoch: Instant::now(), inner: Arc::new(Mutex::new(inner)) }
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// One event, with when it was raised where it says so.
    fn note(&self, sent_us: Option<u64>) {
        let (now, now_us) = (Instant::now(), self.now_us());
        let mut inner = self.locked();
        match sent_us {
            Some(sent_us) => {
                inner.latency.record(Duration::from_micros(now_us.saturating_sub(sent_us)));
                inner.timed += 1;
            }
            None => {
                let counts = inner.between.is_some_and(|(from, to)| from <= now && now < to);
                inner.counted += u64::from(counts);
            }
        }
    }

    /// The frames of a request or a packet: one, or a list.
    fn note_frames(&self, body: &Value) {
        match body {
            Value::Array(frames) => frames.iter().for_each(|frame| self.note_frames(frame)),
            frame => self.note(frame["event"]["args"]["sent_us"].as_u64()),
        }
    }
}

/// Whoever receives; it ends when it is closed.
enum Receiver {
    Client(ClientEndpoint),
    Callback(Callback),
    Socket(JoinHandle<()>),
}

pub(crate) async fn run<G: Ground>(ground: &G, options: &Options) -> Result<Report, Error> {
    let start = Moment::now(ground).await?;
    let (mut modes, mut all, mut events) = (Vec::new(), Recorder::new(), 0);
    let mut checks = Checks::default();
    for (transport, mode) in ROWS {
        ground.progress(&format!("{} {}", transport.name(), mode.as_str()));
        let (figures, latency, wrong) = measure(ground, options, transport, mode).await?;
        events += figures.delivered;
        all.add(&latency);
        modes.push(figures);
        let what = format!("{} {}: what was paced arrived", transport.name(), mode.as_str());
        checks.check(&what, wrong.into_iter().collect());
    }
    let end = Moment::now(ground).await?;
    let seconds = part(options).as_secs_f64() * ROWS.len() as f64;
    let mut report = Report::new(Workload::Modes, options, end.nodes(), seconds).events(events);
    report.sizes = json!({
        "window": options.window, "size": options.size, "twoway_window": WINDOW, "flush_ms": FLUSH_MS,
    });
    report.latency = Some(all.report());
    report.figures = Some(Figures::Modes { modes });
    end.used(&start, &mut report);
    checks.found(&mut report);
    Ok(report)
}

/// How long is measured at a time.
fn part(options: &Options) -> Duration {
    options.time / PARTS
}

async fn measure<G: Ground>(
    ground: &G,
    options: &Options,
    transport: Transport,
    mode: Mode,
) -> Result<(ModeFigures, Recorder, Option<String>), Error> {
    let sites = ground::sites(1);
    let structure = publish::structure(&[EVENT.to_owned()], QUEUE_SIZE)?;
    ground.make_site(&sites[0], &structure).await.map_err(Error::Ground)?;
    let publishers = ground::accounts(ground, &sites, Kind::Service, 1).await?;
    let clients = ground::accounts(ground, &sites, Kind::Client, 1).await?;
    let [publisher, client] = [&publishers[0], &clients[0]];
    let service = publish::publisher(ground.urls(), ground.roots_pem(), publisher, options).await?;
    let heard = Heard::new();
    let receiver = receive(ground, client, transport, mode, &heard).await?;
    tokio::time::sleep(WARM_UP).await;

    let raised = pace(&service, &heard, part(options)).await?;
    let arrived = until_arrived(&heard, raised).await;
    let from = Instant::now() + WARM_UP;
    let to = from + part(options);
    heard.locked().between = Some((from, to));
    let saturated =
        publish::raise_all(&service, EVENT, 0, options, from, Some(to), u64::MAX).await?;

    service.close_within(CLOSE_MAX).await;
    match receiver {
        Receiver::Client(client) => {
            client.close_within(Duration::ZERO).await;
        }
        Receiver::Callback(callback) => drop(callback),
        Receiver::Socket(listening) => listening.abort(),
    }
    ground.remove_site(&sites[0]).await.map_err(Error::Ground)?;
    let seconds = part(options).as_secs_f64();
    let inner = heard.locked();
    let lossless = mode != Mode::Datagram && transport != Transport::Udp;
    let wrong = (arrived == 0 || (lossless && arrived < raised))
        .then(|| format!("{arrived} of {raised} events arrived"));
    let figures = ModeFigures {
        transport: transport.name(),
        mode: mode.as_str(),
        latency: inner.latency.report(),
        raised_per_s: saturated.measured as f64 / seconds,
        delivered: inner.counted,
        delivered_per_s: inner.counted as f64 / seconds,
    };
    Ok((figures, inner.latency.clone(), wrong))
}

/// One event after the other, at equal times; how many.
async fn pace(service: &ServiceEndpoint, heard: &Heard, time: Duration) -> Result<u64, Error> {
    let until = Instant::now() + time;
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut raised = Vec::new();
    // One at least, however short the time is.
    loop {
        ticks.tick().await;
        let payload = Payload::json(format!("{{\"sent_us\":{}}}", heard.now_us()));
        let event = Event::new(EVENT, Some(payload));
        let handed = service.enqueue(event).await;
        raised.push(handed.map_err(|error| Error::Endpoint(error.to_string()))?);
        if Instant::now() >= until {
            break;
        }
    }
    let count = raised.len() as u64;
    for raised in raised {
        raised.await.map_err(|error| Error::Endpoint(error.to_string()))?;
    }
    Ok(count)
}

/// Waits until what was paced has arrived, or may not come any more; how much has.
async fn until_arrived(heard: &Heard, raised: u64) -> u64 {
    let until = Instant::now() + CLOSE_MAX;
    let mut ticks = tokio::time::interval(PACE);
    loop {
        ticks.tick().await;
        let arrived = heard.locked().timed;
        if arrived >= raised || Instant::now() >= until {
            return arrived;
        }
    }
}

async fn receive<G: Ground>(
    ground: &G,
    account: &Account,
    transport: Transport,
    mode: Mode,
    heard: &Heard,
) -> Result<Receiver, Error> {
    let settings = |mut body: Value| {
        let own = json!({
            "client": account.id, "event": EVENT, "mode": mode.as_str(), "retry_count": -1,
            "start": "latest",
        });
        for (name, value) in own.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        match mode {
            Mode::Twoway => body["window"] = WINDOW.into(),
            Mode::Batch => body["flush_ms"] = FLUSH_MS.into(),
            Mode::Ordered | Mode::Oneway | Mode::Datagram => {}
        }
        body
    };
    let unable = |error: std::io::Error| Error::Endpoint(format!("no receiver: {error}"));
    match transport {
        Transport::WebSocket => {
            client(ground, account, mode, heard.clone()).await.map(Receiver::Client)
        }
        Transport::Push => {
            let noted = heard.clone();
            let note = move |body: &Value| noted.note_frames(body);
            let callback = Callback::noting(Manner::Answers, note).await?;
            let body = settings(json!({"url": callback.url}));
            ground.push(&account.site, "bench", Some(&body)).await.map_err(Error::Ground)?;
            Ok(Receiver::Callback(callback))
        }
        Transport::Udp => {
            let socket = UdpSocket::bind("127.0.0.1:0").await.map_err(unable)?;
            let address = socket.local_addr().map_err(unable)?.to_string();
            let body = settings(json!({"udp": {"address": address}}));
            ground.push(&account.site, "bench", Some(&body)).await.map_err(Error::Ground)?;
            let heard = heard.clone();
            Ok(Receiver::Socket(tokio::spawn(async move {
                let mut packet = vec![0; 1 << 16];
                while let Ok(length) = socket.recv(&mut packet).await {
                    if let Ok(body) = serde_json::from_slice(&packet[..length]) {
                        heard.note_frames(&body);
                    }
                }
            })))
        }
    }
}

async fn client<G: Ground>(
    ground: &G,
    account: &Account,
    mode: Mode,
    heard: Heard,
) -> Result<ClientEndpoint, Error> {
    let subscription = Subscription::new(EVENT).latest();
    let subscription = match mode {
        Mode::Twoway => subscription.twoway(WINDOW),
        Mode::Batch => subscription.batch(Duration::from_millis(u64::from(FLUSH_MS))),
        Mode::Ordered | Mode::Oneway | Mode::Datagram => subscription.mode(mode),
    };
    let handler = move |delivery: Delivery| {
        let sent = delivery.payload.filter(|payload| payload.content_type == "application/json");
        let sent = sent.and_then(|payload| serde_json::from_slice::<Value>(&payload.data).ok());
        heard.note(sent.and_then(|sent| sent["sent_us"].as_u64()));
        async { Ok::<(), HandlerError>(()) }
    };
    let mut builder = ClientEndpoint::builder()
        .site(account.site.clone())
        .token(Some(account.token.clone()))
        .persistence(ClientLevel::Memory);
    for url in ground.urls() {
        builder = builder.url(url.clone());
    }
    if let Some(roots) = ground.roots_pem() {
        builder = builder.tls_roots_pem(roots);
    }
    let started = builder.subscribe(subscription, handler).start().await;
    started.map_err(|error| Error::Endpoint(error.to_string()))
}
