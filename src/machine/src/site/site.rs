//! One site: its rows, and the read API that sessions and administration use.
//!
//! Reading never fails and (unless said) allocates nothing. Indexes are kept by [`super::index`].
//! Authority is answered here and only here: who may enter, who may receive.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::audit::{AuditRow, Told};
use super::command::{Principal, SiteSettings};
use super::credential::TicketRow;
use super::dead::{DeadLetterRow, Subscriber};
use super::history::{Departed, History, Missed};
use super::ids::{
    ClientId, Digest, Epoch, EventKey, EventName, Incarnation, InstanceId, PushId, RequestId,
    Sequence, ServiceId, SiteName, Stamp, StorageUid, TokenId, UserId,
};
use super::limits::{KEY_ENDS_MAX, KEY_SHARE};
use super::outcome::{Decision, Parked, Refusal};
use super::push::PushRow;
use super::quality::{Quality, QualityRow};
use super::quota::{QuotaRow, Quotas, RateRow};
use super::row::{
    AttemptRow, ClientRow, DeclaredRow, EventRow, HeadRow, Instance, KeyRow, PollingRow,
    RequestRow, ServiceRow, SiteRow, StoreRow, SubscriptionRow, TokenRow, UserRow,
};
use super::sorted::Sorted;
use super::structure::{Access, Category, GuestSupport, Kind, Structure};

/// The user that holds the structure's owner role without being given it.
pub const OWNER: &str = "owner";

/// Who receives: the identity by which authority is judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Receiver {
    /// A registered client.
    Client(ClientId),
    /// A guest without account.
    Stateless,
}

/// Retained instances by id.
pub(super) type Queue = Sorted<InstanceId, Arc<Instance>>;

/// Something that expires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// An instance.
    Instance(InstanceId),
    /// An idempotency key.
    Key(ServiceId, String),
    /// A remembered answer.
    Request(RequestId),
    /// A ticket.
    Ticket(TokenId),
    /// A token that ends by itself.
    Token(TokenId),
}

/// An event with what is retained of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct EventRows {
    pub(super) row: Option<EventRow>,
    /// All of its instances.
    pub(super) retained: Queue,
    /// The same, by raising service: these are the queues.
    pub(super) queues: BTreeMap<ServiceId, Queue>,
    /// The private ones, by addressee.
    pub(super) addressed: BTreeMap<ClientId, Queue>,
}

/// A store's mark with the decisions remembered for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct StoreRows {
    pub(super) row: Option<StoreRow>,
    pub(super) outcomes: Sorted<Sequence, (u64, Decision)>,
}

/// A service with what hangs on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ServiceRows {
    pub(super) row: Option<ServiceRow>,
    pub(super) declared: Option<DeclaredRow>,
    pub(super) stores: BTreeMap<StorageUid, StoreRows>,
    pub(super) keys: BTreeMap<String, KeyRow>,
    /// How many of them count for [`super::limits::Limits::keys_max`].
    pub(super) counted: usize,
}

/// A client with its subscriptions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ClientRows {
    pub(super) row: Option<ClientRow>,
    /// Most have one or few: a tree would keep room for eleven.
    pub(super) subscriptions: Sorted<EventKey, SubscriptionRow>,
    pub(super) qualities: BTreeMap<EventKey, QualityRow>,
    pub(super) polling: Option<Box<PollingRow>>,
}

