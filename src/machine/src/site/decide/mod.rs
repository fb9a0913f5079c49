//! The judge: a command against a state gives a verdict, and changes nothing itself.
//!
//! `batch ──apply──▶ for each command: decide ──▶ verdict ──absorb──▶ state`
//!
//! Invariants: `decide` is total and depends on its arguments alone; a refused command writes
//! nothing; the clock never goes back.

mod accounts;
mod admin;
mod client;
mod dead;
mod directory;
mod govern;
mod polling;
mod push;
mod raise;
mod restore;
mod service;
mod structure;
mod tick;

use sha2::{Digest as _, Sha256};

use super::command::{Batch, Claim, Command, RaiseAfter, SubscribeAs};
use super::ids::{Epoch, Incarnation, SessionId, SiteName, Stamp};
use super::limits::{INCARNATION_END, SESSIONS_REMEMBERED};
use super::outcome::{Effect, Outcome, Refusal};
use super::row::{HeadRow, Row, RowKey, SiteRow, Write};
use super::site::Site;
use super::state::State;
use super::trace::Raising;
use super::validate::invalid;

/// What a command comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// How the state changes, in order.
    pub writes: Vec<Write>,
    /// The answer to the proposer.
    pub outcome: Outcome,
    /// Whom to wake.
    pub effects: Vec<Effect>,
}

impl Verdict {
    fn new(outcome: Outcome) -> Self {
        Self { writes: Vec::new(), outcome, effects: Vec::new() }
    }

    fn put(&mut self, row: Row) {
        self.writes.push(Write::Put(row));
    }

    fn delete(&mut self, key: RowKey) {
        self.writes.push(Write::Delete(key));
    }

    fn wake_site(&mut self, site: &Site) {
        self.effects.push(Effect::Site { site: site.name().clone() });
    }
}

impl From<Result<Self, Refusal>> for Verdict {
    fn from(result: Result<Self, Refusal>) -> Self {
        result.unwrap_or_else(|refusal| Self::new(Outcome::Refused(refusal)))
    }
}

/// What a batch came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// One per command, in order.
    pub outcomes: Vec<Outcome>,
    /// Whom to wake: sorted, each once.
    pub effects: Vec<Effect>,
    /// The rows that were written or deleted, in order of the writes; a key may occur repeatedly.
    pub dirty: Vec<RowKey>,
}

/// Judges one command at `stamp` (or the state's clock, if that is later).
pub fn decide(state: &State, stamp: Stamp, command: &Command) -> Verdict {
    let now = stamp.max(state.clock());
    match command {
        Command::AttachService(attach) => service::attach(state, attach).into(),
        Command::DetachService { site, service, session } => {
            service::detach(state, site, service, *session).into()
        }
        Command::Raise(raise) => raise::raise(state, now, raise, None).into(),
        Command::RaiseKeyed(raise) => raise::raise_keyed(state, now, raise, None, None).into(),
        Command::RaiseAfter(RaiseAfter { raise, after }) => {
            raise::raise_keyed(state, now, raise, Some(after), None).into()
        }
        Command::Traced(traced) => {
            let trace = Some(&traced.trace).filter(|trace| trace.is_sound());
            match &traced.raise {
                Raising::Session(raise) => raise::raise(state, now, raise, trace),
                Raising::Keyed(raise) => raise::raise_keyed(state, now, raise, None, trace),
                Raising::After(RaiseAfter { raise, after }) => {
                    raise::raise_keyed(state, now, raise, Some(after), trace)
                }
            }
            .into()
        }
        Command::AttachClient { site, client, claim } => {
            client::attach(state, site, client, *claim).into()
        }
        Command::Subscribe(subscribe) => client::subscribe(state, subscribe, None).into(),
        Command::SubscribeAs(SubscribeAs { subscribe, qualities }) => {
            client::subscribe(state, subscribe, Some(qualities)).into()
        }
        Command::Advance(advance) => client::advance(state, advance).into(),
        Command::Admin { request, site, action } => {
            admin::administer(state, now, *request, site, action, None).into()
        }
        Command::Tick { limit } => tick::tick(state, now, *limit),
        Command::SetLimits(limits) => admin::set_limits(state, limits).into(),
        Command::Directory(command) => directory::change(state.directory(), command).into(),
        Command::Restore(restore) => restore::restore(state, restore).into(),
        Command::Compare => Verdict::new(Outcome::Done),
        Command::Administer(asked) => govern::administer_for(state, now, asked).into(),
        Command::Record { site, notes } => govern::record(state, now, site, notes).into(),
        Command::IssueTicket(ticket) => govern::issue_ticket(state, now, ticket, None).into(),
        Command::DrawTicket(draw) => govern::draw_ticket(state, now, draw).into(),
        Command::RedeemTicket(redeem) => govern::redeem_ticket(state, now, redeem).into(),
        Command::Acknowledge(advance) => polling::acknowledge(state, advance).into(),
        Command::AttachPolling(attach) => polling::attach(state, now, attach).into(),
        Command::AttachPush(attach) => push::attach(state, attach).into(),
        Command::SettlePush(settle) => push::settle(state, now, settle).into(),
        Command::GiveUp(asked) => dead::give_up(state, now, asked).into(),
        Command::Renew { seed } => renew(state, *seed),
    }
}

