//! The state as rows: what a verdict writes, a checkpoint keeps and a snapshot carries.
//!
//! Every fact of [`super::State`] is in exactly one row; indexes, byte counts and the state hash
//! are derived. So a state is rebuilt by absorbing its rows in any order, and two replicas are
//! equal when their rows are.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::audit::AuditRow;
use super::command::{Arguments, Principal, SiteSettings, Start};
use super::credential::TicketRow;
use super::dead::DeadLetterRow;
use super::directory::{ClusterRow, NodeRow};
use super::ids::{
    AttemptId, ClientId, Digest, Epoch, EventKey, Generation, Incarnation, InstanceId, Place,
    PushId, RequestId, RoleName, Sequence, ServiceId, SessionId, SiteName, Stamp, StorageUid,
    TokenId, UserId,
};
use super::limits::Limits;
use super::outcome::{Decision, Outcome};
use super::push::PushRow;
use super::quality::QualityRow;
use super::quota::{QuotaRow, RateRow};
use super::structure::{EventDefinition, Structure};
use super::trace::{TraceContext, TracedRow};

/// One change of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Write {
    /// Inserts or replaces a row.
    Put(Row),
    /// Removes a row; removing an absent one changes nothing.
    Delete(RowKey),
}

impl Write {
    /// The row that is written.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Put(row) => row.key(),
            Self::Delete(key) => key.clone(),
        }
    }
}

/// The identity of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RowKey {
    /// The partition's clock.
    Clock,
    /// [`SiteRow`].
    Site(SiteName),
    /// [`HeadRow`].
    Head(SiteName),
    /// [`EventRow`].
    Event(SiteName, EventKey),
    /// [`Instance`].
    Instance(SiteName, InstanceId),
    /// [`ServiceRow`].
    Service(SiteName, ServiceId),
    /// [`DeclaredRow`].
    Declared(SiteName, ServiceId),
    /// [`StoreRow`].
    Store(SiteName, ServiceId, StorageUid),
    /// [`OutcomeRow`].
    Outcome(SiteName, ServiceId, StorageUid, Sequence),
    /// [`KeyRow`].
    Key(SiteName, ServiceId, String),
    /// [`UserRow`].
    User(SiteName, UserId),
    /// [`ClientRow`].
    Client(SiteName, ClientId),
    /// [`SubscriptionRow`].
    Subscription(SiteName, ClientId, EventKey),
    /// [`TokenRow`].
    Token(SiteName, TokenId),
    /// [`RequestRow`].
    Request(SiteName, RequestId),
    /// The partition's limits.
    Limits,
    /// [`ClusterRow`].
    Cluster,
    /// [`NodeRow`].
    Node(u64),
    /// [`AttemptRow`].
    Attempt(SiteName),
    /// [`TicketRow`].
    Ticket(SiteName, TokenId),
    /// [`QuotaRow`].
    Quota(SiteName),
    /// [`RateRow`].
    Rate(SiteName, Option<ServiceId>),
    /// [`AuditRow`].
    Audit(SiteName, u64),
    /// [`PollingRow`].
    Polling(SiteName, ClientId),
    /// [`QualityRow`].
    Quality(SiteName, ClientId, EventKey),
    /// [`PushRow`].
    Push(SiteName, PushId),
    /// [`DeadLetterRow`].
    DeadLetter(SiteName, InstanceId),
}

/// One fact of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Row {
    /// The largest stamp applied so far.
    Clock(Stamp),
    /// See [`SiteRow`].
    Site(SiteRow),
    /// See [`HeadRow`].
    Head(HeadRow),
    /// See [`EventRow`].
    Event(EventRow),
    /// See [`Instance`].
    Instance(Arc<Instance>),
    /// See [`ServiceRow`].
    Service(ServiceRow),
    /// See [`DeclaredRow`].
    Declared(DeclaredRow),
    /// See [`StoreRow`].
    Store(StoreRow),
    /// See [`OutcomeRow`].
    Outcome(OutcomeRow),
    /// See [`KeyRow`].
    Key(KeyRow),
    /// See [`UserRow`].
    User(UserRow),
    /// See [`ClientRow`].
    Client(ClientRow),
    /// See [`SubscriptionRow`].
    Subscription(SubscriptionRow),
    /// See [`TokenRow`].
    Token(TokenRow),
    /// See [`RequestRow`].
    Request(RequestRow),
    /// The partition's limits.
    Limits(Limits),
    /// See [`ClusterRow`].
    Cluster(ClusterRow),
    /// See [`NodeRow`].
    Node(NodeRow),
    /// See [`AttemptRow`].
    Attempt(AttemptRow),
    /// See [`TicketRow`].
    Ticket(TicketRow),
    /// See [`QuotaRow`].
    Quota(QuotaRow),
    /// See [`RateRow`].
    Rate(RateRow),
    /// See [`AuditRow`].
    Audit(AuditRow),
    /// See [`PollingRow`].
    Polling(PollingRow),
    /// See [`QualityRow`].
    Quality(QualityRow),
    /// See [`PushRow`].
    Push(PushRow),
    /// An [`Instance`] that was raised again from a dead letter.
    Replayed(ReplayedRow),
    /// See [`DeadLetterRow`].
    DeadLetter(Box<DeadLetterRow>),
    /// An [`Instance`] that was raised with a trace context.
    Traced(Box<TracedRow>),
}

