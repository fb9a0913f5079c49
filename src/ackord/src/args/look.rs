//! Commands that look: why, peek, explain.

use clap::Args;

use super::Connect;

/// See [`super::Command::Why`].
#[derive(Args, Clone, Debug)]
pub struct Why {
    /// The event
    pub event: String,
    /// The id of the instance
    pub instance_id: u64,
    /// The client that got it, or did not [default: each that is subscribed, in short]
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// Ask only the node that answers, not the others for what they sent
    #[arg(long)]
    pub local: bool,
    #[command(flatten)]
    pub connect: Connect,
}

/// See [`super::Command::Peek`].
#[derive(Args, Clone, Debug)]
pub struct Peek {
    /// The event
    pub event: String,
    /// So many instances at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Begin behind this instance instead of at the earliest
    #[arg(long, value_name = "INSTANCE_ID", default_value_t = 0)]
    pub after: u64,
    /// Only what this service raised
    #[arg(long, value_name = "ID")]
    pub service: Option<String>,
    #[command(flatten)]
    pub connect: Connect,
}

/// See [`super::Command::Explain`].
#[derive(Args, Clone, Debug)]
pub struct Explain {
    /// A code (`busy`), a close number (4503), an HTTP or exit status [default: all]
    pub code: Option<String>,
}
