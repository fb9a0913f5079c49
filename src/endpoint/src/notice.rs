//! Everything an application should hear that is not the result of one of its calls.
//!
//! Notices are called on the endpoint's own task: return quickly.

use ackord_wire::Code;
use ackord_wire::frame::{Position, Presence};

/// What happened to a service endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceNotice {
    /// A session is open.
    Connected {
        /// The address that answered.
        url: String,
        /// The service's id.
        service: String,
        /// The session's epoch.
        epoch: u64,
    },
    /// The service exchanges events.
    Online,
    /// The service is connected and exchanges no events. Nothing is lost; it comes online by
    /// itself when the cause is gone.
    Parked {
        /// Why.
        reason: Code,
    },
    /// The connection ended.
    Disconnected {
        /// Why, for a person.
        reason: String,
    },
    /// An attempt to connect failed.
    ConnectFailed {
        /// The address.
        url: String,
        /// Why, for a person.
        reason: String,
        /// When the next attempt is made, milliseconds.
        retry_in_ms: u64,
    },
    /// An event that nobody waits for was rejected for good.
    Rejected {
        /// The event's name.
        event: String,
        /// Why.
        code: Code,
        /// Why, for a person.
        detail: String,
    },
    /// The store overflowed: this event was the oldest unsent one and is dropped.
    Dropped {
        /// The event's name.
        event: String,
    },
    /// The file ended in something that is no whole record; it was cut off.
    StoreCut {
        /// How many bytes.
        bytes: u64,
    },
    /// The file is damaged before its end. What does not verify is left out: events may be missing,
    /// and some that were decided may be raised again.
    StoreDamaged {
        /// How many bytes.
        bytes: u64,
        /// Where the file as it was is kept.
        detail: String,
    },
    /// The file cannot be read. It was set aside and a fresh one begun.
    StoreUnreadable {
        /// What was wrong and where the old file is.
        detail: String,
    },
    /// The store failed: the endpoint goes on with the events in memory, at level SPL-1.
    FellBack {
        /// What failed.
        reason: String,
    },
    /// The broker had retired the store that was found at the start: its events are dropped.
    StoreSuperseded {
        /// How many.
        dropped: u64,
    },
    /// The store took a new uid.
    StoreRenewed {
        /// Why.
        reason: RenewReason,
    },
    /// The endpoint does not connect again.
    Terminal {
        /// Why.
        code: Code,
        /// Why, for a person.
        detail: String,
        /// Events that were raised and not acknowledged.
        left: u64,
    },
}

/// Why a store took a new uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewReason {
    /// The broker has decided higher numbers than the store knows: a torn tail or an old copy.
    NumbersLost,
    /// A number had been used for another event.
    SequenceReused,
    /// The broker no longer knows numbers that it had decided: the site was rebuilt or restored.
    MarksLost,
}

/// What happened to a client endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientNotice {
    /// A session is open.
    Connected {
        /// The address that answered.
        url: String,
        /// The client's id; absent for a stateless client.
        client: Option<String>,
        /// The site's incarnation.
        incarnation: u64,
    },
    /// The connection ended.
    Disconnected {
        /// Why, for a person.
        reason: String,
    },
    /// An attempt to connect failed.
    ConnectFailed {
        /// The address.
        url: String,
        /// Why, for a person.
        reason: String,
        /// When the next attempt is made, milliseconds.
        retry_in_ms: u64,
    },
    /// A subscription holds in this session.
    Subscribed {
        /// The event's name.
        event: String,
        /// Where it stands.
        position: Position,
        /// Whether the client may receive it at the moment.
        granted: bool,
    },
    /// A subscription was refused; the others work.
    Refused {
        /// The event's name.
        event: String,
        /// Why.
        code: Code,
        /// Why, for a person.
        detail: String,
    },
    /// A subscription was removed with its cursor.
    Removed {
        /// The event's name.
        event: String,
    },
    /// The broker has committed the cursor: this instance and all before it never come again.
    Committed {
        /// The event's name.
        event: String,
        /// The instance.
        instance_id: u64,
    },
    /// Whether the client may receive a subscribed event changed.
    Authority {
        /// The event's name.
        event: String,
        /// Whether delivery goes on.
        granted: bool,
    },
    /// A service of the site came or went.
    Presence(Presence),
    /// The last handled id of a subscription no longer means anything: it was dropped.
    Reset {
        /// The event's name.
        event: String,
        /// Why.
        reason: ResetReason,
    },
    /// A handler failed; the instance comes again.
    HandlerFailed {
        /// The event's name.
        event: String,
        /// The instance.
        instance_id: u64,
        /// The broker's count of transmissions.
        attempt: u32,
        /// The handler's words.
        detail: String,
        /// When it comes again, milliseconds.
        retry_in_ms: u64,
    },
    /// The handler of a subscription without acknowledgement is too slow: the oldest of what waits for it
    /// was dropped.
    Overrun {
        /// The event's name.
        event: String,
        /// The instance that no handler will see.
        instance_id: u64,
    },
    /// The broker delivers an event that has no handler here. Told once per event.
    Unhandled {
        /// The event's name.
        event: String,
    },
    /// The file ended in something that is no whole record; it was cut off.
    StoreCut {
        /// How many bytes.
        bytes: u64,
    },
    /// The stored positions are damaged before their end. What does not verify is left out: handled
    /// events may come again.
    StoreDamaged {
        /// How many bytes.
        bytes: u64,
        /// Where the data as it was is kept.
        detail: String,
    },
    /// The stored positions cannot be read. A fresh store was begun: handled events may come again.
    StoreUnreadable {
        /// What was wrong and where the old data is.
        detail: String,
    },
    /// The store failed: positions are kept in memory from now on, at level CPL-1.
    FellBack {
        /// What failed.
        reason: String,
    },
    /// A handler returned [`crate::Flow::Stop`], or the client was paused: no handler runs any more.
    Stopped,
    /// The endpoint does not connect again.
    Terminal {
        /// Why.
        code: Code,
        /// Why, for a person.
        detail: String,
    },
}

/// Why a last handled id was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// The site was rebuilt or restored: ids began anew.
    Incarnation,
    /// An administrator moved the subscription, or it was made anew.
    Generation,
    /// The broker could not go on from a stateless client's position: it starts at the first event.
    NotResumed,
}
