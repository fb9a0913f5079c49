//! Sessions of stateful clients that have no connection, and acknowledgements that come past one.
//!
//! Invariants: a session without connection is an attach like any other, so the newest wins here
//! too; while it lasts nothing but another attach ends it, whatever node its client asks; whoever
//! acknowledges, the session that delivered hears of it.

use super::super::command::{Advance, AttachPolling};
use super::super::ids::Stamp;
use super::super::outcome::{Outcome, Refusal};
use super::super::row::{PollingRow, Row};
use super::super::site::Receiver;
use super::super::state::State;
use super::{Verdict, client, find};

pub(super) fn acknowledge(state: &State, advance: &Advance) -> Result<Verdict, Refusal> {
    let mut verdict = client::advance(state, advance)?;
    if !verdict.writes.is_empty() {
        let (site, _) = find(state, &advance.site)?;
        client::wake(site, &advance.client, &mut verdict);
    }
    Ok(verdict)
}

pub(super) fn attach(
    state: &State,
    now: Stamp,
    attach: &AttachPolling,
) -> Result<Verdict, Refusal> {
    let (site, _) = find(state, &attach.site)?;
    let row = client::find_client(site, &attach.client)?;
    let until = Stamp(now.0.saturating_add(u64::from(attach.lasts_ms)));
    let lasting = site
        .polling(&attach.client)
        .filter(|polling| polling.epoch == row.epoch && now < polling.until);
    if let Some(polling) = lasting {
        site.admits(&Receiver::Client(attach.client.clone()))?;
        let (epoch, incarnation) = (polling.epoch, site.incarnation());
        let mut verdict = Verdict::new(Outcome::ClientAttached { epoch, incarnation });
        let until = polling.until.max(until);
        verdict.put(Row::Polling(PollingRow { until, ..polling.clone() }));
        return Ok(verdict);
    }
    let mut verdict = client::attach(state, &attach.site, &attach.client, attach.claim)?;
    if let Outcome::ClientAttached { epoch, .. } = verdict.outcome {
        let (site, client) = (attach.site.clone(), attach.client.clone());
        verdict.put(Row::Polling(PollingRow { site, client, epoch, until }));
    }
    Ok(verdict)
}
