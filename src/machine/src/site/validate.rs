//! The rules of a structure, of names and of limits; and the canonical hash of a structure.
//!
//! The first broken rule is reported with the path of the field, what is allowed and what was
//! given. The hash leaves out what does not make two structures different: the order of roles and
//! events, and the owner role.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::ids::{Digest, RoleName};
use super::limits::{
    ACCOUNT_CHARS_MAX, ARGS_BYTES_CEILING, EVENTS_MAX, LIFETIME_MS_CEILING, Limits, NAME_CHARS_MAX,
    QUEUE_SIZE_CEILING, ROLES_MAX,
};
use super::outcome::Invalid;
use super::structure::{Access, Category, EventDefinition, GuestSupport, Kind, Structure};

/// What a structure name may hold besides letters, digits and the space.
const NAME_SIGNS: &str = "_-.@#$%&*':^/!()[]";
/// What an account name may hold besides letters and digits.
const ACCOUNT_SIGNS: &str = "_-.@:";

pub(super) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), detail: detail.into() }
}

/// Judges a structure name: a service type, an author, a role or an event.
pub(super) fn check_name(field: &str, name: &str) -> Result<(), Invalid> {
    let count = name.chars().count();
    if count == 0 || count > NAME_CHARS_MAX {
        return Err(invalid(field, format!("1..={NAME_CHARS_MAX} characters, was {count}")));
    }
    let stranger = |c: &char| !(c.is_ascii_alphanumeric() || *c == ' ' || NAME_SIGNS.contains(*c));
    if let Some(c) = name.chars().find(stranger) {
        return Err(invalid(field, format!("A-Z a-z 0-9 space {NAME_SIGNS} only, was {c:?}")));
    }
    if let Some(c) = name.chars().next().filter(|c| !c.is_ascii_alphabetic()) {
        return Err(invalid(field, format!("first character a letter, was {c:?}")));
    }
    if name.ends_with(' ') {
        return Err(invalid(field, "no trailing space"));
    }
    if name.contains("  ") {
        return Err(invalid(field, "no two consecutive spaces"));
    }
    Ok(())
}

/// Judges an account name: a site, a service, a client, a user or a token.
pub(super) fn check_account(field: &str, name: &str) -> Result<(), Invalid> {
    let count = name.chars().count();
    if count == 0 || count > ACCOUNT_CHARS_MAX {
        return Err(invalid(field, format!("1..={ACCOUNT_CHARS_MAX} characters, was {count}")));
    }
    let stranger = |c: &char| !(c.is_ascii_alphanumeric() || ACCOUNT_SIGNS.contains(*c));
    if let Some(c) = name.chars().find(stranger) {
        return Err(invalid(field, format!("A-Z a-z 0-9 {ACCOUNT_SIGNS} only, was {c:?}")));
    }
    if let Some(c) = name.chars().next().filter(|c| !c.is_ascii_alphanumeric()) {
        return Err(invalid(field, format!("first character a letter or digit, was {c:?}")));
    }
    Ok(())
}

/// Judges a number against the bounds that hold for it.
fn check_range(field: &str, value: u64, min: u64, max: u64) -> Result<(), Invalid> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(invalid(field, format!("{min}..={max}, was {value}")))
}

/// Judges a list of roles: how many, their names, and that none occurs twice ignoring case.
pub(super) fn check_roles(field: &str, roles: &[RoleName]) -> Result<(), Invalid> {
    check_range(field, roles.len() as u64, 0, ROLES_MAX as u64)?;
    let mut seen = BTreeMap::new();
    for (index, role) in roles.iter().enumerate() {
        let path = format!("{field}[{index}]");
        check_name(&path, role.as_str())?;
        if let Some(first) = seen.insert(role.as_str().to_ascii_lowercase(), index) {
            let detail = format!("unique ignoring case, same as {field}[{first}]");
            return Err(invalid(path, detail));
        }
    }
    Ok(())
}

/// Judges that every listed role is one of the declared.
pub(super) fn check_declared(
    field: &str,
    roles: &[RoleName],
    declared: &[RoleName],
) -> Result<(), Invalid> {
    match roles.iter().enumerate().find(|(_, role)| !declared.contains(role)) {
        None => Ok(()),
        Some((index, role)) => {
            Err(invalid(format!("{field}[{index}]"), format!("a declared role, was {role:?}")))
        }
    }
}

impl Structure {
    /// Judges every rule of a structure against a deployment's limits and reports the first
    /// broken one.
    pub fn validate(&self, limits: &Limits) -> Result<(), Invalid> {
        check_name("service_type", &self.service_type)?;
        check_name("contract_author", &self.contract_author)?;
        check_roles("roles", &self.roles)?;
        if let Some(role) = self.owner_role.as_ref().filter(|role| !self.roles.contains(role)) {
            return Err(invalid("owner_role", format!("a declared role, was {role:?}")));
        }
        check_range("events", self.events.len() as u64, 0, EVENTS_MAX as u64)?;
        let mut seen = BTreeMap::new();
        for (index, event) in self.events.iter().enumerate() {
            let path = format!("events[{index}]");
            check_event(&path, event, &self.roles, limits)?;
            if let Some(first) = seen.insert(event.name.as_str(), index) {
                let detail = format!("unique over all categories, same as events[{first}].name");
                return Err(invalid(format!("{path}.name"), detail));
            }
        }
        Ok(())
    }

