//! The token that a session lives by: whether it still holds, and how it ended.

use super::{CloseReason, View};
use crate::site::{Stamp, TokenId};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Credential {
    /// `None` when the session does not depend on a token of the site.
    id: Option<TokenId>,
    /// When the token ends by itself, as it was when it was last seen.
    expires: Option<Stamp>,
}

impl Credential {
    pub fn new(id: Option<TokenId>) -> Self {
        Self { id, expires: None }
    }

    /// Whether the token is still good, or why the session closes and what is said then. A row goes
    /// soon after its end, so that this remembers the end.
    pub fn judge(&mut self, view: View<'_>) -> Result<(), (CloseReason, &'static str)> {
        let Some(id) = &self.id else { return Ok(()) };
        let row = view.site.and_then(|site| site.token(id.as_str()));
        if let Some(row) = row {
            self.expires = row.expires;
        }
        if self.expires.is_some_and(|at| at <= view.stamp) {
            return Err((CloseReason::CredentialsExpired, "the token has expired"));
        }
        row.map(drop).ok_or((CloseReason::TokenRevoked, "the token was revoked"))
    }
}
