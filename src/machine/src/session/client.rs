//! The session of one connected client, stateful or stateless: all its delivery lanes.
//!
//! Stateful: `hello ─▶ attach (epoch) ─▶ welcome ─▶ [the client's set] ─▶ lanes`. Stateless:
//! `hello ─▶ linearize ─▶ welcome ─▶ the client's set with its positions ─▶ lanes`.
//!
//! Invariants:
//! - Nothing is delivered before the epoch of this session is applied here; what may be under way
//!   of a subscription is its lane's to say.
//! - Each entry looks first at whether the session still holds: its site, its life, its account,
//!   its epoch. So a missed wake delays a close but never lets a session go on under false terms.
//! - Authority is asked at every transmission, not only when it is said to have changed.
//!
//! How it opens is in `opening.rs`, what a client asks about its subscriptions in
//! `subscriptions.rs`.

use std::sync::Arc;

use crate::site::{
    Advance, Claim, ClientId, Command, Epoch, EventKey, GiveUp, GivenUp, Incarnation, Instance,
    InstanceId, Outcome, Receiver, Refusal, ServiceId, ServiceRow, SessionId, Site, SiteName,
    TokenId,
};

use super::credential::Credential;
use super::lane::{Lane, Named, Sight, Step};
use super::message::{Delivery, ToClient};
use super::subscriptions::{Requests, Told};
use super::{
    CUT_OFF, CloseReason, Failed, KICKED, Output, PROPOSE_RETRY_MS, Token, View, close_of,
    refusal_detail,
};

/// Services whose presence a client is told of when its session opens; later ones as they change.
pub const PRESENCE_AT_OPEN_MAX: usize = 32;
/// Transmissions of a subscription at once; the next follow after the socket had its turn.
pub const BURST_MAX: usize = 64;

/// Which modes a transport has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Modes {
    /// All.
    #[default]
    All,
    /// It delivers in order, whatever the mode of a subscription: that promises more than any other.
    Ordered,
}

/// What a deployment may set about a client's session.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// Milliseconds until an unacknowledged instance is sent again, when a subscription says none.
    pub ack_timeout_ms: u32,
    /// What its transport can do.
    pub modes: Modes,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { ack_timeout_ms: 30_000, modes: Modes::All }
    }
}

/// Why a session is told to look at the state. Carries nothing: the state is what counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The queue or the definition of this event changed.
    Event(EventKey),
    /// The client's account, subscriptions or private events changed.
    Client,
    /// A service came or went.
    Service(ServiceId),
    /// Anything may have changed.
    All,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was said yet.
    New,
    /// An attach, or for a stateless client a linearizing read, is under way.
    Opening { token: Token },
    /// The attach or the read failed; it is asked for again at this time.
    OpeningDelayed { until_ms: u64 },
    /// Another session attached meanwhile: this one takes over if its client is still there to say
    /// so before this time.
    Probing { until_ms: u64 },
    /// Attached, but this node has not applied that yet.
    Attached,
    /// Welcomed; the client shall send its set before anything is delivered.
    AwaitingSet,
    /// Delivering.
    Open,
    /// Over.
    Closed,
}

/// All of one connected client.
#[derive(Clone, Debug)]
pub struct ClientSession {
    pub(super) site: SiteName,
    pub(super) receiver: Receiver,
    pub(super) credential: Credential,
    pub(super) claim: Claim,
    /// The client's epoch as it was when the connection opened.
    pub(super) opened: Option<Epoch>,
    pub(super) epoch: Epoch,
    pub(super) incarnation: Incarnation,
    pub(super) options: SessionOptions,
    pub(super) stage: Stage,
    tokens: u64,
    /// Counts the client's lists.
    pub(super) lists: u64,
    /// Sorted by event.
    pub(super) lanes: Vec<Lane>,
    /// What only a session that opens or asks about its subscriptions needs.
    pub(super) requests: Option<Box<Requests>>,
}

/// What a session pushes to.
pub(super) type Out = Vec<Output<ToClient>>;

