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
        listing: Listing,
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

/// Which part of a list.
#[derive(Args, Clone, Debug, Default)]
pub struct Listing {
    /// Only those whose name or id begins like this
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// So many at most [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
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
        /// Only those that are online (or not)
        #[arg(long, value_name = "BOOL")]
        online: Option<bool>,
        #[command(flatten)]
        listing: Listing,
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
        life: TokenLife,
        #[command(flatten)]
        connect: Connect,
    },
    /// End a service's session; it may connect again
    Kick {
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
        listing: Listing,
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
        life: TokenLife,
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
    /// End a client's session; it may connect again
    Kick {
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
        /// Only those that hold this role
        #[arg(long, value_name = "ROLE")]
        role: Option<String>,
        #[command(flatten)]
        listing: Listing,
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

/// How long a token is good for, and what it is for.
#[derive(Args, Clone, Debug, Default)]
pub struct TokenLife {
    /// Let it end by itself after so long, for instance `30d` [default: when it is revoked]
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    pub expires: Option<std::time::Duration>,
    /// What it is for, at most 128 bytes
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
}

/// `ackord token …`
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token for an administrator, operator or observer of the site and print it, once
    #[command(group(clap::ArgGroup::new("role").args(["admin", "operator", "observer"]).required(true)))]
    Create {
        /// Administers the site
        #[arg(long)]
        admin: bool,
        /// Reads everything of the site and keeps it running: pauses, seeks, kicks
        #[arg(long)]
        operator: bool,
        /// Reads everything of the site, changes nothing
        #[arg(long)]
        observer: bool,
        #[command(flatten)]
        life: TokenLife,
        #[command(flatten)]
        connect: Connect,
    },
    /// List the tokens by their public halves, with their ends and notes
    List {
        /// Only those of `admin`, `operator`, `observer`, `service:ID` or `client:ID`
        #[arg(long, value_name = "WHO")]
        principal: Option<String>,
        #[command(flatten)]
        listing: Listing,
        #[command(flatten)]
        connect: Connect,
    },
    /// Revoke a token; sessions that use it are closed
    #[command(visible_alias = "delete")]
    Revoke {
        /// Its public half
        id: String,
        #[command(flatten)]
        connect: Connect,
    },
}
