//! Between what callers write and what the machine knows: resources of `ackord_wire` on one side,
//! types of `ackord_machine::site` on the other.
//!
//! Judges only what the machine's types cannot express (a field that a category does not have);
//! every other rule is the machine's, which names the field in the same way.

use ackord_machine::site as machine;
use ackord_machine::site::limits::PRIVATE_SIZE;
use ackord_wire::frame::{Position, Start};
use ackord_wire::payload::Payload;
use ackord_wire::resource::{Principal, SiteSettings};
use ackord_wire::structure::{Access, Category, Event, GuestSupport, Structure};
use ackord_wire::{Code, Codec, Problem};

/// A structure as the machine knows it.
pub fn structure_in(structure: Structure) -> Result<machine::Structure, Problem> {
    let events = structure.events.into_iter().enumerate();
    Ok(machine::Structure {
        service_type: structure.service_type,
        contract_author: structure.contract_author,
        guests: match structure.guests {
            GuestSupport::None => machine::GuestSupport::None,
            GuestSupport::Guest => machine::GuestSupport::Guest,
            GuestSupport::GuestAndStateless => machine::GuestSupport::GuestAndStateless,
        },
        roles: structure.roles.into_iter().map(machine::RoleName::from).collect(),
        owner_role: structure.owner_role.map(machine::RoleName::from),
        events: events.map(|(index, event)| event_in(index, event)).collect::<Result<_, _>>()?,
    })
}

fn event_in(index: usize, event: Event) -> Result<machine::EventDefinition, Problem> {
    let wrong = |field: &str, detail: &str| {
        Problem::new(Code::Invalid, detail).field(format!("events[{index}].{field}"))
    };
    let absent = |given: bool, field: &str, detail: &str| {
        if given { Err(wrong(field, detail)) } else { Ok(()) }
    };
    let lifetime = || event.lifetime_s.ok_or_else(|| wrong("lifetime_s", "missing"));
    let kind = match event.category {
        Category::Replacing => {
            absent(event.lifetime_s.is_some(), "lifetime_s", "a replacing event has none")?;
            absent(
                event.size.is_some_and(|size| size != 1),
                "size",
                "the size of a replacing event is 1",
            )?;
            machine::Kind::Replacing { access: access_in(event.access) }
        }
        Category::Queueing => machine::Kind::Queueing {
            lifetime_s: lifetime()?,
            size: event.size.ok_or_else(|| wrong("size", "missing"))?,
            access: access_in(event.access),
        },
        Category::Private => {
            absent(
                event.size.is_some_and(|size| size != PRIVATE_SIZE),
                "size",
                &format!("the size of a private event is {PRIVATE_SIZE}"),
            )?;
            absent(event.access.is_some(), "access", "a private event has no access rule")?;
            machine::Kind::Private { lifetime_s: lifetime()? }
        }
    };
    Ok(machine::EventDefinition { name: machine::EventName::from(event.name), kind })
}

fn access_in(access: Option<Access>) -> machine::Access {
    match access.unwrap_or_default() {
        Access::Everyone => machine::Access::Everyone,
        Access::GuestsDenied => machine::Access::GuestsDenied,
        Access::StatelessGuestsDenied => machine::Access::StatelessGuestsDenied,
        Access::Roles(roles) => {
            machine::Access::Roles(roles.into_iter().map(machine::RoleName::from).collect())
        }
    }
}

/// A structure as callers write it. Defaults are left out, so that what comes back is what a
/// person would have written.
pub fn structure_out(structure: &machine::Structure) -> Structure {
    Structure {
        service_type: structure.service_type.clone(),
        contract_author: structure.contract_author.clone(),
        guests: match structure.guests {
            machine::GuestSupport::None => GuestSupport::None,
            machine::GuestSupport::Guest => GuestSupport::Guest,
            machine::GuestSupport::GuestAndStateless => GuestSupport::GuestAndStateless,
        },
        roles: structure.roles.iter().map(ToString::to_string).collect(),
        owner_role: structure.owner_role.as_ref().map(ToString::to_string),
        events: structure.events.iter().map(event_out).collect(),
    }
}

