//! What a log entry asks of the state: commands, and the batch that carries them.
//!
//! A command is judged only by [`super::decide`]. Decoding one is total; an undecodable or
//! nonsensical command is rejected identically on every node. Command and row encodings carry
//! [`FORMAT_VERSION`]; variants are appended, never reordered or reused.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::audit::{By, Note};
use super::credential::{DrawTicket, IssueTicket, RedeemTicket};
use super::dead::GiveUp;
use super::directory::DirectoryCommand;
use super::ids::{
    AttemptId, ClientId, Digest, Epoch, EventKey, EventName, Generation, Incarnation, InstanceId,
    Place, PushId, RequestId, RoleName, Sequence, ServiceId, SessionId, SiteName, Stamp,
    StorageUid, TokenId, UserId,
};
use super::limits::Limits;
use super::push::{AttachPush, PushSpec, SettlePush};
use super::quality::Quality;
use super::quota::Quotas;
use super::row::Row;
use super::structure::{Category, Structure};
use super::trace::{TraceContext, Traced};

/// The version of the command and row encodings (postcard).
pub const FORMAT_VERSION: u8 = 1;

/// One log entry: many commands, one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's stamp; applying clamps it so that the state's clock never goes back.
    pub stamp: Stamp,
    /// Judged in order, each against the state that the one before left.
    pub commands: Vec<Command>,
}

/// A change asked of one site (or, for [`Command::Tick`], of all sites of the partition).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// A service connects: raises its epoch, may construct a blank site, moves a store's marks.
    AttachService(AttachService),
    /// A service's session ended; ignored unless it is the newest.
    DetachService {
        /// The site.
        site: SiteName,
        /// The service whose session ended.
        service: ServiceId,
        /// The session that ended.
        session: SessionId,
    },
    /// An attached service raises an event.
    Raise(Raise),
    /// An HTTP caller raises an event under an idempotency key; no session, no epoch.
    RaiseKeyed(RaiseKeyed),
    /// A stateful client connects: raises its epoch.
    AttachClient {
        /// The site.
        site: SiteName,
        /// The client.
        client: ClientId,
        /// Why this session is the newest.
        claim: Claim,
    },
    /// The client replaces or extends its set of subscriptions.
    Subscribe(Subscribe),
    /// Moves a cursor: the instance was delivered and acknowledged.
    Advance(Advance),
    /// An administrative act with a retry identity.
    Admin {
        /// Given by the gateway; a repeat within ten minutes of log time gets the first answer.
        request: RequestId,
        /// The site.
        site: SiteName,
        /// What to do.
        action: AdminAction,
    },
    /// Removes what has expired at the batch's stamp: instances, idempotency keys, request marks.
    Tick {
        /// At most this many rows are removed; the next tick takes the rest.
        limit: u32,
    },
    /// Sets the partition's limits; proposed by the leader when its configuration differs.
    SetLimits(Limits),
    /// Gives every site of the partition a new incarnation. Proposed after the partition's history
    /// went back: instance ids will be given out again, and must not be taken for those that
    /// clients have handled.
    Renew {
        /// Random; each site's incarnation is drawn from it.
        seed: u64,
    },
    /// Changes the directory of nodes; in its own group only.
    Directory(DirectoryCommand),
    /// Puts rows of a site that does not exist yet back, from a backup. The site's own row comes
    /// last and makes it exist.
    Restore(Restore),
    /// Changes nothing: every replica that applies it takes the hash of its state at this entry.
    Compare,
    /// As [`Command::Admin`], on somebody's behalf: what was done is recorded.
    Administer(Administer),
    /// Records what nodes saw: refused attempts, and acts on the cluster as a whole.
    Record {
        /// The site, or [`super::audit::COMMON`].
        site: SiteName,
        /// What they saw.
        notes: Vec<Note>,
    },
    /// Makes a ticket.
    IssueTicket(IssueTicket),
    /// Uses a ticket up.
    RedeemTicket(RedeemTicket),
    /// As [`Command::Advance`], for an acknowledgement that did not come through the session that
    /// delivered: it is woken, wherever it is.
    Acknowledge(Advance),
    /// A stateful client asks for its next event: attaches, unless its newest session is one of
    /// this kind and not over; that one then lasts longer.
    AttachPolling(AttachPolling),
    /// As [`Command::RaiseKeyed`], but only once another event was decided: so events that are
    /// under way together are decided in their order or not at all.
    RaiseAfter(RaiseAfter),
    /// As [`Command::IssueTicket`], within what its principal may have.
    DrawTicket(DrawTicket),
    /// As [`Command::Subscribe`], of subscriptions that are not all ordered.
    SubscribeAs(SubscribeAs),
    /// An agent takes a push subscription over.
    AttachPush(AttachPush),
    /// An agent reports what became of a push subscription's deliveries.
    SettlePush(SettlePush),
    /// A session gives an instance up after its last attempt.
    GiveUp(GiveUp),
    /// A raise in any of its forms, of an event with a trace context.
    Traced(Box<Traced>),
}

