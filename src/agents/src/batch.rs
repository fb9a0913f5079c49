//! Raising many events of one caller in their order, each under a key of its own.
//!
//! `events ─▶ wave of proposals, each naming the key before its own ─▶ outcomes ─▶ Progress ─▶ next wave`
//!
//! Invariants: an event is decided only after all before it in its batch are, so the order in the
//! log is that of the batch whatever is lost or proposed again on the way; the first event that
//! may be decided later stops the batch, and nothing behind it is decided instead; an event is
//! never said not to have been attempted when it may have been decided.

use std::time::Duration;

use ackord_machine::session::refusal_detail;
use ackord_machine::site::{
    NewEvent, Outcome, RaiseAfter, RaiseKeyed, Raising, Refusal, ServiceId, SiteName,
};
use ackord_replica::{PartitionHandle, Pending, ProposeError};
use ackord_wire::Code;
use ackord_wire::frame::Accepted;
use tokio::time::Instant;

use crate::broker::{Broker, Refused};
use crate::proposals::{RETRY_MAX, RETRY_MIN, raised};
use crate::translate::{propose_code, refusal_code};

/// Events that are under way together.
const WAVE_MAX: usize = 256;

/// An event to be raised, and the key under which it is decided once.
#[derive(Clone, Debug)]
pub struct KeyedEvent {
    /// The idempotency key, 1..=255 bytes.
    pub key: String,
    /// The event.
    pub event: NewEvent,
}

/// What became of one event of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It was decided: stored, ignored, or known from before.
    Accepted(Accepted),
    /// It was rejected for good, refused, or nobody knows.
    Refused(Refused),
    /// It was not looked at, because one before it was refused for now.
    NotAttempted {
        /// The code of that one, or one that says to come again.
        code: Code,
        /// The place of that one in the batch.
        behind: usize,
    },
}

/// Raises these events in their order; the fate of each, in the same order.
pub(crate) async fn raise_in_order(
    partition: &PartitionHandle,
    site: &SiteName,
    service: &ServiceId,
    events: &[KeyedEvent],
    patience: Duration,
) -> Vec<Fate> {
    let deadline = Instant::now() + patience;
    let mut progress = Progress::new(events.len());
    let mut pause = RETRY_MIN;
    while progress.next < events.len() {
        let wave = send(partition, site, service, events, progress.next);
        let mut results = Vec::with_capacity(wave.len());
        for sent in wave {
            results.push(match sent {
                Ok(pending) => tokio::time::timeout_at(deadline, pending)
                    .await
                    .unwrap_or(Err(ProposeError::Unknown)),
                Err(error) => Err(error),
            });
        }
        match progress.take(results) {
            Step::Next => pause = RETRY_MIN,
            Step::Again(error) if Instant::now() + pause >= deadline => {
                return progress.stopped((propose_code(error), error.to_string()));
            }
            Step::Again(_) => {
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(RETRY_MAX);
            }
            Step::Stop(refused) => return progress.stopped(refused),
        }
    }
    progress.fates
}

impl Broker {
    /// How long a service waits until another idempotency key of it is remembered, if none comes
    /// before, as applied on this node; `None` when there is room.
    pub fn key_wait(&self, site: &SiteName, service: &ServiceId) -> Option<Duration> {
        let partition = self.partition(site);
        let now = partition.now();
        let at = partition.read(|state| {
            let keys_max = state.limits().keys_max;
            state.site(site.as_str())?.may_remember_at(service.as_str(), keys_max)
        });
        at.map(|at| Duration::from_millis(at.0.saturating_sub(now.0)))
    }
}

type Sent = Result<Pending, ProposeError>;

/// Proposes the events from `first` on, as many as go together; the last may not have gone.
fn send(
    partition: &PartitionHandle,
    site: &SiteName,
    service: &ServiceId,
    events: &[KeyedEvent],
    first: usize,
) -> Vec<Sent> {
    let mut wave = Vec::new();
    let mut before: Option<&str> = None;
    for KeyedEvent { key, event } in events.iter().skip(first).take(WAVE_MAX) {
        let raise = RaiseKeyed {
            site: site.clone(),
            service: service.clone(),
            key: key.clone(),
            event: event.clone(),
        };
        // What comes before the first of a wave is known to be decided, or to be refused for good.
        let sent = partition.try_propose(match before {
            None => Raising::Keyed(raise).into(),
            Some(before) => Raising::After(RaiseAfter { raise, after: before.to_owned() }).into(),
        });
        let gone = sent.is_ok();
        wave.push(sent);
        if !gone {
            break;
        }
        before = Some(key);
    }
    wave
}

