//! Clients that are away for long, again and again: meanwhile their queues turn over, events expire,
//! and the log is purged behind them. What they get when they are back is what the queues have.
//!
//! `nobody there: raise ─▶ read the queues ─▶ both come back ─▶ raise a little ─▶ both leave ─▶ again`
//!
//! Invariants: nothing is raised from the reading of the queues until both have caught up, so that
//! what each must get is known; one client has an account and a file, the other one nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ackord_endpoint::{ClientNotice, Event};
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, join_all};
use tokio::task::JoinHandle;

use super::progress::Progress;
use super::{Cast, Judged, OUTCOME, Workload};
use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::history::Handled;
use crate::listener::Listener;
use crate::oracle::{self, Expectations, Violation};
use crate::raiser::{self, Raiser};
use crate::seed::Seed;
use crate::site::{Account, Site, queueing, structure, with};
use crate::wait;

/// Pushed out by what is newer.
pub const SHORT: &str = "short";
/// Expires.
const BRIEF: &str = "brief";
/// How many of the first kind are retained.
pub const SIZE: usize = 30;
/// How long the second kind lives, and how far that may be off.
const LIFETIME: Duration = Duration::from_secs(4);
const SLACK: Duration = Duration::from_secs(1);
/// With an account and a file, and without either.
const KEPT: &str = "kept";
const GUEST: &str = "guest";
/// How long a node may take to show a queue before another one is asked.
const ANSWER: Duration = Duration::from_secs(3);
/// Raised at once.
const AT_ONCE: usize = 10;

/// See the module.
pub struct Returning {
    cast: Cast,
    turning: JoinHandle<Vec<Violation>>,
}

/// An event that is acknowledged.
struct Raised {
    id: u64,
    before: Instant,
    after: Instant,
}

async fn raise(raiser: &Raiser, progress: &Progress, kind: usize) -> Raised {
    let event = Event::new([SHORT, BRIEF][kind], Some(raiser::json(progress.next())));
    let before = Instant::now();
    let outcome = raiser.outcome(event).await.expect("an event is never refused");
    progress.acknowledge(before.elapsed());
    let id = outcome.instance_id.expect("an id");
    Raised { id, before, after: Instant::now() }
}

/// As [`wait::until_for`], of what needs no waiting itself, so that threads may share it.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + OUTCOME;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {OUTCOME:?} in vain for {what}");
        tokio::time::sleep(wait::POLL).await;
    }
}

/// What goes from one turn to the next.
struct Turns {
    site: Site,
    admins: Vec<Admin>,
    urls: Vec<String>,
    kept: Account,
    state: PathBuf,
    progress: Arc<Progress>,
    raiser: Raiser,
    /// All of each kind.
    raised: [Vec<Raised>; 2],
    violations: Vec<Violation>,
    seed: Seed,
}

impl Turns {
    /// Raises so many of a kind; all are acknowledged when this returns.
    async fn raise(&mut self, kind: usize, count: usize) {
        let mut left = count;
        while left > 0 {
            let these = left.min(AT_ONCE);
            let raises: Vec<_> =
                (0..these).map(|_| raise(&self.raiser, &self.progress, kind)).collect();
            self.raised[kind].extend(join_all(raises).await);
            left -= these;
        }
    }

    /// What a node that answers shows of a queue.
    async fn retained(&mut self, event: &str) -> Vec<u64> {
        loop {
            let at = self.seed.between(0, self.admins.len() as u64) as usize;
            let asked = self.admins[at].retained(&self.site.name, event);
            match tokio::time::timeout(ANSWER, asked).await {
                Ok(Ok(ids)) => return ids,
                Ok(Err(_)) | Err(_) => tokio::time::sleep(wait::POLL).await,
            }
        }
    }

    fn wrong(&mut self, detail: String) {
        self.violations.push(Violation { property: "queue_as_modelled", detail });
    }

    /// Reads both queues, and judges them by what was raised.
    async fn read(&mut self) -> [Vec<u64>; 2] {
        let short = self.retained(SHORT).await;
        let expected: Vec<u64> = self.raised[0].iter().map(|raised| raised.id).collect();
        let expected = &expected[expected.len().saturating_sub(SIZE)..];
        if short != expected {
            let detail = format!("{SHORT} should have {expected:?}, and has {short:?}");
            self.wrong(detail);
        }
        let brief = self.retained(BRIEF).await;
        let young = |raised: &&Raised| raised.before.elapsed() + SLACK < LIFETIME;
        let young = self.raised[1].iter().filter(young).map(|raised| raised.id);
        let gone: Vec<u64> = young.filter(|id| !brief.contains(id)).collect();
        if !gone.is_empty() {
            self.wrong(format!("{BRIEF}: {gone:?} expired too early"));
        }
        [short, brief]
    }

