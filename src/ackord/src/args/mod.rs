//! The command line as types: every command, option and default, in the words of its help.
//!
//! `docs/cli.md` is the contract that scripts rely on; a name that stands here is never reused for
//! something else. Deliberately absent: anything that is done with the values.

mod admin;
mod bench;
mod check;
mod cluster;
mod context;
mod dead_letter;
mod govern;
mod kubernetes;
mod look;
mod push;

use std::path::PathBuf;
use std::time::Duration;

use ackord_endpoint::TraceContext;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

pub use admin::{
    Apply, ClientCommand, Listing, ServiceCommand, Settings, SiteCommand, StructureArgs,
    TokenCommand, TokenLife, UserCommand,
};
pub use bench::{BenchCommand, BenchFault, BenchOptions};
pub use check::{CheckCommand, CheckLag, CheckOutput};
pub use cluster::{ClusterCommand, NodeArgs, RemoveArgs, WaitArgs};
pub use context::{ContextCommand, ContextSet};
pub use dead_letter::{
    DeadLetterArgs, DeadLetterCommand, DeadLetterEdit, DeadLetterFilter, DeadLetterReplay,
    LetterStateArg,
};
pub use govern::{
    AuditCommand, AuditList, CanI, QuotaCommand, SessionCommand, SubscriptionArgs,
    SubscriptionCommand, TicketCommand,
};
pub use kubernetes::{KubernetesCommand, PreStop};
pub use look::{Explain, Peek, Why};
pub use push::{PushArgs, PushCommand, PushCreate, PushFormatArg, PushModeArg, PushOverflowArg};

use crate::config::settings::LOG_DEFAULT;
use crate::duration;
use crate::logging::Lines;

/// Ackord, an event broker: raised events are handled once, in order, also by who was offline.
#[derive(Debug, Parser)]
#[command(
    name = "ackord",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Exit status: 0 done, 1 an event refused, 2 usage, 3 timeout, 4 refused or \
                  replaced, 5 unreachable, 74 the disk failed, 78 configuration, 130 interrupted. \
                  `check`: 0 ok, 1 warning, 2 critical, 3 unknown.\n\
                  `ackord [COMMAND] --help --json` prints the description of a command as JSON."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Print JSON lines, and nothing else, on standard output
    #[arg(long, global = true, display_order = 900)]
    pub json: bool,

    /// Trust the certificates of this file (PEM) for https and wss, instead of the web's authorities
    #[arg(long, global = true, env = "ACKORD_CA", value_name = "FILE", display_order = 902)]
    pub ca: Option<PathBuf>,

    /// The context to take what is not given from; empty is none
    /// [default: the one of `ackord context use`]
    #[arg(long, global = true, env = "ACKORD_CONTEXT", value_name = "NAME", display_order = 903)]
    pub context: Option<String>,

    /// What to log on standard error, for instance `info` or `ackord_agents=debug`
    #[arg(
        long,
        global = true,
        env = "ACKORD_LOG",
        default_value = LOG_DEFAULT,
        value_name = "FILTER",
        display_order = 901
    )]
    pub log: String,

    /// How lines of standard error are written; for `serve` the configuration's `log_format` is the
    /// default
    #[arg(
        long,
        global = true,
        env = "ACKORD_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT",
        display_order = 901
    )]
    pub log_format: Lines,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a broker to play with: one node, a demo site, tokens printed
    Dev(Dev),
    /// Run a broker as its configuration says
    Serve(Serve),
    /// The configuration of a broker: judge it, show it, describe its keys
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Let a node read its configuration again
    Reload(Connect),
    /// Raise events: one from the arguments, or one per line of standard input
    Raise(Raise),
    /// Receive events, each once and in order, and print them
    Subscribe(Subscribe),
    /// Say what became of an instance, and why a client got it or did not
    Why(Why),
    /// Look into a queue; nothing is taken out, no cursor moves
    Peek(Peek),
    /// Say whether somebody may do something now, and why
    #[command(name = "can-i")]
    CanI(CanI),
    /// Sites: create, show, delete, or apply one declarative file
    #[command(subcommand)]
    Site(SiteCommand),
    /// Services, the accounts that raise events
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Clients, the accounts that receive events
    #[command(subcommand)]
    Client(ClientCommand),
    /// Users and the roles they hold
    #[command(subcommand)]
    User(UserCommand),
    /// Tokens of administrators, operators and observers
    #[command(subcommand)]
    Token(TokenCommand),
    /// Tickets, with which pages connect
    #[command(subcommand)]
    Ticket(TicketCommand),
    /// Subscriptions: how far each is, pause, resume, seek
    #[command(subcommand)]
    Subscription(SubscriptionCommand),
    /// Push subscriptions: callbacks and sockets that events are carried to
    #[command(subcommand)]
    Push(PushCommand),
    /// Dead letters: what subscriptions gave up after the last attempt
    #[command(subcommand)]
    DeadLetter(DeadLetterCommand),
    /// Sessions that are open now
    #[command(subcommand)]
    Session(SessionCommand),
    /// Quotas: what a site may use
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// The record of administrative acts and refused attempts
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The nodes of a cluster: status, joining, draining, removing, comparing
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// What the pods of a StatefulSet call
    #[command(subcommand)]
    Kubernetes(KubernetesCommand),
    /// Check a node, the cluster, lags, certificates or disks, for monitoring: 0 ok, 1 warning,
    /// 2 critical, 3 unknown
    #[command(subcommand)]
    Check(CheckCommand),
    /// Say what a code means and what to do about it
    Explain(Explain),
    /// Named places to talk to: addresses, site and token under one name
    #[command(subcommand)]
    Context(ContextCommand),
    /// See it work: events from standard input, or a boiler with its readers
    Demo(Demo),
    /// Measure a broker, with every result verified
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Look at the data of a stopped node that does not start, and mend it when told to
    Recover(Recover),
    /// Print the completion script of a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Where the broker is and who asks.