/// See [`Command::Administer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Administer {
    /// As in [`Command::Admin`].
    pub request: RequestId,
    /// The site.
    pub site: SiteName,
    /// What to do.
    pub action: AdminAction,
    /// On whose behalf.
    pub by: By,
    /// How the object must be for the act to be done.
    pub expected: Option<Precondition>,
}

/// How the object of an act must be. See [`super::Site::revision`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// There is none.
    Absent,
    /// There is one.
    Present,
    /// There is one of this revision.
    Revision(u64),
}

/// See [`Command::AttachPolling`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachPolling {
    /// The site.
    pub site: SiteName,
    /// The client.
    pub client: ClientId,
    /// As for any attach, if it comes to one.
    pub claim: Claim,
    /// How long the session lasts from now, milliseconds of log time.
    pub lasts_ms: u32,
}

/// What an attach takes over from. Proposed again it stays the same, so that it takes over once,
/// and never from a session that the proposer has not heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The session that attaches.
    pub session: SessionId,
    /// The newest epoch of the account that it knows of: a higher one is a session that attached
    /// meanwhile.
    pub above: Epoch,
}

/// See [`Command::Restore`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restore {
    /// The site.
    pub site: SiteName,
    /// The attempt that it is a part of.
    pub attempt: AttemptId,
    /// Which part, from 0 on. The first removes what another attempt has put.
    pub part: u32,
    /// The rows, all of this site.
    pub rows: Vec<Row>,
}

/// See [`Command::AttachService`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttachService {
    /// The site.
    pub site: SiteName,
    /// The service.
    pub service: ServiceId,
    /// What it declares; `None` takes the site's structure as it is.
    pub structure: Option<Structure>,
    /// Shown in presence; at most 64 bytes, longer is cut.
    pub version: String,
    /// Shown in presence; at most 255 bytes, longer is cut.
    pub hostname: String,
    /// The uid of the store it raises from.
    pub uid: StorageUid,
    /// The store that `uid` goes on from: its marks move to `uid`, itself is retired.
    pub continues: Option<StorageUid>,
    /// A random value below 2^53 for the site's incarnation, used when this attach constructs a
    /// site that has none yet (0); else the site keeps the one it was created with.
    pub incarnation: Incarnation,
    /// Where its session is.
    pub place: Place,
    /// Why this session is the newest.
    pub claim: Claim,
}

/// The event that is raised, as its service gave it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewEvent {
    /// Which event.
    pub name: EventName,
    /// The category that the raiser believes; another one is rejected as `wrong-category`.
    pub category: Option<Category>,
    /// The arguments; `None` is a null-event.
    pub arguments: Option<Arguments>,
    /// The addressee of a private event.
    pub client: Option<ClientId>,
    /// A lifetime shorter than the definition's, seconds.
    pub lifetime_s: Option<u32>,
    /// The trace that it is raised in, until there is a command of it: [`Command::Traced`] has it then,
    /// and it is no part of what events are compared by.
    #[serde(skip)]
    pub trace: Option<Box<TraceContext>>,
}

/// Opaque bytes with their media type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arguments {
    /// Media type, at most 128 bytes; `application/json` for JSON.
    pub content_type: String,
    /// The encoded arguments.
    pub data: Bytes,
}

/// See [`Command::Raise`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raise {
    /// The site.
    pub site: SiteName,
    /// The raising service.
    pub service: ServiceId,
    /// The epoch of its session.
    pub epoch: Epoch,
    /// The store the event comes from.
    pub uid: StorageUid,
    /// Its number in that store.
    pub sequence: Sequence,
    /// The event.
    pub event: NewEvent,
}

/// See [`Command::RaiseKeyed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RaiseKeyed {
    /// The site.
    pub site: SiteName,
    /// The service on whose behalf it is raised.
    pub service: ServiceId,
    /// The idempotency key, 1..=255 bytes.
    pub key: String,
    /// The event.
    pub event: NewEvent,
}

