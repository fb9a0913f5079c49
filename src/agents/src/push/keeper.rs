//! Which agents run here: those of the partitions that this node leads.
//!
//! Invariants: an agent is started once this node leads and stopped when it does not; one that ended
//! is started again at the next look, if it is still wanted; a stop waits for what is under way, not
//! for long.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ackord_machine::site::{ClientId, Effect, EventKey, PushId, SiteName};
use ackord_replica::PartitionHandle;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Pushes;
use super::agent::PushAgent;
use crate::broker::Broker;

/// How often leadership, and agents that ended, are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// So many of those looks are followed by one at all sites, whatever was heard of them.
const LOOKS_PER_SWEEP: u32 = 20;

/// An agent as its keeper knows it.
struct Kept {
    event: EventKey,
    client: ClientId,
    wake: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a keeper wants to hear of: mostly nothing.
#[derive(Default)]
struct Interest {
    leading: AtomicBool,
    /// Where there is a push subscription. A site is noted before it is looked at.
    sites: Mutex<HashSet<SiteName>>,
}

impl Interest {
    fn wants(&self, effect: &Effect) -> bool {
        self.leading.load(Ordering::Acquire)
            && match effect {
                Effect::Client { .. } | Effect::Site { .. } => true,
                Effect::Event { site, .. } => self.sites.lock().contains(site),
                Effect::Service { .. } => false,
            }
    }
}

/// The agents of one partition.
struct Keeper {
    pushes: Arc<Pushes>,
    partition: PartitionHandle,
    origin: Instant,
    stopping: watch::Receiver<bool>,
    kept: HashMap<SiteName, HashMap<PushId, Kept>>,
    interest: Arc<Interest>,
    tasks: JoinSet<()>,
}

impl Broker {
    /// Runs the agents of push subscriptions until the broker stops.
    pub async fn serve_pushes(&self) {
        let inner = self.inner();
        let keepers = self.node().partitions().into_iter().map(|partition| {
            let keeper = Keeper {
                pushes: inner.pushes.clone(),
                partition,
                origin: inner.origin,
                stopping: inner.shutdown.subscribe(),
                kept: HashMap::new(),
                interest: Arc::default(),
                tasks: JoinSet::new(),
            };
            keeper.run()
        });
        join_all(keepers).await;
    }
}

impl Keeper {
    async fn run(mut self) {
        let interest = self.interest.clone();
        let mut effects = self.partition.watch_some(move |effect| interest.wants(effect));
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = self.stopping.clone();
        let (mut leading, mut sweep) = (false, 0);
        loop {
            tokio::select! {
                changed = effects.changed() => if leading { self.note(&changed) },
                _ = looks.tick() => {
                    let mut ended = false;
                    while self.tasks.try_join_next().is_some() {
                        ended = true;
                    }
                    let now = self.partition.leads();
                    let began = now && !leading;
                    leading = now;
                    self.interest.leading.store(leading, Ordering::Release);
                    sweep = if began || ended { 0 } else { sweep };
                    if !leading {
                        self.kept.clear();
                        self.interest.sites.lock().clear();
                    } else if sweep == 0 {
                        self.look();
                    }
                    sweep = (sweep + 1) % LOOKS_PER_SWEEP;
                }
                // An error is a broker that is gone.
                _ = stopping.wait_for(|stopping| *stopping) => break,
            }
        }
        let drain = self.pushes.options.drain;
        let tasks = &mut self.tasks;
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(drain, ended).await.is_err() {
            tracing::debug!(partition = self.partition.number(), "pushes were cut off");
        }
    }

    /// Wakes those that the effects concern.
    fn note(&mut self, effects: &BTreeSet<Effect>) {
        let mut looked_at = None;
        for effect in effects {
            if let Effect::Client { site, .. } | Effect::Site { site } = effect
                && looked_at != Some(site)
            {
                self.look_at(site);
                looked_at = Some(site);
            }
            let Some(agents) = self.kept.get(effect.site()) else { continue };
            let concerned = |kept: &&Kept| match effect {
                Effect::Event { event, .. } => kept.event == *event,
                Effect::Client { client, .. } => kept.client == *client,
                Effect::Site { .. } => true,
                Effect::Service { .. } => false,
            };
            agents.values().filter(concerned).for_each(|kept| kept.wake.notify_one());
        }
    }

    /// Runs what is to be run, of all sites.
    fn look(&mut self) {
        let sites: BTreeSet<SiteName> = self.partition.read(|state| {
            let with = state.sites().filter(|site| site.pushes().next().is_some());
            with.map(|site| site.name().clone()).collect()
        });
        self.kept.retain(|site, _| sites.contains(site));
        self.interest.sites.lock().retain(|site| sites.contains(site));
        for site in &sites {
            self.look_at(site);
        }
    }

    /// Runs what is to be run of one site.
    fn look_at(&mut self, name: &SiteName) {
        self.interest.sites.lock().insert(name.clone());
        let wanted: HashMap<PushId, (EventKey, ClientId)> = self.partition.read(|state| {
            let pushes = state.site(name.as_str()).into_iter().flat_map(|site| site.pushes());
            pushes.map(|row| (row.id.clone(), (row.event, row.spec.client.clone()))).collect()
        });
        if wanted.is_empty() {
            self.kept.remove(name);
            self.interest.sites.lock().remove(name);
            return;
        }
        let agents = self.kept.entry(name.clone()).or_default();
        agents.retain(|id, kept| {
            let same = |(event, client): &(EventKey, ClientId)| {
                *event == kept.event && *client == kept.client
            };
            !kept.task.is_finished() && wanted.get(id).is_some_and(same)
        });
        for (id, (event, client)) in wanted {
            if agents.contains_key(&id) {
                continue;
            }
            let wake = Arc::new(Notify::new());
            let agent = PushAgent {
                pushes: self.pushes.clone(),
                partition: self.partition.clone(),
                site: name.clone(),
                id: id.clone(),
                origin: self.origin,
                wake: wake.clone(),
                stopping: self.stopping.clone(),
            };
            let task = self.tasks.spawn(agent.run());
            agents.insert(id, Kept { event, client, wake, task });
        }
    }
}
