//! What a client asks about its set of subscriptions, and how its lanes follow the state.
//!
//! Invariants: requests are served one at a time in the order they came, each under a number of its
//! own, so that a repeated proposal cannot undo a later one; each name is refused at most once per session; a kept
//! subscription keeps its cursor and what is in flight.
//!
//! A stateless client's positions are judged after a linearizing read: a replica that lags must
//! not take a position above its own head for one of another life.

use std::collections::{BTreeSet, VecDeque};

use crate::site::{
    Category, ClientId, Command, Digest, EventKey, EventName, Generation, InstanceId, Outcome,
    Position, Quality, Receiver, Refusal, Site, Start, Subscribe, SubscribeAs, SubscribeMode,
    SubscribeResult, SubscriptionRequest, SubscriptionRow,
};

use crate::site::limits::SUBSCRIBE_ITEMS_MAX;

use super::client::{ClientSession, Modes, Out};
use super::lane::{Lane, LaneSetup};
use super::message::{AcceptedSubscription, RefusedSubscription, ToClient};
use super::set::set_hash;
use super::{
    CloseReason, Failed, Output, Patience, Token, View, close_of, close_of_failed, refusal_detail,
};

/// Requests about subscriptions that may wait in a session.
pub const REQUESTS_WAITING_MAX: usize = 8;

/// How a list relates to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListMode {
    /// It is the whole set: the others are removed.
    Exact,
    /// The others stay.
    Add,
}

/// One subscription as a client asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeItem {
    /// What the state keeps of it.
    pub request: SubscriptionRequest,
    /// Where a stateless client goes on.
    pub resume: Option<Position>,
    /// How it is to be delivered.
    pub quality: Quality,
}

/// Which modes the client is told of. Of what somebody else has set it is not told in an open session:
/// there a lane keeps its mode, and a new one is ordered.
pub(super) enum Told<'a> {
    /// All: the session opens.
    All,
    /// Those of this list, now.
    With(&'a Request),
    /// Those of its lists that wait.
    Later,
}

/// One thing that a client asked about its subscriptions.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Under it the state recognises a repeat.
    number: u64,
    mode: SubscribeMode,
    items: Vec<SubscribeItem>,
}

/// The part of a session that a settled client does without.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    /// The hash that came with the hello.
    pub(super) set: Option<Digest>,
    /// With what is under way: the opening, or the first request.
    pub(super) patience: Patience,
    /// The first is being served when there is a token or a retry time.
    waiting: VecDeque<Request>,
    token: Option<Token>,
    retry_ms: Option<u64>,
    /// Names whose refusal was reported.
    refused: BTreeSet<EventName>,
}

impl Requests {
    pub(super) fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    pub(super) fn awaits(&self, token: Token) -> bool {
        self.token == Some(token)
    }

    fn is_idle(&self) -> bool {
        self.set.is_none() && self.waiting.is_empty() && self.refused.is_empty()
    }
}

impl ClientSession {
    /// The client lists subscriptions.
    pub fn on_subscribe(
        &mut self,
        mode: ListMode,
        items: Vec<SubscribeItem>,
        view: View<'_>,
        out: &mut Out,
    ) {
        let mode = match mode {
            ListMode::Exact => SubscribeMode::Exact,
            ListMode::Add => SubscribeMode::Add,
        };
        self.enqueue(mode, items, view, out);
    }

    /// The client ends subscriptions.
    pub fn on_unsubscribe(&mut self, events: Vec<EventName>, view: View<'_>, out: &mut Out) {
        let item = |event| SubscribeItem {
            request: SubscriptionRequest {
                event,
                category: None,
                start: Start::Earliest,
                ack_timeout_ms: None,
                max_attempts: None,
            },
            resume: None,
            quality: Quality::default(),
        };
        let items = events.into_iter().map(item).collect();
        self.enqueue(SubscribeMode::Remove, items, view, out);
    }

