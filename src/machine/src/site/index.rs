//! Keeps a site's maps and indexes in step with its rows: one row in, one row out.
//!
//! Invariants: every index entry has its row and every row its entries; a map left empty is
//! removed, so the order of writes leaves no trace; `bytes` is the sum of the rows' weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::credential::TicketRow;
use super::dead::DeadLetterRow;
use super::history::{Departed, Gone};
use super::ids::{ClientId, EventKey, InstanceId, ServiceId, Stamp, StorageUid, TokenId};
use super::limits::OWN_KEY_START;
use super::push::PushRow;
use super::row::{HeadRow, Instance, KeyRow, OutcomeRow, Row, RowKey, TokenRow};
use super::site::{ClientRows, Due, EventRows, Queue, ServiceRows, Site, StoreRows};
use super::structure::Kind;
use super::weight::{self, Weight};

impl ServiceRows {
    /// Takes something from a store, and the store with its last row.
    fn of_store(&mut self, uid: StorageUid, take: impl FnOnce(&mut StoreRows) -> u64) -> u64 {
        let Some(store) = self.stores.get_mut(&uid) else { return 0 };
        let taken = take(store);
        if store.is_empty() {
            self.stores.remove(&uid);
        }
        taken
    }

    fn is_empty(&self) -> bool {
        self.row.is_none()
            && self.declared.is_none()
            && self.stores.is_empty()
            && self.keys.is_empty()
    }
}

impl ClientRows {
    fn is_empty(&self) -> bool {
        self.row.is_none()
            && self.subscriptions.is_empty()
            && self.qualities.is_empty()
            && self.polling.is_none()
    }
}

impl StoreRows {
    fn is_empty(&self) -> bool {
        self.row.is_none() && self.outcomes.is_empty()
    }
}

impl EventRows {
    fn is_empty(&self) -> bool {
        self.row.is_none() && self.retained.is_empty()
    }
}

/// Removes an id from one of several queues, and the queue if it was the last.
fn remove_from<K: Ord>(queues: &mut BTreeMap<K, Queue>, key: &K, id: InstanceId) {
    if let Some(queue) = queues.get_mut(key) {
        queue.remove(id);
        if queue.is_empty() {
            queues.remove(key);
        }
    }
}

/// Whether a key counts for [`super::limits::Limits::keys_max`].
fn counts(key: &str) -> bool {
    !key.starts_with(OWN_KEY_START)
}

fn weight_of<T: Weight>(row: Option<T>) -> u64 {
    row.map_or(0, |row| row.weight())
}

impl Site {
    pub(super) fn is_empty(&self) -> bool {
        self.row.is_none()
            && self.head.is_none()
            && self.events.is_empty()
            && self.instances.is_empty()
            && self.services.is_empty()
            && self.clients.is_empty()
            && self.users.is_empty()
            && self.tokens.is_empty()
            && self.requests.is_empty()
            && self.attempt.is_none()
            && self.tickets.is_empty()
            && self.quotas.is_none()
            && self.rates.is_empty()
            && self.audit.is_empty()
            && self.pushes.is_empty()
            && self.dead_letters.is_empty()
    }

    pub(super) fn next_due(&self) -> Option<Stamp> {
        self.due.first().map(|(stamp, _)| *stamp)
    }

    /// What expires at or before `now`, the earliest first.
    pub(super) fn due(&self, now: Stamp) -> impl Iterator<Item = &Due> {
        self.due.iter().take_while(move |(stamp, _)| *stamp <= now).map(|(_, due)| due)
    }

    fn service_rows(&mut self, id: &ServiceId) -> &mut ServiceRows {
        self.services.entry(id.clone()).or_default()
    }

    fn store_rows(&mut self, id: &ServiceId, uid: StorageUid) -> &mut StoreRows {
        self.service_rows(id).stores.entry(uid).or_default()
    }

    fn client_rows(&mut self, id: &ClientId) -> &mut ClientRows {
        self.clients.entry(id.clone()).or_default()
    }

