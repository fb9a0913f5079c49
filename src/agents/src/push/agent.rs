//! The agent of one push subscription: carries out what its lane asks for and decides nothing.
//!
//! Invariant: ending it, for whatever reason, drops what is under way; what that came to is found out
//! by the next agent, under the same keys.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ackord_machine::session::{
    Failed, Over as Ended, PushAnswer, PushLane, PushOutput, PushRequest, STALE_MS, Token, View,
};
use ackord_machine::site::{
    Command, Mode, Outcome, PushId, PushState, PushTarget, SiteName, Trouble,
};
use ackord_replica::PartitionHandle;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::Pushes;
use super::callback::{Call, Over, Unanswered, host_of};
use super::encode;
use crate::broker::session_id;
use crate::translate;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What an agent is told by what it waits for.
enum Told {
    Answer(Token, PushAnswer),
    Outcome(Token, Result<Outcome, Failed>),
}

/// What an agent is started with.
pub(crate) struct PushAgent {
    pub pushes: Arc<Pushes>,
    pub partition: PartitionHandle,
    pub site: SiteName,
    pub id: PushId,
    /// The clock of the deadlines.
    pub origin: Instant,
    /// Rung when something of its site changed.
    pub wake: Arc<Notify>,
    pub stopping: watch::Receiver<bool>,
}

impl PushAgent {
    /// Serves the subscription until it is gone, another agent has attached, or the node stops.
    pub async fn run(self) {
        let berth = self.pushes.enter(&self.site, &self.id);
        let over = self.serve(&berth.count).await;
        tracing::debug!(site = %self.site, push = %self.id, ?over, "a push agent ends");
    }

    async fn serve(&self, in_flight: &AtomicUsize) -> Option<Ended> {
        let mut lane = PushLane::new(self.site.clone(), self.id.clone(), session_id());
        let mut waiting: FuturesUnordered<Boxed<Told>> = FuturesUnordered::new();
        let mut stopping = self.stopping.clone();
        let (mut out, mut ended, mut stopped) = (Vec::new(), self.ended().is_some(), false);
        self.look(|view| lane.on_wake(view, &mut out));
        loop {
            while !out.is_empty() {
                for output in std::mem::take(&mut out) {
                    match output {
                        PushOutput::Request { token, request } => {
                            self.send(token, request, &waiting);
                        }
                        PushOutput::Propose { token, command } => {
                            if let Err(failed) = self.propose(token, command, &waiting) {
                                let failed = Err(failed);
                                self.look(|view| lane.on_outcome(token, failed, view, &mut out));
                            }
                        }
                        PushOutput::Over(over) => return Some(over),
                    }
                }
            }
            in_flight.store(lane.in_flight(), Ordering::Relaxed);
            if lane.is_done() {
                return None;
            }
            let deadline = lane.next_deadline().map(|ms| self.origin + Duration::from_millis(ms));
            let timer = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The stop comes first: of what is ready together with it nothing leads to another
                // request.
                biased;
                _ = stopping.wait_for(|stopping| *stopping), if !stopped => {
                    stopped = true;
                    lane.stop();
                }
                Some(told) = waiting.next() => match told {
                    Told::Answer(token, answer) => {
                        self.look(|view| lane.on_answer(token, answer, view, &mut out));
                    }
                    Told::Outcome(token, result) => {
                        self.look(|view| lane.on_outcome(token, result, view, &mut out));
                        ended = self.note_end(ended);
                    }
                },
                () = self.wake.notified() => {
                    self.look(|view| lane.on_wake(view, &mut out));
                    ended = self.note_end(ended);
                }
                () = timer => self.look(|view| lane.on_time(view, &mut out)),
            }
        }
    }

    fn look(&self, look: impl FnOnce(View<'_>)) {
        look_at(&self.partition, &self.site, self.origin, look);
    }

    fn propose(
        &self,
        token: Token,
        command: Command,
        waiting: &FuturesUnordered<Boxed<Told>>,
    ) -> Result<(), Failed> {
        let pending = self.partition.try_propose(command).map_err(translate::failed)?;
        waiting.push(Box::pin(async move {
            Told::Outcome(token, pending.await.map_err(translate::failed))
        }));
        Ok(())
    }

    /// Why the subscription ended by itself, if it did.
    fn ended(&self) -> Option<Trouble> {
        self.partition.read(|state| {
            match state.site(self.site.as_str())?.push(self.id.as_str())?.state {
                PushState::Cancelled { because, .. } => Some(because),
                PushState::Active
                | PushState::Offline { .. }
                | PushState::Probing
                | PushState::Paused => None,
            }
        })
    }

    /// Tells of an end that was not there at the last look; whether there is one now.
    fn note_end(&self, before: bool) -> bool {
        let ended = self.ended();
        if let Some(because) = ended.filter(|_| !before) {
            self.pushes.metrics.push_cancelled(because);
            tracing::warn!(site = %self.site, push = %self.id, %because, "subscription-cancelled");
        }
        ended.is_some()
    }

    /// Starts a request; what became of it is told later.
    fn send(
        &self,
        token: Token,
        request: Box<PushRequest>,
        waiting: &FuturesUnordered<Boxed<Told>>,
    ) {
        let (pushes, partition) = (self.pushes.clone(), self.partition.clone());
        let site = self.site.clone();
        let look = Look { partition: partition.clone(), site: site.clone(), origin: self.origin };
        let PushTarget::Http { .. } = request.spec.target else {
            waiting.push(Box::pin(async move {
                Told::Answer(token, datagrams(&pushes, &partition, &site, &request).await)
            }));
            return;
        };
        let (mode, count) = (request.spec.quality.mode, request.parcels.len() as u64);
        let (written, taken) = oneshot::channel();
        let is_oneway = mode == Mode::Oneway;
        let told = is_oneway.then_some(written);
        let metrics = pushes.clone();
        for parcel in request.parcels.iter().filter(|parcel| parcel.attempt == 1) {
            pushes.metrics.delivery.observe(parcel.age_ms as f64 / 1000.0);
        }
        let counted = move |answer: PushAnswer| {
            if answer == PushAnswer::Delivered {
                metrics.metrics.push_delivered(mode, count);
            }
            Told::Answer(token, answer)
        };
        waiting.push(Box::pin(async move { counted(call(&pushes, &look, &request, told).await) }));
        if is_oneway {
            waiting.push(Box::pin(async move {
                match taken.await {
                    Ok(()) => Told::Answer(token, PushAnswer::Written),
                    // It ended before: its own answer says how.
                    Err(_) => std::future::pending().await,
                }
            }));
        }
    }
}

