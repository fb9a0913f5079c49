//! A site's structure between the form that people write and the form that is agreed on.
//!
//! Only the shape is judged here: which fields go with which category. Names and bounds are the
//! state's to judge.

use std::fmt;

use ackord_machine::site as machine;
use ackord_wire::structure as wire;

/// A field that does not go with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// Its path.
    pub field: String,
    /// Why.
    pub detail: String,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.detail)
    }
}

/// The machine's category.
pub fn category_from_wire(category: wire::Category) -> machine::Category {
    match category {
        wire::Category::Replacing => machine::Category::Replacing,
        wire::Category::Queueing => machine::Category::Queueing,
        wire::Category::Private => machine::Category::Private,
    }
}

/// The wire's category.
pub fn category_to_wire(category: machine::Category) -> wire::Category {
    match category {
        machine::Category::Replacing => wire::Category::Replacing,
        machine::Category::Queueing => wire::Category::Queueing,
        machine::Category::Private => wire::Category::Private,
    }
}

/// The machine's structure.
///
/// # Errors
/// The first field that is missing or out of place.
pub fn structure_from_wire(structure: &wire::Structure) -> Result<machine::Structure, Misplaced> {
    let events = structure.events.iter().enumerate().map(|(index, event)| event_from(index, event));
    Ok(machine::Structure {
        service_type: structure.service_type.clone(),
        contract_author: structure.contract_author.clone(),
        guests: match structure.guests {
            wire::GuestSupport::None => machine::GuestSupport::None,
            wire::GuestSupport::Guest => machine::GuestSupport::Guest,
            wire::GuestSupport::GuestAndStateless => machine::GuestSupport::GuestAndStateless,
        },
        roles: structure.roles.iter().map(|role| role.as_str().into()).collect(),
        owner_role: structure.owner_role.as_deref().map(Into::into),
        events: events.collect::<Result<_, _>>()?,
    })
}

fn event_from(index: usize, event: &wire::Event) -> Result<machine::EventDefinition, Misplaced> {
    let misplaced = |field: &str, detail: &str| Misplaced {
        field: format!("events[{index}].{field}"),
        detail: detail.to_owned(),
    };
    let needed = |field, value: Option<u32>| {
        value.ok_or_else(|| misplaced(field, "required for this category"))
    };
    let absent = |field, present: bool| {
        if present { Err(misplaced(field, "not allowed for this category")) } else { Ok(()) }
    };
    let access = || access_from(event.access.as_ref().unwrap_or(&wire::Access::Everyone));
    let kind = match event.category {
        wire::Category::Replacing => {
            absent("lifetime_s", event.lifetime_s.is_some())?;
            absent("size", event.size.is_some())?;
            machine::Kind::Replacing { access: access() }
        }
        wire::Category::Queueing => machine::Kind::Queueing {
            lifetime_s: needed("lifetime_s", event.lifetime_s)?,
            size: needed("size", event.size)?,
            access: access(),
        },
        wire::Category::Private => {
            absent("size", event.size.is_some())?;
            absent("access", event.access.is_some())?;
            machine::Kind::Private { lifetime_s: needed("lifetime_s", event.lifetime_s)? }
        }
    };
    Ok(machine::EventDefinition { name: event.name.as_str().into(), kind })
}

fn access_from(access: &wire::Access) -> machine::Access {
    match access {
        wire::Access::Everyone => machine::Access::Everyone,
        wire::Access::GuestsDenied => machine::Access::GuestsDenied,
        wire::Access::StatelessGuestsDenied => machine::Access::StatelessGuestsDenied,
        wire::Access::Roles(roles) => {
            machine::Access::Roles(roles.iter().map(|role| role.as_str().into()).collect())
        }
    }
}

/// The wire's structure.
pub fn structure_to_wire(structure: &machine::Structure) -> wire::Structure {
    wire::Structure {
        service_type: structure.service_type.clone(),
        contract_author: structure.contract_author.clone(),
        guests: match structure.guests {
            machine::GuestSupport::None => wire::GuestSupport::None,
            machine::GuestSupport::Guest => wire::GuestSupport::Guest,
            machine::GuestSupport::GuestAndStateless => wire::GuestSupport::GuestAndStateless,
        },
        roles: structure.roles.iter().map(|role| role.as_str().to_owned()).collect(),
        owner_role: structure.owner_role.as_ref().map(|role| role.as_str().to_owned()),
        events: structure.events.iter().map(event_to).collect(),
    }
}

fn event_to(event: &machine::EventDefinition) -> wire::Event {
    let (lifetime_s, size, access) = match &event.kind {
        machine::Kind::Replacing { access } => (None, None, Some(access_to(access))),
        machine::Kind::Queueing { lifetime_s, size, access } => {
            (Some(*lifetime_s), Some(*size), Some(access_to(access)))
        }
        machine::Kind::Private { lifetime_s } => (Some(*lifetime_s), None, None),
    };
    let category = category_to_wire(event.kind.category());
    wire::Event { name: event.name.as_str().to_owned(), category, lifetime_s, size, access }
}

fn access_to(access: &machine::Access) -> wire::Access {
    match access {
        machine::Access::Everyone => wire::Access::Everyone,
        machine::Access::GuestsDenied => wire::Access::GuestsDenied,
        machine::Access::StatelessGuestsDenied => wire::Access::StatelessGuestsDenied,
        machine::Access::Roles(roles) => {
            wire::Access::Roles(roles.iter().map(|role| role.as_str().to_owned()).collect())
        }
    }
}
