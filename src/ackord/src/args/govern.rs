//! What keeps a site in order: quotas, the record, tickets, subscriptions, sessions, and may I.

use clap::{Args, Subcommand, ValueEnum};

use super::Connect;
use super::admin::Listing;

/// `ackord quota …`
#[derive(Clone, Debug, Subcommand)]
pub enum QuotaCommand {
    /// Show what a site may use, and what it uses
    Show {
        #[command(flatten)]
        connect: Connect,
    },
    /// Bound what a site may use; what is not named stays. Takes the node administrator's token
    Set {
        /// A quota, for instance `events_per_s=500`; `show` names them all
        #[arg(required = true, value_name = "NAME=VALUE")]
        quotas: Vec<String>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Lift bounds: those that are named, or all
    Clear {
        /// A quota, for instance `events_per_s` [default: all]
        #[arg(value_name = "NAME")]
        quotas: Vec<String>,
        #[command(flatten)]
        connect: Connect,
    },
}

/// `ackord audit …`
#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// List acts and refused attempts, the oldest first
    List(AuditList),
}

/// See [`AuditCommand::List`].
#[derive(Args, Clone, Debug)]
pub struct AuditList {
    /// What belongs to no site: sites made and deleted, nodes drained and removed
    #[arg(long)]
    pub cluster: bool,
    /// Go on with what comes, until interrupted
    #[arg(long)]
    pub follow: bool,
    /// From then on: RFC 3339, or how long ago (`2h`)
    #[arg(long, value_name = "WHEN", value_parser = crate::moment::parse)]
    pub since: Option<u64>,
    /// Only acts of this credential, for instance `token:t0a1b2c3`
    #[arg(long, value_name = "WHO")]
    pub who: Option<String>,
    /// Only this act, for instance `client.delete`
    #[arg(long, value_name = "ACT")]
    pub act: Option<String>,
    /// Only what came to this: `done`, or the code of a refusal
    #[arg(long, value_name = "RESULT")]
    pub result: Option<String>,
    /// So many of the newest at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    #[command(flatten)]
    pub connect: Connect,
}

/// `ackord ticket …`
#[derive(Clone, Debug, Subcommand)]
pub enum TicketCommand {
    /// Draw a ticket, with which a page opens one WebSocket or stream, and print it, once
    Create {
        /// The client; may be left out with the client's own token
        #[arg(long, value_name = "ID")]
        client: Option<String>,
        /// How long it is good for, at most 5 min
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::duration::parse)]
        expires: std::time::Duration,
        #[command(flatten)]
        connect: Connect,
    },
}

/// A client's subscription.
#[derive(Args, Clone, Debug)]
pub struct SubscriptionArgs {
    /// The client's id
    pub client: String,
    /// The event
    pub event: String,
    #[command(flatten)]
    pub connect: Connect,
}

/// `ackord subscription …`
#[derive(Clone, Debug, Subcommand)]
pub enum SubscriptionCommand {
    /// List subscriptions with how far each is behind
    List {
        /// Only those of this client
        #[arg(long, value_name = "ID")]
        client: Option<String>,
        /// Only those to this event
        #[arg(long, value_name = "EVENT")]
        event: Option<String>,
        #[command(flatten)]
        listing: Listing,
        #[command(flatten)]
        connect: Connect,
    },
    /// Show one: its cursor, what is in flight since when, and the session that serves it
    Show(SubscriptionArgs),
    /// Hold its deliveries back; nothing is lost
    Pause(SubscriptionArgs),
    /// Let it go on
    Resume(SubscriptionArgs),
    /// Move its cursor: delivery goes on with the first event after it
    Seek {
        #[command(flatten)]
        of: SubscriptionArgs,
        /// Instance id; 0 starts again at the earliest retained event
        #[arg(long, value_name = "INSTANCE_ID")]
        after: u64,
    },
    /// End the session that serves a client's subscriptions; the client may connect again
    Kick {
        /// The client's id
        client: String,
        #[command(flatten)]
        connect: Connect,
    },
}

/// `ackord session …`
#[derive(Clone, Debug, Subcommand)]
pub enum SessionCommand {
    /// List the sessions that are open now, over all nodes
    List {
        /// Only those of this kind
        #[arg(long, value_name = "KIND")]
        kind: Option<SessionKind>,
        /// Only those of this client or service
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// So many at most [default: all]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        #[command(flatten)]
        connect: Connect,
    },
}

/// Whose a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SessionKind {
    /// A registered client's.
    Client,
    /// A service's.
    Service,
    /// A guest's without account.
    Stateless,
}

impl SessionKind {
    /// The kind as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Service => "service",
            Self::Stateless => "stateless",
        }
    }
}

/// `ackord can-i …`
#[derive(Args, Clone, Debug)]
pub struct CanI {
    /// What somebody wants to do
    pub act: Act,
    /// The event, to receive or raise; needed for these
    #[arg(required_if_eq_any([("act", "receive"), ("act", "raise")]))]
    pub event: Option<String>,
    /// The client that wants to connect or receive (`guest`: one without account), or that a private
    /// event is for [default: the bearer of the token]
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// The service that wants to raise [default: the bearer of the token]
    #[arg(long, value_name = "ID")]
    pub service: Option<String>,
    #[command(flatten)]
    pub connect: Connect,
}

/// What somebody may do or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Act {
    /// Change accounts, settings and structure.
    Administer,
    /// Pause, resume, seek and kick.
    Operate,
    /// Read everything of the site.
    Read,
    /// Enter as a client.
    Connect,
    /// Receive an event.
    Receive,
    /// Raise an event.
    Raise,
}

impl Act {
    /// The act as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Administer => "administer",
            Self::Operate => "operate",
            Self::Read => "read",
            Self::Connect => "connect",
            Self::Receive => "receive",
            Self::Raise => "raise",
        }
    }
}