    /// Inserts or replaces a row.
    pub(super) fn put(&mut self, row: &Row) {
        let before = match row {
            Row::Clock(_) | Row::Limits(_) | Row::Cluster(_) | Row::Node(_) => 0,
            Row::Site(row) => weight_of(self.row.replace(row.clone())),
            Row::Head(row) => self.put_head(row),
            Row::Event(row) => {
                let before = self.remove_event_row(&row.key);
                self.names.entry(row.definition.name.clone()).or_default().insert(row.key);
                self.events.entry(row.key).or_default().row = Some(row.clone());
                before
            }
            Row::Instance(row) => self.put_instance(row),
            Row::Replayed(row) => self.put_instance(&row.whole()),
            Row::Traced(row) => self.put_instance(&row.whole()),
            Row::Service(row) => weight_of(self.service_rows(&row.id).row.replace(row.clone())),
            Row::Declared(row) => {
                weight_of(self.service_rows(&row.service).declared.replace(row.clone()))
            }
            Row::Store(row) => {
                let old = self.store_rows(&row.service, row.uid).row.replace(row.clone());
                old.map_or(0, |_| weight::STORE)
            }
            Row::Outcome(row) => {
                let outcomes = &mut self.store_rows(&row.service, row.uid).outcomes;
                let old = outcomes.insert(row.sequence, (row.content, row.decision.clone()));
                old.map_or(0, |_| weight::OUTCOME)
            }
            Row::Key(row) => self.put_key(row),
            Row::User(row) => weight_of(self.users.insert(row.id.clone(), row.clone())),
            Row::Client(row) => weight_of(self.client_rows(&row.id).row.replace(row.clone())),
            Row::Subscription(row) => {
                let subscriptions = &mut self.client_rows(&row.client).subscriptions;
                let old = subscriptions.insert(row.event, row.clone());
                self.subscribed += usize::from(old.is_none());
                weight_of(old)
            }
            Row::Token(row) => self.put_token(row),
            Row::Request(row) => {
                let old = self.requests.insert(row.id, row.clone());
                if let Some(old) = &old {
                    self.due.remove(&(old.expires, Due::Request(old.id)));
                }
                self.due.insert((row.expires, Due::Request(row.id)));
                weight_of(old)
            }
            Row::Attempt(row) => self.attempt.replace(row.clone()).map_or(0, |_| weight::ATTEMPT),
            Row::Ticket(row) => self.put_ticket(row),
            Row::Quota(row) => self.quotas.replace(row.clone()).map_or(0, |_| weight::QUOTA),
            Row::Rate(row) => {
                self.rates.insert(row.service.clone(), row.clone()).map_or(0, |_| weight::RATE)
            }
            Row::Audit(row) => {
                let before = self.remove_entry(row.number);
                self.told.entry(row.note.told()).or_default().insert(row.number);
                self.audit.insert(row.number, row.clone());
                before
            }
            Row::Polling(row) => {
                let old = self.client_rows(&row.client).polling.replace(Box::new(row.clone()));
                old.map_or(0, |_| weight::POLLING)
            }
            Row::Quality(row) => {
                let qualities = &mut self.client_rows(&row.client).qualities;
                qualities.insert(row.event, row.clone()).map_or(0, |_| weight::QUALITY)
            }
            Row::Push(row) => weight_of(self.pushes.insert(row.id.clone(), row.clone())),
            Row::DeadLetter(row) => self.put_letter(row),
        };
        self.bytes = self.bytes.saturating_sub(before).saturating_add(row.weight());
    }

    fn put_head(&mut self, head: &HeadRow) -> u64 {
        let (before, newest) = (self.head(), head.last_instance);
        // A raise puts its instance, then the head that is one higher. Anything else is a state
        // that was read from a disk or a peer: what had departed from it is not known.
        if newest != before && (newest != before.next() || !self.instances.contains_key(newest)) {
            self.history.begin_at(newest);
        }
        self.head.replace(head.clone()).map_or(0, |_| weight::HEAD)
    }

    fn put_token(&mut self, token: &TokenRow) -> u64 {
        let due = |row: &TokenRow| row.expires.map(|at| (at, Due::Token(row.id.clone())));
        let old = self.tokens.insert(token.id.clone(), token.clone());
        if let Some(due) = old.as_ref().and_then(due) {
            self.due.remove(&due);
        }
        self.due.extend(due(token));
        weight_of(old)
    }