/// How far a batch has come. Pure.
struct Progress {
    /// Of the events before `next`.
    fates: Vec<Fate>,
    /// The first event whose fate is not final.
    next: usize,
    /// Events of which a try ended in the dark and none has been answered since.
    in_the_dark: Vec<bool>,
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
enum Step {
    /// Go on with the next event.
    Next,
    /// The next event again, after a pause.
    Again(ProposeError),
    /// The next event is refused for longer than its caller waits.
    Stop(Refused),
}

/// What one answer says about its event.
enum Said {
    Final(Fate),
    /// The one before it was not decided.
    NotYet,
    Lost(ProposeError),
    ForNow(Refused),
}

impl Progress {
    fn new(events: usize) -> Self {
        Self { fates: Vec::with_capacity(events), next: 0, in_the_dark: vec![false; events] }
    }

    /// Takes the answers to a wave that began with the next event.
    fn take(&mut self, wave: Vec<Result<Outcome, ProposeError>>) -> Step {
        let first = self.next;
        let mut step = None;
        for (index, result) in (first..).zip(wave) {
            let lost = result == Err(ProposeError::Unknown);
            let said = say(result);
            if step.is_some() {
                // Behind one that is not final: it will be asked about again.
                self.in_the_dark[index] |= lost || matches!(said, Said::Final(Fate::Accepted(_)));
                continue;
            }
            match said {
                Said::Final(fate) => {
                    self.fates.push(fate);
                    self.next = index + 1;
                }
                // The one before it is final, though not decided: a new wave begins here.
                Said::NotYet if index > first => step = Some(Step::Next),
                Said::NotYet => {
                    let detail = "an event waits for one that it does not name".to_owned();
                    step = Some(Step::Stop((Code::Internal, detail)));
                }
                Said::Lost(error) => {
                    self.in_the_dark[index] |= lost;
                    step = Some(match error {
                        ProposeError::Busy | ProposeError::Unavailable | ProposeError::Unknown => {
                            Step::Again(error)
                        }
                        // These take longer to pass than a caller waits.
                        ProposeError::OverCapacity | ProposeError::DiskFull => {
                            Step::Stop((propose_code(error), error.to_string()))
                        }
                    });
                }
                Said::ForNow(refused) => step = Some(Step::Stop(refused)),
            }
        }
        step.unwrap_or(Step::Next)
    }

    /// The fates when nothing more is tried because the next event was refused like this.
    fn stopped(mut self, (code, detail): Refused) -> Vec<Fate> {
        let stopped_at = self.next;
        let waiting = match code {
            Code::UnknownOutcome => Code::Unavailable,
            code => code,
        };
        for index in stopped_at..self.in_the_dark.len() {
            self.fates.push(if self.in_the_dark[index] {
                // A known failure of a later try does not tell what became of an earlier one.
                let detail = ProposeError::Unknown.to_string();
                Fate::Refused((Code::UnknownOutcome, detail))
            } else if index == stopped_at {
                Fate::Refused((code, detail.clone()))
            } else {
                Fate::NotAttempted { code: waiting, behind: stopped_at }
            });
        }
        self.fates
    }
}

fn say(result: Result<Outcome, ProposeError>) -> Said {
    match result {
        Err(error) => Said::Lost(error),
        Ok(Outcome::Raised(decided)) => Said::Final(match raised(&decided) {
            Ok(accepted) => Fate::Accepted(accepted),
            Err(rejected) => Fate::Refused(rejected),
        }),
        Ok(Outcome::Refused(Refusal::NotYet)) => Said::NotYet,
        Ok(Outcome::Refused(refusal)) => {
            let refused = (refusal_code(&refusal), refusal_detail(&refusal));
            if refused.0.retryable() {
                Said::ForNow(refused)
            } else {
                Said::Final(Fate::Refused(refused))
            }
        }
        Ok(other) => {
            let detail = format!("unexpected answer to raise: {other:?}");
            Said::Final(Fate::Refused((Code::Internal, detail)))
        }
    }
}

#[cfg(test)]
mod tests {
    use ackord_machine::site::{Decision, InstanceId, Raised, Rejection};