impl RowKey {
    /// The site that the row belongs to; `None` for the partition's own rows.
    pub fn site(&self) -> Option<&SiteName> {
        match self {
            Self::Clock | Self::Limits | Self::Cluster | Self::Node(_) => None,
            Self::Site(site)
            | Self::Head(site)
            | Self::Event(site, _)
            | Self::Instance(site, _)
            | Self::Service(site, _)
            | Self::Declared(site, _)
            | Self::Store(site, _, _)
            | Self::Outcome(site, _, _, _)
            | Self::Key(site, _, _)
            | Self::User(site, _)
            | Self::Client(site, _)
            | Self::Subscription(site, _, _)
            | Self::Token(site, _)
            | Self::Request(site, _)
            | Self::Attempt(site)
            | Self::Ticket(site, _)
            | Self::Quota(site)
            | Self::Rate(site, _)
            | Self::Audit(site, _)
            | Self::Polling(site, _)
            | Self::Quality(site, _, _)
            | Self::Push(site, _)
            | Self::DeadLetter(site, _) => Some(site),
        }
    }
}

impl Row {
    /// The site that the row belongs to; `None` for the partition's own rows.
    pub fn site(&self) -> Option<&SiteName> {
        match self {
            Self::Clock(_) | Self::Limits(_) | Self::Cluster(_) | Self::Node(_) => None,
            Self::Site(row) => Some(&row.site),
            Self::Head(row) => Some(&row.site),
            Self::Event(row) => Some(&row.site),
            Self::Instance(row) => Some(&row.site),
            Self::Service(row) => Some(&row.site),
            Self::Declared(row) => Some(&row.site),
            Self::Store(row) => Some(&row.site),
            Self::Outcome(row) => Some(&row.site),
            Self::Key(row) => Some(&row.site),
            Self::User(row) => Some(&row.site),
            Self::Client(row) => Some(&row.site),
            Self::Subscription(row) => Some(&row.site),
            Self::Token(row) => Some(&row.site),
            Self::Request(row) => Some(&row.site),
            Self::Attempt(row) => Some(&row.site),
            Self::Ticket(row) => Some(&row.site),
            Self::Quota(row) => Some(&row.site),
            Self::Rate(row) => Some(&row.site),
            Self::Audit(row) => Some(&row.site),
            Self::Polling(row) => Some(&row.site),
            Self::Quality(row) => Some(&row.site),
            Self::Push(row) => Some(&row.site),
            Self::Replayed(row) => Some(&row.instance.site),
            Self::Traced(row) => Some(&row.instance.site),
            Self::DeadLetter(row) => Some(&row.site),
        }
    }

    /// The identity of this row.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Clock(_) => RowKey::Clock,
            Self::Site(row) => RowKey::Site(row.site.clone()),
            Self::Head(row) => RowKey::Head(row.site.clone()),
            Self::Event(row) => RowKey::Event(row.site.clone(), row.key),
            Self::Instance(row) => RowKey::Instance(row.site.clone(), row.id),
            Self::Service(row) => RowKey::Service(row.site.clone(), row.id.clone()),
            Self::Declared(row) => RowKey::Declared(row.site.clone(), row.service.clone()),
            Self::Store(row) => RowKey::Store(row.site.clone(), row.service.clone(), row.uid),
            Self::Outcome(row) => {
                RowKey::Outcome(row.site.clone(), row.service.clone(), row.uid, row.sequence)
            }
            Self::Key(row) => RowKey::Key(row.site.clone(), row.service.clone(), row.key.clone()),
            Self::User(row) => RowKey::User(row.site.clone(), row.id.clone()),
            Self::Client(row) => RowKey::Client(row.site.clone(), row.id.clone()),
            Self::Subscription(row) => {
                RowKey::Subscription(row.site.clone(), row.client.clone(), row.event)
            }
            Self::Token(row) => RowKey::Token(row.site.clone(), row.id.clone()),
            Self::Request(row) => RowKey::Request(row.site.clone(), row.id),
            Self::Limits(_) => RowKey::Limits,
            Self::Cluster(_) => RowKey::Cluster,
            Self::Node(row) => RowKey::Node(row.id),
            Self::Attempt(row) => RowKey::Attempt(row.site.clone()),
            Self::Ticket(row) => RowKey::Ticket(row.site.clone(), row.id.clone()),
            Self::Quota(row) => RowKey::Quota(row.site.clone()),
            Self::Rate(row) => RowKey::Rate(row.site.clone(), row.service.clone()),
            Self::Audit(row) => RowKey::Audit(row.site.clone(), row.number),
            Self::Polling(row) => RowKey::Polling(row.site.clone(), row.client.clone()),
            Self::Quality(row) => RowKey::Quality(row.site.clone(), row.client.clone(), row.event),
            Self::Push(row) => RowKey::Push(row.site.clone(), row.id.clone()),
            Self::Replayed(row) => RowKey::Instance(row.instance.site.clone(), row.instance.id),
            Self::Traced(row) => RowKey::Instance(row.instance.site.clone(), row.instance.id),
            Self::DeadLetter(row) => RowKey::DeadLetter(row.site.clone(), row.id),
        }
    }
}

