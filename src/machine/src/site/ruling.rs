//! Why somebody may do something, or may not: the answers behind `can-i`.
//!
//! Authority itself is [`Site::admits`] and [`Site::may_receive`]; a test holds that a ruling and they
//! never differ.

use super::command::NewEvent;
use super::ids::{ClientId, RoleName};
use super::outcome::Parked;
use super::row::EventRow;
use super::site::{Receiver, Site};
use super::structure::{Access, GuestSupport, Kind};

/// Whether somebody may, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Yes, for this reason.
    Allowed(String),
    /// No, for this one.
    Denied(Denial),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The site has no structure yet.
    SiteBlank,
    /// The site has no event of this name.
    UnknownEvent,
    /// No such client.
    UnknownClient,
    /// No such service.
    UnknownService,
    /// The site's settings shut out clients without a user.
    GuestsShutOut,
    /// The site's settings shut out clients without an account.
    StatelessShutOut,
    /// The structure does not support clients without a user.
    GuestsUnsupported,
    /// The structure does not support clients without an account.
    StatelessUnsupported,
    /// The event is not for clients without a user.
    EventDeniesGuests,
    /// The event, or its category, is not for clients without an account.
    EventDeniesStateless,
    /// The event takes one of these roles, and the client's user holds none of them.
    RoleMissing {
        /// The roles.
        needed: Vec<RoleName>,
    },
    /// An administrator holds the deliveries back.
    Paused,
    /// The service is connected but parked, or would be.
    Parked(Parked),
    /// A private event needs an addressee.
    ClientRequired,
    /// Only a private event has an addressee.
    ClientNotAllowed,
}

impl Site {
    /// Whether this receiver may enter, and why.
    pub fn ruling_enter(&self, receiver: &Receiver) -> Ruling {
        let stateless = match receiver {
            Receiver::Client(id) => match self.client(id.as_str()) {
                None => return Ruling::Denied(Denial::UnknownClient),
                Some(row) => match &row.user {
                    Some(user) => {
                        return Ruling::Allowed(format!("the client belongs to user {user}"));
                    }
                    None => false,
                },
            },
            Receiver::Stateless => true,
        };
        let settings = self.settings();
        if !settings.guests_allowed {
            return Ruling::Denied(Denial::GuestsShutOut);
        }
        if stateless && !settings.stateless_guests_allowed {
            return Ruling::Denied(Denial::StatelessShutOut);
        }
        match (self.structure().map(|structure| structure.guests), stateless) {
            (None, _) => Ruling::Denied(Denial::SiteBlank),
            (Some(GuestSupport::GuestAndStateless), _) | (Some(GuestSupport::Guest), false) => {
                Ruling::Allowed("the site and its structure admit guests".to_owned())
            }
            (Some(GuestSupport::Guest), true) => Ruling::Denied(Denial::StatelessUnsupported),
            (Some(GuestSupport::None), true) => Ruling::Denied(Denial::StatelessUnsupported),
            (Some(GuestSupport::None), false) => Ruling::Denied(Denial::GuestsUnsupported),
        }
    }

    /// Whether this receiver gets the deliveries of an event now, and why.
    pub fn ruling_receive(&self, event: &str, receiver: &Receiver) -> Ruling {
        let Some(event) = self.event_named(event) else {
            let blank = self.structure().is_none();
            return Ruling::Denied(if blank { Denial::SiteBlank } else { Denial::UnknownEvent });
        };
        if let denied @ Ruling::Denied(_) = self.ruling_enter(receiver) {
            return denied;
        }
        if self.is_paused(event.key, receiver) {
            return Ruling::Denied(Denial::Paused);
        }
        self.ruling_event(event, receiver)
    }

    fn ruling_event(&self, event: &EventRow, receiver: &Receiver) -> Ruling {
        let (registered, user) = match receiver {
            Receiver::Client(id) => {
                (true, self.client(id.as_str()).and_then(|client| client.user.as_ref()))
            }
            Receiver::Stateless => (false, None),
        };
        let allowed = |why: &str| Ruling::Allowed(why.to_owned());
        let access = match &event.definition.kind {
            Kind::Private { .. } if registered => {
                return allowed("a client gets the private events that are addressed to it");
            }
            Kind::Private { .. } => return Ruling::Denied(Denial::EventDeniesStateless),
            Kind::Replacing { access } | Kind::Queueing { access, .. } => access,
        };
        match access {
            Access::Everyone => allowed("the event is for everyone"),
            Access::GuestsDenied if user.is_some() => allowed("the client has a user"),
            Access::GuestsDenied => Ruling::Denied(Denial::EventDeniesGuests),
            Access::StatelessGuestsDenied if registered => allowed("the client has an account"),
            Access::StatelessGuestsDenied => Ruling::Denied(Denial::EventDeniesStateless),
            Access::Roles(roles) => {
                let held = roles
                    .iter()
                    .find(|role| user.is_some_and(|user| self.holds(user, role.as_str())));
                match held {
                    Some(role) => Ruling::Allowed(format!("the client's user holds role {role}")),
                    None => Ruling::Denied(Denial::RoleMissing { needed: roles.clone() }),
                }
            }
        }
    }

    /// Whether this service may raise an event of this name now, and why. What is wrong with one
    /// event alone (its size, its lifetime) is not judged.
    pub fn ruling_raise(&self, service: &str, event: &str, client: Option<&ClientId>) -> Ruling {
        let Some(service) = self.service(service) else {
            return Ruling::Denied(Denial::UnknownService);
        };
        if let Some(parked) = self.parked(service) {
            return Ruling::Denied(Denial::Parked(parked));
        }
        let Some(event) = self.event_named(event) else {
            return Ruling::Denied(Denial::UnknownEvent);
        };
        let private = matches!(event.definition.kind, Kind::Private { .. });
        match client {
            None if private => return Ruling::Denied(Denial::ClientRequired),
            Some(_) if !private => return Ruling::Denied(Denial::ClientNotAllowed),
            Some(client) if self.client(client.as_str()).is_none() => {
                return Ruling::Denied(Denial::UnknownClient);
            }
            None | Some(_) => {}
        }
        Ruling::Allowed("a service raises the events of its site".to_owned())
    }
}

impl NewEvent {
    /// Bytes of arguments, for quotas.
    pub(super) fn argument_bytes(&self) -> u64 {
        self.arguments.as_ref().map_or(0, |it| (it.data.len() + it.content_type.len()) as u64)
    }
}