/// One event broker: queues, services, clients, users. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    pub(super) name: SiteName,
    pub(super) row: Option<SiteRow>,
    pub(super) head: Option<HeadRow>,
    pub(super) events: BTreeMap<EventKey, EventRows>,
    /// The events of each name. A structure has one; rows that were put back may have several, and
    /// whatever their order, the first by number counts.
    pub(super) names: BTreeMap<EventName, BTreeSet<EventKey>>,
    pub(super) instances: Queue,
    pub(super) services: BTreeMap<ServiceId, ServiceRows>,
    /// In boxes: of a tree's room for entries nearly half is empty.
    pub(super) clients: BTreeMap<ClientId, Box<ClientRows>>,
    pub(super) users: BTreeMap<UserId, UserRow>,
    pub(super) tokens: BTreeMap<TokenId, TokenRow>,
    pub(super) requests: BTreeMap<RequestId, RequestRow>,
    pub(super) attempt: Option<AttemptRow>,
    /// Idempotency keys over all services, without those that the broker made.
    pub(super) keys: usize,
    /// How many of those end when, and of which service.
    pub(super) key_ends: BTreeMap<(Stamp, ServiceId), usize>,
    pub(super) tickets: BTreeMap<TokenId, TicketRow>,
    /// How many of them are not used yet, of each principal.
    pub(super) unused_tickets: BTreeMap<Principal, usize>,
    /// Those that were used, the one that ends first in front.
    pub(super) used_tickets: BTreeSet<(Stamp, TokenId)>,
    pub(super) quotas: Option<QuotaRow>,
    pub(super) rates: BTreeMap<Option<ServiceId>, RateRow>,
    pub(super) audit: BTreeMap<u64, AuditRow>,
    pub(super) pushes: BTreeMap<PushId, PushRow>,
    pub(super) dead_letters: BTreeMap<InstanceId, DeadLetterRow>,
    /// The letter of each instance that a subscriber gave up.
    pub(super) letters: BTreeMap<Subscriber, BTreeMap<InstanceId, InstanceId>>,
    /// The numbers of those entries that tell of each.
    pub(super) told: BTreeMap<Told, BTreeSet<u64>>,
    /// Bytes of arguments of all retained instances.
    pub(super) queued_bytes: u64,
    /// Subscriptions of all clients.
    pub(super) subscribed: usize,
    pub(super) history: History,
    pub(super) due: BTreeSet<(Stamp, Due)>,
    pub(super) bytes: u64,
}

/// What a site that nobody bounds may use.
static NO_QUOTAS: Quotas = Quotas {
    connections: None,
    principal_connections: None,
    events_per_s: None,
    bytes_per_s: None,
    service_events_per_s: None,
    service_bytes_per_s: None,
    requests_per_s: None,
    principal_requests_per_s: None,
    services: None,
    clients: None,
    subscriptions: None,
    client_subscriptions: None,
    queue_bytes: None,
};

/// What a site without a row would have; such a site is never handed out.
static NO_SETTINGS: SiteSettings = SiteSettings {
    multi_service: false,
    constructible: false,
    guests_allowed: false,
    stateless_guests_allowed: false,
};

impl Site {
    pub(super) fn empty(name: SiteName) -> Self {
        Self {
            name,
            row: None,
            head: None,
            events: BTreeMap::new(),
            names: BTreeMap::new(),
            instances: Queue::default(),
            services: BTreeMap::new(),
            clients: BTreeMap::new(),
            users: BTreeMap::new(),
            tokens: BTreeMap::new(),
            requests: BTreeMap::new(),
            attempt: None,
            keys: 0,
            key_ends: BTreeMap::new(),
            tickets: BTreeMap::new(),
            unused_tickets: BTreeMap::new(),
            used_tickets: BTreeSet::new(),
            quotas: None,
            rates: BTreeMap::new(),
            audit: BTreeMap::new(),
            pushes: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            letters: BTreeMap::new(),
            told: BTreeMap::new(),
            queued_bytes: 0,
            subscribed: 0,
            history: History::default(),
            due: BTreeSet::new(),
            bytes: 0,
        }
    }

    /// Whether its own row is there; only then is it handed out.
    pub(super) fn exists(&self) -> bool {
        self.row.is_some()
    }

    /// Its name.
    pub fn name(&self) -> &SiteName {
        &self.name
    }

    /// When it was created.
    pub fn created(&self) -> Stamp {
        self.row.as_ref().map_or(Stamp::default(), |row| row.created)
    }

    /// The number of its life; another after a rebuild.
    pub fn incarnation(&self) -> Incarnation {
        self.row.as_ref().map_or(Incarnation::default(), |row| row.incarnation)
    }

    /// What an administrator set.
    pub fn settings(&self) -> &SiteSettings {
        self.row.as_ref().map_or(&NO_SETTINGS, |row| &row.settings)
    }

    /// Its structure; `None` while it is blank.
    pub fn structure(&self) -> Option<&Arc<Structure>> {
        self.row.as_ref()?.structure.as_ref().map(|(structure, _)| structure)
    }

    /// The canonical hash of its structure.
    pub fn structure_hash(&self) -> Option<&Digest> {
        self.row.as_ref()?.structure.as_ref().map(|(_, hash)| hash)
    }