/// See [`Command::RaiseAfter`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RaiseAfter {
    /// The event and its key.
    pub raise: RaiseKeyed,
    /// The key of the event before it, of the same service.
    pub after: String,
}

/// Where a new subscription starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// At the earliest retained instance.
    #[default]
    Earliest,
    /// After the newest instance at the time of subscribing.
    Latest,
}

/// One subscription as a client asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRequest {
    /// The event's name.
    pub event: EventName,
    /// The category the client believes; another one is refused as `wrong-category`.
    pub category: Option<Category>,
    /// Where a new subscription starts; a kept one keeps its cursor.
    pub start: Start,
    /// Milliseconds until an unacknowledged instance is sent again; `None` is the default.
    pub ack_timeout_ms: Option<u32>,
    /// Attempts before an instance is skipped; `None` is forever.
    pub max_attempts: Option<u32>,
}

/// What happens to subscriptions that a [`Subscribe`] does not list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubscribeMode {
    /// They are removed with their cursors: the list is the whole set.
    Exact,
    /// They stay.
    Add,
    /// The listed ones (by name; options are ignored) are removed, all others stay.
    Remove,
}

/// See [`Command::Subscribe`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The site.
    pub site: SiteName,
    /// The client.
    pub client: ClientId,
    /// The epoch of its session.
    pub epoch: Epoch,
    /// Counts the lists of its session from 1: one that comes again changes nothing.
    pub number: u64,
    /// How `items` relates to what is there.
    pub mode: SubscribeMode,
    /// The subscriptions.
    pub items: Vec<SubscriptionRequest>,
}

/// See [`Command::SubscribeAs`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscribeAs {
    /// The subscriptions.
    pub subscribe: Subscribe,
    /// How each of them is to be delivered, in the same order.
    pub qualities: Vec<Quality>,
}

/// See [`Command::Advance`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advance {
    /// The site.
    pub site: SiteName,
    /// The client.
    pub client: ClientId,
    /// The subscribed event.
    pub event: EventKey,
    /// The epoch of the session that delivered it.
    pub epoch: Epoch,
    /// The incarnation in which `instance` was delivered.
    pub incarnation: Incarnation,
    /// The generation in which `instance` was delivered.
    pub generation: Generation,
    /// The instance that was acknowledged.
    pub instance: InstanceId,
}

/// What a token lets its bearer do, inside one site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Principal {
    /// Administers the site.
    Admin,
    /// Reads everything of the site, changes nothing.
    Observer,
    /// Acts as this service.
    Service(ServiceId),
    /// Acts as this client.
    Client(ClientId),
    /// Reads everything of the site, and keeps it running: pauses, seeks, kicks.
    Operator,
}

/// Properties of a site that an administrator sets; all have defaults at creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteSettings {
    /// Whether several services share the site, each with its own queues.
    pub multi_service: bool,
    /// Whether the first service to attach may construct a blank site.
    pub constructible: bool,
    /// Whether guests are let in, as far as the structure supports them.
    pub guests_allowed: bool,
    /// Whether clients without account are let in, as far as the structure supports them.
    pub stateless_guests_allowed: bool,
}

