//! Raises without a session, for callers over HTTP: one, or several in their order.
//!
//! `event ─▶ command under its key ─▶ proposed until its fate is known ─▶ figures, span ─▶ answer`

use ackord_machine::site::{Command, NewEvent, Outcome, RaiseKeyed, Raising, ServiceId, SiteName};
use ackord_wire::Code;
use ackord_wire::frame::Accepted;
use tokio::time::Instant;

use crate::batch::{self, Fate, KeyedEvent};
use crate::broker::{Broker, Refused};
use crate::proposals;

impl Broker {
    /// Raises an event for an HTTP caller under an idempotency key, without a session.
    ///
    /// # Errors
    /// What the site's rules refuse or reject, or `busy`, `over-capacity`, `disk-full`,
    /// `unavailable`, `unknown-outcome`.
    pub async fn raise_keyed(
        &self,
        site: &SiteName,
        service: &ServiceId,
        key: String,
        mut event: NewEvent,
    ) -> Result<Accepted, Refused> {
        let publishing = self.publishing(&mut event).map(|begun| (begun, event.name.clone()));
        let by = service.clone();
        let (site_name, service) = (site.clone(), service.clone());
        let raise = RaiseKeyed { site: site_name, service, key, event };
        let command = Command::from(Raising::Keyed(raise));
        let (patience, begun) = (self.inner.options.admin_deadline, Instant::now());
        let outcome = proposals::propose_until(&self.partition(site), command, patience).await;
        let result = outcome.and_then(|outcome| match outcome {
            Outcome::Raised(raised) => proposals::raised(&raised),
            other => Err((Code::Internal, format!("unexpected answer to raise: {other:?}"))),
        });
        self.count_keyed(result.as_ref(), begun);
        if let Some((publishing, event)) = publishing {
            self.published(publishing, (site, &by, event.as_str()), result.as_ref());
        }
        result
    }

    /// Raises events for an HTTP caller in their order, without a session: none is decided before
    /// all that come before it are. The first that is refused for now stops the rest.
    pub async fn raise_in_order(
        &self,
        site: &SiteName,
        service: &ServiceId,
        events: &[KeyedEvent],
    ) -> Vec<Fate> {
        let (partition, patience) = (self.partition(site), self.inner.options.admin_deadline);
        let begun = Instant::now();
        let (mut owned, mut publishing) = (Vec::new(), Vec::new());
        let mut events = events;
        if self.inner.spans.is_on() {
            owned.extend_from_slice(events);
            publishing = owned
                .iter_mut()
                .map(|it: &mut KeyedEvent| self.publishing(&mut it.event))
                .collect();
            events = &owned;
        }
        let fates = batch::raise_in_order(&partition, site, service, events, patience).await;
        for ((fate, begun), event) in fates.iter().zip(publishing).zip(events) {
            let result = match fate {
                Fate::Accepted(accepted) => Ok(accepted),
                Fate::Refused(refused) => Err(refused),
                Fate::NotAttempted { .. } => continue,
            };
            if let Some(begun) = begun {
                self.published(begun, (site, service, event.event.name.as_str()), result);
            }
        }
        for fate in &fates {
            match fate {
                Fate::Accepted(accepted) => self.count_keyed(Ok(accepted), begun),
                Fate::Refused(refused) => self.count_keyed(Err(refused), begun),
                Fate::NotAttempted { .. } => {}
            }
        }
        fates
    }

    /// Events of a batch are answered together: each took as long as all of them.
    fn count_keyed(&self, result: Result<&Accepted, &Refused>, begun: Instant) {
        if result.is_ok_and(|accepted| !accepted.duplicate) {
            self.inner.metrics.publish.observe(begun.elapsed().as_secs_f64());
        }
        let label = match result {
            Ok(accepted) if accepted.duplicate => "duplicate",
            Ok(_) => "accepted",
            Err((code, _)) => code.as_str(),
        };
        self.inner.metrics.keyed_raises.with_label_values(&[label]).inc();
    }
}