    /// The id of the newest instance over all queues; 0 before the first.
    pub fn head(&self) -> InstanceId {
        self.head.as_ref().map_or(InstanceId::default(), |head| head.last_instance)
    }

    /// What a newly taken epoch must be above.
    pub(super) fn epoch_floor(&self) -> Epoch {
        self.head.as_ref().map_or(Epoch::default(), |head| head.epoch_floor)
    }

    /// Estimated bytes of memory that its rows take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The event of this number.
    pub fn event(&self, key: EventKey) -> Option<&EventRow> {
        self.events.get(&key)?.row.as_ref()
    }

    /// The event of this name.
    pub fn event_named(&self, name: &str) -> Option<&EventRow> {
        self.event(*self.names.get(name)?.first()?)
    }

    /// All events, by number.
    pub fn events(&self) -> impl Iterator<Item = &EventRow> {
        self.events.values().filter_map(|rows| rows.row.as_ref())
    }

    /// The service of this id.
    pub fn service(&self, id: &str) -> Option<&ServiceRow> {
        self.services.get(id)?.row.as_ref()
    }

    /// All services, by id.
    pub fn services(&self) -> impl Iterator<Item = &ServiceRow> {
        self.services.values().filter_map(|rows| rows.row.as_ref())
    }

    /// Services whose id sorts after `after`, by id: the next page.
    pub fn services_after(&self, after: &str) -> impl Iterator<Item = &ServiceRow> + use<'_> {
        let range = self.services.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        range.filter_map(|(_, rows)| rows.row.as_ref())
    }

    /// The structure that a parked service declared.
    pub fn declared(&self, service: &str) -> Option<&Arc<Structure>> {
        self.services.get(service)?.declared.as_ref().map(|row| &row.structure)
    }

    /// The marks of a service's stores, by uid.
    pub fn stores(&self, service: &str) -> impl Iterator<Item = &StoreRow> + use<'_> {
        let stores = self.services.get(service).into_iter().flat_map(|rows| rows.stores.values());
        stores.filter_map(|rows| rows.row.as_ref())
    }

    /// The mark of one store.
    pub fn store(&self, service: &str, uid: StorageUid) -> Option<&StoreRow> {
        self.services.get(service)?.stores.get(&uid)?.row.as_ref()
    }

    /// The client of this id.
    pub fn client(&self, id: &str) -> Option<&ClientRow> {
        self.clients.get(id)?.row.as_ref()
    }

    /// All clients, by id.
    pub fn clients(&self) -> impl Iterator<Item = &ClientRow> {
        self.clients.values().filter_map(|rows| rows.row.as_ref())
    }

    /// Clients whose id sorts after `after`, by id: the next page.
    pub fn clients_after(&self, after: &str) -> impl Iterator<Item = &ClientRow> + use<'_> {
        let range = self.clients.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        range.filter_map(|(_, rows)| rows.row.as_ref())
    }

    /// The user of this id.
    pub fn user(&self, id: &str) -> Option<&UserRow> {
        self.users.get(id)
    }

    /// All users, by id.
    pub fn users(&self) -> impl Iterator<Item = &UserRow> {
        self.users.values()
    }

    /// Users whose id sorts after `after`, by id: the next page.
    pub fn users_after(&self, after: &str) -> impl Iterator<Item = &UserRow> + use<'_> {
        let range = self.users.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        range.map(|(_, row)| row)
    }

    /// The token of this id.
    pub fn token(&self, id: &str) -> Option<&TokenRow> {
        self.tokens.get(id)
    }

    /// The token of this id, unless it has ended by itself.
    pub fn valid_token(&self, id: &str, now: Stamp) -> Option<&TokenRow> {
        self.token(id).filter(|row| row.expires.is_none_or(|at| now < at))
    }

    /// All tokens, by id.
    pub fn tokens(&self) -> impl Iterator<Item = &TokenRow> {
        self.tokens.values()
    }

    /// Tokens whose id sorts after `after`, by id: the next page.
    pub fn tokens_after(&self, after: &str) -> impl Iterator<Item = &TokenRow> + use<'_> {
        let range = self.tokens.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        range.map(|(_, row)| row)
    }

    /// The ticket of this id.
    pub fn ticket(&self, id: &str) -> Option<&TicketRow> {
        self.tickets.get(id)
    }

    /// What the site may use.
    pub fn quotas(&self) -> &Quotas {
        self.quotas.as_ref().map_or(&NO_QUOTAS, |row| &row.quotas)
    }

    /// Bytes of arguments of all retained instances.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Subscriptions of all clients.
    pub fn subscribed(&self) -> usize {
        self.subscribed
    }

    /// The record of acts, the newest first, below this number.
    pub fn audit_before(&self, number: u64) -> impl Iterator<Item = &AuditRow> {
        self.audit.range(..number).rev().map(|(_, row)| row)
    }

    /// What became of an instance that is retained no more, if this replica remembers.
    pub fn departed(&self, id: InstanceId) -> Option<&Departed> {
        self.history.find(id)
    }

    /// What of an event, above an id, this receiver will never get: as far as this replica
    /// remembers.
    pub fn missed(&self, event: EventKey, after: InstanceId, receiver: &Receiver) -> Missed {
        self.history.missed(event, after, |departed| match (&departed.client, receiver) {
            (None, _) => true,
            (Some(addressee), Receiver::Client(client)) => addressee == client,
            (Some(_), Receiver::Stateless) => false,
        })
    }

    /// Tokens that act as this principal. Looks at every token.
    pub(super) fn tokens_of(&self, principal: &Principal) -> impl Iterator<Item = &TokenRow> {
        self.tokens.values().filter(move |token| token.principal == *principal)
    }

    /// A client's subscription to an event.
    pub fn subscription(&self, client: &ClientId, event: EventKey) -> Option<&SubscriptionRow> {
        self.clients.get(client)?.subscriptions.get(event)
    }

    /// How a client wants the deliveries of an event.
    pub fn quality(&self, client: &ClientId, event: EventKey) -> Quality {
        let row = self.clients.get(client).and_then(|rows| rows.qualities.get(&event));
        row.map(|row| row.quality).unwrap_or_default()
    }

    /// A client's subscriptions, by event number.
    pub fn subscriptions(
        &self,
        client: &ClientId,
    ) -> impl Iterator<Item = &SubscriptionRow> + use<'_> {
        self.clients.get(client).into_iter().flat_map(|rows| rows.subscriptions.values())
    }

    /// The push subscription of this id.
    pub fn push(&self, id: &str) -> Option<&PushRow> {
        self.pushes.get(id)
    }

    /// All push subscriptions, by id.
    pub fn pushes(&self) -> impl Iterator<Item = &PushRow> {
        self.pushes.values()
    }

    /// Push subscriptions whose id sorts after `after`, by id: the next page.
    pub fn pushes_after(&self, after: &str) -> impl Iterator<Item = &PushRow> + use<'_> {
        let range = self.pushes.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        range.map(|(_, row)| row)
    }

    /// The newest session without connection that a client had; over once its epoch is not the
    /// client's any more.
    pub fn polling(&self, client: &ClientId) -> Option<&PollingRow> {
        self.clients.get(client)?.polling.as_deref()
    }

    /// The retained instance of this id.
    pub fn instance(&self, id: InstanceId) -> Option<&Arc<Instance>> {
        self.instances.get(id)
    }

    /// What is retained of an event, ascending ids, over all services.
    pub fn retained(&self, event: EventKey) -> impl Iterator<Item = &Arc<Instance>> {
        self.events.get(&event).into_iter().flat_map(|rows| rows.retained.values())
    }

    /// What is retained of an event above an id, ascending, over all services: the next page.
    pub fn retained_after(
        &self,
        event: EventKey,
        after: InstanceId,
    ) -> impl Iterator<Item = &Arc<Instance>> {
        let rows = self.events.get(&event).into_iter();
        rows.flat_map(move |rows| rows.retained.above(after).map(|(_, instance)| instance))
    }

    /// How many instances of an event are retained, over all services.
    pub fn retained_len(&self, event: EventKey) -> usize {
        self.events.get(&event).map_or(0, |rows| rows.retained.len())
    }

    /// The queue of an event and a service, ascending ids.
    pub fn queue(
        &self,
        event: EventKey,
        service: &ServiceId,
    ) -> impl Iterator<Item = &Arc<Instance>> + use<'_> {
        self.queue_rows(event, service).into_iter().flat_map(Queue::values)
    }

    pub(super) fn queue_rows(&self, event: EventKey, service: &ServiceId) -> Option<&Queue> {
        self.events.get(&event)?.queues.get(service)
    }

    /// The private instances of an event for a client, by id.
    pub(super) fn addressed(&self, event: EventKey, client: &ClientId) -> Option<&Queue> {
        self.events.get(&event)?.addressed.get(client)
    }

    /// The next instance for this receiver: the first retained one above `after` that has not
    /// expired at `now`, of a private event only one addressed to the receiver. O(log n), plus
    /// the expired ones that no tick has removed yet. Says nothing about authority.
    pub fn next_instance(
        &self,
        event: EventKey,
        after: InstanceId,
        receiver: &Receiver,
        now: Stamp,
    ) -> Option<&Arc<Instance>> {
        let queue = self.queue_for(event, receiver)?;
        let mut above = queue.above(after);
        above.find(|(_, instance)| !instance.expired(now)).map(|(_, instance)| instance)
    }

    /// Of what is next behind each of these cursors and may be received, the first by id: the one
    /// thing that a receiver without connection is handed.
    pub fn next_of(
        &self,
        cursors: impl IntoIterator<Item = (EventKey, InstanceId)>,
        receiver: &Receiver,
        now: Stamp,
    ) -> Option<&Arc<Instance>> {
        let open = cursors.into_iter().filter(|(event, _)| self.may_receive(*event, receiver));
        let next = |(event, after)| self.next_instance(event, after, receiver, now);
        open.filter_map(next).min_by_key(|instance| instance.id)
    }

    /// What is retained of an event for this receiver: of a private one only what is addressed to it.
    pub(super) fn queue_for(&self, event: EventKey, receiver: &Receiver) -> Option<&Queue> {
        let rows = self.events.get(&event)?;
        match (rows.row.as_ref()?.definition.kind.category(), receiver) {
            (Category::Replacing | Category::Queueing, _) => Some(&rows.retained),
            (Category::Private, Receiver::Client(client)) => rows.addressed.get(client),
            (Category::Private, Receiver::Stateless) => None,
        }
    }

    /// Whether this receiver may enter at all. Guests need both the structure's support and the
    /// administrator's leave; `guests_allowed` off shuts out stateless guests too. While the site
    /// is blank, guests are told so rather than turned away.
    pub fn admits(&self, receiver: &Receiver) -> Result<(), Refusal> {
        let stateless = match receiver {
            Receiver::Client(id) => {
                let client = self.client(id.as_str()).ok_or(Refusal::UnknownClient)?;
                if client.user.is_some() {
                    return Ok(());
                }
                false
            }
            Receiver::Stateless => true,
        };
        let settings = self.settings();
        if !settings.guests_allowed || (stateless && !settings.stateless_guests_allowed) {
            return Err(Refusal::AccessDenied);
        }
        match (self.structure().map(|structure| structure.guests), stateless) {
            (None, _) => Err(Refusal::SiteBlank),
            (Some(GuestSupport::GuestAndStateless), _) | (Some(GuestSupport::Guest), false) => {
                Ok(())
            }
            (Some(GuestSupport::Guest), true) | (Some(GuestSupport::None), _) => {
                Err(Refusal::AccessDenied)
            }
        }
    }

    /// Whether this receiver has authority over the event now: it may enter, and the access rule
    /// admits it, and nobody holds its subscription back. A private event needs a registered client.
    pub fn may_receive(&self, event: EventKey, receiver: &Receiver) -> bool {
        !self.is_paused(event, receiver) && self.has_authority(event, receiver)
    }

    /// As [`Site::may_receive`], whether or not somebody holds its subscription back.
    pub fn has_authority(&self, event: EventKey, receiver: &Receiver) -> bool {
        let Some(event) = self.event(event) else {
            return false;
        };
        if self.admits(receiver).is_err() {
            return false;
        }
        let (registered, user) = match receiver {
            Receiver::Client(id) => {
                (true, self.client(id.as_str()).and_then(|client| client.user.as_ref()))
            }
            Receiver::Stateless => (false, None),
        };
        match &event.definition.kind {
            Kind::Private { .. } => registered,
            Kind::Replacing { access } | Kind::Queueing { access, .. } => match access {
                Access::Everyone => true,
                Access::GuestsDenied => user.is_some(),
                Access::StatelessGuestsDenied => registered,
                Access::Roles(roles) => user
                    .is_some_and(|user| roles.iter().any(|role| self.holds(user, role.as_str()))),
            },
        }
    }

    /// Whether an administrator holds this receiver's deliveries of the event back.
    pub fn is_paused(&self, event: EventKey, receiver: &Receiver) -> bool {
        match receiver {
            Receiver::Client(client) => {
                self.subscription(client, event).is_some_and(|row| row.paused.is_some())
            }
            Receiver::Stateless => false,
        }
    }

    /// Whether a user holds a role: given to it, or the owner role for [`OWNER`].
    pub(super) fn holds(&self, user: &UserId, role: &str) -> bool {
        let given = |user: &UserRow| user.roles.iter().any(|held| held.as_str() == role);
        let owner_role = || self.structure()?.owner_role.as_ref();
        self.user(user.as_str()).is_some_and(given)
            || (user.as_str() == OWNER && owner_role().is_some_and(|owner| owner.as_str() == role))
    }

    /// Why a service exchanges no events, judged anew at every look: a re-applied structure that
    /// matches brings it online by itself. One that declared nothing takes the site as it is.
    pub fn parked(&self, service: &ServiceRow) -> Option<Parked> {
        let structure = self.row.as_ref().and_then(|row| row.structure.as_ref());
        let structure = structure.map(|(structure, hash)| (structure.as_ref(), hash));
        parked(structure, service.declared.as_ref(), service.declared_type.as_ref())
    }

    /// The remembered decision about a store's number, with the event's content hash.
    pub(super) fn outcome(
        &self,
        service: &str,
        uid: StorageUid,
        sequence: Sequence,
    ) -> Option<&(u64, Decision)> {
        self.services.get(service)?.stores.get(&uid)?.outcomes.get(sequence)
    }

    /// The remembered decision about an idempotency key.
    pub(super) fn key(&self, service: &str, key: &str) -> Option<&KeyRow> {
        self.services.get(service)?.keys.get(key)
    }

    /// Whether another idempotency key of this service is remembered, of `keys_max` of the site: only
    /// while it has fewer than [`KEY_SHARE`] times what is still free (the dynamic thresholds of
    /// Choudhury and Hahne, 1998). A service that is alone gets nine tenths, the next one nine tenths of
    /// the rest: so none of them can keep a third out.
    pub fn may_remember(&self, service: &str, keys_max: u32) -> bool {
        let own = self.services.get(service).map_or(0, |rows| rows.counted);
        may_have(own, self.keys, keys_max)
    }

    /// When there will be room for another key of this service, if none comes before; `None` when
    /// there is. Where more than [`KEY_ENDS_MAX`] moments have to pass until then, the last of those.
    pub fn may_remember_at(&self, service: &str, keys_max: u32) -> Option<Stamp> {
        let mut own = self.services.get(service).map_or(0, |rows| rows.counted);
        let mut all = self.keys;
        let mut at = None;
        for ((end, of), count) in self.key_ends.iter().take(KEY_ENDS_MAX) {
            if may_have(own, all, keys_max) {
                break;
            }
            at = Some(*end);
            all -= count;
            own -= if of.as_str() == service { *count } else { 0 };
        }
        at
    }

    pub(super) fn request(&self, id: RequestId) -> Option<&RequestRow> {
        self.requests.get(&id)
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.len()
    }
}

/// See [`Site::may_remember`].
fn may_have(own: usize, all: usize, most: u32) -> bool {
    let free = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(all);
    own < free.saturating_mul(KEY_SHARE)
}

/// See [`Site::parked`]; for a structure that is about to be the site's.
pub(super) fn parked(
    structure: Option<(&Structure, &Digest)>,
    declared: Option<&Digest>,
    declared_type: Option<&(String, String)>,
) -> Option<Parked> {
    let Some((structure, hash)) = structure else {
        return Some(Parked::SiteBlank);
    };
    let declared = declared?;
    if declared == hash {
        return None;
    }
    let same_type = declared_type.is_none_or(|(service_type, author)| {
        *service_type == structure.service_type && *author == structure.contract_author
    });
    Some(if same_type { Parked::StructureMismatch } else { Parked::ServiceTypeConflict })
}
