//! Short-lived credentials: the tickets with which browsers connect.
//!
//! A page cannot set headers on a WebSocket or an event stream, and a token in an address ends up in
//! logs. So a ticket goes there instead: of use once, and for a short time.

use serde::{Deserialize, Serialize};

use super::command::Principal;
use super::ids::{Digest, SiteName, Stamp, TokenId};

/// The longest life of a ticket, milliseconds.
pub const TICKET_MS_MAX: u64 = 300_000;
/// Longest note on a token, bytes.
pub const NOTE_BYTES_MAX: usize = 128;

/// A ticket, known only by its hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TicketRow {
    /// The site.
    pub site: SiteName,
    /// The public half.
    pub id: TokenId,
    /// SHA-256 of the secret half.
    pub hash: Digest,
    /// What its bearer is.
    pub principal: Principal,
    /// The token that it was drawn with: what it opened ends with that.
    pub token: Option<TokenId>,
    /// When what it was drawn with ends by itself: what it opened ends then, too.
    pub until: Option<Stamp>,
    /// From when on it is of no use.
    pub expires: Stamp,
    /// The attempt that used it up: that one may ask again for its answer.
    pub used: Option<u64>,
}

/// See [`super::Command::IssueTicket`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IssueTicket {
    /// The site.
    pub site: SiteName,
    /// The public half, random.
    pub id: TokenId,
    /// SHA-256 of the secret half.
    pub hash: Digest,
    /// What its bearer shall be.
    pub principal: Principal,
    /// The token that it is drawn with.
    pub token: Option<TokenId>,
    /// When what it is drawn with ends by itself, for credentials that are not kept here.
    pub until: Option<Stamp>,
    /// How long it lasts.
    pub lifetime_ms: u64,
}

/// See [`super::Command::DrawTicket`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrawTicket {
    /// The ticket.
    pub ticket: IssueTicket,
    /// How many tickets of its principal there may be that are not used yet, with this one.
    pub principal_max: u32,
}

/// See [`super::Command::RedeemTicket`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RedeemTicket {
    /// The site.
    pub site: SiteName,
    /// The public half.
    pub id: TokenId,
    /// SHA-256 of the secret half as given.
    pub hash: Digest,
    /// Random: under it a repeat gets the first answer.
    pub attempt: u64,
}