/// An administrative act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AdminAction {
    /// Creates a blank site.
    CreateSite {
        /// Its settings.
        settings: SiteSettings,
        /// A random value below 2^53 for its incarnation; it lasts until a rebuild.
        incarnation: Incarnation,
    },
    /// Changes the settings; `multi_service` cannot change while the site has a structure.
    UpdateSite {
        /// The new settings.
        settings: SiteSettings,
    },
    /// Removes the site with everything in it.
    DeleteSite,
    /// Applies a structure, constructing, changing or (if allowed) rebuilding the site.
    ApplyStructure {
        /// The structure.
        structure: Structure,
        /// Whether another type or author may rebuild the site, dropping its queues.
        rebuild: bool,
        /// A random value for the incarnation after a rebuild.
        incarnation: Incarnation,
    },
    /// Applies the structure that this service declared when it was parked.
    ApplyDeclared {
        /// The parked service.
        service: ServiceId,
        /// As in [`AdminAction::ApplyStructure`].
        rebuild: bool,
        /// As in [`AdminAction::ApplyStructure`].
        incarnation: Incarnation,
    },
    /// Registers a service. A single-service site takes one.
    CreateService {
        /// Its id.
        id: ServiceId,
    },
    /// Removes a service with its queues, marks and tokens; what is in flight finishes.
    DeleteService {
        /// Its id.
        id: ServiceId,
    },
    /// Registers a stateful client.
    CreateClient {
        /// Its id.
        id: ClientId,
        /// Its user; `None` makes it a guest.
        user: Option<UserId>,
    },
    /// Gives a client another user, or none.
    UpdateClient {
        /// Its id.
        id: ClientId,
        /// Its user; `None` makes it a guest.
        user: Option<UserId>,
    },
    /// Removes a client with its private events, subscriptions, cursors and tokens.
    DeleteClient {
        /// Its id.
        id: ClientId,
    },
    /// Registers a user.
    CreateUser {
        /// Its id.
        id: UserId,
        /// The roles it holds; each must be declared once the site has a structure.
        roles: Vec<RoleName>,
    },
    /// Gives a user other roles.
    UpdateUser {
        /// Its id.
        id: UserId,
        /// The roles it holds from now on.
        roles: Vec<RoleName>,
    },
    /// Removes a user; its clients become guests.
    DeleteUser {
        /// Its id.
        id: UserId,
    },
    /// Registers a token by its hash.
    CreateToken {
        /// The public half.
        id: TokenId,
        /// SHA-256 of the secret half (32 random bytes, so a fast hash is enough).
        hash: Digest,
        /// What the bearer may do.
        principal: Principal,
    },
    /// Removes a token; sessions that used it are closed.
    RevokeToken {
        /// The public half.
        id: TokenId,
    },
    /// Sets a subscription's cursor and raises its generation.
    Seek {
        /// The client.
        client: ClientId,
        /// The event.
        event: EventName,
        /// The cursor from now on: delivery goes on with the first retained id above it.
        after: InstanceId,
    },
    /// Removes a subscription with its cursor, as if its client had.
    Unsubscribe {
        /// The client.
        client: ClientId,
        /// The event.
        event: EventName,
    },
    /// Registers a token that may end by itself.
    IssueToken {
        /// The public half.
        id: TokenId,
        /// As in [`AdminAction::CreateToken`].
        hash: Digest,
        /// What the bearer may do.
        principal: Principal,
        /// Milliseconds from now; `None` is until it is revoked.
        lifetime_ms: Option<u64>,
        /// What it is for, in the words of whoever made it.
        note: String,
    },
    /// Bounds what the site may use.
    SetQuotas {
        /// From now on.
        quotas: Quotas,
    },
    /// Makes a subscription for a client, or gives it other options; a kept one keeps its cursor.
    PutSubscription {
        /// The client.
        client: ClientId,
        /// The subscription.
        item: SubscriptionRequest,
    },
    /// Holds a subscription's deliveries back: what is in flight finishes, nothing follows.
    Pause {
        /// The client.
        client: ClientId,
        /// The event.
        event: EventName,
    },
    /// Lets a paused subscription go on.
    Resume {
        /// The client.
        client: ClientId,
        /// The event.
        event: EventName,
    },
    /// Ends the client's session; it may come again.
    KickClient {
        /// The client.
        client: ClientId,
    },
    /// Ends the service's session; it may come again.
    KickService {
        /// The service.
        service: ServiceId,
    },
    /// As [`AdminAction::PutSubscription`], of one that is not ordered.
    PutSubscriptionAs {
        /// The client.
        client: ClientId,
        /// The subscription.
        item: SubscriptionRequest,
        /// How it is to be delivered.
        quality: Quality,
    },
    /// Registers a push subscription, or changes one; a kept one keeps its cursor.
    PutPush {
        /// Its id.
        id: PushId,
        /// What it is.
        spec: Box<PushSpec>,
    },
    /// Removes a push subscription with its cursor.
    DeletePush {
        /// Its id.
        id: PushId,
        /// The client that it must be of, if any.
        owner: Option<ClientId>,
    },
    /// Starts a push subscription again that is cancelled or offline.
    ResumePush {
        /// Its id.
        id: PushId,
        /// The client that it must be of, if any.
        owner: Option<ClientId>,
    },
    /// Changes a dead letter.
    EditDeadLetter {
        /// Its id.
        id: InstanceId,
        /// Its arguments, if they are to change.
        arguments: Option<Arguments>,
        /// Its note, if that is to change.
        note: Option<String>,
    },
    /// Raises a dead letter again.
    ReplayDeadLetter {
        /// Its id.
        id: InstanceId,
    },
    /// Removes a dead letter.
    DeleteDeadLetter {
        /// Its id.
        id: InstanceId,
    },
}