    async fn come_back(&mut self, client: usize) -> Listener {
        let turn = self.seed.between(0, self.urls.len() as u64) as usize;
        self.urls.rotate_left(turn);
        let builder = if client == 0 {
            super::crashing::until_free(&self.state).await;
            self.site.listener(&self.kept).state(&self.state)
        } else {
            self.site.stateless(GUEST)
        };
        let progress = self.progress.clone();
        let builder = builder.via_all(self.urls.clone());
        let builder = builder.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
        let builder = builder.handles(move |_: Handled| {
            progress.handle(client);
            async { Ok(()) }
        });
        builder.to(SHORT).to(BRIEF).start().await
    }

    /// What a client has handled of a kind since it had handled so many instances.
    fn handled(&self, client: &str, since: usize, event: &str) -> Vec<u64> {
        let handled = self.site.history.handled(client);
        let of = handled[since..].iter().filter(|handled| handled.event == event);
        of.map(|handled| handled.instance_id).collect()
    }

    /// Waits until a client that was away has everything that there is for it.
    async fn catches_up(&mut self, client: &str, since: usize, cursor: u64, short: &[u64]) {
        let newest = short.last().copied().unwrap_or(0).max(cursor);
        let last = || self.handled(client, since, SHORT).last().copied();
        until(&format!("{client} to get {newest}"), || last().unwrap_or(cursor) >= newest).await;
        let deadline = Instant::now() + OUTCOME;
        loop {
            let brief = self.retained(BRIEF).await;
            let handled = self.handled(client, 0, BRIEF).last().copied().unwrap_or(0);
            let since_then = self.handled(client, since, BRIEF).last().copied().unwrap_or(0);
            let reached = if client == GUEST { since_then } else { handled };
            if brief.last().is_none_or(|newest| *newest <= reached) {
                return;
            }
            assert!(Instant::now() < deadline, "{client} does not get what is retained: {brief:?}");
            tokio::time::sleep(wait::POLL).await;
        }
    }

    /// One turn: both come back, catch up, get a little more and leave again.
    async fn turn(&mut self) {
        let more = self.seed.between(5, 3 * SIZE as u64) as usize;
        self.raise(1, 3).await;
        self.raise(0, more).await;
        self.raise(1, 2).await;
        let away = self.seed.millis(0, LIFETIME.as_millis() as u64);
        tokio::time::sleep(away).await;
        let [short, brief] = self.read().await;
        let (since, cursors) = self.marks();
        let back = Instant::now();
        let mut listeners = Vec::new();
        for client in 0..2 {
            listeners.push(self.come_back(client).await);
        }
        for (client, name) in [KEPT, GUEST].into_iter().enumerate() {
            self.catches_up(name, since[client], cursors[client][0], &short).await;
        }
        let [mut live_short, mut live_brief] = [Vec::new(), Vec::new()];
        for (kind, (live, count)) in
            [(&mut live_short, 6), (&mut live_brief, 2)].into_iter().enumerate()
        {
            let begun = self.raised[kind].len();
            self.raise(kind, count).await;
            live.extend(self.raised[kind][begun..].iter().map(|raised| raised.id));
        }
        for (client, name) in [KEPT, GUEST].into_iter().enumerate() {
            self.catches_up(name, since[client], cursors[client][0], &live_short).await;
        }
        for (client, name) in [KEPT, GUEST].into_iter().enumerate() {
            let cursor = cursors[client];
            let all = short.iter().chain(&live_short).copied();
            let expected: Vec<u64> = all.filter(|id| *id > cursor[0]).collect();
            let got = self.handled(name, since[client], SHORT);
            if got != expected {
                self.wrong(format!("{name} should get {expected:?} of {SHORT}, and got {got:?}"));
            }
            let possible: BTreeSet<u64> = brief.iter().chain(&live_brief).copied().collect();
            let got = self.handled(name, since[client], BRIEF);
            if got.iter().any(|id| !possible.contains(id) || *id <= cursor[1]) {
                self.wrong(format!("{name} got {got:?} of {BRIEF}, retained were {possible:?}"));
            }
            // Its attach brought the time with it.
            let old = |raised: &&Raised| back.duration_since(raised.after) > LIFETIME + SLACK;
            let old = self.raised[1].iter().filter(old).map(|raised| raised.id);
            let old: Vec<u64> = old.filter(|id| name == KEPT && got.contains(id)).collect();
            if !old.is_empty() {
                self.wrong(format!("{name} got {old:?} of {BRIEF}, which had expired"));
            }
        }
        self.leave(listeners).await;
    }

