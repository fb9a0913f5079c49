//! Why a client got an instance, or did not: what the state knows of both, put together.
//!
//! What a node saw of the transmissions themselves (attempts, times) is not here: sessions know it.

use super::history::Departed;
use super::ids::{ClientId, EventName, InstanceId, ServiceId, Stamp};
use super::row::{Instance, SubscriptionRow};
use super::ruling::{Denial, Ruling};
use super::site::{Receiver, Site};

/// What became of an instance.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// No instance has this id yet.
    NotRaised {
        /// The newest id.
        newest: InstanceId,
    },
    /// It is in its queue.
    Retained {
        /// Its event.
        event: EventName,
        /// Who raised it.
        service: ServiceId,
        /// The addressee, for a private event.
        client: Option<ClientId>,
        /// When it was committed.
        created: Stamp,
        /// From when on it is never sent.
        expires: Option<Stamp>,
    },
    /// It was there, and is no more.
    Departed(Departed),
    /// It has been raised and is retained no more; what became of it is not remembered.
    Forgotten {
        /// Everything above this id is remembered.
        remembered_above: InstanceId,
    },
}

/// Why the client will not get the instance (any more), or not yet.
#[derive(Clone, Debug, PartialEq)]
pub enum WhyNot {
    /// No such client.
    UnknownClient,
    /// No such event.
    UnknownEvent,
    /// No instance of this id.
    NotRaised,
    /// The instance is of another event.
    OtherEvent,
    /// It does not subscribe to the event.
    NotSubscribed,
    /// The private instance is for somebody else.
    NotAddressed,
    /// Its cursor is at or above the instance: acknowledged, or skipped by a seek, by where the
    /// subscription started, or after its last attempt.
    Passed {
        /// The cursor.
        cursor: InstanceId,
    },
    /// See [`Departed::gone`].
    Departed,
    /// Not known; see [`Fate::Forgotten`].
    Forgotten,
    /// Its lifetime is over.
    Expired,
    /// It may not receive the event now.
    Unauthorised(Denial),
    /// Earlier instances come first.
    Waits {
        /// The one that comes next.
        next: InstanceId,
    },
    /// It is the next one: in flight, or sent once the client is connected.
    Next,
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Why {
    /// What became of the instance.
    pub fate: Fate,
    /// The client's subscription to its event.
    pub subscription: Option<SubscriptionRow>,
    /// What follows for the client.
    pub verdict: WhyNot,
}

impl Site {
    /// What became of an instance.
    pub fn fate(&self, id: InstanceId) -> Fate {
        if id > self.head() || id == InstanceId(0) {
            return Fate::NotRaised { newest: self.head() };
        }
        if let Some(instance) = self.instance(id) {
            return self.retained_fate(instance);
        }
        match self.departed(id) {
            Some(departed) => Fate::Departed(departed.clone()),
            None => Fate::Forgotten { remembered_above: self.history.floor() },
        }
    }

    fn retained_fate(&self, instance: &Instance) -> Fate {
        let event = self.event(instance.event).map(|row| row.definition.name.clone());
        Fate::Retained {
            event: event.unwrap_or_else(|| EventName::from("")),
            service: instance.service.clone(),
            client: instance.client.clone(),
            created: instance.created,
            expires: instance.expires,
        }
    }

    /// Why this client got an instance of an event, or did not.
    pub fn why(&self, now: Stamp, client: &ClientId, event: &str, id: InstanceId) -> Why {
        let fate = self.fate(id);
        let row = self.event_named(event);
        let subscription = row.and_then(|row| self.subscription(client, row.key)).cloned();
        let verdict = self.judge_why(now, client, event, id, &fate, subscription.as_ref());
        Why { fate, subscription, verdict }
    }

    fn judge_why(
        &self,
        now: Stamp,
        client: &ClientId,
        event: &str,
        id: InstanceId,
        fate: &Fate,
        subscription: Option<&SubscriptionRow>,
    ) -> WhyNot {
        if self.client(client.as_str()).is_none() {
            return WhyNot::UnknownClient;
        }
        let Some(row) = self.event_named(event) else { return WhyNot::UnknownEvent };
        let (of, addressee) = match fate {
            Fate::NotRaised { .. } => return WhyNot::NotRaised,
            Fate::Forgotten { .. } => (None, None),
            Fate::Departed(departed) => (Some(departed.event), departed.client.as_ref()),
            Fate::Retained { client, .. } => {
                (self.instance(id).map(|it| it.event), client.as_ref())
            }
        };
        if of.is_some_and(|of| of != row.key) {
            return WhyNot::OtherEvent;
        }
        if addressee.is_some_and(|addressee| addressee != client) {
            return WhyNot::NotAddressed;
        }
        let Some(subscription) = subscription else { return WhyNot::NotSubscribed };
        let cursor = subscription.cursor;
        if cursor >= id {
            return WhyNot::Passed { cursor };
        }
        match fate {
            Fate::Departed(_) => return WhyNot::Departed,
            Fate::Forgotten { .. } => return WhyNot::Forgotten,
            Fate::Retained { expires, .. } if expires.is_some_and(|at| at <= now) => {
                return WhyNot::Expired;
            }
            Fate::Retained { .. } | Fate::NotRaised { .. } => {}
        }
        let receiver = Receiver::Client(client.clone());
        if let Ruling::Denied(denial) = self.ruling_receive(event, &receiver) {
            return WhyNot::Unauthorised(denial);
        }
        match self.next_instance(row.key, cursor, &receiver, now) {
            Some(next) if next.id < id => WhyNot::Waits { next: next.id },
            Some(_) | None => WhyNot::Next,
        }
    }
}
