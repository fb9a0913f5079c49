//! `ackord context …`: named places to talk to.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `ackord context …`
#[derive(Clone, Debug, Subcommand)]
pub enum ContextCommand {
    /// List the contexts; the current one is marked
    List,
    /// Show a context; tokens are not shown
    Show {
        /// Its name [default: the one that counts]
        name: Option<String>,
    },
    /// Make a context, or change what is given of one; --ca counts too
    Set(ContextSet),
    /// Let a context count wherever nothing else is said
    Use {
        /// Its name
        name: String,
    },
    /// Delete a context
    Delete {
        /// Its name
        name: String,
    },
}

/// See [`ContextCommand::Set`].
#[derive(Args, Clone, Debug)]
pub struct ContextSet {
    /// Its name: letters, digits and `_ - . @ :`, at most 64
    pub name: String,
    /// Address of the broker; several times for several nodes
    #[arg(long = "url", value_name = "URL", value_delimiter = ',')]
    pub urls: Vec<String>,
    /// The site
    #[arg(long, value_name = "SITE")]
    pub site: Option<String>,
    /// The token; better in a file
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// File that holds the token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
}