    fn enqueue(
        &mut self,
        mode: SubscribeMode,
        mut items: Vec<SubscribeItem>,
        view: View<'_>,
        out: &mut Out,
    ) {
        if self.is_closed() {
            return;
        }
        if !self.is_open() && !self.awaits_set() {
            return self.close(CloseReason::ProtocolViolation, "the session is not open", out);
        }
        if items.len() > SUBSCRIBE_ITEMS_MAX {
            let detail = format!("at most {SUBSCRIBE_ITEMS_MAX} subscriptions in a list");
            return self.close(CloseReason::LimitReached, detail, out);
        }
        // The first of several with one name stands.
        let mut seen = BTreeSet::new();
        items.retain(|item| seen.insert(item.request.event.clone()));
        self.lists += 1;
        let request = Request { number: self.lists, mode, items };
        let requests = self.requests_mut();
        if requests.waiting.len() >= REQUESTS_WAITING_MAX {
            return self.close(CloseReason::LimitReached, "too many lists are waiting", out);
        }
        requests.waiting.push_back(request);
        self.serve_requests(view, out);
    }

    /// Starts the first request that waits, unless one is being served.
    pub(super) fn serve_requests(&mut self, view: View<'_>, out: &mut Out) {
        let Some(requests) = &self.requests else { return };
        if requests.token.is_some() || requests.retry_ms.is_some() {
            return;
        }
        if requests.is_idle() {
            self.requests = None;
        } else if !requests.waiting.is_empty() && self.holds(view, out) {
            self.serve_first(out);
        }
    }

    fn serve_first(&mut self, out: &mut Out) {
        let token = self.token();
        let (site, epoch) = (self.site.clone(), self.epoch);
        let client = self.client().cloned();
        let requests = self.requests_mut();
        let Some(request) = requests.waiting.front() else { return };
        requests.token = Some(token);
        out.push(match client {
            None => Output::Linearize { token },
            Some(client) => {
                let items = request.items.iter().map(|item| item.request.clone()).collect();
                let (number, mode) = (request.number, request.mode.clone());
                let list = Subscribe { site, client, epoch, number, mode, items };
                let qualities: Vec<Quality> =
                    request.items.iter().map(|item| item.quality).collect();
                let command = if qualities.iter().all(Quality::is_default) {
                    Command::Subscribe(list)
                } else {
                    Command::SubscribeAs(SubscribeAs { subscribe: list, qualities })
                };
                Output::Propose { token, command }
            }
        });
    }

    /// Proposes the first request again when its time has come.
    pub(super) fn retry_request(&mut self, view: View<'_>, out: &mut Out) {
        let Some(requests) = &mut self.requests else { return };
        if requests.retry_ms.is_some_and(|at| at <= view.now_ms) {
            requests.retry_ms = None;
            self.serve_first(out);
        }
    }

    pub(super) fn on_request_outcome(
        &mut self,
        result: Result<Outcome, Failed>,
        view: View<'_>,
        out: &mut Out,
    ) {
        let stateless = self.receiver == Receiver::Stateless;
        let requests = self.requests_mut();
        requests.token = None;
        match result {
            Ok(Outcome::Subscribed(results)) => {
                requests.patience = Patience::default();
                let Some(request) = requests.waiting.pop_front() else { return };
                if self.holds(view, out) {
                    self.on_subscribed(&request, &results, view, out);
                }
            }
            Ok(Outcome::Refused(refusal)) => {
                self.close(close_of(&refusal, self.epoch), refusal_detail(&refusal), out);
            }
            Ok(_) if stateless => {
                requests.patience = Patience::default();
                let Some(request) = requests.waiting.pop_front() else { return };
                if self.holds(view, out) {
                    self.take_positions(&request, view, out);
                }
            }
            Ok(other) => self.contradiction("subscribe", &other, out),
            Err(failed) => match requests.patience.again(view.now_ms) {
                again @ Some(_) => requests.retry_ms = again,
                None => {
                    let (reason, detail) = close_of_failed(failed);
                    self.close(reason, detail, out);
                }
            },
        }
    }

