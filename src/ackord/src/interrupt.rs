//! SIGINT and SIGTERM as one future, so that a command ends in order instead of in the middle.
//!
//! A command may be unable to end in order: what is kept is on disk at any time, so the second
//! signal ends the process at once, and so does the first when nobody reads standard output.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Exit, Failure};
use crate::output;

/// How long after a signal a line may take to be read by the other end of standard output.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Both signals, from the moment this was made.
pub struct Interrupt {
    seen: watch::Receiver<u64>,
}

impl Interrupt {
    /// Starts to catch the signals, on a task of its own.
    pub fn catch() -> Result<Self, Failure> {
        let caught = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Configuration, format!("signals cannot be caught: {error}"))
            })
        };
        let int = caught(SignalKind::interrupt())?;
        let term = caught(SignalKind::terminate())?;
        let (count, seen) = watch::channel(0);
        tokio::spawn(follow(int, term, count));
        Ok(Self { seen })
    }

    /// Waits for the next one.
    pub async fn wait(&mut self) {
        if self.seen.changed().await.is_err() {
            // The task goes with the runtime only.
            std::future::pending().await
        }
    }
}

async fn follow(mut int: Signal, mut term: Signal, count: watch::Sender<u64>) {
    let mut stuck = None;
    loop {
        let next = async {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
        };
        let signalled = *count.borrow() > 0;
        tokio::select! {
            () = next => {
                if signalled {
                    end();
                }
                count.send_modify(|count| *count += 1);
            }
            () = tokio::time::sleep(STUCK_AFTER), if signalled => {
                let writing = output::writing();
                if writing.is_some() && writing == stuck {
                    end();
                }
                stuck = writing;
            }
        }
    }
}

fn end() -> ! {
    std::process::exit(i32::from(Exit::Interrupted.number()))
}
