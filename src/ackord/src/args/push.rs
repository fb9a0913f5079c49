//! Push subscriptions.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Connect, Listing};

/// `ackord push …`
#[derive(Clone, Debug, Subcommand)]
pub enum PushCommand {
    /// Register a callback or a socket, or change one
    Create(Box<PushCreate>),
    /// List push subscriptions with their states
    List {
        /// Only those of this client
        #[arg(long, value_name = "ID")]
        client: Option<String>,
        #[command(flatten)]
        listing: Listing,
        #[command(flatten)]
        connect: Connect,
    },
    /// Show one: its state and why, its cursor, what waits, what was delivered
    Show(PushArgs),
    /// End one, with its cursor
    Delete(PushArgs),
    /// Start one again that is cancelled or offline
    Resume(PushArgs),
}

/// One push subscription.
#[derive(Args, Clone, Debug)]
pub struct PushArgs {
    /// Its id
    pub id: String,
    #[command(flatten)]
    pub connect: Connect,
}

/// How a push subscription delivers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PushModeArg {
    /// One at a time, each after the one before was acknowledged
    Ordered,
    /// A window, acknowledged in any order
    Twoway,
    /// Delivered once the transport has it
    Oneway,
    /// Many in one request
    Batch,
    /// Handed to a socket
    Datagram,
}

/// How events are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PushFormatArg {
    /// The `event` frame
    Ackord,
    /// CloudEvents
    Cloudevents,
}

/// What happens when more waits than may.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PushOverflowArg {
    /// It is cancelled
    Remove,
    /// The oldest are passed over
    DropOldest,
}

/// What is registered.
#[derive(Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("target").required(true).args(["to", "udp"])))]
pub struct PushCreate {
    /// Its id
    pub id: String,
    /// The event
    pub event: String,
    /// The callback, which must answer the handshake
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// The socket or group, HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub udp: Option<String>,
    /// Hops of a group's packets
    #[arg(long, value_name = "N", requires = "udp")]
    pub ttl: Option<u32>,
    /// The address of the interface that a group's packets leave by
    #[arg(long, value_name = "IP", requires = "udp")]
    pub interface: Option<String>,
    /// Largest packet
    #[arg(long, value_name = "BYTES", requires = "udp")]
    pub packet: Option<u32>,
    /// On whose authority it receives; may be left out with the client's own token
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// How it delivers [default: ordered, or datagram with --udp]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<PushModeArg>,
    /// Events under way (twoway)
    #[arg(long, value_name = "N")]
    pub window: Option<u32>,
    /// From the first event to the request (batch)
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    pub flush: Option<Duration>,
    /// Start behind the newest event instead of at the earliest
    #[arg(long)]
    pub latest: bool,
    /// Until a request has failed [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    pub timeout: Option<Duration>,
    /// Consecutive failures that are tolerated; -1 is any number
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub retries: i32,
    /// Time offline after a tolerated failure [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    pub offline: Option<Duration>,
    /// Discard what waits while it is offline
    #[arg(long)]
    pub discard: bool,
    /// The most events that may wait
    #[arg(long, value_name = "N")]
    pub queue: Option<u32>,
    /// What happens when more do
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = PushOverflowArg::Remove)]
    pub on_overflow: PushOverflowArg,
    /// Attempts before an event is passed over [default: for ever]
    #[arg(long, value_name = "N")]
    pub attempts: Option<u32>,
    /// With --attempts, keep what is passed over as a dead letter
    #[arg(long, requires = "attempts")]
    pub dead_letter: bool,
    /// How events are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = PushFormatArg::Ackord)]
    pub format: PushFormatArg,
    /// Sign bodies with what this file says
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Hold its deliveries back
    #[arg(long)]
    pub paused: bool,
    #[command(flatten)]
    pub connect: Connect,
}