/// A site: what changes seldom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteRow {
    /// Its name.
    pub site: SiteName,
    /// When it was created.
    pub created: Stamp,
    /// Its settings.
    pub settings: SiteSettings,
    /// Its life's number; drawn at creation and again at each rebuild.
    pub incarnation: Incarnation,
    /// The structure and its canonical hash; `None` while the site is blank.
    pub structure: Option<(Arc<Structure>, Digest)>,
    /// The key that the next new event definition gets.
    pub next_event: EventKey,
}

/// A site: what changes with every raise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadRow {
    /// The site.
    pub site: SiteName,
    /// The id of the newest instance; 0 before the first.
    pub last_instance: InstanceId,
    /// The highest epoch of any account that was deleted: an account created again under the same
    /// id starts above it, so nothing that an old session still has under way is taken for its own.
    pub epoch_floor: Epoch,
}

/// An event definition of a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRow {
    /// The site.
    pub site: SiteName,
    /// Its number.
    pub key: EventKey,
    /// What was declared.
    pub definition: EventDefinition,
}

/// One raised event that is retained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// The site.
    pub site: SiteName,
    /// Its id.
    pub id: InstanceId,
    /// Its definition.
    pub event: EventKey,
    /// Who raised it.
    pub service: ServiceId,
    /// The addressee, for a private event.
    pub client: Option<ClientId>,
    /// When it was committed.
    pub created: Stamp,
    /// From when on it is never sent; `None` for Replacing.
    pub expires: Option<Stamp>,
    /// The arguments; `None` is a null-event.
    pub arguments: Option<Arguments>,
    /// What it was raised as first, if it was raised again from a dead letter. A [`ReplayedRow`] has it.
    #[serde(skip)]
    pub original: Option<InstanceId>,
    /// The trace that it was raised in. A [`TracedRow`] has it.
    #[serde(skip)]
    pub trace: Option<Box<TraceContext>>,
}

/// An instance that was raised again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayedRow {
    /// The instance, without what it was raised as first.
    pub instance: Arc<Instance>,
    /// What it was raised as first.
    pub original: InstanceId,
}

impl From<Arc<Instance>> for Row {
    fn from(instance: Arc<Instance>) -> Self {
        if let Some(trace) = instance.trace.as_deref().cloned() {
            let original = instance.original;
            return Self::Traced(Box::new(TracedRow { instance, original, trace }));
        }
        match instance.original {
            None => Self::Instance(instance),
            Some(original) => Self::Replayed(ReplayedRow { instance, original }),
        }
    }
}

impl ReplayedRow {
    /// The instance as the state has it.
    pub fn whole(&self) -> Arc<Instance> {
        if self.instance.original == Some(self.original) {
            return self.instance.clone();
        }
        let instance = Instance::clone(&self.instance);
        Arc::new(Instance { original: Some(self.original), ..instance })
    }
}

impl Instance {
    /// Whether its lifetime is over at `now`: from then on it is never sent.
    pub fn expired(&self, now: Stamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Bytes of its arguments with their media type, for quotas.
    pub fn argument_bytes(&self) -> u64 {
        self.arguments.as_ref().map_or(0, |it| (it.data.len() + it.content_type.len()) as u64)
    }

    /// Whether it has no arguments: "no longer relevant".
    pub fn is_null(&self) -> bool {
        self.arguments.is_none()
    }
}

/// A publisher account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// The site.
    pub site: SiteName,
    /// Its id.
    pub id: ServiceId,
    /// The epoch of the newest session; 0 before the first.
    pub epoch: Epoch,
    /// The sessions that attached last, the newest at the end.
    pub sessions: Vec<SessionId>,
    /// Where the newest session is; `None` once it has ended.
    pub at: Option<Place>,
    /// The store that the newest session raises from.
    pub uid: Option<StorageUid>,
    /// Canonical hash of the structure that the newest session declared.
    pub declared: Option<Digest>,
    /// Type and author that the newest session declared.
    pub declared_type: Option<(String, String)>,
    /// As declared by the newest session.
    pub version: String,
    /// As declared by the newest session.
    pub hostname: String,
}