    use super::*;

    fn stored(id: u64) -> Result<Outcome, ProposeError> {
        let decision = Decision::Stored(InstanceId(id));
        Ok(Outcome::Raised(Raised { duplicate: false, decision }))
    }

    fn rejected() -> Result<Outcome, ProposeError> {
        let decision = Decision::Rejected(Rejection::UnknownEvent);
        Ok(Outcome::Raised(Raised { duplicate: false, decision }))
    }

    fn refused(refusal: Refusal) -> Result<Outcome, ProposeError> {
        Ok(Outcome::Refused(refusal))
    }

    /// The code of each event's fate; those that were not attempted with a `-` in front.
    fn codes(fates: &[Fate]) -> Vec<String> {
        let code = |fate: &Fate| match fate {
            Fate::Accepted(accepted) => format!("{:?}", accepted.instance_id.unwrap_or_default()),
            Fate::Refused((code, _)) => code.to_string(),
            Fate::NotAttempted { code, .. } => format!("-{code}"),
        };
        fates.iter().map(code).collect()
    }

    #[test]
    fn what_is_refused_for_good_does_not_stop_the_others() {
        let mut progress = Progress::new(4);
        let wave = vec![stored(1), rejected(), refused(Refusal::KeyReused), stored(2)];
        assert_eq!(progress.take(wave), Step::Next);
        let expected = ["1", "unknown-event", "idempotency-key-reused", "2"];
        assert_eq!(codes(&progress.fates), expected);
    }

    #[test]
    fn what_is_refused_for_now_stops_those_behind_it() {
        let mut progress = Progress::new(4);
        let wave = vec![stored(1), refused(Refusal::TooManyKeys), refused(Refusal::NotYet)];
        let Step::Stop(cause) = progress.take(wave) else { panic!("it goes on") };
        let expected = [
            "1",
            "too-many-idempotency-keys",
            "-too-many-idempotency-keys",
            "-too-many-idempotency-keys",
        ];
        assert_eq!(codes(&progress.stopped(cause)), expected);
    }

    #[test]
    fn what_was_not_taken_is_tried_again_from_there() {
        let mut progress = Progress::new(3);
        let busy = Step::Again(ProposeError::Busy);
        assert_eq!(progress.take(vec![stored(1), Err(ProposeError::Busy)]), busy);
        assert_eq!(progress.next, 1);
        assert_eq!(progress.take(vec![stored(2), stored(3)]), Step::Next);
        assert_eq!(codes(&progress.fates), ["1", "2", "3"]);
    }

    #[test]
    fn one_that_waits_for_a_final_one_begins_a_new_wave() {
        let mut progress = Progress::new(2);
        let wave = vec![refused(Refusal::UnknownService), refused(Refusal::NotYet)];
        assert_eq!(progress.take(wave), Step::Next);
        assert_eq!(progress.next, 1);
    }

    #[test]
    fn what_may_have_happened_is_never_said_not_to_have_been_attempted() {
        let mut progress = Progress::new(4);
        let lost = || Err(ProposeError::Unknown);
        assert_eq!(progress.take(vec![lost(), lost()]), Step::Again(ProposeError::Unknown));
        let again = Step::Again(ProposeError::Unavailable);
        assert_eq!(progress.take(vec![Err(ProposeError::Unavailable)]), again);
        let fates = progress.stopped((Code::Unavailable, "no leader".to_owned()));
        let expected = ["unknown-outcome", "unknown-outcome", "-unavailable", "-unavailable"];
        assert_eq!(codes(&fates), expected);
    }

    #[test]
    fn a_full_disk_stops_at_once() {
        let mut progress = Progress::new(2);
        let Step::Stop(cause) = progress.take(vec![Err(ProposeError::DiskFull)]) else {
            panic!("it goes on");
        };
        assert_eq!(codes(&progress.stopped(cause)), ["disk-full", "-disk-full"]);
    }
}
