//! What the world knows that nobody in it does, and what must hold.
//!
//! Every event carries a text of its own, so an instance can be told from every other one. The
//! oracle sees what services send and are told, and what handlers are called with. It looks into
//! no machine until the end.

use std::collections::{BTreeMap, BTreeSet};

use ackord_machine::site::{ClientId, InstanceId, Site};

use ackord_wire::frame::Position;

use super::broker::LinkId;
use super::client::Kind;

/// A broken promise.
pub type Violation = String;

/// What one subscription's handler was called with.
#[derive(Debug, Default)]
struct Handled {
    generation: u32,
    /// The floor: only greater ids may come.
    last: u64,
    /// The one id at or below the floor that a crash allows once more.
    again: Option<u64>,
    ids: BTreeSet<u64>,
    calls: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Texts by service in the order of raising, with the event's name.
    raised: BTreeMap<usize, Vec<(String, String)>>,
    /// What a connection's number stands for.
    sent: BTreeMap<(LinkId, u64), String>,
    /// What services were told is stored.
    accepted: BTreeMap<String, u64>,
    /// Texts that a torn store may bring to the broker under a second identity.
    may_repeat: BTreeSet<String>,
    texts: BTreeMap<u64, String>,
    handled: BTreeMap<(usize, String), Handled>,
    /// What went wrong.
    pub violations: Vec<Violation>,
}

impl Oracle {
    /// An application raised an event.
    pub fn raised(&mut self, service: usize, event: &str, text: &str) {
        self.raised.entry(service).or_default().push((event.to_owned(), text.to_owned()));
    }

    /// A service sent a raise.
    pub fn sent(&mut self, link: LinkId, seq: u64, text: String) {
        self.sent.insert((link, seq), text);
    }

    /// A service was told that a raise is stored.
    pub fn accepted(&mut self, link: LinkId, seq: u64, instance_id: Option<u64>) {
        let Some(text) = self.sent.get(&(link, seq)).cloned() else {
            return self.violations.push(format!("an answer to number {seq} that was not sent"));
        };
        // The outcome is no longer remembered: nothing to compare.
        let Some(id) = instance_id else { return };
        self.is_text(id, &text);
        let before = self.accepted.insert(text.clone(), id);
        if before.is_some_and(|before| before != id) && !self.may_repeat.contains(&text) {
            self.violations.push(format!("{text} was stored as {before:?} and as {id}"));
        }
    }

    fn is_text(&mut self, id: u64, text: &str) {
        let known = self.texts.entry(id).or_insert_with(|| text.to_owned());
        if known != text {
            self.violations.push(format!("instance {id} is {known} to one and {text} to another"));
        }
    }

    /// A service crashed and its store lost durable records.
    pub fn torn(&mut self, held_before: BTreeSet<String>) {
        self.may_repeat.extend(held_before);
    }

    /// A handler was called.
    pub fn handled(&mut self, client: usize, event: &str, generation: u32, id: u64, text: &str) {
        self.is_text(id, text);
        let lane = self.handled.entry((client, event.to_owned())).or_default();
        lane.calls += 1;
        if generation > lane.generation {
            lane.generation = generation;
            lane.last = 0;
            lane.again = None;
        }
        if id <= lane.last && lane.again != Some(id) {
            let last = lane.last;
            self.violations
                .push(format!("client {client} was called with {event} {id} after {last}"));
        }
        if lane.again.is_some_and(|again| again <= id) {
            lane.again = None;
        }
        lane.last = lane.last.max(id);
        lane.ids.insert(id);
    }

    /// A client crashed; `stored` is the position that survived.
    pub fn client_crashed(
        &mut self,
        client: usize,
        event: &str,
        kind: Kind,
        stored: Option<Position>,
    ) {
        let Some(lane) = self.handled.get_mut(&(client, event.to_owned())) else { return };
        let present = stored.filter(|position| position.generation == lane.generation);
        let stored = present.map_or(0, |position| position.instance_id);
        // A file lets only what it had not yet taken come again; memory lets the one come again
        // whose cursor the broker had not yet moved.
        let unsaved = !kind.is_durable() || stored < lane.last;
        if unsaved && lane.last > 0 {
            lane.again = Some(lane.last);
        }
    }

