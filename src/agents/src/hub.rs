//! Who is interested in what, per partition and arbiter, and the actor that wakes them.
//!
//! `EffectWatch ─▶ SiteHub ─▶ index by event, by client, by site ─▶ marks of the interested sessions`
//!
//! Invariants: the index is touched only on its arbiter, so a session that registers before or
//! after it looks at the state, in one go, misses nothing; waking costs a mark per interested
//! session and nothing for the others.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use ackord_machine::site::{ClientId, Effect, EventKey, ServiceId, SiteName};
use ackord_replica::EffectWatch;
use actix::prelude::{Actor, ActorContext, Context, Handler, Message, StreamHandler};
use futures_util::stream;

use crate::live::{LiveKey, LiveKind, LivePart, LiveQuery};
use crate::notice::Notice;
use crate::seat::{Clocks, Facts, Look};

/// Names a session on its node.
pub(crate) type SessionId = u64;
type Sessions = HashMap<SessionId, Rc<Notice>>;

/// Whose session it is.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    Client(ClientId),
    Stateless,
    Service(ServiceId),
}

impl Who {
    /// The service, for logs.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Service(service) => Some(service.as_str()),
            Self::Client(_) | Self::Stateless => None,
        }
    }

    /// The client, for logs.
    pub fn client(&self) -> Option<&str> {
        match self {
            Self::Client(client) => Some(client.as_str()),
            Self::Service(_) | Self::Stateless => None,
        }
    }
}

/// The sessions of one site on one arbiter.
#[derive(Default)]
struct SiteIndex {
    /// Every session, clients' and services'.
    all: Sessions,
    clients: HashMap<ClientId, Sessions>,
    services: HashMap<ServiceId, Sessions>,
    events: HashMap<EventKey, Sessions>,
}

impl SiteIndex {
    /// The sessions that a query may mean; all of the account where it names one.
    fn asked_for<'a>(&'a self, query: &'a LiveQuery) -> impl Iterator<Item = &'a dyn Look> {
        let (clients, services, all) = match &query.id {
            None => (None, None, Some(&self.all)),
            Some(id) => (self.clients.get(id.as_str()), self.services.get(id.as_str()), None),
        };
        let found = [clients, services, all].into_iter().flatten();
        found.flat_map(HashMap::values).filter_map(|notice| notice.seat.as_deref())
    }
}

impl LiveQuery {
    /// Whether it asks for this session.
    fn wants(&self, facts: &Facts) -> bool {
        let behind = |after: &LiveKey| {
            let own = (facts.kind(), facts.name(), facts.node, facts.id);
            own > (after.kind, after.id.as_str(), after.node, after.session)
        };
        self.kind.is_none_or(|kind| kind == facts.kind()) && self.after.as_ref().is_none_or(behind)
    }
}

/// The sessions of one partition on one arbiter.
#[derive(Default)]
pub(crate) struct Index {
    sites: HashMap<SiteName, SiteIndex>,
}

/// The index as sessions and hub share it.
pub(crate) type SharedIndex = Rc<RefCell<Index>>;

impl Index {
    /// A session begins.
    pub fn enter(&mut self, site: &SiteName, id: SessionId, who: &Who, notice: &Rc<Notice>) {
        let site = self.sites.entry(site.clone()).or_default();
        site.all.insert(id, notice.clone());
        match who {
            Who::Client(client) => {
                site.clients.entry(client.clone()).or_default().insert(id, notice.clone());
            }
            Who::Service(service) => {
                site.services.entry(service.clone()).or_default().insert(id, notice.clone());
            }
            Who::Stateless => {}
        }
    }

    /// A session ends.
    pub fn leave(&mut self, name: &SiteName, id: SessionId, who: &Who) {
        let Some(site) = self.sites.get_mut(name) else { return };
        site.all.remove(&id);
        match who {
            Who::Client(client) => remove(&mut site.clients, client, id),
            Who::Service(service) => remove(&mut site.services, service, id),
            Who::Stateless => {}
        }
        if site.all.is_empty() {
            self.sites.remove(name);
        }
    }

