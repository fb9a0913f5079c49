//! Proposals without a session: administrative acts, keyed raises, and a session's last word.

use std::time::Duration;

use ackord_machine::session::refusal_detail;
use ackord_machine::site::{
    AdminAction, Batch, Command, Decision, Incarnation, Outcome, Place, Raised, Refusal, RequestId,
    Site, SiteName, SiteSettings, State, apply, decide,
};
use ackord_replica::{PartitionHandle, ProposeError};
use ackord_wire::Code;
use ackord_wire::frame::Accepted;
use tokio::time::Instant;

use crate::broker::Refused;
use crate::token;
use crate::translate::{propose_code, refusal_code, rejection_code, rejection_detail};

/// Between the first two tries; doubled from try to try up to [`RETRY_MAX`].
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(10);
/// Between two tries at most.
pub(crate) const RETRY_MAX: Duration = Duration::from_millis(500);
/// How long the end of a session is tried to be told.
const LAST_WORD_DEADLINE: Duration = Duration::from_secs(10);

/// Proposes until the fate is known or the deadline has passed. The command must carry an identity
/// under which the state recognises a repeat.
pub(crate) async fn propose_until(
    partition: &PartitionHandle,
    command: Command,
    patience: Duration,
) -> Result<Outcome, Refused> {
    let deadline = Instant::now() + patience;
    let mut fate_unknown = false;
    let mut pause = RETRY_MIN;
    loop {
        let error = match partition.try_propose(command.clone()) {
            Ok(pending) => match tokio::time::timeout_at(deadline, pending).await {
                Ok(Ok(outcome)) => return judged(outcome),
                Ok(Err(error)) => error,
                Err(_elapsed) => ProposeError::Unknown,
            },
            Err(error) => error,
        };
        fate_unknown |= error == ProposeError::Unknown;
        let again = match error {
            ProposeError::Busy | ProposeError::Unavailable | ProposeError::Unknown => {
                !partition.is_out()
            }
            // These take longer to pass than a caller waits.
            ProposeError::OverCapacity | ProposeError::DiskFull => false,
        };
        if !again || Instant::now() + pause >= deadline {
            // A known failure of a later try does not tell what became of an earlier one.
            let code = if fate_unknown { Code::UnknownOutcome } else { propose_code(error) };
            return Err((code, error.to_string()));
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(RETRY_MAX);
    }
}

/// What the command would come to now, in a site that does not exist yet if need be. Proposes
/// nothing and changes nothing.
pub(crate) fn consider(
    partition: &PartitionHandle,
    site: &SiteName,
    command: &Command,
    settings: SiteSettings,
) -> Result<(), Refused> {
    let now = partition.now();
    let outcome = partition.read(|state| {
        if state.site(site.as_str()).is_some() {
            return decide(state, now, command).outcome;
        }
        let mut scratch = State::new();
        let create = AdminAction::CreateSite { settings, incarnation: Incarnation(1) };
        let request = RequestId(token::random());
        let create = Command::Admin { request, site: site.clone(), action: create };
        let commands = vec![Command::SetLimits(state.limits().clone()), create];
        apply(&mut scratch, &Batch { stamp: now, commands });
        decide(&scratch, now, command).outcome
    });
    judged(outcome).map(drop)
}

pub(crate) fn judged(outcome: Outcome) -> Result<Outcome, Refused> {
    match outcome {
        Outcome::Refused(refusal) => Err(refused(&refusal)),
        Outcome::ServiceAttached { .. }
        | Outcome::Raised(_)
        | Outcome::ClientAttached { .. }
        | Outcome::Subscribed(_)
        | Outcome::Advanced { .. }
        | Outcome::Done
        | Outcome::Ticked { .. }
        | Outcome::Redeemed { .. }
        | Outcome::Joined { .. } => Ok(outcome),
    }
}

fn refused(refusal: &Refusal) -> Refused {
    (refusal_code(refusal), refusal_detail(refusal))
}

/// What a keyed raise came to, for its caller.
pub(crate) fn raised(raised: &Raised) -> Result<Accepted, Refused> {
    let accepted = |instance_id, ignored| {
        Ok(Accepted { seq: 0, instance_id, ignored, duplicate: raised.duplicate })
    };
    match &raised.decision {
        Decision::Stored(id) => accepted(Some(id.0), false),
        Decision::Ignored(id) => accepted(Some(id.0), true),
        Decision::Forgotten => accepted(None, false),
        Decision::Rejected(rejection) => {
            Err((rejection_code(*rejection), rejection_detail(*rejection).into_owned()))
        }
    }
}

/// Ends the sessions of services that an earlier run of this node left open.
pub(crate) async fn end_left_behind(partition: &PartitionHandle, place: Place) {
    // What that run proposed last is decided before it is looked at.
    while partition.linearize().await.is_err() {
        tokio::time::sleep(RETRY_MAX).await;
    }
    let left = partition.read(|state| left_behind(state, place));
    for command in left {
        let result = propose_until(partition, command, LAST_WORD_DEADLINE).await;
        if let Err((code, detail)) = result {
            tracing::warn!(%code, detail, "a service that is gone is shown as online");
        }
    }
}

fn left_behind(state: &State, place: Place) -> Vec<Command> {
    let gone = |at: &Place| at.node == place.node && at.run != place.run;
    let of_site = |site: &Site| {
        let services = site.services().filter(|row| row.at.as_ref().is_some_and(gone));
        let detach = services.filter_map(|row| {
            let (site, service) = (site.name().clone(), row.id.clone());
            let session = *row.sessions.last()?;
            Some(Command::DetachService { site, service, session })
        });
        detach.collect::<Vec<_>>()
    };
    state.sites().flat_map(of_site).collect()
}

/// Proposes what a session leaves behind, and again if need be; nobody waits for it.
pub(crate) fn propose_last(partition: &PartitionHandle, command: Command) {
    let first = partition.try_propose(command.clone());
    // Without a runtime the process is ending, and the next attach will set it right.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let partition = partition.clone();
    runtime.spawn(async move {
        let told = match first {
            Ok(pending) => pending.await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            tracing::debug!(%error, "the end of a session is told later");
            let _nobody_waits = propose_until(&partition, command, LAST_WORD_DEADLINE).await;
        }
    });
}
