//! The revision of an object: what a reader of it can ask to be still so when it is changed.
//!
//! It is a hash of what an administrator sets, not a counter: objects that are set alike have the
//! same revision, and nothing is kept for it. What changes by itself (cursors, epochs, presence) is
//! no part of it.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::command::AdminAction;
use super::ids::{ClientId, EventName, InstanceId, PushId, ServiceId, TokenId, UserId};
use super::site::Site;

/// Something that has a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// The site's settings.
    Site,
    /// Its structure.
    Structure,
    /// Its quotas.
    Quotas,
    /// A service.
    Service(ServiceId),
    /// A client.
    Client(ClientId),
    /// A user.
    User(UserId),
    /// A token.
    Token(TokenId),
    /// A subscription.
    Subscription(ClientId, EventName),
    /// A push subscription.
    Push(PushId),
    /// A dead letter.
    DeadLetter(InstanceId),
}

impl Object {
    /// What an act changes.
    pub(super) fn of(action: &AdminAction) -> Self {
        match action {
            AdminAction::CreateSite { .. }
            | AdminAction::UpdateSite { .. }
            | AdminAction::DeleteSite => Self::Site,
            AdminAction::ApplyStructure { .. } | AdminAction::ApplyDeclared { .. } => {
                Self::Structure
            }
            AdminAction::SetQuotas { .. } => Self::Quotas,
            AdminAction::CreateService { id }
            | AdminAction::DeleteService { id }
            | AdminAction::KickService { service: id } => Self::Service(id.clone()),
            AdminAction::CreateClient { id, .. }
            | AdminAction::UpdateClient { id, .. }
            | AdminAction::DeleteClient { id }
            | AdminAction::KickClient { client: id } => Self::Client(id.clone()),
            AdminAction::CreateUser { id, .. }
            | AdminAction::UpdateUser { id, .. }
            | AdminAction::DeleteUser { id } => Self::User(id.clone()),
            AdminAction::CreateToken { id, .. }
            | AdminAction::IssueToken { id, .. }
            | AdminAction::RevokeToken { id } => Self::Token(id.clone()),
            AdminAction::Seek { client, event, .. }
            | AdminAction::Unsubscribe { client, event }
            | AdminAction::Pause { client, event }
            | AdminAction::Resume { client, event } => {
                Self::Subscription(client.clone(), event.clone())
            }
            AdminAction::PutPush { id, .. }
            | AdminAction::DeletePush { id, .. }
            | AdminAction::ResumePush { id, .. } => Self::Push(id.clone()),
            AdminAction::EditDeadLetter { id, .. }
            | AdminAction::ReplayDeadLetter { id }
            | AdminAction::DeleteDeadLetter { id } => Self::DeadLetter(*id),
            AdminAction::PutSubscription { client, item }
            | AdminAction::PutSubscriptionAs { client, item, .. } => {
                Self::Subscription(client.clone(), item.event.clone())
            }
        }
    }
}

/// The first 8 bytes of the hash of what is encoded.
fn hash<T: Serialize>(parts: T) -> u64 {
    // Cannot fail: what is hashed here has no sequences of unknown length.
    let bytes = postcard::to_allocvec(&parts).unwrap_or_default();
    Sha256::digest(&bytes).iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

impl Site {
    /// The revision of an object of this site; `None` when there is no such object.
    pub fn revision(&self, object: &Object) -> Option<u64> {
        // The site's own creation is part of each: an object of a site that was deleted and made
        // again is another one.
        let life = self.created();
        match object {
            Object::Site => self.exists().then(|| hash((life, self.settings()))),
            Object::Structure => {
                self.structure_hash().map(|digest| hash((life, self.incarnation(), digest)))
            }
            Object::Quotas => self.exists().then(|| hash((life, self.quotas()))),
            Object::Service(id) => self.service(id.as_str()).map(|row| hash((life, &row.id))),
            Object::Client(id) => {
                self.client(id.as_str()).map(|row| hash((life, &row.id, &row.user)))
            }
            Object::User(id) => self.user(id.as_str()).map(|row| hash((life, &row.id, &row.roles))),
            Object::Token(id) => self
                .token(id.as_str())
                .map(|row| hash((&row.id, &row.principal, row.created, row.expires, &row.note))),
            // Its secret is no part of it, but when that was changed is.
            Object::Push(id) => {
                self.push(id.as_str()).map(|row| hash((&row.id, row.created, row.changed)))
            }
            Object::DeadLetter(id) => self
                .dead_letter(*id)
                .map(|row| hash((life, row.id, &row.arguments, &row.note, row.state))),
            Object::Subscription(client, event) => {
                let event = self.event_named(event.as_str())?;
                let row = self.subscription(client, event.key)?;
                let options = (row.start, row.ack_timeout_ms, row.max_attempts);
                let parts = (life, &row.client, row.event, row.generation, options, row.paused);
                let quality = self.quality(client, event.key);
                // An ordered one has the revision that it had before there were others.
                Some(if quality.is_default() { hash(parts) } else { hash((parts, quality)) })
            }
        }
    }
}