    fn put_ticket(&mut self, ticket: &TicketRow) -> u64 {
        let before = self.remove_ticket(&ticket.id);
        self.due.insert((ticket.expires, Due::Ticket(ticket.id.clone())));
        if ticket.used.is_some() {
            self.used_tickets.insert((ticket.expires, ticket.id.clone()));
        } else {
            *self.unused_tickets.entry(ticket.principal.clone()).or_default() += 1;
        }
        self.tickets.insert(ticket.id.clone(), ticket.clone());
        before
    }

    fn remove_ticket(&mut self, id: &TokenId) -> u64 {
        let Some(old) = self.tickets.remove(id) else { return 0 };
        let weight = old.weight();
        self.due.remove(&(old.expires, Due::Ticket(old.id.clone())));
        if old.used.is_some() {
            self.used_tickets.remove(&(old.expires, old.id));
        } else if let Some(unused) = self.unused_tickets.get_mut(&old.principal) {
            *unused -= 1;
            if *unused == 0 {
                self.unused_tickets.remove(&old.principal);
            }
        }
        weight
    }

    fn put_instance(&mut self, instance: &Arc<Instance>) -> u64 {
        let before = self.remove_instance(instance.id).map_or(0, |old| old.weight());
        self.queued_bytes += instance.argument_bytes();
        if let Some(expires) = instance.expires {
            self.due.insert((expires, Due::Instance(instance.id)));
        }
        let event = self.events.entry(instance.event).or_default();
        event.retained.insert(instance.id, Arc::clone(instance));
        let queue = event.queues.entry(instance.service.clone()).or_default();
        queue.insert(instance.id, Arc::clone(instance));
        if let Some(client) = &instance.client {
            let queue = event.addressed.entry(client.clone()).or_default();
            queue.insert(instance.id, Arc::clone(instance));
        }
        self.instances.insert(instance.id, Arc::clone(instance));
        before
    }

    fn put_key(&mut self, row: &KeyRow) -> u64 {
        let due = |row: &KeyRow| (row.expires, Due::Key(row.service.clone(), row.key.clone()));
        let old = self.service_rows(&row.service).keys.insert(row.key.clone(), row.clone());
        if let Some(old) = &old {
            self.due.remove(&due(old));
            self.uncount_key(old);
        }
        self.due.insert(due(row));
        if counts(&row.key) {
            self.keys += 1;
            self.service_rows(&row.service).counted += 1;
            *self.key_ends.entry((row.expires, row.service.clone())).or_default() += 1;
        }
        weight_of(old)
    }

    /// A key is there no more.
    fn uncount_key(&mut self, old: &KeyRow) {
        if !counts(&old.key) {
            return;
        }
        self.keys -= 1;
        if let Some(rows) = self.services.get_mut(&old.service) {
            rows.counted -= 1;
        }
        let end = (old.expires, old.service.clone());
        if let Some(count) = self.key_ends.get_mut(&end) {
            *count -= 1;
            if *count == 0 {
                self.key_ends.remove(&end);
            }
        }
    }