    /// What must hold once everything has healed and come to rest.
    pub fn at_rest(
        &mut self,
        site: &Site,
        clients: &[(usize, Option<ClientId>, Vec<&'static str>)],
    ) {
        self.no_text_twice(site);
        self.order_of_raising();
        for (client, id, events) in clients {
            for event in events {
                self.complete(site, *client, id.as_ref(), event);
            }
        }
    }

    fn no_text_twice(&mut self, site: &Site) {
        let mut seen: BTreeMap<String, InstanceId> = BTreeMap::new();
        for event in site.events() {
            for instance in site.retained(event.key) {
                let Some(arguments) = &instance.arguments else { continue };
                let text = String::from_utf8_lossy(&arguments.data).into_owned();
                let twice = seen.insert(text.clone(), instance.id);
                if twice.is_some() && !self.may_repeat.contains(&text) {
                    self.violations
                        .push(format!("{text} is stored as {twice:?} and {:?}", instance.id));
                }
            }
        }
    }

    fn order_of_raising(&mut self) {
        for (service, texts) in &self.raised {
            let mut last = (0, String::new());
            for (_, text) in texts.iter().filter(|(_, text)| !self.may_repeat.contains(text)) {
                let Some(id) = self.accepted.get(text) else { continue };
                if *id <= last.0 {
                    let before = &last.1;
                    self.violations.push(format!(
                        "service {service} raised {before} before {text}, stored the other way round"
                    ));
                }
                last = (*id, text.clone());
            }
        }
    }

    /// Everything that a client should have handled, it has.
    fn complete(&mut self, site: &Site, client: usize, id: Option<&ClientId>, event: &str) {
        let Some(definition) = site.event_named(event) else {
            return self.violations.push(format!("the site lost its event {event}"));
        };
        let nothing = Handled::default();
        let lane = self.handled.get(&(client, event.to_owned())).unwrap_or(&nothing);
        let mut missing = Vec::new();
        for instance in site.retained(definition.key) {
            let mine = instance.client.is_none() || instance.client.as_ref() == id;
            if mine && !lane.ids.contains(&instance.id.0) {
                missing.push(instance.id.0);
            }
        }
        if !missing.is_empty() {
            self.violations.push(format!("client {client} never got {event} {missing:?}"));
        }
        let cursor = id.and_then(|id| site.subscription(id, definition.key));
        if let (Some(row), Some(last)) = (cursor, lane.ids.last())
            && row.cursor.0 < *last
        {
            let cursor = row.cursor;
            self.violations.push(format!(
                "client {client} handled {event} {last}, its cursor rests at {cursor}"
            ));
        }
    }

    /// Accepted texts of an event that is kept in full, with their ids.
    pub fn lost(&mut self, site: &Site, kept_in_full: &[&str]) {
        for texts in self.raised.values() {
            for (event, text) in texts.iter().filter(|(e, _)| kept_in_full.contains(&e.as_str())) {
                let Some(id) = self.accepted.get(text) else { continue };
                let instance = site.instance(InstanceId(*id));
                let there = instance.and_then(|instance| instance.arguments.as_ref());
                if there.is_none_or(|arguments| arguments.data.as_ref() != text.as_bytes()) {
                    self.violations
                        .push(format!("{event} {id}, {text}, was acknowledged and is lost"));
                }
            }
        }
    }

    /// Private events: acknowledged to their service, handled by their client or still there.
    pub fn private_lost(&mut self, site: &Site, event: &str, addressee: impl Fn(&str) -> usize) {
        for texts in self.raised.values() {
            for (_, text) in texts.iter().filter(|(name, _)| name == event) {
                let Some(id) = self.accepted.get(text) else { continue };
                let lane = self.handled.get(&(addressee(text), event.to_owned()));
                let handled = lane.is_some_and(|lane| lane.ids.contains(id));
                if !handled && site.instance(InstanceId(*id)).is_none() {
                    self.violations.push(format!("private {id}, {text}, vanished unhandled"));
                }
            }
        }
        for ((client, name), lane) in &self.handled {
            for id in lane.ids.iter().filter(|_| name == event) {
                let text = self.texts.get(id).map(String::as_str).unwrap_or_default();
                if addressee(text) != *client {
                    self.violations
                        .push(format!("client {client} got {text}, not addressed to it"));
                }
            }
        }
    }

    /// (texts raised, acknowledged, handler calls): a run in which nothing happened proves nothing.
    pub fn figures(&self) -> (u64, u64, u64) {
        let raised = self.raised.values().map(|texts| texts.len() as u64).sum();
        let calls = self.handled.values().map(|lane| lane.calls).sum();
        (raised, self.accepted.len() as u64, calls)
    }
}