impl ClientSession {
    /// A session that waits for its hello. It closes when the token that opened it is revoked. `id`
    /// is random.
    pub fn new(
        site: SiteName,
        receiver: Receiver,
        credential: Option<TokenId>,
        id: SessionId,
        options: SessionOptions,
    ) -> Self {
        Self {
            site,
            receiver,
            credential: Credential::new(credential),
            claim: Claim { session: id, above: Epoch(0) },
            opened: None,
            epoch: Epoch(0),
            incarnation: Incarnation(0),
            options,
            stage: Stage::New,
            tokens: 0,
            lists: 0,
            lanes: Vec::new(),
            requests: None,
        }
    }

    /// The connection is there: sessions that attach from now on are newer than this one, however
    /// late its hello arrives.
    pub fn on_opened(&mut self, site: &Site) {
        let row = self.client().and_then(|client| site.client(client.as_str()));
        self.opened = Some(row.map(|row| row.epoch).unwrap_or_default());
    }

    /// The site.
    pub fn site(&self) -> &SiteName {
        &self.site
    }

    /// The client; `None` when stateless.
    pub fn client(&self) -> Option<&ClientId> {
        match &self.receiver {
            Receiver::Client(client) => Some(client),
            Receiver::Stateless => None,
        }
    }

    /// The session's epoch; 0 when stateless or not yet attached.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The life of the site that it delivers in.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The lanes, by event.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Whether nothing has been said yet.
    pub fn is_new(&self) -> bool {
        self.stage == Stage::New
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Whether the session delivers.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    pub(super) fn awaits_set(&self) -> bool {
        self.stage == Stage::AwaitingSet
    }

    /// When `on_time` has something to do.
    pub fn next_deadline(&self) -> Option<u64> {
        let opening = match self.stage {
            Stage::OpeningDelayed { until_ms } | Stage::Probing { until_ms } => Some(until_ms),
            Stage::Open => self.lanes.iter().filter_map(Lane::deadline).min(),
            Stage::New
            | Stage::Opening { .. }
            | Stage::Attached
            | Stage::AwaitingSet
            | Stage::Closed => None,
        };
        let request = self.requests.as_ref().and_then(|requests| requests.retry_ms());
        opening.into_iter().chain(request).min()
    }

    /// What became of something that the session asked for under this token.
    pub fn on_outcome(
        &mut self,
        token: Token,
        result: Result<Outcome, Failed>,
        view: View<'_>,
        out: &mut Out,
    ) {
        if self.is_closed() {
            return;
        }
        if self.stage == (Stage::Opening { token }) {
            return self.on_attached(result, view, out);
        }
        if self.requests.as_ref().is_some_and(|requests| requests.awaits(token)) {
            return self.on_request_outcome(result, view, out);
        }
        // The outcome of a commit whose lane is gone or has moved says nothing any more.
        if let Some(index) = self.lanes.iter().position(|lane| lane.awaits(token)) {
            self.on_commit_outcome(index, token, result, view, out);
        }
    }

    /// Starts delivering after the client's set was taken.
    pub(super) fn set_taken(&mut self) {
        if self.stage == Stage::AwaitingSet {
            self.stage = Stage::Open;
        }
    }

    fn on_commit_outcome(
        &mut self,
        index: usize,
        token: Token,
        result: Result<Outcome, Failed>,
        view: View<'_>,
        out: &mut Out,
    ) {
        match result {
            Ok(Outcome::Advanced { cursor }) => {
                let lane = &mut self.lanes[index];
                let event = lane.event();
                if let Some(instance) = lane.on_committed(token, cursor) {
                    out.push(Output::Send(ToClient::Committed { event, instance }));
                }
                if self.holds(view, out) {
                    self.pump(index, view, out);
                }
            }
            Ok(Outcome::Refused(
                Refusal::StalePosition | Refusal::UnknownSubscription | Refusal::UnknownEvent,
            )) => {
                // Sought or unsubscribed meanwhile: the state says where it stands now.
                self.lanes[index].drop_commit(token);
                self.look_at_all(view, out);
            }
            // A cursor never falls, so repeating a commit of unknown fate does no harm.
            Err(
                Failed::Busy
                | Failed::OverCapacity
                | Failed::DiskFull
                | Failed::Unavailable
                | Failed::Unknown,
            )
            // There is no room for a letter now.
            | Ok(Outcome::Refused(Refusal::OverCapacity)) => {
                self.lanes[index].delay_commit(token, view.now_ms + PROPOSE_RETRY_MS);
            }
            Ok(Outcome::Refused(refusal)) => {
                self.close(close_of(&refusal, self.epoch), refusal_detail(&refusal), out);
            }
            Ok(other) => self.contradiction("commit", &other, out),
        }
    }

    /// Something may have changed.
    pub fn on_wake(&mut self, wake: &Wake, view: View<'_>, out: &mut Out) {
        match self.stage {
            Stage::New
            | Stage::Opening { .. }
            | Stage::OpeningDelayed { .. }
            | Stage::Probing { .. }
            | Stage::Closed => return,
            Stage::Attached => return self.open_when_applied(view, out),
            Stage::AwaitingSet | Stage::Open => {}
        }
        if view.is_cut_off() {
            return self.close(CloseReason::Unavailable, CUT_OFF, out);
        }
        match wake {
            Wake::Event(event) => {
                if let Ok(index) = self.lane_index(*event)
                    && self.holds(view, out)
                {
                    self.pump(index, view, out);
                }
            }
            Wake::Client | Wake::All => self.look_at_all(view, out),
            Wake::Service(service) => {
                if let Some(site) = view.site
                    && self.holds(view, out)
                {
                    out.push(Output::Send(presence(site, service)));
                }
            }
        }
    }

    /// The client handled an instance.
    pub fn on_ack(&mut self, named: impl Into<Named>, view: View<'_>, out: &mut Out) {
        let named = named.into();
        let Some(index) = self.frame_lane(named.event, out) else { return };
        if self.lanes[index].on_ack(&named, view.now_ms) && self.holds(view, out) {
            self.pump(index, view, out);
        }
    }

    /// The client returns an instance, to get it again after this time.
    pub fn on_nack(
        &mut self,
        named: impl Into<Named>,
        retry_after_ms: u64,
        view: View<'_>,
        out: &mut Out,
    ) {
        let named = named.into();
        let Some(index) = self.frame_lane(named.event, out) else { return };
        let given_up = self.lanes[index].on_nack(&named, retry_after_ms, view.now_ms);
        if given_up && self.holds(view, out) {
            self.pump(index, view, out);
        }
    }

    /// The transport has taken an instance of a mode that is not acknowledged, and all of its
    /// subscription that were sent before it.
    pub fn on_written(&mut self, named: &Named, view: View<'_>, out: &mut Out) {
        let Ok(index) = self.lane_index(named.event) else { return };
        if self.lanes[index].on_written(named) && self.holds(view, out) {
            self.pump(index, view, out);
        }
    }

    /// The client is still handling an instance.
    pub fn on_working(&mut self, named: impl Into<Named>, view: View<'_>, out: &mut Out) {
        let named = named.into();
        let Some(index) = self.frame_lane(named.event, out) else { return };
        self.lanes[index].on_working(&named, view.now_ms);
    }

    /// The client leaves.
    pub fn on_goodbye(&mut self, out: &mut Out) {
        self.close(CloseReason::Goodbye, "", out);
    }

    /// Time has passed.
    pub fn on_time(&mut self, view: View<'_>, out: &mut Out) {
        match self.stage {
            Stage::OpeningDelayed { until_ms } if until_ms <= view.now_ms => {
                self.begin_opening(out);
            }
            Stage::Probing { until_ms } if until_ms <= view.now_ms => self.not_alive(out),
            Stage::Open | Stage::AwaitingSet => {
                if self.holds(view, out) {
                    self.retry_request(view, out);
                    self.heed_acknowledgements(view, out);
                    self.pump_all(view, out);
                }
            }
            Stage::New
            | Stage::Opening { .. }
            | Stage::OpeningDelayed { .. }
            | Stage::Probing { .. }
            | Stage::Attached
            | Stage::Closed => {}
        }
    }

    /// Closes the session unless it is closed.
    pub fn close(&mut self, reason: CloseReason, detail: impl Into<String>, out: &mut Out) {
        if self.is_closed() {
            return;
        }
        self.stage = Stage::Closed;
        self.lanes = Vec::new();
        self.requests = None;
        out.push(Output::Close { reason, detail: detail.into() });
    }

    /// Looks at everything: account, subscriptions, authority, queues.
    pub(super) fn look_at_all(&mut self, view: View<'_>, out: &mut Out) {
        if !self.holds(view, out) || !self.may_enter(view, out) {
            return;
        }
        if self.stage == Stage::Open {
            let removed = self.sync_lanes(&Told::Later, view, out);
            if !removed.is_empty() {
                let (accepted, refused) = (Vec::new(), Vec::new());
                out.push(Output::Send(ToClient::Subscribed { accepted, refused, removed }));
            }
            self.pump_all(view, out);
        }
    }

    /// Whether the session's terms still hold; closes it when they do not.
    pub(super) fn holds(&mut self, view: View<'_>, out: &mut Out) -> bool {
        let Some(site) = view.site else {
            self.close(CloseReason::NotRegistered, "the site was deleted", out);
            return false;
        };
        if let Receiver::Client(client) = &self.receiver {
            match site.client(client.as_str()) {
                None => {
                    self.close(CloseReason::NotRegistered, "the client was deleted", out);
                    return false;
                }
                Some(row)
                    if row.epoch > self.epoch
                        && row.sessions.last() == Some(&SessionId::KICKED) =>
                {
                    self.close(CloseReason::Kicked, KICKED, out);
                    return false;
                }
                Some(row) if row.epoch > self.epoch => {
                    let detail = format!("a newer session, epoch {}, took over", row.epoch);
                    self.close(CloseReason::Replaced, detail, out);
                    return false;
                }
                Some(row) if row.epoch < self.epoch => {
                    let detail = "the client was deleted and created again";
                    self.close(CloseReason::NotRegistered, detail, out);
                    return false;
                }
                Some(_) => {}
            }
        }
        if site.incarnation() != self.incarnation {
            self.close(CloseReason::SiteRebuilt, "the site was rebuilt", out);
            return false;
        }
        true
    }

    pub(super) fn pump_all(&mut self, view: View<'_>, out: &mut Out) {
        for index in 0..self.lanes.len() {
            self.pump(index, view, out);
        }
    }

    /// Lets one lane do all that it can do now.
    fn pump(&mut self, index: usize, view: View<'_>, out: &mut Out) {
        let Some(site) = view.site.filter(|_| self.stage == Stage::Open) else { return };
        if self.lanes[index].wants_authority(view.now_ms) {
            self.refresh_authority(index, site, view.now_ms, out);
        }
        let mut sent = 0;
        loop {
            let sight = Sight {
                site,
                receiver: &self.receiver,
                now_ms: view.now_ms,
                stamp: view.stamp,
                stale: view.is_stale(),
            };
            match self.lanes[index].step(&sight) {
                Step::Rest => return,
                Step::Again => {}
                Step::Commit(instance) => self.finish(index, instance, view.now_ms, out),
                Step::GiveUp { instance, cursor, given_up } => {
                    self.give_up(index, instance, cursor, given_up, out);
                }
                Step::Send { instance, attempt } => {
                    let delivery = self.delivery(index, instance, attempt, view);
                    out.push(Output::Send(ToClient::Event(delivery)));
                    sent += 1;
                }
                Step::Flush(batch) => {
                    let delivery = |instance| self.delivery(index, instance, 1, view);
                    let batch = batch.into_iter().map(delivery).collect();
                    out.push(Output::Send(ToClient::Events(batch)));
                }
            }
            if sent >= BURST_MAX {
                self.lanes[index].pause(view.now_ms);
                return;
            }
        }
    }

    fn delivery(
        &self,
        index: usize,
        instance: Arc<Instance>,
        attempt: u32,
        view: View<'_>,
    ) -> Delivery {
        let lane = &self.lanes[index];
        let age_ms = view.stamp.0.saturating_sub(instance.created.0);
        Delivery {
            event: lane.event(),
            name: lane.name().clone(),
            category: lane.category(),
            incarnation: self.incarnation,
            generation: lane.generation(),
            attempt,
            age_ms,
            mode: lane.mode(),
            instance,
        }
    }

    /// Asks whether the client may receive the lane's event, and tells it when that changed.
    pub(super) fn refresh_authority(
        &mut self,
        index: usize,
        site: &Site,
        now_ms: u64,
        out: &mut Out,
    ) {
        let lane = &mut self.lanes[index];
        let granted = site.may_receive(lane.event(), &self.receiver);
        if lane.set_granted(granted, now_ms) {
            let event = lane.event();
            out.push(Output::Send(ToClient::Authority { event, granted }));
        }
    }

    /// An instance is delivered or skipped: proposes its commit, or for a stateless client, which
    /// keeps its own cursor, takes note.
    fn finish(&mut self, index: usize, instance: InstanceId, now_ms: u64, out: &mut Out) {
        let token = self.token();
        let lane = &mut self.lanes[index];
        let event = lane.event();
        match &self.receiver {
            Receiver::Stateless => {
                lane.deliver(instance, now_ms);
                out.push(Output::Send(ToClient::Committed { event, instance }));
            }
            Receiver::Client(client) => {
                let command = Command::Advance(Advance {
                    site: self.site.clone(),
                    client: client.clone(),
                    event,
                    epoch: self.epoch,
                    incarnation: self.incarnation,
                    generation: lane.generation(),
                    instance,
                });
                lane.committing(instance, token, now_ms);
                out.push(Output::Propose { token, command });
            }
        }
    }

    /// An instance is given up and to be kept apart.
    fn give_up(
        &mut self,
        index: usize,
        instance: InstanceId,
        cursor: InstanceId,
        given_up: GivenUp,
        out: &mut Out,
    ) {
        let token = self.token();
        let Some(client) = self.client().cloned() else { return };
        let lane = &mut self.lanes[index];
        let command = Command::GiveUp(GiveUp {
            site: self.site.clone(),
            client,
            event: lane.event(),
            epoch: self.epoch,
            incarnation: self.incarnation,
            generation: lane.generation(),
            instance,
            cursor,
            given_up,
        });
        lane.giving_up(instance, token);
        out.push(Output::Propose { token, command });
    }

    /// The lane that a frame names, if any; frames before the welcome are out of turn.
    fn frame_lane(&mut self, event: EventKey, out: &mut Out) -> Option<usize> {
        match self.stage {
            Stage::Open | Stage::AwaitingSet => self.lane_index(event).ok(),
            Stage::Closed => None,
            Stage::New
            | Stage::Opening { .. }
            | Stage::OpeningDelayed { .. }
            | Stage::Probing { .. }
            | Stage::Attached => {
                self.close(CloseReason::ProtocolViolation, "the session is not open", out);
                None
            }
        }
    }

    pub(super) fn lane_index(&self, event: EventKey) -> Result<usize, usize> {
        self.lanes.binary_search_by_key(&event, Lane::event)
    }

    pub(super) fn requests_mut(&mut self) -> &mut Requests {
        self.requests.get_or_insert_default()
    }

    pub(super) fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    /// The state answered something that does not fit the question.
    pub(super) fn contradiction(&mut self, asked: &str, answer: &Outcome, out: &mut Out) {
        self.close(CloseReason::Internal, format!("unexpected answer to {asked}: {answer:?}"), out);
    }
}

/// What the state says about a service now.
pub(super) fn presence(site: &Site, service: &ServiceId) -> ToClient {
    let row = site.service(service.as_str());
    ToClient::Presence {
        service: service.clone(),
        online: row.is_some_and(ServiceRow::online),
        hostname: row.map(|row| row.hostname.clone()).unwrap_or_default(),
        version: row.map(|row| row.version.clone()).unwrap_or_default(),
    }
}
