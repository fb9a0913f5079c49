//! Workloads that measure a broker through the Rust SDK and verify everything they count.
//!
//! `Ground (sites, tokens, metrics) ─▶ workload ─▶ endpoints ─▶ broker ─▶ ids, times ─▶ Report`
//!
//! Invariants: a figure is reported together with the checks that make it mean something; an event
//! counts only once it was acknowledged (publish) or its cursor confirmed (deliver); what the disk
//! did is taken from the node's own counters, never assumed.
//!
//! Deliberately absent: how a broker is started, and administration over HTTP; both are the
//! caller's, behind [`Ground`]. Only [`agents`] reaches into a broker.

mod agents;
mod callback;
mod deliver;
mod error;
mod failover;
mod fanout;
mod ground;
mod growth;
mod html;
mod idle;
mod latency;
mod lines;
mod meter;
mod mixed;
mod modes;
mod options;
mod publish;
mod quota;
mod report;
mod revocation;
mod steady;
mod told;
mod verify;

pub use agents::agents;
pub use error::Error;
pub use ground::{Fault, Ground, Retained};
pub use options::{Options, Workload};
pub use report::{
    Beside, Counts, Failover, Fanout, Figures, Growth, Idle, Latency, Log, Mixed, ModeFigures,
    Quota, Report, Second, Server, Spread, Steady,
};

/// Runs a workload.
///
/// # Errors
/// When the broker or the machine stands in the way. A result that does not verify is no error:
/// it is in [`Report::failures`].
pub async fn run<G: Ground>(
    ground: &G,
    workload: Workload,
    options: &Options,
) -> Result<Report, Error> {
    options.judge(workload)?;
    ground.settle().await.map_err(Error::Ground)?;
    match workload {
        Workload::Publish => publish::run(ground, options).await,
        Workload::Deliver => deliver::run(ground, options).await,
        Workload::Fanout => fanout::run(ground, options).await,
        Workload::Idle => idle::run(ground, options).await,
        Workload::Failover => failover::run(ground, options).await,
        Workload::Quota => quota::run(ground, options).await,
        Workload::Revocation => revocation::run(ground, options).await,
        Workload::Mixed if options.load > 0 => steady::run(ground, options).await,
        Workload::Mixed => mixed::run(ground, options).await,
        Workload::Modes => modes::run(ground, options).await,
        Workload::Growth => growth::run(ground, options).await,
    }
}