    /// The state took a stateful client's list.
    fn on_subscribed(
        &mut self,
        request: &Request,
        results: &[SubscribeResult],
        view: View<'_>,
        out: &mut Out,
    ) {
        self.set_unless_partial(&request.mode);
        let removed = self.sync_lanes(&Told::With(request), view, out);
        let mut accepted = Vec::new();
        let mut refused = Vec::new();
        for SubscribeResult { event: name, result } in results {
            match (result, &request.mode) {
                // What was not there is gone all the same.
                (_, SubscribeMode::Remove) => {}
                (Ok((event, _)), SubscribeMode::Exact | SubscribeMode::Add) => {
                    accepted.extend(self.accepted(*event, None));
                }
                (Err(refusal), SubscribeMode::Exact | SubscribeMode::Add) => {
                    self.refuse(name, refusal.clone(), &mut refused);
                }
            }
        }
        self.report(accepted, refused, removed, view, out);
    }

    /// A list that is the whole set is what the welcome asked for.
    fn set_unless_partial(&mut self, mode: &SubscribeMode) {
        match mode {
            SubscribeMode::Exact => self.set_taken(),
            // A stateless client has no set elsewhere: whatever it lists opens it.
            SubscribeMode::Add if self.receiver == Receiver::Stateless => self.set_taken(),
            SubscribeMode::Add | SubscribeMode::Remove => {}
        }
    }

    fn report(
        &mut self,
        accepted: Vec<AcceptedSubscription>,
        refused: Vec<RefusedSubscription>,
        removed: Vec<EventName>,
        view: View<'_>,
        out: &mut Out,
    ) {
        out.push(Output::Send(ToClient::Subscribed { accepted, refused, removed }));
        self.serve_requests(view, out);
        self.pump_all(view, out);
    }

    fn refuse(&mut self, name: &EventName, refusal: Refusal, into: &mut Vec<RefusedSubscription>) {
        let reported = &mut self.requests_mut().refused;
        if reported.len() < SUBSCRIBE_ITEMS_MAX && reported.insert(name.clone()) {
            into.push(RefusedSubscription { name: name.clone(), refusal });
        }
    }

    /// Judges a stateless client's list: the site is as new as when it was sent, or newer.
    fn take_positions(&mut self, request: &Request, view: View<'_>, out: &mut Out) {
        let Some(site) = view.site else { return };
        self.set_unless_partial(&request.mode);
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        let mut listed = BTreeSet::new();
        for item in &request.items {
            match judge(site, item, view) {
                Ok(_) if request.mode == SubscribeMode::Remove => {}
                Ok((event, category)) => {
                    listed.insert(event);
                    let resumed = self.take_position(site, item, event, category);
                    accepted.extend(self.accepted(event, resumed));
                }
                Err(_) if request.mode == SubscribeMode::Remove => {}
                Err(refusal) => self.refuse(&item.request.event, refusal, &mut refused),
            }
        }
        let named =
            |lane: &Lane| request.items.iter().any(|item| item.request.event == *lane.name());
        let removed = match request.mode {
            SubscribeMode::Exact => self.remove_lanes(|lane| !listed.contains(&lane.event())),
            SubscribeMode::Add => Vec::new(),
            SubscribeMode::Remove => self.remove_lanes(named),
        };
        self.report(accepted, refused, removed, view, out);
    }

