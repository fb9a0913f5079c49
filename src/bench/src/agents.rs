//! Agents without sockets: what one costs when nothing of a connection is counted, beyond the number of
//! files that a process may have open.
//!
//! `one process: node, broker ◀─ frames in memory ─▶ agents (a stateless guest with one subscription each)`
//!
//! Then one event goes to all of them, each acknowledges it, and the broker confirms each.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ackord_agents::{Broker, Connection, Inbound, Outbound, Said, Transport, outbox};
use ackord_wire::Codec;
use ackord_wire::frame::{
    Ack, ClientFrame, ClientHello, ClientMessage, Subscription, SubscriptionList,
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::json;

use crate::error::Error;
use crate::ground::{self, Ground, Kind};
use crate::latency::Recorder;
use crate::meter::{self, Moment};
use crate::options::{Options, Workload};
use crate::publish::{self, EVENT};
use crate::report::{Figures, Idle, Report};
use crate::verify::{Checks, count};

/// How long all agents may take to be subscribed, or to be handed the event.
const ALL_MAX: Duration = Duration::from_secs(300);
/// Agents that are opened before those that were opened before are looked at.
const AT_ONCE: usize = 1000;
/// Messages that an outbox holds, as a WebSocket's.
const OUTBOX: usize = 8;
/// Between two looks at all agents.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How long it is waited for what comes again.
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// How long the publisher may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// What one agent is sent: its next frames, and who waits for them.
#[derive(Default)]
struct Line {
    frames: Vec<Bytes>,
    waker: Option<Waker>,
}

/// The far end of one agent.
struct Peer {
    line: Rc<RefCell<Line>>,
    said: Said,
    is_subscribed: bool,
    handed: u32,
    confirmed: u32,
}

impl Peer {
    fn open(broker: &Broker, site: &str) -> Self {
        let hello = Codec::Cbor.encode(&ClientFrame::Hello(ClientHello::default()));
        let line = Rc::new(RefCell::new(Line { frames: vec![hello.into()], waker: None }));
        let (outbox, said) = outbox(OUTBOX);
        let connection = Connection {
            site: site.into(),
            principal: None,
            token: None,
            expires_ms: None,
            codec: Codec::Cbor,
            outbox,
            transport: Transport::WebSocket,
            peer: "bench".into(),
        };
        let reading = line.clone();
        let frames = stream::poll_fn(move |context: &mut Context<'_>| {
            let mut line = reading.borrow_mut();
            if line.frames.is_empty() {
                line.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Some(Inbound::Frame(line.frames.remove(0))))
        });
        broker.open_client(connection, frames);
        Self { line, said, is_subscribed: false, handed: 0, confirmed: 0 }
    }

    fn send(&self, frame: &ClientFrame) {
        let mut line = self.line.borrow_mut();
        line.frames.push(Codec::Cbor.encode(frame).into());
        if let Some(waker) = line.waker.take() {
            waker.wake();
        }
    }

    /// Takes in what the agent has said; acknowledges what it hands over.
    fn look(&mut self, begun: Instant, latency: &mut Recorder) -> Result<(), Error> {
        while let Some(outbound) = self.said.try_next() {
            let (Outbound::Frame(frame) | Outbound::Receipted(frame, _)) = outbound else {
                continue;
            };
            let message = Codec::Cbor.decode::<ClientMessage>(&frame);
            match message.map_err(|error| Error::Endpoint(error.to_string()))? {
                ClientMessage::Subscribed(_) => self.is_subscribed = true,
                ClientMessage::Event(event) => {
                    self.handed += 1;
                    latency.record(begun.elapsed());
                    self.send(&ClientFrame::Ack(Ack {
                        subscription: event.subscription,
                        instance_id: event.instance_id,
                        generation: Some(event.generation),
                    }));
                }
                ClientMessage::Committed(_) => self.confirmed += 1,
                ClientMessage::Closing(closing) => {
                    return Err(Error::Endpoint(format!("an agent closes: {closing:?}")));
                }
                ClientMessage::Welcome(_) => {
                    let event = EVENT.to_owned();
                    let items = vec![Subscription { event, ..Subscription::default() }];
                    self.send(&ClientFrame::Subscriptions(SubscriptionList { items }));
                }
                ClientMessage::Events(_)
                | ClientMessage::Authority { .. }
                | ClientMessage::Presence(_) => {}
            }
        }
        Ok(())
    }
}