#[derive(Args, Clone, Debug, Default)]
pub struct Connect {
    /// Address of the broker; several times for several nodes [default: http://127.0.0.1:4655]
    #[arg(long = "url", env = "ACKORD_URL", value_name = "URL", value_delimiter = ',')]
    pub urls: Vec<String>,

    /// The site
    #[arg(long, env = "ACKORD_SITE", value_name = "SITE")]
    pub site: Option<String>,

    /// Token of the service, client or administrator [env: ACKORD_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,

    /// File that holds the token [env: ACKORD_TOKEN_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
}

/// What `dev` and `serve` take beside each other's own.
#[derive(Args, Clone, Debug, Default)]
pub struct Limits {
    /// A limit of the deployment, for instance `queue_size_max=100000`; several times for several
    #[arg(long = "limit", value_name = "NAME=VALUE")]
    pub limits: Vec<String>,

    /// A key of the configuration, for instance `front.body_bytes_max=65536`; several times for
    /// several
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// See [`Command::Dev`].
#[derive(Args, Clone, Debug)]
pub struct Dev {
    /// Directory that keeps the broker's data, its tokens and its port [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Address to listen on; port 0 is a free port, kept in DIR and used again
    /// [default: 127.0.0.1:4655, or a free port where that is taken]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<std::net::SocketAddr>,

    /// A cluster of so many nodes, each a process of its own [default: what DIR holds, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
    pub nodes: Option<u32>,

    /// Start this node of DIR's cluster again, and nothing else
    #[arg(long, value_name = "N", requires = "data", conflicts_with_all = ["nodes", "listen"])]
    pub only: Option<u32>,

    /// Stop also when standard input ends: the broker of a parent that may die
    #[arg(long, hide = true)]
    pub while_stdin: bool,

    /// Make the demo site, as the first start of a cluster asks one of its nodes to
    #[arg(long, hide = true, requires = "only")]
    pub make_site: bool,

    #[command(flatten)]
    pub limits: Limits,
}

/// See [`Command::Serve`].
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// Configuration, TOML; `ackord config doc` describes every key
    #[arg(long, value_name = "FILE", env = "ACKORD_CONFIG")]
    pub config: Option<PathBuf>,

    /// Judge the configuration and go
    #[arg(long)]
    pub check: bool,

    /// Speak and write the formats of the release that spoke this version, while nodes of it are
    /// still in the cluster; wins over `cluster.compat_version`
    #[arg(long, value_name = "VERSION")]
    pub compat_version: Option<u8>,

