//! What waits for subscriptions, over all sites whose partitions this node leads.
//!
//! Looking at every subscription takes a while where there are many. So applying never waits for
//! more than a handful of them at a time, what is counted of each has a bound, and no look begins
//! before ten times as long has passed as the last one took: until then that one's answer counts.

use std::time::{Duration, Instant};

use ackord_machine::site::{Lag, PushId, Receiver, Site, SiteName, Stamp};
use ackord_replica::{Node, PartitionHandle};
use parking_lot::Mutex;

use super::Sheet;

/// Instances that are counted of each subscription.
const COUNTED_MAX: u64 = 1000;
/// Clients, or push subscriptions, that are looked at while applying waits.
const AT_ONCE: usize = 32;
/// Sites that are named.
const NAMED_MAX: usize = 10;
/// How much longer than a look it is until the next one.
const PAUSE: u32 = 10;

/// What waits in one site.
#[derive(Clone, Debug, Default)]
struct Waiting {
    subscriptions: u64,
    lagging: u64,
    instances: u64,
    oldest_ms: u64,
}

impl Waiting {
    fn note(&mut self, lag: Lag, now: Stamp) {
        self.subscriptions += 1;
        self.lagging += u64::from(lag.count > 0);
        self.instances += lag.count;
        let age_ms = lag.oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0));
        self.oldest_ms = self.oldest_ms.max(age_ms);
    }

    fn add(&mut self, other: &Self) {
        self.subscriptions += other.subscriptions;
        self.lagging += other.lagging;
        self.instances += other.instances;
        self.oldest_ms = self.oldest_ms.max(other.oldest_ms);
    }
}

/// What waits at all.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    sites: u64,
    retained: u64,
    retained_bytes: u64,
    all: Waiting,
    /// Those whose oldest is the oldest, that one first.
    worst: Vec<(SiteName, Waiting)>,
}

impl Survey {
    fn of(node: &Node) -> Self {
        let mut survey = Self::default();
        for partition in node.partitions().iter().filter(|partition| partition.leads()) {
            let names: Vec<SiteName> =
                partition.read(|state| state.sites().map(|site| site.name().clone()).collect());
            for name in names {
                survey.look(partition, name);
            }
        }
        survey
    }

    fn look(&mut self, partition: &PartitionHandle, name: SiteName) {
        let now = partition.now();
        let found = partition.read(|state| {
            state.site(name.as_str()).map(|site| (site.retained_total(), site.queued_bytes()))
        });
        let Some((retained, bytes)) = found else { return };
        self.sites += 1;
        self.retained += retained as u64;
        self.retained_bytes += bytes;
        let mut waiting = Waiting::default();
        let mut after = String::new();
        while let Some(next) =
            in_site(partition, &name, |site| clients(site, &after, now, &mut waiting))
        {
            after = next;
        }
        let mut after = PushId::from("");
        while let Some(next) =
            in_site(partition, &name, |site| pushes(site, &after, now, &mut waiting))
        {
            after = next;
        }
        self.all.add(&waiting);
        if waiting.lagging > 0 {
            let rank = (waiting.oldest_ms, waiting.instances);
            let at =
                self.worst.partition_point(|(_, other)| (other.oldest_ms, other.instances) >= rank);
            self.worst.insert(at, (name, waiting));
            self.worst.truncate(NAMED_MAX);
        }
    }

    /// Writes it down.
    pub fn write(&self, sheet: &mut Sheet) {
        sheet.count("ackord_sites", self.sites);
        sheet.count("ackord_retained_instances", self.retained);
        sheet.count("ackord_retained_bytes", self.retained_bytes);
        sheet.count("ackord_subscriptions", self.all.subscriptions);
        sheet.count("ackord_subscriptions_lagging", self.all.lagging);
        sheet.count("ackord_lag_instances", self.all.instances);
        let seconds = |ms: u64| ms as f64 / 1000.0;
        sheet.put("ackord_oldest_unacknowledged_seconds", &[], seconds(self.all.oldest_ms));
        for (name, waiting) in &self.worst {
            let site = [name.as_str()];
            sheet.put("ackord_site_lag_instances", &site, waiting.instances as f64);
            let oldest = seconds(waiting.oldest_ms);
            sheet.put("ackord_site_oldest_unacknowledged_seconds", &site, oldest);
        }
    }
}

fn in_site<R>(
    partition: &PartitionHandle,
    name: &SiteName,
    look: impl FnOnce(&Site) -> Option<R>,
) -> Option<R> {
    partition.read(|state| state.site(name.as_str()).and_then(look))
}

/// Looks at a handful of clients; the last one, if there may be more.
fn clients(site: &Site, after: &str, now: Stamp, waiting: &mut Waiting) -> Option<String> {
    let rows: Vec<_> = site.clients_after(after).take(AT_ONCE).collect();
    for client in &rows {
        let receiver = Receiver::Client(client.id.clone());
        for row in site.subscriptions(&client.id) {
            waiting.note(site.lag(row.event, row.cursor, &receiver, now, COUNTED_MAX), now);
        }
    }
    rows.last().filter(|_| rows.len() == AT_ONCE).map(|row| row.id.to_string())
}

/// Looks at a handful of push subscriptions; the last one, if there may be more.
fn pushes(site: &Site, after: &PushId, now: Stamp, waiting: &mut Waiting) -> Option<PushId> {
    let rows: Vec<_> = site.pushes_after(after.as_str()).take(AT_ONCE).collect();
    for row in &rows {
        let receiver = Receiver::Client(row.spec.client.clone());
        waiting.note(site.lag(row.event, row.cursor, &receiver, now, COUNTED_MAX), now);
    }
    rows.last().filter(|_| rows.len() == AT_ONCE).map(|row| row.id.clone())
}

/// Looks now and then.
#[derive(Default)]
pub(super) struct Surveyor {
    last: Mutex<Option<(Instant, Survey)>>,
}

impl Surveyor {
    /// What waits, as of now or of a moment ago.
    pub fn survey(&self, node: &Node) -> Survey {
        let mut last = self.last.lock();
        let now = Instant::now();
        if let Some((_, survey)) = last.as_ref().filter(|(until, _)| now < *until) {
            return survey.clone();
        }
        let survey = Survey::of(node);
        let took = now.elapsed().max(Duration::from_micros(1));
        *last = Some((Instant::now() + took * PAUSE, survey.clone()));
        survey
    }
}
