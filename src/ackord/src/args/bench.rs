//! `ackord bench …`: the workloads and their sizes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::DeliveryMode;

/// `ackord bench …`
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Publishers raise as fast as their windows allow
    Publish(BenchOptions),
    /// Subscriptions take a backlog, in order or in another mode
    Deliver(BenchOptions),
    /// One publisher at a fixed rate, many connected subscribers: from the raise to each handler
    Fanout(BenchOptions),
    /// Connected idle clients: memory each, and the time to deliver one event to all
    Idle(BenchOptions),
    /// The leader of a site fails again and again: how long nothing is acknowledged
    Failover(BenchOptions),
    /// A site raises more than its rates allow at every node, and another one beside it
    Quota(BenchOptions),
    /// Tokens are revoked while their sessions are open at every node: how long the last one lasts
    Revocation(BenchOptions),
    /// What subscribers that break and such that stall cost the publishers of their site; with --load, whether memory and latency stay flat
    Mixed(BenchOptions),
    /// One subscription in each delivery mode over each transport: its latency and its events per second
    Modes(BenchOptions),
    /// Publishers and subscriptions beside idle clients, sites, subscriptions and retained events, and beside twice as many
    Growth(BenchOptions),
}

/// What happens to a leader.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BenchFault {
    /// Killed (-9) and started again
    Kill,
    /// Asked to stop (SIGTERM) and started again
    Stop,
    /// Suspended, as if it were cut off silently, and resumed
    Pause,
}

/// What the workloads are made of. Each uses those that it needs.
#[derive(Args, Clone, Debug)]
pub struct BenchOptions {
    /// Nodes of the own broker, each a process of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub nodes: u32,
    /// Publishers, each a service of its own
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub publishers: u32,
    /// Events that each publisher has unacknowledged
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub window: u32,
    /// Bytes of arguments per event
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=65_536))]
    pub size: u32,
    /// Seconds to measure
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Seconds under load before it is measured (publish, fanout, deliver)
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub warm_up: u64,
    /// Do not check what was acknowledged and delivered
    #[arg(long)]
    pub no_verify: bool,
    /// Write the report as a page with charts, too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Subscriptions over all subscribers (deliver)
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub subscriptions: u32,
    /// Events that wait for each subscription (deliver)
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub backlog: u32,
    /// Mode of the subscriptions (deliver)
    #[arg(long, value_enum, default_value = "ordered")]
    pub mode: DeliveryMode,
    /// Connected clients (deliver, fanout, idle); idle ones (growth) [default: as many as subscriptions; fanout, idle, growth: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub subscribers: Option<u32>,
    /// Agents without sockets in one process, instead of connected clients (idle)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub agents: Option<u32>,
    /// Sites that the accounts are spread over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub sites: u32,
    /// Events per second of each publisher, due whatever becomes of those before, 0 is as fast as it can (publish, fanout, failover); of a site (quota) [default: publish 0, fanout 20, failover and quota 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rate: Option<u32>,
    /// Percent of what the publishers can that they raise for the whole time, beside all subscribers (mixed)
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub load: Option<u32>,
    /// How often the leader fails (failover), tokens are revoked (revocation), or all is measured in turn (mixed, growth)
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,
    /// What happens to the leader (failover)
    #[arg(long, value_enum, default_value = "kill")]
    pub fault: BenchFault,
    /// A setting of the own broker's nodes, as of `dev`; several times for several
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Address of a broker to measure [default: an own broker in a temporary directory]
    #[arg(long = "url", env = "ACKORD_URL", value_name = "URL", value_delimiter = ',')]
    pub urls: Vec<String>,
    /// Administrator's token of the node at --url [env: ACKORD_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
}