    /// Print a configuration with every key explained, and go
    #[arg(long, conflicts_with = "check")]
    pub example: bool,

    #[command(flatten)]
    pub limits: Limits,
}

/// See [`Command::Config`].
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Judge a configuration with the files that it names, and change nothing
    Check {
        #[command(flatten)]
        file: ConfigFile,

        #[command(flatten)]
        limits: Limits,
    },
    /// Show the values in force; secrets are not shown
    Show {
        #[command(flatten)]
        file: ConfigFile,

        /// Say where each value comes from
        #[arg(long)]
        origin: bool,

        #[command(flatten)]
        limits: Limits,
    },
    /// Print the JSON Schema of the file
    Schema,
    /// Print the page that describes every key, Markdown
    Doc,
}

/// The file of a configuration, in either of two ways.
#[derive(Args, Clone, Debug)]
pub struct ConfigFile {
    /// Configuration, TOML [env: ACKORD_CONFIG]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,

    /// The same, as `serve` takes it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    /// The file that is given, else the one of the environment.
    pub fn path(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os("ACKORD_CONFIG").filter(|name| !name.is_empty());
        let given = self.file.clone().or_else(|| self.config.clone());
        given.or_else(|| variable().map(PathBuf::from))
    }
}

/// See [`Command::Raise`].
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("what").args(["args", "null", "bytes", "file"])))]
pub struct Raise {
    /// The event's name
    pub event: String,

    #[command(flatten)]
    pub connect: Connect,

    /// Raise one event with these arguments, a JSON value
    #[arg(long, value_name = "JSON")]
    pub args: Option<String>,

    /// Raise one null-event: what was raised last is no longer relevant
    #[arg(long)]
    pub null: bool,

    /// Raise one event with the content of a file as its arguments, see --content-type
    #[arg(long, value_name = "FILE")]
    pub bytes: Option<PathBuf>,

    /// Raise one event per line of a file instead of standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Media type of --bytes
    #[arg(long, value_name = "TYPE", default_value = "application/octet-stream")]
    pub content_type: String,

    /// The client that a private event is for
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,

    /// A lifetime shorter than the definition's
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub lifetime: Option<Duration>,

    /// The trace that the events are raised in, as W3C Trace Context has it
    #[arg(long, value_name = "TEXT", value_parser = traceparent)]
    pub traceparent: Option<String>,

    /// What vendors add to --traceparent
    #[arg(long, value_name = "TEXT", requires = "traceparent")]
    pub tracestate: Option<String>,

    /// Keep what is not yet acknowledged in this file, for the next run to deliver
    #[arg(long, value_name = "FILE")]
    pub store: Option<PathBuf>,

    /// Bytes that the store may hold, in memory or in the file
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(8192..=1 << 30))]
    pub store_bytes: Option<u64>,

    /// Give up when no event was acknowledged for so long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// A `traceparent` that receivers will take for one.
fn traceparent(text: &str) -> Result<String, String> {
    match TraceContext::parse(text, None) {
        Some(_) => Ok(text.to_owned()),
        None => Err("not `00-`, 32 hex digits, `-`, 16 hex digits, `-`, 2 hex digits".to_owned()),
    }
}

/// See [`Command::Subscribe`].
#[derive(Args, Clone, Debug)]
pub struct Subscribe {
    /// The events' names
    #[arg(required = true, value_name = "EVENT")]
    pub events: Vec<String>,

    #[command(flatten)]
    pub connect: Connect,

    /// Make the client's subscriptions equal to EVENT…, removing others with their cursors
    #[arg(long, conflicts_with = "stateless")]
    pub exact: bool,

    /// Receive as a guest without account; the broker keeps no cursor
    #[arg(long, conflicts_with_all = ["token", "token_file"])]
    pub stateless: bool,

    /// Keep the last handled ids in this file, so that a restart repeats nothing
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,

    /// Stop after so many events over all EVENTs; 0 only subscribes
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,

    /// Give up when no event came for so long
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,

    /// Give up after so long in any case
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub max_time: Option<Duration>,

