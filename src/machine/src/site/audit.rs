//! Who did what: the record of administrative acts and refused attempts, part of the state.
//!
//! Each site keeps its newest [`AUDIT_ACTS_MAX`] acts and its newest [`AUDIT_ATTEMPTS_MAX`] refused
//! attempts; the oldest make room for their own kind only, so nobody who is turned away makes an act
//! forgotten. What outlives a site (its creation, its end) and what concerns the whole cluster is
//! kept under [`COMMON`].

use serde::{Deserialize, Serialize};

use super::command::{AdminAction, Principal};
use super::ids::{SiteName, Stamp};

/// Acts kept for each site.
pub const AUDIT_ACTS_MAX: usize = 10_000;
/// Refused attempts kept for each site.
pub const AUDIT_ATTEMPTS_MAX: usize = 10_000;
/// Longest text of an entry, bytes; longer is cut.
pub const AUDIT_TEXT_BYTES_MAX: usize = 200;
/// Entries in one command at most.
pub const AUDIT_RECORDS_MAX: usize = 256;
/// The name under which a partition keeps what belongs to no site that is there; no site has it.
pub const COMMON: &str = "";

/// The [`Note::result`] of what was done; any other is the code of a refusal.
pub const DONE: &str = "done";
/// How the record calls the node's administrator.
pub const NODE_ADMIN: &str = "node-admin";

/// What an entry tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Told {
    /// Something that was done.
    Act,
    /// Something that was refused.
    Attempt,
}

impl Told {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Act, Self::Attempt];

    /// How many entries of this kind a site keeps.
    pub const fn entries_max(self) -> usize {
        match self {
            Self::Act => AUDIT_ACTS_MAX,
            Self::Attempt => AUDIT_ATTEMPTS_MAX,
        }
    }
}

/// On whose behalf something is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct By {
    /// The credential: [`NODE_ADMIN`], `token:<id>`, `jwt:<issuer>#<subject>`; `anonymous` without
    /// one, `unknown` for one that was not good: nobody writes a name that is not theirs.
    pub who: String,
    /// Where the request came from.
    pub address: String,
}

/// What somebody did or tried, as a node saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Note {
    /// Who.
    pub by: By,
    /// What, for instance `client.delete`.
    pub act: String,
    /// To what, for instance `clients/phone-7`.
    pub target: String,
    /// [`DONE`], or the code of the refusal.
    pub result: String,
    /// How often, where a node has put equal attempts together.
    pub count: u32,
}

/// One entry of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRow {
    /// The site, or [`COMMON`].
    pub site: SiteName,
    /// Rises by one with each entry of the site.
    pub number: u64,
    /// When it entered the record.
    pub at: Stamp,
    /// What happened.
    pub note: Note,
}

/// Cuts a text to a length, at a boundary of characters.
fn cut(text: &str) -> String {
    let end =
        (0..=AUDIT_TEXT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

impl Note {
    /// What it tells of.
    pub fn told(&self) -> Told {
        if self.result == DONE { Told::Act } else { Told::Attempt }
    }

    /// The same with every text cut to [`AUDIT_TEXT_BYTES_MAX`].
    #[must_use]
    pub fn bounded(&self) -> Self {
        Self {
            by: By { who: cut(&self.by.who), address: cut(&self.by.address) },
            act: cut(&self.act),
            target: cut(&self.target),
            result: cut(&self.result),
            count: self.count,
        }
    }
}

/// What an act is called in the record, and what it is done to.
pub(super) fn describe(action: &AdminAction) -> (&'static str, String) {
    match action {
        AdminAction::CreateSite { .. } => ("site.create", String::new()),
        AdminAction::UpdateSite { .. } => ("site.update", String::new()),
        AdminAction::DeleteSite => ("site.delete", String::new()),
        AdminAction::ApplyStructure { rebuild: false, .. } => ("structure.apply", String::new()),
        AdminAction::ApplyStructure { rebuild: true, .. } => ("structure.rebuild", String::new()),
        AdminAction::ApplyDeclared { service, .. } => {
            ("structure.apply-declared", format!("services/{service}"))
        }
        AdminAction::CreateService { id } => ("service.create", format!("services/{id}")),
        AdminAction::DeleteService { id } => ("service.delete", format!("services/{id}")),
        AdminAction::CreateClient { id, .. } => ("client.create", format!("clients/{id}")),
        AdminAction::UpdateClient { id, .. } => ("client.update", format!("clients/{id}")),
        AdminAction::DeleteClient { id } => ("client.delete", format!("clients/{id}")),
        AdminAction::CreateUser { id, .. } => ("user.create", format!("users/{id}")),
        AdminAction::UpdateUser { id, .. } => ("user.update", format!("users/{id}")),
        AdminAction::DeleteUser { id } => ("user.delete", format!("users/{id}")),
        AdminAction::CreateToken { id, principal, .. }
        | AdminAction::IssueToken { id, principal, .. } => {
            ("token.create", format!("tokens/{id} of {}", of(principal)))
        }
        AdminAction::RevokeToken { id } => ("token.revoke", format!("tokens/{id}")),
        AdminAction::Seek { client, event, after } => {
            ("subscription.seek", format!("clients/{client}/subscriptions/{event} after {after}"))
        }
        AdminAction::Unsubscribe { client, event } => {
            ("subscription.delete", format!("clients/{client}/subscriptions/{event}"))
        }
        AdminAction::PutSubscription { client, item }
        | AdminAction::PutSubscriptionAs { client, item, .. } => {
            ("subscription.put", format!("clients/{client}/subscriptions/{}", item.event))
        }
        AdminAction::Pause { client, event } => {
            ("subscription.pause", format!("clients/{client}/subscriptions/{event}"))
        }
        AdminAction::Resume { client, event } => {
            ("subscription.resume", format!("clients/{client}/subscriptions/{event}"))
        }
        AdminAction::PutPush { id, .. } => ("push.put", format!("pushes/{id}")),
        AdminAction::DeletePush { id, .. } => ("push.delete", format!("pushes/{id}")),
        AdminAction::ResumePush { id, .. } => ("push.resume", format!("pushes/{id}")),
        AdminAction::EditDeadLetter { id, .. } => {
            ("dead-letter.edit", format!("dead-letters/{id}"))
        }
        AdminAction::ReplayDeadLetter { id } => {
            ("dead-letter.replay", format!("dead-letters/{id}"))
        }
        AdminAction::DeleteDeadLetter { id } => {
            ("dead-letter.delete", format!("dead-letters/{id}"))
        }
        AdminAction::SetQuotas { .. } => ("quotas.set", String::new()),
        AdminAction::KickClient { client } => ("client.kick", format!("clients/{client}")),
        AdminAction::KickService { service } => ("service.kick", format!("services/{service}")),
    }
}

fn of(principal: &Principal) -> String {
    match principal {
        Principal::Admin => "admin".to_owned(),
        Principal::Operator => "operator".to_owned(),
        Principal::Observer => "observer".to_owned(),
        Principal::Service(id) => format!("service {id}"),
        Principal::Client(id) => format!("client {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(AUDIT_TEXT_BYTES_MAX);
        assert_eq!(cut(&format!("x{long}")).len(), AUDIT_TEXT_BYTES_MAX - 1);
    }
}
