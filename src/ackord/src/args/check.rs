//! `ackord check …`: what is looked at, and from when on it is a warning or critical.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::Connect;
use crate::exit::Failure;
use crate::{duration, moment};

/// `ackord check …`
#[derive(Clone, Debug, Subcommand)]
pub enum CheckCommand {
    /// Whether nodes live, are ready, and are to stay; each --url is one
    Node {
        #[command(flatten)]
        format: CheckFormat,
        #[command(flatten)]
        connect: Connect,
    },
    /// Whether members are up, every group is led, has its voters, and nobody is far behind
    Cluster {
        /// How many nodes the cluster shall have; more or fewer is critical
        #[arg(long, value_name = "N")]
        members: Option<usize>,
        /// Entries that a replica may be behind before it is a warning
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        warn: u64,
        /// Entries that a replica may be behind before it is critical
        #[arg(long, value_name = "N", default_value_t = 1_000_000)]
        crit: u64,
        #[command(flatten)]
        format: CheckFormat,
        #[command(flatten)]
        connect: Connect,
    },
    /// How far subscriptions are behind, in instances and in time
    Lag(CheckLag),
    /// How long certificates last: those that nodes show at --url, or those in files
    Certificate {
        /// A certificate file (PEM) instead, for instance that of `cluster.tls`; several times for
        /// several
        #[arg(long = "file", value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Time left below which it is a warning
        #[arg(long, value_name = "TIME", default_value = "21d", value_parser = duration::parse)]
        warn: Duration,
        /// Time left below which it is critical
        #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration::parse)]
        crit: Duration,
        #[command(flatten)]
        format: CheckFormat,
        #[command(flatten)]
        connect: Connect,
    },
    /// How much room the disks of nodes have left; each --url is one
    Disk {
        /// Free bytes below which it is a warning [default: twice the node's reserve]
        #[arg(long, value_name = "BYTES", value_parser = moment::parse_bytes)]
        warn: Option<u64>,
        /// Free bytes below which it is critical [default: the node's reserve: raises are refused]
        #[arg(long, value_name = "BYTES", value_parser = moment::parse_bytes)]
        crit: Option<u64>,
        #[command(flatten)]
        format: CheckFormat,
        #[command(flatten)]
        connect: Connect,
    },
}

/// See [`CheckCommand::Lag`].
#[derive(Args, Clone, Debug)]
pub struct CheckLag {
    /// Only subscriptions of this client
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// Only subscriptions to this event
    #[arg(long, value_name = "EVENT")]
    pub event: Option<String>,
    /// Instances behind from which on it is a warning
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub warn: u64,
    /// Instances behind from which on it is critical
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub crit: u64,
    /// Age of the oldest unacknowledged instance from which on it is a warning
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse)]
    pub warn_age: Duration,
    /// Age of the oldest unacknowledged instance from which on it is critical
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration::parse)]
    pub crit_age: Duration,
    #[command(flatten)]
    pub format: CheckFormat,
    #[command(flatten)]
    pub connect: Connect,
}

/// How a check speaks.
#[derive(Args, Clone, Copy, Debug)]
pub struct CheckFormat {
    /// What to print; --json is one JSON line instead
    #[arg(long, value_name = "FORMAT", default_value = "plugin")]
    pub format: CheckOutput,
}

/// What a check prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    /// One line with performance data, as monitoring plugins do
    Plugin,
    /// Metrics in the text format of Prometheus, for a textfile collector
    Prometheus,
}

/// From when on something is a warning and from when on critical, with the options that say so.
#[derive(Clone, Debug)]
pub struct Thresholds {
    warn: (&'static str, String),
    crit: (&'static str, String),
    /// Whether a warning comes first.
    ordered: bool,
    /// How the first must be beside the second.
    rule: &'static str,
}

impl Thresholds {
    /// Of what is the worse, the more there is.
    fn above<T: PartialOrd>(
        (warn_option, warn): (&'static str, T),
        (crit_option, crit): (&'static str, T),
        show: impl Fn(&T) -> String,
    ) -> Self {
        let (ordered, rule) = (warn <= crit, "must not be above");
        let (warn, crit) = ((warn_option, show(&warn)), (crit_option, show(&crit)));
        Self { warn, crit, ordered, rule }
    }

    /// Of what is the worse, the less there is.
    fn below<T: PartialOrd>(warn: T, crit: T, show: impl Fn(&T) -> String) -> Self {
        let (ordered, rule) = (warn >= crit, "must not be below");
        let (warn, crit) = (("--warn", show(&warn)), ("--crit", show(&crit)));
        Self { warn, crit, ordered, rule }
    }

    /// Refuses those with which nothing would ever be a warning, or what is critical would not be one.
    pub fn check(&self) -> Result<(), Failure> {
        let Self { warn: (warn_option, warn), crit: (crit_option, crit), ordered, rule } = self;
        let wrong = || {
            let hint =
                "what is critical is a warning first; give both where a default is in the way";
            Failure::usage(format!("{warn_option} {warn} {rule} {crit_option} {crit}")).hint(hint)
        };
        ordered.then_some(()).ok_or_else(wrong)
    }
}

impl CheckCommand {
    /// How it speaks, and the thresholds that the command line alone can judge.
    pub fn thresholds(&self) -> (CheckOutput, Vec<Thresholds>) {
        let number = |number: &u64| number.to_string();
        let time = |time: &Duration| moment::span(*time);
        match self {
            Self::Node { format, .. } => (format.format, Vec::new()),
            Self::Cluster { warn, crit, format, .. } => {
                let pair = Thresholds::above(("--warn", *warn), ("--crit", *crit), number);
                (format.format, vec![pair])
            }
            Self::Lag(lag) => {
                let (warn, crit) = (("--warn", lag.warn), ("--crit", lag.crit));
                let instances = Thresholds::above(warn, crit, number);
                let (warn, crit) = (("--warn-age", lag.warn_age), ("--crit-age", lag.crit_age));
                (lag.format.format, vec![instances, Thresholds::above(warn, crit, time)])
            }
            Self::Certificate { warn, crit, format, .. } => {
                (format.format, vec![Thresholds::below(*warn, *crit, time)])
            }
            Self::Disk { warn, crit, format, .. } => {
                // A default is the node's own reserve.
                let given = warn.zip(*crit);
                let pair = given.map(|(warn, crit)| Thresholds::below(warn, crit, number));
                (format.format, pair.into_iter().collect())
            }
        }
    }
}
