//! See the module.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::site::quality::UNWRITTEN_MAX;
use crate::site::{
    AttachPush, Claim, Command, Epoch, EventName, Generation, Incarnation, Instance, InstanceId,
    Mode, Outcome, PushId, PushReport, PushRow, PushState, Refusal, SessionId, SettlePush, Site,
    SiteName, Subscriber, Trouble,
};

use super::super::{Failed, Token, View};
use super::{
    DATAGRAMS_MAX, LOOK_AGAIN_MS, OPEN_MAX, OVERFLOW_LOOK_MS, Over, PROPOSE_AGAIN_MS, Parcel,
    PushAnswer, PushOutput, PushRequest, TWOWAY_OPEN_MAX, pick,
};

/// What was proposed and has no outcome yet, or is to be proposed again.
#[derive(Clone, Debug)]
enum Asked {
    Nothing,
    Waiting { token: Token },
    Again { at_ms: u64 },
}

/// What is under way.
#[derive(Clone, Debug)]
struct Flight {
    ids: Vec<InstanceId>,
    attempt: u32,
    /// The transport has taken it: it counts as delivered, whatever is answered.
    written: bool,
}

/// Where the lane is in the site's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    incarnation: Incarnation,
    generation: Generation,
}

/// One push subscription as its agent serves it.
#[derive(Clone, Debug)]
pub struct PushLane {
    site: SiteName,
    id: PushId,
    session: SessionId,
    epoch: Option<Epoch>,
    life: Option<Life>,
    /// The highest id with nothing missing before it, whether committed or not.
    position: InstanceId,
    /// As the state has it.
    committed: InstanceId,
    /// Done, with something before them that is not.
    beyond: BTreeSet<InstanceId>,
    flights: BTreeMap<Token, Flight>,
    /// How often what failed was sent.
    attempts: BTreeMap<InstanceId, u32>,
    reports: VecDeque<PushReport>,
    asked: Asked,
    number: u64,
    flush_ms: Option<u64>,
    look_ms: Option<u64>,
    overflow_ms: u64,
    next_token: u64,
    stopping: bool,
    over: bool,
}

impl PushLane {
    /// A lane of an agent with this identity, which no other has.
    pub fn new(site: SiteName, id: PushId, session: SessionId) -> Self {
        Self {
            site,
            id,
            session,
            epoch: None,
            life: None,
            position: InstanceId::default(),
            committed: InstanceId::default(),
            beyond: BTreeSet::new(),
            flights: BTreeMap::new(),
            attempts: BTreeMap::new(),
            reports: VecDeque::new(),
            asked: Asked::Nothing,
            number: 0,
            flush_ms: None,
            look_ms: None,
            overflow_ms: 0,
            next_token: 0,
            stopping: false,
            over: false,
        }
    }

    /// When it wants to be told that time has passed.
    pub fn next_deadline(&self) -> Option<u64> {
        let again = match self.asked {
            Asked::Again { at_ms } => Some(at_ms),
            Asked::Nothing | Asked::Waiting { .. } => None,
        };
        // A flush that is due comes with the answer to the one before.
        let flush = self.flush_ms.filter(|_| self.is_idle());
        [again, flush, self.look_ms].into_iter().flatten().min()
    }

    /// Its epoch, once it is committed.
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Instances under way.
    pub fn in_flight(&self) -> usize {
        self.flights.values().map(|flight| flight.ids.len()).sum()
    }

    /// Whether it stops and nothing of it is under way any more.
    pub fn is_done(&self) -> bool {
        let idle = self.flights.is_empty() && self.reports.is_empty();
        self.over || (self.stopping && idle)
    }

