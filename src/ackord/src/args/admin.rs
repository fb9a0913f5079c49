//! The administrative commands: sites, services, clients, users, tokens.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Connect;

/// `ackord site …`
#[derive(Clone, Debug, Subcommand)]
pub enum SiteCommand {
    /// Create a blank site
    Create {
        /// Its name [default: --site]
        name: Option<String>,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        connect: Connect,
    },
    /// List the sites
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show a site
    Show {
        /// Its name [default: --site]
        name: Option<String>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Delete a site with everything in it
    Delete {
        /// Its name [default: --site]
        name: Option<String>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Make a site what a file says: settings, structure, services, clients, users
    Apply(Apply),
    /// Show a site's structure, or apply another one
    Structure(StructureArgs),
}

/// The settings of a site; what is not given stays, or takes its default in a new site.
#[derive(Args, Clone, Debug, Default)]
pub struct Settings {
    /// Whether several services share the site [new: false]
    #[arg(long, value_name = "BOOL")]
    pub multi_service: Option<bool>,
    /// Whether the first service may construct the blank site [new: true]
    #[arg(long, value_name = "BOOL")]
    pub constructible: Option<bool>,
    /// Whether guests are let in, as far as the structure supports them [new: true]
    #[arg(long, value_name = "BOOL")]
    pub guests: Option<bool>,
    /// Whether clients without account are let in, as far as the structure supports them
    /// [new: true]
    #[arg(long, value_name = "BOOL")]
    pub stateless_guests: Option<bool>,
}

/// See [`SiteCommand::Apply`].
#[derive(Args, Clone, Debug)]
pub struct Apply {
    /// The file, TOML or JSON; `docs/cli.md` describes it
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Say what would be done with the values before and after, and do nothing
    #[arg(long)]
    pub diff: bool,
    /// Delete the services, clients and users that the file does not name
    #[arg(long)]
    pub prune: bool,
    /// Let a structure of another service type or author rebuild the site, dropping its queues
    #[arg(long)]
    pub rebuild: bool,
    #[command(flatten)]
    pub connect: Connect,
}

/// See [`SiteCommand::Structure`].
#[derive(Args, Clone, Debug)]
pub struct StructureArgs {
    /// The site [default: --site]
    pub name: Option<String>,
    /// Apply the structure of this file, TOML or JSON
    #[arg(long, value_name = "FILE")]
    pub set: Option<PathBuf>,
    /// Let another service type or author rebuild the site, dropping its queues
    #[arg(long, requires = "set")]
    pub rebuild: bool,
    #[command(flatten)]
    pub connect: Connect,
}

/// `ackord service …`
#[derive(Clone, Debug, Subcommand)]
pub enum ServiceCommand {
    /// Register a service
    Create {
        /// Its id
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// List the services
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show a service, whether it is online and why not
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Delete a service with its queues and tokens
    Delete {
        /// Its id
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Make a token for a service and print it, once
    Token {
        /// Its id
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Apply the structure that a parked service declared
    ApplyDeclared {
        /// Its id
        id: String,
        /// Let another service type or author rebuild the site, dropping its queues
        #[arg(long)]
        rebuild: bool,
        #[command(flatten)]
        connect: Connect,
    },
}

/// `ackord client …`
#[derive(Clone, Debug, Subcommand)]
pub enum ClientCommand {
    /// Register a client, or give an existing one another user
    Create {
        /// Its id
        id: String,
        /// Its user; without one it is a guest
        #[arg(long, value_name = "ID")]
        user: Option<String>,
        #[command(flatten)]
        connect: Connect,
    },
    /// List the clients
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show a client
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Delete a client with its private events, subscriptions and tokens
    Delete {
        /// Its id
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Make a token for a client and print it, once
    Token {
        /// Its id
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// List a client's subscriptions with their cursors
    Subscriptions {
        /// Its id
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Move the cursor of a subscription: delivery goes on with the first event after it
    Seek {
        /// The client's id
        id: String,
        /// The event
        event: String,
        /// Instance id; 0 starts again at the earliest retained event
        #[arg(long, value_name = "INSTANCE_ID")]
        after: u64,
        #[command(flatten)]
        connect: Connect,
    },
}

/// `ackord user …`
#[derive(Clone, Debug, Subcommand)]
pub enum UserCommand {
    /// Register a user, or give an existing one other roles
    Create {
        /// Its id
        id: String,
        /// A role; several times for several
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        #[command(flatten)]
        connect: Connect,
    },
    /// List the users
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show a user
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Delete a user; its clients become guests
    Delete {
        /// Its id
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
}

/// `ackord token …`
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token for an administrator or observer of the site and print it, once
    Create {
        /// Administers the site
        #[arg(long, required_unless_present = "observer", conflicts_with = "observer")]
        admin: bool,
        /// Reads everything of the site, changes nothing
        #[arg(long)]
        observer: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// List the tokens by their public halves
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Revoke a token; sessions that use it are closed
    Delete {
        /// Its public half
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
}

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
