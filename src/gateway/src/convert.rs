//! Between what callers write and what the machine knows: resources of `ackord_wire` on one side,
//! types of `ackord_machine::site` on the other.
//!
//! What frames carry too is translated by `ackord_agents::translate`. Judges nothing itself.

use ackord_agents::translate;
use ackord_machine::site as machine;
use ackord_wire::frame::{Position, Start};
use ackord_wire::payload::Payload;
use ackord_wire::resource::{Principal, SiteSettings};
use ackord_wire::structure::Structure;
use ackord_wire::{Code, Codec, Problem};

/// A structure as the machine knows it.
pub fn structure_in(structure: &Structure) -> Result<machine::Structure, Problem> {
    translate::structure_from_wire(structure)
        .map_err(|misplaced| Problem::new(Code::Invalid, misplaced.detail).field(misplaced.field))
}

/// Where a subscription starts, as callers write it.
pub fn start_out(start: machine::Start) -> Start {
    match start {
        machine::Start::Earliest => Start::Earliest,
        machine::Start::Latest => Start::Latest,
    }
}

/// Where a subscription starts, as the machine knows it.
pub fn start_in(start: Start) -> machine::Start {
    match start {
        Start::Earliest => machine::Start::Earliest,
        Start::Latest => machine::Start::Latest,
    }
}

/// Settings as the machine knows them.
pub fn settings_in(settings: &SiteSettings) -> machine::SiteSettings {
    machine::SiteSettings {
        multi_service: settings.multi_service,
        constructible: settings.constructible,
        guests_allowed: settings.guests_allowed,
        stateless_guests_allowed: settings.stateless_guests_allowed,
    }
}

/// Settings as callers read them.
pub fn settings_out(settings: &machine::SiteSettings) -> SiteSettings {
    SiteSettings {
        multi_service: settings.multi_service,
        constructible: settings.constructible,
        guests_allowed: settings.guests_allowed,
        stateless_guests_allowed: settings.stateless_guests_allowed,
    }
}

/// A token's principal as the machine knows it.
pub fn principal_in(principal: &Principal) -> machine::Principal {
    match principal {
        Principal::Admin => machine::Principal::Admin,
        Principal::Operator => machine::Principal::Operator,
        Principal::Observer => machine::Principal::Observer,
        Principal::Service(id) => machine::Principal::Service(id.as_str().into()),
        Principal::Client(id) => machine::Principal::Client(id.as_str().into()),
    }
}

/// A token's principal as callers read it.
pub fn principal_out(principal: &machine::Principal) -> Principal {
    match principal {
        machine::Principal::Admin => Principal::Admin,
        machine::Principal::Operator => Principal::Operator,
        machine::Principal::Observer => Principal::Observer,
        machine::Principal::Service(id) => Principal::Service(id.to_string()),
        machine::Principal::Client(id) => Principal::Client(id.to_string()),
    }
}

/// A cursor as callers read it.
pub fn position_out(incarnation: machine::Incarnation, row: &machine::SubscriptionRow) -> Position {
    Position { incarnation: incarnation.0, generation: row.generation.0, instance_id: row.cursor.0 }
}

/// The three fields of a resource that carry arguments.
pub fn arguments_out(
    arguments: Option<&machine::Arguments>,
) -> ackord_wire::payload::PayloadFields {
    let payload = arguments.map(|arguments| Payload {
        content_type: arguments.content_type.clone(),
        data: arguments.data.clone(),
    });
    Payload::to_fields(payload.as_ref(), Codec::Json)
}

/// Bytes in lowercase hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