impl ServiceRow {
    /// Whether the newest session is still connected.
    pub fn online(&self) -> bool {
        self.at.is_some()
    }
}

/// The structure of a parked service, for an administrator to apply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeclaredRow {
    /// The site.
    pub site: SiteName,
    /// The service.
    pub service: ServiceId,
    /// What it declared.
    pub structure: Arc<Structure>,
}

/// The deduplication mark of one store of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreRow {
    /// The site.
    pub site: SiteName,
    /// The service.
    pub service: ServiceId,
    /// The store.
    pub uid: StorageUid,
    /// The highest sequence decided.
    pub last: Sequence,
    /// Another store continued this one; it may not raise any more.
    pub retired: bool,
    /// The epoch at which it was last attached; the lowest goes first at the bound.
    pub used: Epoch,
}

/// The remembered decision about one raise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutcomeRow {
    /// The site.
    pub site: SiteName,
    /// The service.
    pub service: ServiceId,
    /// The store.
    pub uid: StorageUid,
    /// The number.
    pub sequence: Sequence,
    /// The first 8 bytes of the SHA-256 of the encoded event: the same number with other content
    /// is a store that has forgotten.
    pub content: u64,
    /// The decision.
    pub decision: Decision,
}

/// The remembered decision about one keyed raise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyRow {
    /// The site.
    pub site: SiteName,
    /// The service.
    pub service: ServiceId,
    /// The idempotency key.
    pub key: String,
    /// As in [`OutcomeRow::content`].
    pub content: u64,
    /// The decision.
    pub decision: Decision,
    /// When the key may be forgotten.
    pub expires: Stamp,
}

/// A holder of roles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserRow {
    /// The site.
    pub site: SiteName,
    /// Its id.
    pub id: UserId,
    /// The roles it holds.
    pub roles: Vec<RoleName>,
}

/// A stateful subscriber account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientRow {
    /// The site.
    pub site: SiteName,
    /// Its id.
    pub id: ClientId,
    /// Its user; `None` is a guest.
    pub user: Option<UserId>,
    /// The epoch of the newest session; 0 before the first.
    pub epoch: Epoch,
    /// The sessions that attached last, the newest at the end.
    pub sessions: Vec<SessionId>,
    /// The number of the newest list of the newest session; 0 before the first.
    pub listed: u64,
    /// The highest generation of any subscription it had removed. New ones start there, so that
    /// the generation an endpoint sees for an event never falls.
    pub generation_floor: Generation,
}

/// A subscription of a stateful client with its cursor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionRow {
    /// The site.
    pub site: SiteName,
    /// The client.
    pub client: ClientId,
    /// The event.
    pub event: EventKey,
    /// The last instance acknowledged; 0 for none.
    pub cursor: InstanceId,
    /// How often it was sought.
    pub generation: Generation,
    /// As asked for.
    pub start: Start,
    /// As asked for.
    pub ack_timeout_ms: Option<u32>,
    /// As asked for.
    pub max_attempts: Option<u32>,
    /// Since when an administrator holds its deliveries back; `None` when nobody does.
    pub paused: Option<Stamp>,
}

/// A token, known only by its hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The site.
    pub site: SiteName,
    /// The public half.
    pub id: TokenId,
    /// SHA-256 of the secret half.
    pub hash: Digest,
    /// What the bearer may do.
    pub principal: Principal,
    /// When it was created.
    pub created: Stamp,
    /// When it ends by itself.
    pub expires: Option<Stamp>,
    /// What it is for, in the words of whoever made it.
    pub note: String,
}

/// The remembered answer to an administrative request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestRow {
    /// The site.
    pub site: SiteName,
    /// The request.
    pub id: RequestId,
    /// What it came to.
    pub outcome: Outcome,
    /// When it may be forgotten.
    pub expires: Stamp,
}

/// The attempt by which a site is being restored, or was: it stays with the site, so that a repeat
/// of its last part is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRow {
    /// The site.
    pub site: SiteName,
    /// The attempt.
    pub id: AttemptId,
    /// The part that comes next; those below have been put.
    pub next: u32,
}

/// The newest session of a stateful client that has no connection: it asks for each event, at
/// whatever node. It is over once the client's epoch is higher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PollingRow {
    /// The site.
    pub site: SiteName,
    /// The client.
    pub client: ClientId,
    /// The session's epoch.
    pub epoch: Epoch,
    /// Until when the next question goes on with it; a later one attaches anew.
    pub until: Stamp,
}
