//! What a row costs in memory, by estimate: the measure behind `partition_bytes_max`.
//!
//! A weight depends on the row alone, so every replica counts the same. The fixed parts cover the
//! row, its place in the maps and its index entries; they are rounded up rather than exact.

use super::audit::AuditRow;
use super::command::{Arguments, Principal};
use super::credential::TicketRow;
use super::dead::DeadLetterRow;
use super::push::PushRow;
use super::row::{
    ClientRow, DeclaredRow, EventRow, Instance, KeyRow, RequestRow, Row, ServiceRow, SiteRow,
    SubscriptionRow, TokenRow, UserRow,
};
use super::structure::{Access, EventDefinition, Kind, Structure};
use super::trace::{TraceContext, TracedRow};

/// A small row with its map entry.
const ROW: u64 = 128;
/// An instance with its four index entries.
const INSTANCE: u64 = 384;
/// A name inside a list: pointer, length, allocation header.
const NAME: u64 = 32;

/// Bytes of memory that a row accounts for.
pub(super) trait Weight {
    fn weight(&self) -> u64;
}

fn text(text: &str) -> u64 {
    text.len() as u64
}

impl Weight for Access {
    fn weight(&self) -> u64 {
        match self {
            Self::Everyone | Self::GuestsDenied | Self::StatelessGuestsDenied => 0,
            Self::Roles(roles) => roles.iter().map(|role| NAME + text(role.as_str())).sum(),
        }
    }
}

impl Weight for EventDefinition {
    fn weight(&self) -> u64 {
        let access = match &self.kind {
            Kind::Replacing { access } | Kind::Queueing { access, .. } => access.weight(),
            Kind::Private { .. } => 0,
        };
        ROW + text(self.name.as_str()) + access
    }
}

impl Weight for Structure {
    fn weight(&self) -> u64 {
        let roles: u64 = self.roles.iter().map(|role| NAME + text(role.as_str())).sum();
        let events: u64 = self.events.iter().map(Weight::weight).sum();
        ROW + text(&self.service_type) + text(&self.contract_author) + roles + events
    }
}

impl Weight for Arguments {
    fn weight(&self) -> u64 {
        self.data.len() as u64 + text(&self.content_type)
    }
}

impl Weight for SiteRow {
    fn weight(&self) -> u64 {
        let structure = self.structure.as_ref();
        4 * ROW + text(self.site.as_str()) + structure.map_or(0, |(it, _)| it.weight())
    }
}

impl Weight for EventRow {
    fn weight(&self) -> u64 {
        2 * ROW + self.definition.weight()
    }
}

impl Weight for Instance {
    fn weight(&self) -> u64 {
        let trace = self.trace.as_deref().map_or(0, Weight::weight);
        INSTANCE + self.arguments.as_ref().map_or(0, Weight::weight) + trace
    }
}

impl Weight for TraceContext {
    fn weight(&self) -> u64 {
        ROW + text(&self.state)
    }
}

impl Weight for TracedRow {
    fn weight(&self) -> u64 {
        INSTANCE + self.instance.arguments.as_ref().map_or(0, Weight::weight) + self.trace.weight()
    }
}

impl Weight for ServiceRow {
    fn weight(&self) -> u64 {
        let declared = self.declared_type.as_ref();
        2 * ROW
            + text(self.id.as_str())
            + text(&self.version)
            + text(&self.hostname)
            + declared.map_or(0, |(kind, author)| text(kind) + text(author))
    }
}

impl Weight for DeclaredRow {
    fn weight(&self) -> u64 {
        ROW + self.structure.weight()
    }
}

impl Weight for KeyRow {
    fn weight(&self) -> u64 {
        2 * (ROW + text(&self.key))
    }
}

impl Weight for UserRow {
    fn weight(&self) -> u64 {
        let roles: u64 = self.roles.iter().map(|role| NAME + text(role.as_str())).sum();
        ROW + text(self.id.as_str()) + roles
    }
}

impl Weight for ClientRow {
    fn weight(&self) -> u64 {
        2 * ROW + text(self.id.as_str())
    }
}

impl Weight for SubscriptionRow {
    fn weight(&self) -> u64 {
        ROW
    }
}

impl Weight for TokenRow {
    fn weight(&self) -> u64 {
        let principal = match &self.principal {
            Principal::Admin | Principal::Operator | Principal::Observer => 0,
            Principal::Service(id) => text(id.as_str()),
            Principal::Client(id) => text(id.as_str()),
        };
        2 * ROW + text(self.id.as_str()) + principal + text(&self.note)
    }
}

impl Weight for TicketRow {
    fn weight(&self) -> u64 {
        3 * ROW + 2 * text(self.id.as_str())
    }
}

impl Weight for AuditRow {
    fn weight(&self) -> u64 {
        let note = &self.note;
        let texts = [&note.by.who, &note.by.address, &note.act, &note.target, &note.result];
        2 * ROW + texts.into_iter().map(|part| text(part)).sum::<u64>()
    }
}

impl Weight for PushRow {
    fn weight(&self) -> u64 {
        5 * ROW + text(self.id.as_str()) + self.spec.bytes() as u64
    }
}

impl Weight for DeadLetterRow {
    fn weight(&self) -> u64 {
        let arguments = self.arguments.as_ref().map_or(0, Weight::weight);
        6 * ROW + text(self.name.as_str()) + text(&self.note) + arguments
    }
}

impl Weight for RequestRow {
    fn weight(&self) -> u64 {
        2 * ROW
    }
}

/// A remembered decision: kept without its names, hence small.
pub(super) const OUTCOME: u64 = 64;
/// The mark of a store.
pub(super) const STORE: u64 = 2 * ROW;
/// The head of a site.
pub(super) const HEAD: u64 = ROW;

/// The quotas of a site.
pub(super) const QUOTA: u64 = 3 * ROW;
/// What is left of a rate.
pub(super) const RATE: u64 = 2 * ROW;
/// The session of a client without connection.
pub(super) const POLLING: u64 = ROW;
/// The quality of a subscription.
pub(super) const QUALITY: u64 = ROW;

/// An attempt to restore a site.
pub(super) const ATTEMPT: u64 = ROW;

impl Weight for Row {
    fn weight(&self) -> u64 {
        match self {
            Self::Clock(_) | Self::Limits(_) | Self::Cluster(_) | Self::Node(_) => 0,
            Self::Site(row) => row.weight(),
            Self::Head(_) => HEAD,
            Self::Event(row) => row.weight(),
            Self::Instance(row) => row.weight(),
            Self::Service(row) => row.weight(),
            Self::Declared(row) => row.weight(),
            Self::Store(_) => STORE,
            Self::Outcome(_) => OUTCOME,
            Self::Key(row) => row.weight(),
            Self::User(row) => row.weight(),
            Self::Client(row) => row.weight(),
            Self::Subscription(row) => row.weight(),
            Self::Token(row) => row.weight(),
            Self::Request(row) => row.weight(),
            Self::Attempt(_) => ATTEMPT,
            Self::Ticket(row) => row.weight(),
            Self::Quota(_) => QUOTA,
            Self::Rate(_) => RATE,
            Self::Audit(row) => row.weight(),
            Self::Polling(_) => POLLING,
            Self::Quality(_) => QUALITY,
            Self::Push(row) => row.weight(),
            Self::Replayed(row) => row.instance.weight(),
            Self::Traced(row) => row.weight(),
            Self::DeadLetter(row) => row.weight(),
        }
    }
}
