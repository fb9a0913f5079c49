//! Every limit of the site machine: fixed ones as constants, a deployment's as [`Limits`].
//!
//! [`Limits`] are part of the replicated state: all replicas judge by the same ones.

use serde::{Deserialize, Serialize};

/// Longest structure name (service type, author, role, event), characters.
pub const NAME_CHARS_MAX: usize = 256;
/// Longest account name (site, service, client, user, token), characters.
pub const ACCOUNT_CHARS_MAX: usize = 64;
/// Most roles in a structure.
pub const ROLES_MAX: usize = 30;
/// Most events in a structure.
pub const EVENTS_MAX: usize = 100;
/// Instances kept per queue of a private event.
pub const PRIVATE_SIZE: u32 = 1000;
/// Longest media type, bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 128;
/// Longest idempotency key, bytes.
pub const KEY_BYTES_MAX: usize = 255;
/// Decisions remembered per store: twice the largest window.
pub const OUTCOMES_PER_STORE: u64 = 2 * 1024;
/// Sessions remembered per account, so that the late repeat of an attach is known as such.
pub const SESSIONS_REMEMBERED: usize = 4;
/// Store marks remembered per service.
pub const STORES_PER_SERVICE: usize = 8;
/// Milliseconds of log time that an administrative answer is remembered.
pub const REQUEST_MEMORY_MS: u64 = 600_000;
/// Milliseconds of log time that an idempotency key is remembered.
pub const KEY_MEMORY_MS: u64 = 86_400_000;
/// How a key begins that the broker made itself, for a request that came without one: such a key
/// serves the broker's own retries, is remembered for [`REQUEST_MEMORY_MS`] and does not count for
/// [`Limits::keys_max`]. No header can hold this character.
pub const OWN_KEY_START: char = '\0';

/// Tickets of a site that are not used yet.
pub const TICKETS_MAX: usize = 10_000;
/// Tickets of a site that were used, remembered for the repeat of the attempt that used them. Beyond
/// it the one that ends first is forgotten: it is of no more use then, as before.
pub const USED_TICKETS_MAX: usize = 10_000;

/// How many times as many keys as are free one service may have: see [`super::Site::may_remember`].
pub const KEY_SHARE: usize = 9;
/// Moments at which keys end that are looked at to say when there is room for another one.
pub const KEY_ENDS_MAX: usize = 1000;

/// Answers to administrative requests remembered per site; at the bound new requests are refused
/// rather than old answers dropped.
pub const REQUESTS_PER_SITE: usize = 250_000;
/// Places among [`REQUESTS_PER_SITE`] that operators leave to administrators, and as many that
/// administrators of the site leave to the node's.
pub const REQUESTS_RESERVED: usize = 25_000;
/// Push subscriptions of a site.
pub const PUSHES_PER_SITE: usize = 1000;
/// Items in one request to subscribe.
pub const SUBSCRIBE_ITEMS_MAX: usize = 1000;
/// Longest version text of a service, bytes; longer is cut.
pub const VERSION_BYTES_MAX: usize = 64;
/// Longest host name text of a service, bytes; longer is cut.
pub const HOSTNAME_BYTES_MAX: usize = 255;
/// Incarnations are below this, so that they survive as numbers in any JSON reader.
pub const INCARNATION_END: u64 = 1 << 53;
/// The most that a deployment may allow for arguments, bytes.
pub const ARGS_BYTES_CEILING: u32 = 65_536;
/// The most that a deployment may allow as the size of a Queueing event.
pub const QUEUE_SIZE_CEILING: u32 = 1_000_000;
/// The most that a deployment may allow as a lifetime: a leap year, milliseconds.
pub const LIFETIME_MS_CEILING: u64 = 366 * 86_400_000;

/// A bound of a site that is no quota, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Limit {
    /// [`TICKETS_MAX`].
    Tickets,
    /// [`super::credential::DrawTicket::principal_max`].
    PrincipalTickets,
    /// [`REQUESTS_PER_SITE`], or what of it is for such an act.
    Requests,
    /// [`PUSHES_PER_SITE`].
    Pushes,
}

impl Limit {
    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tickets => "tickets_max",
            Self::PrincipalTickets => "principal_tickets_max",
            Self::Requests => "requests_max",
            Self::Pushes => "pushes_max",
        }
    }
}

/// What a deployment may set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest encoded arguments, bytes.
    pub args_bytes_max: u32,
    /// Largest size of a Queueing event.
    pub queue_size_max: u32,
    /// Shortest lifetime of an event definition, milliseconds.
    pub lifetime_ms_min: u64,
    /// Longest lifetime of an event definition, milliseconds.
    pub lifetime_ms_max: u64,
    /// Least acknowledgement timeout of a subscription, milliseconds.
    pub ack_timeout_ms_min: u32,
    /// Largest acknowledgement timeout of a subscription, milliseconds.
    pub ack_timeout_ms_max: u32,
    /// Sites per partition.
    pub sites_max: u32,
    /// Services per site.
    pub services_max: u32,
    /// Clients per site.
    pub clients_max: u32,
    /// Users per site.
    pub users_max: u32,
    /// Tokens per site.
    pub tokens_max: u32,
    /// Idempotency keys remembered per site; one service has nine tenths of them at most.
    pub keys_max: u32,
    /// Bytes of state of one partition; above it raises are refused `over-capacity`. Nodes bound
    /// what all their partitions take together; this is for a partition that is to have less.
    pub partition_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            args_bytes_max: 2048,
            queue_size_max: 1000,
            lifetime_ms_min: 60_000,
            lifetime_ms_max: 2_592_000_000,
            ack_timeout_ms_min: 1000,
            ack_timeout_ms_max: 3_600_000,
            sites_max: 10_000,
            services_max: 10_000,
            clients_max: 100_000,
            users_max: 100_000,
            tokens_max: 200_000,
            keys_max: 100_000,
            partition_bytes_max: u64::MAX,
        }
    }
}