    /// Makes or changes one lane of a stateless client; answers whether its position was taken up.
    fn take_position(
        &mut self,
        site: &Site,
        item: &SubscribeItem,
        event: EventKey,
        category: Category,
    ) -> Option<bool> {
        let request = &item.request;
        let row = SubscriptionRow {
            site: self.site.clone(),
            client: ClientId::from(""),
            event,
            cursor: InstanceId(0),
            generation: Generation(0),
            start: request.start,
            ack_timeout_ms: request.ack_timeout_ms,
            max_attempts: request.max_attempts,
            paused: None,
        };
        let ack_timeout_ms = request.ack_timeout_ms.unwrap_or(self.options.ack_timeout_ms);
        if let Ok(index) = self.lane_index(event) {
            let quality = self.served(item.quality);
            self.lanes[index].sync(&row, ack_timeout_ms, false, Some(quality));
            return item.resume.map(|_| true);
        }
        let (cursor, resumed) = match (item.resume, request.start) {
            (Some(position), _) => {
                let valid = position.incarnation == self.incarnation
                    && position.generation == Generation(0)
                    && position.instance <= site.head();
                (if valid { position.instance } else { InstanceId(0) }, Some(valid))
            }
            (None, Start::Earliest) => (InstanceId(0), None),
            (None, Start::Latest) => (site.head(), None),
        };
        self.insert_lane(LaneSetup {
            event,
            name: request.event.clone(),
            category,
            granted: site.may_receive(event, &self.receiver),
            generation: Generation(0),
            cursor,
            ack_timeout_ms,
            attempts_max: request.max_attempts,
            quality: self.served(item.quality),
        });
        resumed
    }

    /// Makes the lanes what the state says; answers the names of those that are gone.
    pub(super) fn sync_lanes(
        &mut self,
        told: &Told<'_>,
        view: View<'_>,
        out: &mut Out,
    ) -> Vec<EventName> {
        let Some(site) = view.site else { return Vec::new() };
        let removed = match self.receiver.clone() {
            Receiver::Stateless => self.remove_lanes(|lane| site.event(lane.event()).is_none()),
            Receiver::Client(client) => {
                let removed = self.remove_lanes(|lane| {
                    site.subscription(&client, lane.event()).is_none()
                        || site.event(lane.event()).is_none()
                });
                for row in site.subscriptions(&client) {
                    self.sync_lane(told, site, row, out);
                }
                removed
            }
        };
        for index in 0..self.lanes.len() {
            self.refresh_authority(index, site, view.now_ms, out);
        }
        removed
    }

    /// Looks, before anything is sent again, whether it was acknowledged past this session: the wake
    /// for that may still be on its way.
    pub(super) fn heed_acknowledgements(&mut self, view: View<'_>, out: &mut Out) {
        let (Some(site), Some(client)) = (view.site, self.client().cloned()) else { return };
        let due = |lane: &&Lane| lane.deadline().is_some_and(|at| at <= view.now_ms);
        let due: Vec<EventKey> = self.lanes.iter().filter(due).map(Lane::event).collect();
        for row in due.into_iter().filter_map(|event| site.subscription(&client, event)) {
            self.sync_lane(&Told::Later, site, row, out);
        }
    }

    fn is_told(&self, told: &Told<'_>, name: &EventName) -> bool {
        let lists = |request: &Request| request.items.iter().any(|it| it.request.event == *name);
        match told {
            Told::All => true,
            Told::With(request) => lists(request),
            Told::Later => self.requests.as_ref().is_some_and(|own| own.waiting.iter().any(lists)),
        }
    }

    fn sync_lane(&mut self, told: &Told<'_>, site: &Site, row: &SubscriptionRow, out: &mut Out) {
        let Some(definition) = site.event(row.event).map(|event| &event.definition) else { return };
        let ack_timeout_ms = row.ack_timeout_ms.unwrap_or(self.options.ack_timeout_ms);
        let quality = self.served(site.quality(&row.client, row.event));
        // An endpoint that takes its events for ordered would lose those of a window.
        let mode = self.lane_index(row.event).map(|index| self.lanes[index].mode());
        let same = mode.unwrap_or_default() == quality.mode;
        let dead_letter = quality.dead_letter;
        let quality = (same || self.is_told(told, &definition.name)).then_some(quality);
        match self.lane_index(row.event) {
            Ok(index) => {
                let lane = &mut self.lanes[index];
                if let Some(instance) = lane.sync(row, ack_timeout_ms, dead_letter, quality) {
                    let event = row.event;
                    out.push(Output::Send(ToClient::Committed { event, instance }));
                }
            }
            Err(_) => self.insert_lane(LaneSetup {
                event: row.event,
                name: definition.name.clone(),
                category: definition.kind.category(),
                granted: site.may_receive(row.event, &self.receiver),
                generation: row.generation,
                cursor: row.cursor,
                ack_timeout_ms,
                attempts_max: row.max_attempts,
                quality: quality.unwrap_or(Quality { dead_letter, ..Quality::default() }),
            }),
        }
    }

