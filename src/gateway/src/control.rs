//! What can be changed about a front while it runs, and the files that are looked at meanwhile.
//!
//! Invariant: connections that stand go on as they are; what is new counts for what comes next.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ackord_tls::Refreshed;

use crate::context::{Context, Live, Reload};
use crate::options::Error;

/// How long a stop may go unnoticed by the thread that looks at files.
const STOP_LOOK: Duration = Duration::from_millis(200);

/// A handle on a running front. Cloning copies a pointer.
#[derive(Clone)]
pub struct Control {
    context: Arc<Context>,
}

/// What became of files that were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// What they are: `tls`, `cluster.tls`, `jwt`.
    pub file: &'static str,
    /// What was found.
    pub refreshed: Refreshed,
}

impl Control {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// From now on this counts. The deadlines of a connection's first request, of its idleness and
    /// of its closing, and the number of connections, are those of the start.
    pub fn set_live(&self, live: Live) {
        let limits = live.limits.raised();
        self.context.set_live(Live { limits, ..live });
    }

    /// How `POST /v1/node/reload` is answered; the first one that is given counts.
    pub fn on_reload(&self, reload: Reload) {
        // One front has one configuration.
        let _ = self.context.reload.set(reload);
    }

    /// Looks at every file that may have changed, and uses what can be used. Blocks.
    pub fn refresh_files(&self) -> Vec<FileReport> {
        refresh(&self.context)
    }

    /// Looks at the files from time to time, on a thread of its own, until the front stops.
    pub(crate) fn watch(&self, interval: Duration) -> Result<(), Error> {
        let context = Arc::downgrade(&self.context);
        std::thread::Builder::new()
            .name("ackord-files".to_owned())
            .spawn(move || watch(&context, interval))?;
        Ok(())
    }
}

fn watch(context: &Weak<Context>, interval: Duration) {
    let mut waited = Duration::ZERO;
    loop {
        let step = STOP_LOOK.min(interval);
        std::thread::sleep(step);
        waited += step;
        let Some(context) = context.upgrade() else { return };
        if context.stopping.is_cancelled() {
            return;
        }
        if waited >= interval {
            waited = Duration::ZERO;
            refresh(&context);
        }
    }
}

fn refresh(context: &Context) -> Vec<FileReport> {
    let front = context.tls.iter().map(|tls| ("tls", tls.refresh()));
    let peers = context.broker.node().refresh_certificates();
    let live = context.live();
    let issuers = live.issuers.iter().map(|issuer| ("jwt", issuer.refresh()));
    let looked = front.chain(peers.map(|peers| ("cluster.tls", peers))).chain(issuers);
    let reports = looked.map(|(file, refreshed)| FileReport { file, refreshed });
    let reports: Vec<FileReport> = reports.collect();
    for FileReport { file, refreshed } in &reports {
        let count = |result: &str| {
            context.metrics.file_reloads.with_label_values(&[file, result]).inc();
        };
        match refreshed {
            Refreshed::Unchanged | Refreshed::StillBroken(_) => {}
            Refreshed::Changed => {
                count("loaded");
                tracing::info!(file, "changed files are in use");
            }
            Refreshed::Broken(error) => {
                count("failed");
                tracing::error!(file, %error, "changed files cannot be used: the old ones stay");
            }
        }
    }
    reports
}