    /// Removes a row, at this time of the log; an absent one leaves everything as it is.
    pub(super) fn delete(&mut self, key: &RowKey, now: Stamp) {
        let before = match key {
            RowKey::Clock | RowKey::Limits | RowKey::Cluster | RowKey::Node(_) => 0,
            RowKey::Site(_) => weight_of(self.row.take()),
            RowKey::Head(_) => self.head.take().map_or(0, |_| weight::HEAD),
            RowKey::Event(_, key) => {
                let before = self.remove_event_row(key);
                if self.events.get(key).is_some_and(EventRows::is_empty) {
                    self.events.remove(key);
                }
                before
            }
            RowKey::Instance(_, id) => {
                if let Some(departed) = self.departing(*id, now) {
                    self.history.push(departed);
                }
                self.remove_instance(*id).map_or(0, |old| old.weight())
            }
            RowKey::Service(_, service) => {
                self.of_service(service, |rows| weight_of(rows.row.take()))
            }
            RowKey::Declared(_, service) => {
                self.of_service(service, |rows| weight_of(rows.declared.take()))
            }
            RowKey::Store(_, service, uid) => self.of_service(service, |rows| {
                rows.of_store(*uid, |store| store.row.take().map_or(0, |_| weight::STORE))
            }),
            RowKey::Outcome(_, service, uid, sequence) => self.of_service(service, |rows| {
                rows.of_store(*uid, |store| {
                    store.outcomes.remove(*sequence).map_or(0, |_| weight::OUTCOME)
                })
            }),
            RowKey::Key(_, service, key) => {
                let old = self.of_service(service, |rows| rows.keys.remove(key));
                if let Some(old) = &old {
                    self.uncount_key(old);
                    self.due.remove(&(old.expires, Due::Key(service.clone(), key.clone())));
                }
                weight_of(old)
            }
            RowKey::User(_, id) => weight_of(self.users.remove(id)),
            RowKey::Client(_, client) => self.of_client(client, |rows| weight_of(rows.row.take())),
            RowKey::Subscription(_, client, event) => {
                let old = self.of_client(client, |rows| rows.subscriptions.remove(*event));
                self.subscribed = self.subscribed.saturating_sub(usize::from(old.is_some()));
                weight_of(old)
            }
            RowKey::Token(_, id) => {
                let old = self.tokens.remove(id);
                if let Some(at) = old.as_ref().and_then(|old| old.expires) {
                    self.due.remove(&(at, Due::Token(id.clone())));
                }
                weight_of(old)
            }
            RowKey::Request(_, id) => {
                let old = self.requests.remove(id);
                if let Some(old) = &old {
                    self.due.remove(&(old.expires, Due::Request(old.id)));
                }
                weight_of(old)
            }
            RowKey::Attempt(_) => self.attempt.take().map_or(0, |_| weight::ATTEMPT),
            RowKey::Ticket(_, id) => self.remove_ticket(id),
            RowKey::Quota(_) => self.quotas.take().map_or(0, |_| weight::QUOTA),
            RowKey::Rate(_, service) => self.rates.remove(service).map_or(0, |_| weight::RATE),
            RowKey::Audit(_, number) => self.remove_entry(*number),
            RowKey::Polling(_, client) => {
                self.of_client(client, |rows| rows.polling.take().map_or(0, |_| weight::POLLING))
            }
            RowKey::Quality(_, client, event) => self.of_client(client, |rows| {
                rows.qualities.remove(event).map_or(0, |_| weight::QUALITY)
            }),
            RowKey::Push(_, id) => weight_of(self.pushes.remove(id)),
            RowKey::DeadLetter(_, id) => self.remove_letter(*id),
        };
        self.bytes = self.bytes.saturating_sub(before);
    }