    /// How much each client has handled, and its cursors.
    fn marks(&self) -> ([usize; 2], [[u64; 2]; 2]) {
        let since = [KEPT, GUEST].map(|client| self.site.history.count_handled(client));
        let last = |event| self.handled(KEPT, 0, event).last().copied().unwrap_or(0);
        (since, [[last(SHORT), last(BRIEF)], [0, 0]])
    }

    /// Both go, once the broker has confirmed what the first one handled, unless that has expired: when
    /// its acknowledgement was lost with a connection, it is not sent again to be acknowledged.
    async fn leave(&mut self, listeners: Vec<Listener>) {
        let [short, brief] = self.marks().1[0];
        let at = |turns: &Self, event| turns.site.history.committed(KEPT, event);
        until("the cursor of kept to be confirmed", || at(self, SHORT) >= short).await;
        let deadline = Instant::now() + OUTCOME;
        while at(self, BRIEF) < brief {
            let confirmed = at(self, BRIEF);
            let due = |id: &u64| *id > confirmed && *id <= brief;
            let left: Vec<u64> = self.retained(BRIEF).await.into_iter().filter(due).collect();
            let of_kept = |listener: &&Listener| listener.name() == KEPT;
            let was_lost =
                |notice: &ClientNotice| matches!(notice, ClientNotice::Disconnected { .. });
            let lost =
                listeners.iter().find(of_kept).is_some_and(|it| it.notices.count(was_lost) > 0);
            if left.is_empty() && lost {
                break;
            }
            assert!(Instant::now() < deadline, "{BRIEF} is not confirmed to {KEPT} up to {brief}");
            tokio::time::sleep(wait::POLL).await;
        }
        for listener in listeners {
            if listener.name() == KEPT && self.seed.between(0, 2) == 0 {
                listener.close().await;
            } else {
                listener.kill().await;
            }
        }
    }

    async fn run(mut self) -> Vec<Violation> {
        let mut turns = 0;
        while turns == 0 || !self.progress.is_stopping() {
            self.turn().await;
            turns += 1;
        }
        eprintln!("returning: {} events, back {turns} times", self.progress.acknowledged());
        assert_eq!(self.raiser.close().await, 0, "everything is acknowledged");
        self.violations
    }
}

impl Returning {
    /// Makes the site and starts everybody.
    pub async fn start(cluster: &Cluster, dir: &Path, seed: Seed) -> Self {
        let brief = with(queueing(BRIEF, 1000), "lifetime_s", LIFETIME.as_secs().into());
        let structure = structure(&[queueing(SHORT, SIZE as u32), brief]);
        let site =
            Site::new_at(cluster.admin(1), cluster.urls_from(1), "returning", &structure).await;
        let service = site.service("turns-over").await;
        let raiser = site.raiser(&service).via_all(cluster.urls_from(3));
        let raiser = raiser.with(|endpoint| endpoint.keepalive(Duration::from_secs(10)));
        let progress = Arc::<Progress>::default();
        let turns = Turns {
            admins: cluster.nodes().map(|node| cluster.admin(node)).collect(),
            urls: cluster.urls_from(1),
            kept: site.guest(KEPT).await,
            state: dir.join("returning.state"),
            progress: progress.clone(),
            raiser: raiser.start().await,
            raised: [Vec::new(), Vec::new()],
            violations: Vec::new(),
            site: site.clone(),
            seed,
        };
        let cast = Cast::new(&site, &[KEPT, GUEST], &progress);
        Self { cast, turning: tokio::spawn(turns.run()) }
    }

    async fn end(self, cluster: &Cluster) -> Judged {
        let Cast { site, progress, .. } = self.cast.at_end(cluster);
        let ended = tokio::time::timeout(OUTCOME, self.turning).await;
        let mut violations = ended.expect("returning: a turn hangs").expect("no panic");
        let newest = site.retained(SHORT).await.last().copied().unwrap_or(0);
        site.until_cursor(KEPT, SHORT, newest).await;
        let expectations = Expectations {
            forgetful: [GUEST.to_owned()].into(),
            ordered_services: ["turns-over".to_owned()].into(),
            unique_events: [SHORT, BRIEF].map(str::to_owned).into(),
            ..Expectations::default()
        };
        violations.extend(oracle::judge(&site.history, &expectations));
        let handled = progress.handled().iter().sum();
        Judged { acknowledged: progress.acknowledged(), handled, violations }
    }
}

impl Workload for Returning {
    fn cast(&self) -> &Cast {
        &self.cast
    }

    fn finish<'a>(self: Box<Self>, cluster: &'a Cluster) -> LocalBoxFuture<'a, Judged> {
        (*self).end(cluster).boxed_local()
    }
}