fn event_out(definition: &machine::EventDefinition) -> Event {
    let (lifetime_s, size, access) = match &definition.kind {
        machine::Kind::Replacing { access } => (None, None, access_out(access)),
        machine::Kind::Queueing { lifetime_s, size, access } => {
            (Some(*lifetime_s), Some(*size), access_out(access))
        }
        machine::Kind::Private { lifetime_s } => (Some(*lifetime_s), None, None),
    };
    Event {
        name: definition.name.to_string(),
        category: category_out(definition.kind.category()),
        lifetime_s,
        size,
        access,
    }
}

fn access_out(access: &machine::Access) -> Option<Access> {
    match access {
        machine::Access::Everyone => None,
        machine::Access::GuestsDenied => Some(Access::GuestsDenied),
        machine::Access::StatelessGuestsDenied => Some(Access::StatelessGuestsDenied),
        machine::Access::Roles(roles) => {
            Some(Access::Roles(roles.iter().map(ToString::to_string).collect()))
        }
    }
}

/// A category as callers write it.
pub fn category_out(category: machine::Category) -> Category {
    match category {
        machine::Category::Replacing => Category::Replacing,
        machine::Category::Queueing => Category::Queueing,
        machine::Category::Private => Category::Private,
    }
}

/// Where a subscription starts, as callers write it.
pub fn start_out(start: machine::Start) -> Start {
    match start {
        machine::Start::Earliest => Start::Earliest,
        machine::Start::Latest => Start::Latest,
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
        Principal::Observer => machine::Principal::Observer,
        Principal::Service(id) => machine::Principal::Service(id.as_str().into()),
        Principal::Client(id) => machine::Principal::Client(id.as_str().into()),
    }
}

/// A token's principal as callers read it.
pub fn principal_out(principal: &machine::Principal) -> Principal {
    match principal {
        machine::Principal::Admin => Principal::Admin,
        machine::Principal::Observer => Principal::Observer,
        machine::Principal::Service(id) => Principal::Service(id.to_string()),
        machine::Principal::Client(id) => Principal::Client(id.to_string()),
    }
}

/// Why a service is parked, as a code.
pub fn parked_out(parked: machine::Parked) -> Code {
    match parked {
        machine::Parked::SiteBlank => Code::SiteBlank,
        machine::Parked::ServiceTypeConflict => Code::ServiceTypeConflict,
        machine::Parked::StructureMismatch => Code::SiteStructureMismatch,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Result<machine::Structure, Problem> {
        let text = format!(r#"{{"service_type":"t","contract_author":"a","events":[{text}]}}"#);
        structure_in(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_structure_comes_back_as_it_was_written() {
        let text = r#"{
            "service_type": "boiler", "contract_author": "Example", "guests": "guest+stateless",
            "roles": ["a", "b"], "owner_role": "a",
            "events": [
                {"name": "r", "category": "replacing", "access": {"roles": ["b"]}},
                {"name": "q", "category": "queueing", "lifetime_s": 60, "size": 3},
                {"name": "p", "category": "private", "lifetime_s": 60}
            ]
        }"#;
        let written: Structure = serde_json::from_str(text).unwrap();
        assert_eq!(structure_out(&structure_in(written.clone()).unwrap()), written);
    }

    #[test]
    fn fields_that_a_category_lacks_are_named() {
        let check = |text: &str, field: &str| {
            assert_eq!(event(text).unwrap_err().field.as_deref(), Some(field), "{text}");
        };
        check(r#"{"name":"e","category":"replacing","lifetime_s":60}"#, "events[0].lifetime_s");
        check(r#"{"name":"e","category":"replacing","size":2}"#, "events[0].size");
        check(r#"{"name":"e","category":"queueing","size":2}"#, "events[0].lifetime_s");
        check(r#"{"name":"e","category":"queueing","lifetime_s":60}"#, "events[0].size");
        check(r#"{"name":"e","category":"private","lifetime_s":60,"size":7}"#, "events[0].size");
        check(
            r#"{"name":"e","category":"private","lifetime_s":60,"access":"everyone"}"#,
            "events[0].access",
        );
    }
}