    /// Sends nothing more; what is under way is reported.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.flush_ms = None;
    }

    /// Something may have changed.
    pub fn on_wake(&mut self, view: View<'_>, out: &mut Vec<PushOutput>) {
        self.step(view, out);
    }

    /// Time has passed.
    pub fn on_time(&mut self, view: View<'_>, out: &mut Vec<PushOutput>) {
        self.step(view, out);
    }

    /// What became of a proposal.
    pub fn on_outcome(
        &mut self,
        token: Token,
        result: Result<Outcome, Failed>,
        view: View<'_>,
        out: &mut Vec<PushOutput>,
    ) {
        if !matches!(self.asked, Asked::Waiting { token: waiting } if waiting == token) {
            return;
        }
        self.asked = Asked::Nothing;
        let again = Asked::Again { at_ms: view.now_ms + PROPOSE_AGAIN_MS };
        match result {
            Err(_) => self.asked = again,
            Ok(Outcome::Refused(refusal)) => match refusal {
                Refusal::UnknownSite | Refusal::UnknownSubscription => {
                    return self.end(Over::Gone, out);
                }
                Refusal::StaleEpoch { .. } | Refusal::Kicked => {
                    return self.end(Over::Replaced, out);
                }
                // Another one attached that this node had not heard of: it looks again.
                Refusal::Overtaken { .. } | Refusal::NotYet => self.asked = again,
                // The subscription has moved: what was reported is of another life.
                _ => {
                    self.reports.pop_front();
                    self.life = None;
                }
            },
            Ok(_) if self.epoch.is_some() => {
                self.reports.pop_front();
            }
            Ok(_) => {}
        }
        self.step(view, out);
    }

    /// What became of a request.
    pub fn on_answer(
        &mut self,
        token: Token,
        answer: PushAnswer,
        view: View<'_>,
        out: &mut Vec<PushOutput>,
    ) {
        // What was sent in another life, or by a lane that is over, is no matter any more.
        let Some(flight) = self.flights.remove(&token) else { return };
        let count = u32::try_from(flight.ids.len()).unwrap_or(u32::MAX);
        match answer {
            PushAnswer::Written => {
                if !flight.written {
                    self.done(&flight.ids);
                    // What the receiver says is still to come, and only that is a success.
                    self.delivered(0, 0);
                }
                self.flights.insert(token, Flight { written: true, ..flight });
            }
            PushAnswer::Delivered if flight.written => self.delivered(count, 0),
            PushAnswer::Delivered => {
                if !flight.written {
                    self.done(&flight.ids);
                }
                self.delivered(count, 0);
            }
            PushAnswer::Sent { sent, dropped } => {
                self.done(&flight.ids);
                self.delivered(sent, dropped);
            }
            PushAnswer::Failed(trouble) => self.failed(&flight, trouble, view),
            PushAnswer::NotSent => {
                let before = flight.attempt - 1;
                self.attempts.extend(flight.ids.iter().map(|id| (*id, before)));
                self.look_at(view.now_ms + LOOK_AGAIN_MS);
            }
        }
        self.step(view, out);
    }

    fn delivered(&mut self, more: u32, dropped_more: u32) {
        let position = self.position;
        // What waits to be reported is reported together; what is being proposed stays as it is.
        let busy = usize::from(!matches!(self.asked, Asked::Nothing));
        if self.reports.len() > busy
            && let Some(PushReport::Delivered { cursor, count, dropped }) = self.reports.back_mut()
        {
            *cursor = position;
            *count = count.saturating_add(more);
            *dropped = dropped.saturating_add(dropped_more);
            return;
        }
        self.report(PushReport::Delivered { cursor: position, count: more, dropped: dropped_more });
    }

    fn failed(&mut self, flight: &Flight, trouble: Trouble, view: View<'_>) {
        let row = view.site.and_then(|site| site.push(self.id.as_str()));
        let most = row.and_then(|row| row.spec.max_attempts);
        let given_up = !flight.written && most.is_some_and(|most| flight.attempt >= most);
        let mut dropped = 0;
        if given_up && let [instance] = flight.ids[..] {
            self.done(&flight.ids);
            let (attempts, cursor) = (flight.attempt, self.position);
            return self.report(PushReport::GivenUp { trouble, instance, attempts, cursor });
        }
        if given_up {
            self.done(&flight.ids);
            dropped = u32::try_from(flight.ids.len()).unwrap_or(u32::MAX);
        } else if !flight.written {
            self.attempts.extend(flight.ids.iter().map(|id| (*id, flight.attempt)));
        }
        let attempt = flight.ids.first().filter(|_| !flight.written && !given_up);
        self.report(PushReport::Failed {
            trouble,
            attempt: attempt.map(|id| (*id, flight.attempt)),
            cursor: self.position,
            dropped,
        });
    }

    fn report(&mut self, report: PushReport) {
        self.reports.push_back(report);
    }

    /// These need not be sent any more.
    fn done(&mut self, ids: &[InstanceId]) {
        for id in ids {
            self.attempts.remove(id);
        }
        self.beyond.extend(ids.iter().filter(|id| **id > self.position));
        self.reach();
    }

    /// Moves the position as far as nothing is missing before it; whether it moved.
    fn reach(&mut self) -> bool {
        // Nothing is missing before the first that is still to be done.
        let missing = self
            .flights
            .values()
            .filter(|flight| !flight.written)
            .flat_map(|flight| &flight.ids)
            .chain(self.attempts.keys())
            .min();
        let reach = |id: &&InstanceId| missing.is_none_or(|missing| *id < missing);
        if let Some(position) = self.beyond.iter().rev().find(reach).copied() {
            self.beyond = self.beyond.split_off(&position.next());
            let moved = position > self.position;
            self.position = self.position.max(position);
            return moved;
        }
        false
    }

    fn end(&mut self, over: Over, out: &mut Vec<PushOutput>) {
        if self.over {
            return;
        }
        self.over = true;
        self.forget();
        self.look_ms = None;
        out.push(PushOutput::Over(over));
    }

    /// What was under way belongs to another life.
    fn forget(&mut self) {
        self.flights.clear();
        self.beyond.clear();
        self.attempts.clear();
        self.reports.clear();
        // What is still to be answered was about that life.
        self.asked = Asked::Nothing;
        self.flush_ms = None;
    }

    fn look_at(&mut self, at_ms: u64) {
        self.look_ms = Some(self.look_ms.map_or(at_ms, |known| known.min(at_ms)));
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    fn propose(&mut self, command: Command, out: &mut Vec<PushOutput>) {
        let token = self.token();
        self.asked = Asked::Waiting { token };
        out.push(PushOutput::Propose { token, command });
    }

    fn step(&mut self, view: View<'_>, out: &mut Vec<PushOutput>) {
        if self.over {
            return;
        }
        self.look_ms = self.look_ms.filter(|at| *at > view.now_ms);
        let Some((site, row)) =
            view.site.and_then(|site| Some((site, site.push(self.id.as_str())?)))
        else {
            // A node that knows too little does not say that something is gone.
            if view.is_stale() {
                return self.look_at(view.now_ms + LOOK_AGAIN_MS);
            }
            return self.end(Over::Gone, out);
        };
        if !self.is_attached(row, view, out) {
            return;
        }
        self.sync(site, row);
        self.propose_report(site, row, view, out);
        if !self.stopping {
            self.deliver(site, row, view, out);
        }
    }

    /// Whether the lane's own epoch is the newest; asks for it as long as there is none.
    fn is_attached(&mut self, row: &PushRow, view: View<'_>, out: &mut Vec<PushOutput>) -> bool {
        let newest = row.sessions.last() == Some(&self.session);
        match (newest, self.epoch) {
            (true, Some(epoch)) if epoch == row.epoch => return true,
            (true, _) => {
                // The state says it before the outcome does, which is then no news.
                self.epoch = Some(row.epoch);
                self.asked = Asked::Nothing;
                return true;
            }
            (false, Some(_)) => {
                self.end(Over::Replaced, out);
                return false;
            }
            (false, None) if row.sessions.contains(&self.session) => {
                self.end(Over::Replaced, out);
                return false;
            }
            (false, None) => {}
        }
        let ready = match self.asked {
            Asked::Nothing => true,
            Asked::Again { at_ms } => at_ms <= view.now_ms,
            Asked::Waiting { .. } => false,
        };
        if view.is_stale() || self.stopping {
            self.look_at(view.now_ms + LOOK_AGAIN_MS);
        } else if ready {
            let (site, id) = (self.site.clone(), self.id.clone());
            let claim = Claim { session: self.session, above: row.epoch };
            self.propose(Command::AttachPush(AttachPush { site, id, claim }), out);
        }
        false
    }

    /// Takes note of the subscription as the state has it.
    fn sync(&mut self, site: &Site, row: &PushRow) {
        let life = Life { incarnation: site.incarnation(), generation: row.generation };
        if self.life != Some(life) {
            self.forget();
            self.life = Some(life);
            self.number = row.reported.max(self.number);
            self.position = row.cursor;
            self.attempts.extend(row.attempts);
        }
        self.committed = row.cursor;
        self.position = self.position.max(row.cursor);
        self.beyond = self.beyond.split_off(&self.position.next());
        let position = self.position;
        self.attempts.retain(|id, _| *id > position);
        // What is retained no more is waited for no more.
        self.attempts.retain(|id, _| site.instance(*id).is_some());
        if self.reach() {
            self.delivered(0, 0);
        }
    }

    fn propose_report(
        &mut self,
        site: &Site,
        row: &PushRow,
        view: View<'_>,
        out: &mut Vec<PushOutput>,
    ) {
        let again = match self.asked {
            Asked::Nothing => false,
            Asked::Again { at_ms } if at_ms <= view.now_ms => true,
            Asked::Again { .. } | Asked::Waiting { .. } => return,
        };
        let Some(report) = self.reports.front().cloned() else {
            self.asked = Asked::Nothing;
            return;
        };
        // A probe that is not wanted any more.
        if report == PushReport::Probe && !matches!(row.state, PushState::Offline { .. }) {
            self.reports.pop_front();
            self.asked = Asked::Nothing;
            return self.propose_report(site, row, view, out);
        }
        if !again {
            self.number += 1;
        }
        let Some(epoch) = self.epoch else { return };
        let settle = SettlePush {
            site: self.site.clone(),
            id: self.id.clone(),
            epoch,
            incarnation: site.incarnation(),
            generation: row.generation,
            number: self.number,
            report,
        };
        self.propose(Command::SettlePush(settle), out);
    }

    fn deliver(&mut self, site: &Site, row: &PushRow, view: View<'_>, out: &mut Vec<PushOutput>) {
        // A flush is waited for only where a batch may go: one that is due and may not would be due
        // again at once.
        let flush_ms = self.flush_ms.take();
        if view.is_stale() {
            return self.look_at(view.now_ms + LOOK_AGAIN_MS);
        }
        let probing = match row.state {
            PushState::Cancelled { .. } | PushState::Paused => return,
            PushState::Offline { until, .. } => {
                self.look_at_overflow(site, row, view, out);
                if view.stamp < until {
                    self.look_at(view.now_ms + (until.0 - view.stamp.0));
                } else if self.reports.is_empty() && self.flights.is_empty() {
                    self.report(PushReport::Probe);
                    self.propose_report(site, row, view, out);
                }
                return;
            }
            PushState::Probing => true,
            PushState::Active => false,
        };
        self.look_at_overflow(site, row, view, out);
        // What follows a failure is decided when that is committed.
        let awaits = |report: &PushReport| !matches!(report, PushReport::Delivered { .. });
        if self.reports.iter().any(awaits) || (probing && !self.is_idle()) {
            return;
        }
        let Some(event) = site.event(row.event) else { return };
        if !site.has_authority(row.event, &pick::receiver(row)) {
            return;
        }
        let name = &event.definition.name;
        match row.spec.quality.mode {
            Mode::Ordered | Mode::Twoway | Mode::Oneway => {
                let window = self.window(row, probing);
                self.send_singly(site, row, name, view, window, out);
            }
            Mode::Batch => {
                self.flush_ms = flush_ms;
                self.send_batch(site, row, name, view, out);
            }
            Mode::Datagram if self.is_idle() => {
                let (taken, _) = pick::batch(site, row, view, self.position, DATAGRAMS_MAX);
                self.request(site, row, name, view, taken, out);
            }
            Mode::Datagram => {}
        }
    }

    fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.reports.is_empty()
    }

    /// How many places of the window are taken.
    fn taken(&self, mode: Mode) -> usize {
        match mode {
            Mode::Oneway => self.flights.values().filter(|flight| !flight.written).count(),
            Mode::Ordered | Mode::Twoway | Mode::Batch | Mode::Datagram => {
                let reported = self.reports.iter().map(|report| match report {
                    PushReport::Delivered { count, .. } => *count as usize,
                    PushReport::Failed { .. }
                    | PushReport::GivenUp { .. }
                    | PushReport::Probe
                    | PushReport::Overflow { .. } => 1,
                });
                self.flights.len() + self.beyond.len() + reported.sum::<usize>()
            }
        }
    }

    /// How many places there are.
    fn window(&self, row: &PushRow, probing: bool) -> usize {
        let mode = row.spec.quality.mode;
        let window = match mode {
            _ if probing => 1,
            Mode::Oneway => UNWRITTEN_MAX,
            Mode::Twoway => row.spec.quality.window() as usize,
            Mode::Ordered | Mode::Batch | Mode::Datagram => 1,
        };
        // What is done behind the one that failed takes no place from that one, however many there
        // were places for before.
        if self.is_idle() { window.max(self.taken(mode) + 1) } else { window }
    }

    fn is_under_way(&self, id: InstanceId) -> bool {
        let flying = |flight: &Flight| flight.ids.contains(&id);
        self.beyond.contains(&id) || self.flights.values().any(flying)
    }

    fn send_singly(
        &mut self,
        site: &Site,
        row: &PushRow,
        name: &EventName,
        view: View<'_>,
        window: usize,
        out: &mut Vec<PushOutput>,
    ) {
        let mode = row.spec.quality.mode;
        let open_max = if mode == Mode::Twoway { TWOWAY_OPEN_MAX } else { OPEN_MAX };
        while self.taken(mode) < window && self.flights.len() < open_max {
            let found = pick::next(site, row, view, self.position, |id| self.is_under_way(id));
            let Some(found) = found else { return };
            // What was given up in an earlier life of this lane is done.
            if site.is_given_up(&Subscriber::Push(self.id.clone()), found.id) {
                self.done(&[found.id]);
                self.delivered(0, 0);
                continue;
            }
            self.request(site, row, name, view, vec![found], out);
        }
    }

    fn send_batch(
        &mut self,
        site: &Site,
        row: &PushRow,
        name: &EventName,
        view: View<'_>,
        out: &mut Vec<PushOutput>,
    ) {
        let waits = pick::next(site, row, view, self.position, |id| self.is_under_way(id));
        if waits.is_none() {
            self.flush_ms = None;
            return;
        }
        let flush_ms = u64::from(row.spec.quality.flush_ms());
        let at = *self.flush_ms.get_or_insert(view.now_ms + flush_ms);
        if !self.is_idle() || at > view.now_ms {
            return;
        }
        let (mut taken, mut more) = pick::batch(site, row, view, self.position, usize::MAX);
        taken.retain(|instance| !self.beyond.contains(&instance.id));
        // What failed goes again as it went, under the same key: what came since has attempts of
        // its own.
        let attempts = |instance: &Arc<Instance>| self.attempts.get(&instance.id).unwrap_or(&0);
        let first = taken.first().map(attempts);
        let alike = taken.iter().take_while(|it| Some(attempts(it)) == first).count();
        more |= alike < taken.len();
        taken.truncate(alike);
        self.flush_ms = more.then_some(view.now_ms + 1);
        self.request(site, row, name, view, taken, out);
    }

    fn request(
        &mut self,
        site: &Site,
        row: &PushRow,
        name: &EventName,
        view: View<'_>,
        instances: Vec<Arc<Instance>>,
        out: &mut Vec<PushOutput>,
    ) {
        let (Some(first), Some(epoch), Some(event)) =
            (instances.first(), self.epoch, site.event(row.event))
        else {
            return;
        };
        let before = |id: &InstanceId| self.attempts.get(id).copied().unwrap_or(0);
        let attempt = before(&first.id).saturating_add(1);
        let parcels = instances
            .iter()
            .map(|instance| Parcel {
                instance: instance.clone(),
                category: event.definition.kind.category(),
                attempt: before(&instance.id).saturating_add(1),
                age_ms: view.stamp.0.saturating_sub(instance.created.0),
            })
            .collect();
        let request = Box::new(PushRequest {
            push: row.id.clone(),
            spec: row.spec.clone(),
            epoch,
            incarnation: site.incarnation(),
            generation: row.generation,
            event: row.event,
            name: name.clone(),
            parcels,
        });
        let token = self.token();
        let ids = instances.iter().map(|instance| instance.id).collect();
        self.flights.insert(token, Flight { ids, attempt, written: false });
        out.push(PushOutput::Request { token, request });
    }

    /// Reports when more waits than may. What is under way finishes.
    fn look_at_overflow(
        &mut self,
        site: &Site,
        row: &PushRow,
        view: View<'_>,
        out: &mut Vec<PushOutput>,
    ) {
        let Some(most) = row.spec.queue_max else { return };
        if view.now_ms < self.overflow_ms {
            return self.look_at(self.overflow_ms);
        }
        let reported = |report: &PushReport| matches!(report, PushReport::Overflow { .. });
        if self.reports.iter().any(reported) {
            return;
        }
        self.overflow_ms = view.now_ms + OVERFLOW_LOOK_MS;
        let flying = self.flights.values().flat_map(|flight| &flight.ids).max().copied();
        let after = flying.unwrap_or_default().max(self.position);
        if let Some((cursor, count)) = pick::overflow(site, row, view, after, most) {
            self.report(PushReport::Overflow { cursor, count });
            self.propose_report(site, row, view, out);
        }
    }
}