    /// What this session's transport makes of a quality.
    fn served(&self, quality: Quality) -> Quality {
        match self.options.modes {
            Modes::All => quality,
            Modes::Ordered => Quality { dead_letter: quality.dead_letter, ..Quality::default() },
        }
    }

    fn insert_lane(&mut self, setup: LaneSetup) {
        if let Err(index) = self.lane_index(setup.event) {
            // One at a time: a client with one subscription holds room for one.
            self.lanes.reserve_exact(1);
            self.lanes.insert(index, Lane::new(setup));
        }
    }

    fn remove_lanes(&mut self, mut gone: impl FnMut(&Lane) -> bool) -> Vec<EventName> {
        let mut removed = Vec::new();
        self.lanes.retain(|lane| {
            let gone = gone(lane);
            if gone {
                removed.push(lane.name().clone());
            }
            !gone
        });
        removed
    }

    pub(super) fn accepted_all(&self) -> Vec<AcceptedSubscription> {
        self.lanes.iter().map(|lane| self.accept(lane, None)).collect()
    }

    fn accepted(&self, event: EventKey, resumed: Option<bool>) -> Option<AcceptedSubscription> {
        self.lane_index(event).ok().map(|index| self.accept(&self.lanes[index], resumed))
    }

    fn accept(&self, lane: &Lane, resumed: Option<bool>) -> AcceptedSubscription {
        AcceptedSubscription {
            name: lane.name().clone(),
            event: lane.event(),
            position: Position {
                incarnation: self.incarnation,
                generation: lane.generation(),
                instance: lane.cursor(),
            },
            granted: lane.granted(),
            resumed,
            mode: lane.mode(),
        }
    }

    /// The hash of the set that the state has.
    pub(super) fn set_of(site: &Site, client: &ClientId) -> Digest {
        set_hash(site.subscriptions(client).filter_map(|row| {
            let name = &site.event(row.event)?.definition.name;
            let quality = site.quality(client, row.event);
            Some((name, row.start, row.ack_timeout_ms, row.max_attempts, quality))
        }))
    }
}

/// What a stateless client may subscribe to.
fn judge(
    site: &Site,
    item: &SubscribeItem,
    view: View<'_>,
) -> Result<(EventKey, Category), Refusal> {
    let request = &item.request;
    let event = site.event_named(request.event.as_str()).ok_or(Refusal::UnknownEvent)?;
    let category = event.definition.kind.category();
    if request.category.is_some_and(|wanted| wanted != category) {
        return Err(Refusal::WrongCategory);
    }
    if category == Category::Private {
        return Err(Refusal::AccessDenied);
    }
    item.quality.check("").map_err(Refusal::BadQuality)?;
    if item.quality.dead_letter {
        let (field, detail) = ("dead_letter".to_owned(), "of a registered client".to_owned());
        return Err(Refusal::BadQuality(crate::site::Invalid { field, detail }));
    }
    let bounds = view.limits.ack_timeout_ms_min..=view.limits.ack_timeout_ms_max;
    if let Some(given) = request.ack_timeout_ms.filter(|ms| !bounds.contains(ms)) {
        return Err(invalid("ack_timeout_ms", format!("{bounds:?}, was {given}")));
    }
    if request.max_attempts == Some(0) {
        return Err(invalid("max_attempts", "at least 1, was 0".to_owned()));
    }
    Ok((event.key, category))
}

fn invalid(field: &str, detail: String) -> Refusal {
    Refusal::Invalid(crate::site::Invalid { field: field.to_owned(), detail })
}