    /// SHA-256 of the canonical form: equal for structures that mean the same to clients.
    pub fn canonical_hash(&self) -> Digest {
        let mut form = Canonical::new();
        form.text(&self.service_type);
        form.text(&self.contract_author);
        form.tag(match self.guests {
            GuestSupport::None => 0,
            GuestSupport::Guest => 1,
            GuestSupport::GuestAndStateless => 2,
        });
        form.roles(&self.roles);
        let mut events: Vec<_> = self.events.iter().collect();
        events.sort_by_key(|event| (&event.name, event.kind.category()));
        form.number(events.len() as u64);
        for event in events {
            form.event(event);
        }
        form.finish()
    }
}

fn check_event(
    path: &str,
    event: &EventDefinition,
    roles: &[RoleName],
    limits: &Limits,
) -> Result<(), Invalid> {
    check_name(&format!("{path}.name"), event.name.as_str())?;
    match &event.kind {
        Kind::Replacing { access } => check_access(path, access, roles),
        Kind::Queueing { lifetime_s, size, access } => {
            check_lifetime(path, *lifetime_s, limits)?;
            let max = u64::from(limits.queue_size_max);
            check_range(&format!("{path}.size"), u64::from(*size), 1, max)?;
            check_access(path, access, roles)
        }
        Kind::Private { lifetime_s } => check_lifetime(path, *lifetime_s, limits),
    }
}

fn check_lifetime(path: &str, lifetime_s: u32, limits: &Limits) -> Result<(), Invalid> {
    let min = limits.lifetime_ms_min.div_ceil(1000).max(1);
    let max = limits.lifetime_ms_max / 1000;
    check_range(&format!("{path}.lifetime_s"), u64::from(lifetime_s), min, max)
}

fn check_access(path: &str, access: &Access, declared: &[RoleName]) -> Result<(), Invalid> {
    let Access::Roles(roles) = access else { return Ok(()) };
    let field = format!("{path}.access.roles");
    check_range(&field, roles.len() as u64, 1, ROLES_MAX as u64)?;
    check_declared(&field, roles, declared)?;
    check_roles(&field, roles)
}

impl Limits {
    /// Judges that the limits do not contradict each other or what the broker is built for.
    pub fn validate(&self) -> Result<(), Invalid> {
        let at_least_one = [
            ("sites_max", self.sites_max),
            ("services_max", self.services_max),
            ("clients_max", self.clients_max),
            ("users_max", self.users_max),
            ("tokens_max", self.tokens_max),
            ("keys_max", self.keys_max),
            ("ack_timeout_ms_min", self.ack_timeout_ms_min),
        ];
        for (field, value) in at_least_one {
            check_range(field, u64::from(value), 1, u64::from(u32::MAX))?;
        }
        let ceiling = u64::from(ARGS_BYTES_CEILING);
        check_range("args_bytes_max", u64::from(self.args_bytes_max), 0, ceiling)?;
        let ceiling = u64::from(QUEUE_SIZE_CEILING);
        check_range("queue_size_max", u64::from(self.queue_size_max), 1, ceiling)?;
        check_range("lifetime_ms_max", self.lifetime_ms_max, 1000, LIFETIME_MS_CEILING)?;
        check_range("lifetime_ms_min", self.lifetime_ms_min, 0, self.lifetime_ms_max)?;
        let (min, max) = (u64::from(self.ack_timeout_ms_min), u64::from(self.ack_timeout_ms_max));
        check_range("ack_timeout_ms_max", max, min, u64::from(u32::MAX))
    }
}

/// The canonical form on its way into the hash: every text and list with its length, every
/// variant with a tag, so that no two forms run into each other.
struct Canonical(Sha256);

impl Canonical {
    fn new() -> Self {
        Self(Sha256::new_with_prefix(b"ackord site structure, form 1\0"))
    }

    fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }

    fn tag(&mut self, tag: u8) {
        self.0.update([tag]);
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn roles(&mut self, roles: &[RoleName]) {
        let mut roles: Vec<_> = roles.iter().collect();
        roles.sort();
        self.number(roles.len() as u64);
        for role in roles {
            self.text(role.as_str());
        }
    }

    fn event(&mut self, event: &EventDefinition) {
        self.text(event.name.as_str());
        self.tag(match event.kind.category() {
            Category::Replacing => 0,
            Category::Queueing => 1,
            Category::Private => 2,
        });
        match &event.kind {
            Kind::Replacing { access } => self.access(access),
            Kind::Queueing { lifetime_s, size, access } => {
                self.number(u64::from(*lifetime_s));
                self.number(u64::from(*size));
                self.access(access);
            }
            Kind::Private { lifetime_s } => self.number(u64::from(*lifetime_s)),
        }
    }

    fn access(&mut self, access: &Access) {
        match access {
            Access::Everyone => self.tag(0),
            Access::GuestsDenied => self.tag(1),
            Access::StatelessGuestsDenied => self.tag(2),
            Access::Roles(roles) => {
                self.tag(3);
                self.roles(roles);
            }
        }
    }
}