    /// A session wants to be woken for this event.
    pub fn subscribe(&mut self, site: &SiteName, id: SessionId, event: EventKey, n: &Rc<Notice>) {
        let site = self.sites.entry(site.clone()).or_default();
        site.events.entry(event).or_default().insert(id, n.clone());
    }

    /// A session no longer wants to be woken for this event.
    pub fn unsubscribe(&mut self, site: &SiteName, id: SessionId, event: EventKey) {
        if let Some(site) = self.sites.get_mut(site) {
            remove(&mut site.events, &event, id);
        }
    }

    /// Marks all sessions that the effects concern.
    fn wake(&self, effects: &BTreeSet<Effect>) {
        for effect in effects {
            let Some(site) = self.sites.get(effect.site()) else { continue };
            match effect {
                Effect::Event { event, .. } => {
                    each(site.events.get(event), |notice| notice.mark_event(*event));
                }
                Effect::Client { client, .. } => {
                    each(site.clients.get(client), Notice::mark_client);
                }
                Effect::Service { service, .. } => {
                    each(Some(&site.all), |notice| notice.mark_service(service));
                    each(site.services.get(service), Notice::mark_client);
                }
                Effect::Site { .. } => each(Some(&site.all), Notice::mark_all),
            }
        }
    }

    /// The sessions of a site that are asked for: the first of them in their order.
    pub fn look(&self, site: &SiteName, query: &LiveQuery, clocks: Clocks) -> LivePart {
        let mut part = LivePart::default();
        let Some(site) = self.sites.get(site) else { return part };
        let most = query.most();
        let mut first: BTreeMap<(LiveKind, &str, SessionId), &dyn Look> = BTreeMap::new();
        for seat in site.asked_for(query).filter(|seat| query.wants(seat.facts())) {
            let facts = seat.facts();
            let key = (facts.kind(), facts.name(), facts.id);
            let full = first.len() == most;
            part.more |= full;
            if full && first.last_key_value().is_none_or(|(last, _)| *last < key) {
                continue;
            }
            first.insert(key, seat);
            if full {
                first.pop_last();
            }
        }
        part.sessions = first.values().map(|seat| seat.look(clocks, query.lanes)).collect();
        part
    }

    /// Marks every session that the node shuts down.
    pub fn shut_down(&self) {
        let sessions = self.sites.values().flat_map(|site| site.all.values());
        sessions.for_each(|notice| notice.mark_shutdown());
    }
}

fn each(sessions: Option<&Sessions>, mark: impl Fn(&Notice)) {
    sessions.into_iter().flat_map(HashMap::values).for_each(|notice| mark(notice));
}

fn remove<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Sessions>, key: &K, id: SessionId) {
    if let Some(sessions) = map.get_mut(key) {
        sessions.remove(&id);
        if sessions.is_empty() {
            map.remove(key);
        }
    }
}

/// Turns the effects of one partition into marks on one arbiter.
pub(crate) struct SiteHub {
    watch: Option<EffectWatch>,
    index: SharedIndex,
}

impl SiteHub {
    /// The watch must be older than any look that its sessions take at the state.
    pub fn new(watch: EffectWatch, index: SharedIndex) -> Self {
        Self { watch: Some(watch), index }
    }
}

impl Actor for SiteHub {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if let Some(watch) = self.watch.take() {
            let effects = stream::unfold(watch, |mut watch| async move {
                let changed = watch.changed().await;
                Some((changed, watch))
            });
            Self::add_stream(effects, context);
        }
    }
}

impl StreamHandler<BTreeSet<Effect>> for SiteHub {
    fn handle(&mut self, effects: BTreeSet<Effect>, _context: &mut Self::Context) {
        self.index.borrow().wake(&effects);
    }
}

/// The arbiter has no more sessions of the partition.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

impl Handler<Stop> for SiteHub {
    type Result = ();

    fn handle(&mut self, _stop: Stop, context: &mut Self::Context) {
        context.stop();
    }
}
