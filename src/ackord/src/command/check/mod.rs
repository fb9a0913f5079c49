//! `ackord check …`: one look for monitoring, judged by thresholds.
//!
//! Invariant: what cannot be looked at is a finding too, so that whoever collects the output always has
//! a line; only a wrong command line is an error.

mod certificate;
mod cluster;
mod disk;
mod lag;
mod node;
mod report;

use crate::admin::{Admin, AdminError};
use crate::args::{CheckCommand, CheckOutput, Connect};
use crate::exit::{Exit, Failure, Health, Outcome};
use crate::output::Format;

/// Runs the command.
pub async fn run(command: CheckCommand, format: Format) -> Outcome {
    let (spoken, thresholds) = command.thresholds();
    if (format, spoken) == (Format::Json, CheckOutput::Prometheus) {
        return Err(Failure::usage("--json and --format prometheus exclude each other"));
    }
    thresholds.into_iter().try_for_each(|pair| pair.check())?;
    let report = match command {
        CheckCommand::Node { connect, .. } => node::look(&connect).await?,
        CheckCommand::Cluster { members, warn, crit, connect, .. } => {
            cluster::look(&connect, members, (warn, crit)).await?
        }
        CheckCommand::Lag(arguments) => lag::look(&arguments).await?,
        CheckCommand::Certificate { files, warn, crit, connect, .. } => {
            certificate::look(&connect, &files, warn, crit).await?
        }
        CheckCommand::Disk { warn, crit, connect, .. } => disk::look(&connect, warn, crit).await?,
    };
    report.print(format, spoken)?;
    Ok(Exit::Check(report.health()))
}

/// Each address with a client for it alone; the token is given where there is one.
fn each(connect: &Connect) -> Result<Vec<(String, Admin)>, Failure> {
    let urls = connect.urls()?;
    let all = Admin::new(urls.clone(), connect.token_maybe()?)?;
    Ok(urls.into_iter().map(|url| (url.clone(), all.at(&[url]))).collect())
}

/// How bad it is that a question has no answer, and why it has none: an address at which nobody is
/// is known to be wrong, a refusal says nothing about what was asked.
fn unanswered(error: &AdminError) -> (Health, String) {
    match error {
        AdminError::Unreachable(why) => {
            // Whoever prints it names the address.
            let cause = why.split_once(": ").map_or(why.as_str(), |(_, cause)| cause);
            (Health::Critical, format!("not reached: {cause}"))
        }
        AdminError::Unreadable(why) => (Health::Unknown, why.clone()),
        AdminError::Problem(problem) if problem.status >= 500 => {
            (Health::Critical, format!("{} ({})", problem.detail, problem.code))
        }
        AdminError::Problem(problem) => {
            (Health::Unknown, format!("{} ({})", problem.detail, problem.code))
        }
    }
}
