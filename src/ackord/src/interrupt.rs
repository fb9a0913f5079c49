//! SIGINT and SIGTERM as one future, so that a command ends in order instead of in the middle.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Failure};

/// Both signals, from the moment this was made.
pub struct Interrupt {
    int: Signal,
    term: Signal,
}

impl Interrupt {
    /// Starts to catch the signals.
    pub fn catch() -> Result<Self, Failure> {
        let caught = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Configuration, format!("signals cannot be caught: {error}"))
            })
        };
        Ok(Self { int: caught(SignalKind::interrupt())?, term: caught(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}