/// New incarnations for all sites: queues, ids and cursors stay, what clients keep of them counts
/// no longer.
fn renew(state: &State, seed: u64) -> Verdict {
    let mut verdict = Verdict::new(Outcome::Done);
    for site in state.sites() {
        let Some(row) = &site.row else { continue };
        let hash = Sha256::new_with_prefix(seed.to_le_bytes()).chain_update(site.name().as_str());
        let drawn = hash.finalize().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let incarnation = Incarnation((drawn % INCARNATION_END).max(1));
        verdict.put(Row::Site(SiteRow { incarnation, ..row.clone() }));
        verdict.wake_site(site);
    }
    verdict
}

/// Applies one log entry: advances the clock, then judges each command against the state that
/// the one before left.
pub fn apply(state: &mut State, batch: &Batch) -> Applied {
    let mut applied = Applied::default();
    if batch.stamp > state.clock() {
        state.absorb(&Write::Put(Row::Clock(batch.stamp)));
        applied.dirty.push(RowKey::Clock);
    }
    let now = state.clock();
    for command in &batch.commands {
        let verdict = decide(state, now, command);
        for write in &verdict.writes {
            state.absorb(write);
            applied.dirty.push(write.key());
        }
        applied.outcomes.push(verdict.outcome);
        applied.effects.extend(verdict.effects);
    }
    applied.effects.sort();
    applied.effects.dedup();
    applied
}

/// The site that a command names, with its row.
fn find<'a>(state: &'a State, name: &SiteName) -> Result<(&'a Site, &'a SiteRow), Refusal> {
    let site = state.site(name.as_str()).ok_or(Refusal::UnknownSite)?;
    let row = site.row.as_ref().ok_or(Refusal::UnknownSite)?;
    Ok((site, row))
}

/// The head of a site, to be changed and put.
fn head(site: &Site) -> HeadRow {
    site.head.clone().unwrap_or_else(|| HeadRow {
        site: site.name().clone(),
        last_instance: site.head(),
        epoch_floor: site.epoch_floor(),
    })
}

/// The epoch of an account's next session: above its last one, and above those of any deleted
/// account that may have had its id.
fn next_epoch(site: &Site, last: Epoch) -> Epoch {
    last.max(site.epoch_floor()).next()
}

/// Judges a claim to be the newest session of an account: the sessions to remember from now on,
/// or `None` when it is the newest already. One that was replaced stays so; one that does not know
/// of the newest is told of it, and decides whether its peer is still there to take over.
fn take_over(
    claim: Claim,
    newest: Epoch,
    sessions: &[SessionId],
) -> Result<Option<Vec<SessionId>>, Refusal> {
    if sessions.last() == Some(&claim.session) {
        return Ok(None);
    }
    if sessions.contains(&claim.session) {
        return Err(Refusal::StaleEpoch { newest });
    }
    if claim.above < newest {
        return Err(Refusal::Overtaken { newest });
    }
    let forgotten = (sessions.len() + 1).saturating_sub(SESSIONS_REMEMBERED);
    Ok(Some(sessions.iter().skip(forgotten).copied().chain([claim.session]).collect()))
}

/// Judges the epoch that a session names; 0 is no session.
fn check_epoch(named: Epoch, newest: Epoch, sessions: &[SessionId]) -> Result<(), Refusal> {
    if named == newest && newest != Epoch::default() {
        return Ok(());
    }
    if named < newest && sessions.last() == Some(&SessionId::KICKED) {
        return Err(Refusal::Kicked);
    }
    Err(Refusal::StaleEpoch { newest })
}

/// Judges the life that a session delivered in.
fn check_incarnation_of(site: &Site, named: Incarnation) -> Result<(), Refusal> {
    if named == site.incarnation() { Ok(()) } else { Err(Refusal::StalePosition) }
}

fn check_incarnation(incarnation: Incarnation) -> Result<(), Refusal> {
    if incarnation.0 >= INCARNATION_END {
        let detail = format!("below {INCARNATION_END}, was {incarnation}");
        return Err(Refusal::Invalid(invalid("incarnation", detail)));
    }
    Ok(())
}