/// Milliseconds since a majority confirmed that it follows this node; no confirmation of a node that
/// does not lead counts.
fn confirmed_before(partition: &PartitionHandle) -> u64 {
    if partition.leads() { partition.stale_now_ms() } else { STALE_MS }
}

/// Looks at the state as applied here, as far as it is confirmed.
fn look_at<R>(
    partition: &PartitionHandle,
    site: &SiteName,
    origin: Instant,
    look: impl FnOnce(View<'_>) -> R,
) -> R {
    let now_ms = u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (stamp, stale_ms) = (partition.now(), confirmed_before(partition));
    partition.read(|state| look(View::new(state, site, now_ms, stamp).confirmed_before(stale_ms)))
}

/// Where a request looks whether it is still wanted.
struct Look {
    partition: PartitionHandle,
    site: SiteName,
    origin: Instant,
}

impl Look {
    fn wants(&self, request: &PushRequest) -> bool {
        look_at(&self.partition, &self.site, self.origin, |view| request.is_wanted(view))
    }
}

/// Calls a callback once there is room and the node may.
async fn call(
    pushes: &Pushes,
    look: &Look,
    request: &PushRequest,
    mut written: Option<oneshot::Sender<()>>,
) -> PushAnswer {
    let PushTarget::Http { url } = &request.spec.target else { return PushAnswer::NotSent };
    let _pass = match host_of(url) {
        Some(host) => pushes.gate.pass(&look.site, &host).await,
        None => None,
    };
    let is_batch = request.spec.quality.mode == Mode::Batch;
    let attempt = request.parcels.first().map_or(1, |parcel| parcel.attempt);
    let mut over = Over::Any;
    loop {
        if !look.wants(request) {
            return PushAnswer::NotSent;
        }
        let call = Call {
            url,
            over,
            encoded: encode::body(&look.site, request, is_batch),
            secret: request.spec.secret.as_ref(),
            timeout: Duration::from_millis(u64::from(request.spec.send_timeout_ms())),
            headers: [
                ("Idempotency-Key", encode::key(request)),
                ("Ackord-Attempt", attempt.to_string()),
                ("Ackord-Site", look.site.to_string()),
                ("Ackord-Push", request.push.to_string()),
            ]
            .into_iter()
            .chain(encode::trace(request))
            .collect(),
            written: written.take(),
        };
        let trouble = match pushes.callbacks.deliver(call).await {
            Ok(()) => return PushAnswer::Delivered,
            Err(_) if pushes.is_cut_off() => return PushAnswer::NotSent,
            Err(Unanswered::Failed(trouble)) => trouble,
            Err(Unanswered::Stale) if over == Over::Any => {
                over = Over::Fresh;
                continue;
            }
            Err(Unanswered::Stale) => Trouble::Broken,
        };
        let (site, push) = (&look.site, &request.push);
        tracing::debug!(%site, %push, %trouble, "a push delivery failed");
        pushes.metrics.push_failed(trouble);
        return PushAnswer::Failed(trouble);
    }
}

async fn datagrams(
    pushes: &Pushes,
    partition: &PartitionHandle,
    site: &SiteName,
    request: &PushRequest,
) -> PushAnswer {
    if confirmed_before(partition) >= STALE_MS {
        return PushAnswer::NotSent;
    }
    let packet = pushes.options.packet_bytes_max;
    let answer = super::socket::send(pushes, site, request, packet).await;
    if let PushAnswer::Sent { sent, dropped } = answer {
        let mode = request.spec.quality.mode;
        pushes.metrics.push_delivered(mode, u64::from(sent));
        pushes.metrics.push_dropped(mode, u64::from(dropped));
    }
    answer
}