    /// Takes an entry out of the record.
    fn remove_entry(&mut self, number: u64) -> u64 {
        let Some(old) = self.audit.remove(&number) else { return 0 };
        let told = old.note.told();
        if let Some(numbers) = self.told.get_mut(&told) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.told.remove(&told);
            }
        }
        old.weight()
    }

    /// Takes an event's row and name, leaving its instances.
    fn remove_event_row(&mut self, key: &EventKey) -> u64 {
        let Some(old) = self.events.get_mut(key).and_then(|rows| rows.row.take()) else {
            return 0;
        };
        if let Some(keys) = self.names.get_mut(&old.definition.name) {
            keys.remove(key);
            if keys.is_empty() {
                self.names.remove(&old.definition.name);
            }
        }
        old.weight()
    }

    fn put_letter(&mut self, row: &DeadLetterRow) -> u64 {
        let before = self.remove_letter(row.id);
        let letters = self.letters.entry(row.subscriber.clone()).or_default();
        letters.insert(row.instance, row.id);
        self.dead_letters.insert(row.id, row.clone());
        before
    }

    fn remove_letter(&mut self, id: InstanceId) -> u64 {
        let Some(old) = self.dead_letters.remove(&id) else { return 0 };
        if let Some(letters) = self.letters.get_mut(&old.subscriber) {
            letters.remove(&old.instance);
            if letters.is_empty() {
                self.letters.remove(&old.subscriber);
            }
        }
        old.weight()
    }

    /// What is to be remembered of an instance that goes now.
    fn departing(&self, id: InstanceId, now: Stamp) -> Option<Departed> {
        let instance = self.instances.get(id)?;
        let queue = self.queue_rows(instance.event, &instance.service)?;
        let newest = queue.last().map(|(newest, _)| *newest).filter(|by| *by > id);
        let event = self.event(instance.event);
        let acknowledged = |client: &ClientId| {
            let row = self.subscription(client, instance.event);
            let passed = |push: &PushRow| push.event == instance.event && push.cursor >= id;
            row.is_some_and(|row| row.cursor >= id)
                || self.pushes().any(|push| push.spec.client == *client && passed(push))
        };
        let gone = match (event, newest) {
            (None, _) => Gone::Removed,
            (Some(_), _) if self.service(instance.service.as_str()).is_none() => Gone::Removed,
            (Some(_), _) if instance.expired(now) => Gone::Expired,
            (Some(_), _) if instance.client.as_ref().is_some_and(acknowledged) => {
                Gone::Acknowledged
            }
            (Some(event), Some(by)) => match event.definition.kind {
                Kind::Replacing { .. } => Gone::Superseded { by },
                Kind::Queueing { .. } | Kind::Private { .. } => Gone::Evicted { by },
            },
            (Some(_), None) => Gone::Removed,
        };
        Some(Departed {
            id,
            event: instance.event,
            service: instance.service.clone(),
            client: instance.client.clone(),
            created: instance.created,
            at: now,
            gone,
        })
    }

    fn remove_instance(&mut self, id: InstanceId) -> Option<Arc<Instance>> {
        let instance = self.instances.remove(id)?;
        self.queued_bytes = self.queued_bytes.saturating_sub(instance.argument_bytes());
        if let Some(expires) = instance.expires {
            self.due.remove(&(expires, Due::Instance(id)));
        }
        if let Some(event) = self.events.get_mut(&instance.event) {
            event.retained.remove(id);
            remove_from(&mut event.queues, &instance.service, id);
            if let Some(client) = &instance.client {
                remove_from(&mut event.addressed, client, id);
            }
            if event.is_empty() {
                self.events.remove(&instance.event);
            }
        }
        Some(instance)
    }

    /// Takes something from a service, and the service with its last row.
    fn of_service<T: Default>(
        &mut self,
        service: &ServiceId,
        take: impl FnOnce(&mut ServiceRows) -> T,
    ) -> T {
        let Some(rows) = self.services.get_mut(service) else { return T::default() };
        let taken = take(rows);
        if rows.is_empty() {
            self.services.remove(service);
        }
        taken
    }

    /// Takes something from a client, and the client with its last row.
    fn of_client<T: Default>(
        &mut self,
        client: &ClientId,
        take: impl FnOnce(&mut ClientRows) -> T,
    ) -> T {
        let Some(rows) = self.clients.get_mut(client) else { return T::default() };
        let taken = take(rows);
        if rows.is_empty() {
            self.clients.remove(client);
        }
        taken
    }

    /// The row of this identity.
    pub(super) fn row(&self, key: &RowKey) -> Option<Row> {
        match key {
            RowKey::Clock | RowKey::Limits | RowKey::Cluster | RowKey::Node(_) => None,
            RowKey::Site(_) => self.row.clone().map(Row::Site),
            RowKey::Head(_) => self.head.clone().map(Row::Head),
            RowKey::Event(_, key) => self.event(*key).cloned().map(Row::Event),
            RowKey::Instance(_, id) => self.instance(*id).cloned().map(Row::from),
            RowKey::Service(_, id) => self.service(id.as_str()).cloned().map(Row::Service),
            RowKey::Declared(_, id) => self.services.get(id)?.declared.clone().map(Row::Declared),
            RowKey::Store(_, id, uid) => self.store(id.as_str(), *uid).cloned().map(Row::Store),
            RowKey::Outcome(_, service, uid, sequence) => {
                let (content, decision) = self.outcome(service.as_str(), *uid, *sequence)?;
                Some(Row::Outcome(OutcomeRow {
                    site: self.name.clone(),
                    service: service.clone(),
                    uid: *uid,
                    sequence: *sequence,
                    content: *content,
                    decision: decision.clone(),
                }))
            }
            RowKey::Key(_, service, key) => self.key(service.as_str(), key).cloned().map(Row::Key),
            RowKey::User(_, id) => self.user(id.as_str()).cloned().map(Row::User),
            RowKey::Client(_, id) => self.client(id.as_str()).cloned().map(Row::Client),
            RowKey::Subscription(_, client, event) => {
                self.subscription(client, *event).cloned().map(Row::Subscription)
            }
            RowKey::Token(_, id) => self.token(id.as_str()).cloned().map(Row::Token),
            RowKey::Request(_, id) => self.request(*id).cloned().map(Row::Request),
            RowKey::Attempt(_) => self.attempt.clone().map(Row::Attempt),
            RowKey::Ticket(_, id) => self.ticket(id.as_str()).cloned().map(Row::Ticket),
            RowKey::Quota(_) => self.quotas.clone().map(Row::Quota),
            RowKey::Rate(_, service) => self.rates.get(service).cloned().map(Row::Rate),
            RowKey::Audit(_, number) => self.audit.get(number).cloned().map(Row::Audit),
            RowKey::Polling(_, client) => self.polling(client).cloned().map(Row::Polling),
            RowKey::Quality(_, client, event) => {
                let row = self.clients.get(client)?.qualities.get(event);
                row.cloned().map(Row::Quality)
            }
            RowKey::Push(_, id) => self.push(id.as_str()).cloned().map(Row::Push),
            RowKey::DeadLetter(_, id) => {
                self.dead_letters.get(id).cloned().map(Box::new).map(Row::DeadLetter)
            }
        }
    }

    /// Every row of the site once.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row> {
        let own = self.row.clone().map(Row::Site).into_iter();
        own.chain(self.head.clone().map(Row::Head))
            .chain(self.events().cloned().map(Row::Event))
            .chain(self.instances.values().cloned().map(Row::from))
            .chain(self.services.iter().flat_map(|(id, rows)| self.rows_of_service(id, rows)))
            .chain(self.users.values().cloned().map(Row::User))
            .chain(self.clients.values().flat_map(|rows| {
                let own = rows.row.clone().map(Row::Client).into_iter();
                own.chain(rows.subscriptions.values().cloned().map(Row::Subscription))
                    .chain(rows.polling.as_deref().cloned().map(Row::Polling))
                    .chain(rows.qualities.values().cloned().map(Row::Quality))
            }))
            .chain(self.tokens.values().cloned().map(Row::Token))
            .chain(self.requests.values().cloned().map(Row::Request))
            .chain(self.attempt.clone().map(Row::Attempt))
            .chain(self.tickets.values().cloned().map(Row::Ticket))
            .chain(self.quotas.clone().map(Row::Quota))
            .chain(self.rates.values().cloned().map(Row::Rate))
            .chain(self.audit.values().cloned().map(Row::Audit))
            .chain(self.pushes.values().cloned().map(Row::Push))
            .chain(self.dead_letters.values().cloned().map(Box::new).map(Row::DeadLetter))
    }

    /// The rows of a service: itself, what it declared, its marks, decisions and keys.
    pub(super) fn rows_of_service<'a>(
        &'a self,
        id: &'a ServiceId,
        rows: &'a ServiceRows,
    ) -> impl Iterator<Item = Row> + 'a {
        let own = rows.row.clone().map(Row::Service).into_iter();
        own.chain(rows.declared.clone().map(Row::Declared))
            .chain(rows.stores.iter().flat_map(move |(uid, store)| {
                let mark = store.row.clone().map(Row::Store).into_iter();
                mark.chain(store.outcomes.iter().map(move |(sequence, (content, decision))| {
                    Row::Outcome(OutcomeRow {
                        site: self.name.clone(),
                        service: id.clone(),
                        uid: *uid,
                        sequence: *sequence,
                        content: *content,
                        decision: decision.clone(),
                    })
                }))
            }))
            .chain(rows.keys.values().cloned().map(Row::Key))
    }
}
