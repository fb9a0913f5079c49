//! `ackord cluster …`: the nodes of a cluster, and what is done to them.

use clap::{Args, Subcommand};

use super::Connect;

/// `ackord cluster …`
#[derive(Clone, Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show how the cluster is: nodes, votes, leads, and what is under way
    Status {
        #[command(flatten)]
        connect: Connect,
    },
    /// List the nodes
    Nodes {
        #[command(flatten)]
        connect: Connect,
    },
    /// List the partitions with their voters and leaders; 0 is the directory of nodes
    Partitions {
        #[command(flatten)]
        connect: Connect,
    },
    /// Print the configuration with which another node joins
    Join {
        #[command(flatten)]
        connect: Connect,
    },
    /// Move votes and leads away from a node, and say when it can be stopped
    Drain(NodeArgs),
    /// Let a draining node vote and lead again
    Undrain(NodeArgs),
    /// Take a drained node out of the cluster for good; its number never comes again
    Remove(RemoveArgs),
    /// Drain a node and take it out once no group needs it; the others finish it without it
    Leave(NodeArgs),
    /// Take a node out whose disk is lost, and wait for the empty one that joins in its place
    Replace(NodeArgs),
    /// Wait until votes and leads are spread as they shall be
    Rebalance(WaitArgs),
    /// Write all sites with everything in them to a file, while they are served
    Backup {
        /// The file; replaced when it exists
        #[arg(short, long, value_name = "FILE")]
        out: std::path::PathBuf,
        #[command(flatten)]
        connect: Connect,
    },
    /// Put the sites of a backup back; those that exist are refused
    Restore {
        /// The file
        #[arg(short, long, value_name = "FILE")]
        file: std::path::PathBuf,
        /// This site only
        #[arg(long, value_name = "SITE")]
        only: Option<String>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Compare the state of all replicas at the same entry, while they serve
    Verify {
        #[command(flatten)]
        connect: Connect,
    },
}

/// A node, and whether to wait.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// The node's number
    pub node: u64,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// See [`ClusterCommand::Remove`].
#[derive(Args, Clone, Debug)]
pub struct RemoveArgs {
    /// The node's number
    pub node: u64,
    /// Also when groups still need it: a node that is lost
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Whether and how long to wait until the cluster has settled.
#[derive(Args, Clone, Debug)]
pub struct WaitArgs {
    /// Ask for it and go
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = crate::duration::parse)]
    pub max_time: std::time::Duration,
    #[command(flatten)]
    pub connect: Connect,
}
