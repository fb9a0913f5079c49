//! What goes to standard error, and how that is changed while the program runs.

use std::sync::Arc;

use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

/// Changes what is logged. Cloning copies a pointer.
#[derive(Clone)]
pub struct Logging {
    set: Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl Logging {
    /// Begins to log what this filter lets through. Once per process.
    pub fn begin(filter: &str) -> Result<Self, Failure> {
        let builder = tracing_subscriber::fmt()
            .with_env_filter(parse(filter)?)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        let set = move |filter| handle.reload(filter).map_err(|error| error.to_string());
        Ok(Self { set: Arc::new(set) })
    }

    /// From now on this filter counts.
    pub fn set(&self, filter: &str) -> Result<(), Failure> {
        (self.set)(parse(filter)?).map_err(|error| Failure::configuration(format!("log: {error}")))
    }
}

/// A filter from its text.
pub fn parse(filter: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(filter).map_err(|error| Failure::usage(format!("--log {filter}: {error}")))
}