/// Looks at all of them until a condition holds of each.
async fn until(
    peers: &mut [Peer],
    begun: Instant,
    latency: &mut Recorder,
    holds: impl Fn(&Peer) -> bool,
) -> Result<(), Error> {
    let since = Instant::now();
    loop {
        for peer in peers.iter_mut() {
            peer.look(begun, latency)?;
        }
        let left = peers.iter().filter(|peer| !holds(peer)).count();
        if left == 0 {
            return Ok(());
        }
        if since.elapsed() > ALL_MAX {
            return Err(Error::Stuck(format!("{left} agents are not done")));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Measures `options.agents` agents of a broker in this very process. Runs on an arbiter, which all
/// agents share.
///
/// # Errors
/// As [`crate::run`].
pub async fn agents<G: Ground>(
    broker: &Broker,
    ground: &G,
    options: &Options,
) -> Result<Report, Error> {
    options.judge(Workload::Idle)?;
    let own = [std::process::id()];
    let sites = ground::sites(1);
    let structure = publish::structure(&[EVENT.to_owned()], 10)?;
    ground.make_site(&sites[0], &structure).await.map_err(Error::Ground)?;
    let services = ground::accounts(ground, &sites, Kind::Service, 1).await?;
    let mut latency = Recorder::new();
    let total = options.agents as usize;
    let mut peers: Vec<Peer> = Vec::with_capacity(total);
    let few = meter::resident(&own);
    while peers.len() < total {
        let next = (peers.len() + AT_ONCE).min(total);
        let from = peers.len();
        peers.extend((from..next).map(|_| Peer::open(broker, &sites[0])));
        until(&mut peers[from..], Instant::now(), &mut latency, |peer| peer.is_subscribed).await?;
    }
    let full = meter::resident(&own);
    let before = Moment::now(ground).await?;
    tokio::time::sleep(options.time).await;
    let after = Moment::now(ground).await?;
    let service =
        publish::publisher(ground.urls(), ground.roots_pem(), &services[0], options).await?;
    let begun = Instant::now();
    publish::raise_all(&service, EVENT, 0, options, begun, None, 1).await?;
    until(&mut peers, begun, &mut latency, |peer| peer.confirmed > 0).await?;
    let seconds = begun.elapsed().as_secs_f64();
    // Whatever comes again comes now.
    tokio::time::sleep(options.time.min(AGAIN_MAX)).await;
    for peer in &mut peers {
        peer.look(begun, &mut latency)?;
    }
    service.close_within(CLOSE_MAX).await;
    let mut checks = Checks::default();
    let sum = |of: fn(&Peer) -> u32| peers.iter().map(|peer| u64::from(of(peer))).sum::<u64>();
    let handed = sum(|peer| peer.handed);
    count(&mut checks.counts.acked, 1);
    count(&mut checks.counts.received, handed);
    if options.verify {
        let missing = peers.iter().filter(|peer| peer.handed == 0).count() as u64;
        let again = sum(|peer| peer.handed.saturating_sub(1));
        count(&mut checks.counts.lost, missing);
        count(&mut checks.counts.duplicated, again);
        let wrong =
            (missing + again > 0).then(|| format!("{missing} missed it, {again} had it again"));
        checks.check("every agent handed the event over once", wrong.into_iter().collect());
    }
    let mut report = Report::new(Workload::Idle, options, after.nodes(), seconds).events(handed);
    report.sizes = json!({"agents": options.agents, "idle_seconds": options.time.as_secs_f64()});
    report.latency = Some(latency.report());
    let each = few.zip(full).map(|(few, full)| (full as f64 - few as f64) / total as f64 / 1024.0);
    report.figures = Some(Figures::Idle(Idle {
        kib_per_subscriber: each,
        idle_cores: after.own_cpu_s(&before).map(|cpu_s| cpu_s / options.time.as_secs_f64()),
        all_confirmed_s: seconds,
        rss_bytes: full,
    }));
    checks.found(&mut report);
    Ok(report)
}