    /// Where a new subscription starts
    #[arg(long, value_name = "WHERE", default_value = "earliest")]
    pub start: Start,

    /// Time until an event that was not acknowledged is sent again
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub ack_timeout: Option<Duration>,

    /// Attempts before an event is skipped [default: forever]
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<u32>,

    /// What counts as delivered, and how many events are under way
    #[arg(long, value_name = "MODE", default_value = "ordered")]
    pub mode: DeliveryMode,

    /// With --mode twoway, events under way [default: 5]
    #[arg(long, value_name = "N")]
    pub window: Option<u32>,

    /// With --mode batch, milliseconds from the first event that waits to all that wait [default: 1000]
    #[arg(long, value_name = "MS")]
    pub flush_ms: Option<u32>,

    /// With --max-attempts, keep what is skipped as a dead letter
    #[arg(long, requires = "max_attempts")]
    pub dead_letter: bool,
}

/// What counts as delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeliveryMode {
    /// One under way, the next after its acknowledgement is committed.
    Ordered,
    /// A window under way, acknowledged in any order.
    Twoway,
    /// What the connection has taken.
    Oneway,
    /// As oneway, many in one frame.
    Batch,
    /// As oneway; what the connection does not take soon is dropped.
    Datagram,
}

impl DeliveryMode {
    /// The mode itself.
    pub fn mode(self) -> ackord_endpoint::Mode {
        match self {
            Self::Ordered => ackord_endpoint::Mode::Ordered,
            Self::Twoway => ackord_endpoint::Mode::Twoway,
            Self::Oneway => ackord_endpoint::Mode::Oneway,
            Self::Batch => ackord_endpoint::Mode::Batch,
            Self::Datagram => ackord_endpoint::Mode::Datagram,
        }
    }
}

/// Where a new subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Start {
    /// At the earliest retained event.
    Earliest,
    /// After the newest event.
    Latest,
}

/// See [`Command::Demo`].
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Demo {
    /// Which demonstration; without one, events from standard input
    #[command(subcommand)]
    pub which: Option<DemoCommand>,

    #[command(flatten)]
    pub first: First,
}

/// The demonstration without a name.
#[derive(Args, Clone, Debug)]
pub struct First {
    /// Stop the broker at the end instead of leaving it running
    #[arg(long)]
    pub exit: bool,
}

/// The demonstrations that have a name.
#[derive(Clone, Debug, Subcommand)]
pub enum DemoCommand {
    /// A boiler raises readings, states and notices; a wall panel and a phone follow it
    Boiler(Boiler),
}

/// See [`DemoCommand::Boiler`].
#[derive(Args, Clone, Debug)]
pub struct Boiler {
    /// Run one part only; the broker must be there [default: all three]
    #[arg(long, value_name = "ROLE")]
    pub role: Option<Role>,

    /// Address of the broker; without one, an own broker is started in DIR
    #[arg(long = "url", env = "ACKORD_URL", value_name = "URL", value_delimiter = ',')]
    pub urls: Vec<String>,

    /// Administrator's token of the broker at --url [env: ACKORD_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,

    /// Directory of the parts' stores and tokens, and of the own broker
    /// [default: ackord/demo-boiler in the user's state directory]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Time between two readings
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    pub every: Duration,

    /// Stop after so many readings [default: never]
    #[arg(long, value_name = "N")]
    pub readings: Option<u64>,

    /// Stop after the reading of this number
    #[arg(long, hide = true)]
    pub until: Option<u64>,

    /// Stop also when standard input ends: a part whose parent may die
    #[arg(long, hide = true)]
    pub while_stdin: bool,
}

/// A part of the boiler demonstration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The boiler, which raises.
    Service,
    /// The panel on the wall, which follows the state and the readings.
    Panel,
    /// The owner's phone, which follows the state and gets the private notices.
    Phone,
}

impl Role {
    /// The role as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Panel => "panel",
            Self::Phone => "phone",
        }
    }
}

/// See [`Command::Recover`].
#[derive(Args, Clone, Debug)]
pub struct Recover {
    /// The data directory of the stopped node
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Mend what can be mended and give up what cannot; without it nothing is changed
    #[arg(long)]
    pub accept_loss: bool,
}
