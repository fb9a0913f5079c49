//! Dead letters.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Connect;

/// `ackord dead-letter …`
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// List dead letters, the oldest first
    List {
        #[command(flatten)]
        of: DeadLetterFilter,
        /// Only those of which this became
        #[arg(long, value_name = "STATE")]
        state: Option<LetterStateArg>,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Show one with its arguments
    Show(DeadLetterArgs),
    /// Change the arguments or the note of one
    Edit(DeadLetterEdit),
    /// Raise one again, or all that wait, as new events that name the original
    Replay(DeadLetterReplay),
    /// Remove one
    Delete(DeadLetterArgs),
}

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LetterStateArg {
    /// Nothing yet
    Waiting,
    /// It was raised again
    Replayed,
}

/// Which dead letters.
#[derive(Args, Clone, Debug)]
pub struct DeadLetterFilter {
    /// Only those of this client
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// Only those of this push subscription
    #[arg(long, value_name = "ID")]
    pub push: Option<String>,
    /// Only those of this event
    #[arg(long, value_name = "NAME")]
    pub event: Option<String>,
}

/// One dead letter.
#[derive(Args, Clone, Debug)]
pub struct DeadLetterArgs {
    /// Its id
    pub id: u64,
    #[command(flatten)]
    pub connect: Connect,
}

/// What is to change.
#[derive(Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)
    .args(["args", "file", "note"])))]
pub struct DeadLetterEdit {
    /// Its id
    pub id: u64,
    /// Its arguments, JSON
    #[arg(long, value_name = "JSON", conflicts_with = "file")]
    pub args: Option<String>,
    /// Its arguments from a file, as --content-type says
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The media type of the file
    #[arg(long, value_name = "TYPE", requires = "file")]
    pub content_type: Option<String>,
    /// What to say of it
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    #[command(flatten)]
    pub connect: Connect,
}

/// What is to be raised again.
#[derive(Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["id", "all"])))]
pub struct DeadLetterReplay {
    /// Its id
    pub id: Option<u64>,
    /// All that wait, in the order in which they were given up
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub of: DeadLetterFilter,
    #[command(flatten)]
    pub connect: Connect,
}
