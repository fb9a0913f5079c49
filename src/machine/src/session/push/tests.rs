//! Lanes against the state, with receivers that fail, leaders that change and proposals that get lost.

mod changes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::session::{Failed, View};
use crate::site::*;

const SITE: &str = "s";

/// A site with the queueing event `q` and the client `c`.
struct World {
    state: State,
    now: u64,
    requests: u64,
    keys: u64,
}

fn spec(mode: Mode) -> PushSpec {
    PushSpec {
        client: "c".into(),
        event: "q".into(),
        target: PushTarget::Http { url: "http://receiver.example/".to_owned() },
        quality: Quality { mode, ..Quality::default() },
        start: Start::Earliest,
        send_timeout_ms: None,
        retry_count: -1,
        discard_interval_ms: Some(1000),
        durable: true,
        queue_max: None,
        on_overflow: Overflow::Remove,
        max_attempts: None,
        format: PushFormat::Ackord,
        secret: None,
        paused: false,
    }
}

impl World {
    fn new(spec: PushSpec) -> Self {
        let mut world = Self { state: State::new(), now: 1000, requests: 0, keys: 0 };
        let limits = Limits { queue_size_max: 100_000, ..Limits::default() };
        world.run(Command::SetLimits(limits));
        let settings = SiteSettings {
            multi_service: false,
            constructible: true,
            guests_allowed: true,
            stateless_guests_allowed: true,
        };
        world.act(AdminAction::CreateSite { settings, incarnation: Incarnation(1) });
        let kind = Kind::Queueing { lifetime_s: 3600, size: 100_000, access: Access::Everyone };
        let structure = Structure {
            service_type: "T".to_owned(),
            contract_author: "A".to_owned(),
            guests: GuestSupport::GuestAndStateless,
            roles: Vec::new(),
            owner_role: None,
            events: vec![EventDefinition { name: "q".into(), kind }],
        };
        world.act(AdminAction::ApplyStructure {
            structure,
            rebuild: false,
            incarnation: Incarnation(1),
        });
        world.act(AdminAction::CreateService { id: "v".into() });
        world.act(AdminAction::CreateClient { id: "c".into(), user: None });
        world.act(AdminAction::PutPush { id: "p".into(), spec: Box::new(spec) });
        world
    }

    fn run(&mut self, command: Command) -> Outcome {
        let batch = Batch { stamp: Stamp(self.now), commands: vec![command] };
        apply(&mut self.state, &batch).outcomes.swap_remove(0)
    }

    fn act(&mut self, action: AdminAction) {
        self.requests += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.requests.to_le_bytes());
        let request = RequestId(id);
        let outcome = self.run(Command::Admin { request, site: SITE.into(), action });
        assert_eq!(outcome, Outcome::Done);
    }

    fn raise(&mut self, count: u64) {
        for _ in 0..count {
            self.keys += 1;
            let event = NewEvent {
                name: "q".into(),
                category: None,
                arguments: Some(Arguments {
                    content_type: "application/json".to_owned(),
                    data: "1".into(),
                }),
                client: None,
                lifetime_s: None,
                trace: None,
            };
            let key = format!("{}", self.keys);
            let raise = RaiseKeyed { site: SITE.into(), service: "v".into(), key, event };
            let outcome = self.run(Command::RaiseKeyed(raise));
            assert!(matches!(outcome, Outcome::Raised(_)), "{outcome:?}");
        }
    }

    fn row(&self) -> &PushRow {
        self.state.site(SITE).unwrap().push("p").unwrap()
    }

    fn view(&self) -> View<'_> {
        View::new(&self.state, &SITE.into(), self.now, Stamp(self.now))
    }
}

/// A lane with what it waits for.
struct Driver {
    lane: PushLane,
    requests: VecDeque<(Token, PushRequest)>,
    proposals: VecDeque<(Token, Command)>,
    over: Option<Over>,
}

impl Driver {
    fn new(session: u64) -> Self {
        let lane = PushLane::new(SITE.into(), "p".into(), SessionId(session));
        Self { lane, requests: VecDeque::new(), proposals: VecDeque::new(), over: None }
    }

    fn tell(&mut self, tell: impl FnOnce(&mut PushLane, &mut Vec<PushOutput>)) {
        let mut out = Vec::new();
        tell(&mut self.lane, &mut out);
        for output in out {
            match output {
                PushOutput::Request { token, request } => {
                    self.requests.push_back((token, *request));
                }
                PushOutput::Propose { token, command } => {
                    self.proposals.push_back((token, command));
                }
                PushOutput::Over(over) => self.over = Some(over),
            }
        }
    }

    fn wake(&mut self, world: &World) {
        self.tell(|lane, out| lane.on_wake(world.view(), out));
    }

    fn answer(&mut self, world: &World, token: Token, answer: PushAnswer) {
        self.tell(|lane, out| lane.on_answer(token, answer, world.view(), out));
    }

    /// Carries all proposals out.
    fn commit(&mut self, world: &mut World) {
        while let Some((token, command)) = self.proposals.pop_front() {
            let outcome = world.run(command);
            self.tell(|lane, out| lane.on_outcome(token, Ok(outcome), world.view(), out));
        }
    }

    /// Commits until nothing moves, and hands the requests out.
    fn settle(&mut self, world: &mut World) -> Vec<(Token, PushRequest)> {
        self.wake(world);
        self.commit(world);
        self.requests.drain(..).collect()
    }

    /// The instances that are sent now, one request at a time answered alike.
    fn serve(&mut self, world: &mut World, answer: PushAnswer) -> Vec<u64> {
        let mut sent = Vec::new();
        let mut open: VecDeque<_> = self.settle(world).into();
        while let Some((token, request)) = open.pop_front() {
            sent.extend(request.parcels.iter().map(|parcel| parcel.instance.id.0));
            self.answer(world, token, answer);
            open.extend(self.settle(world));
        }
        sent
    }
}

fn ids(requests: &[(Token, PushRequest)]) -> Vec<Vec<u64>> {
    let of = |request: &PushRequest| {
        request.parcels.iter().map(|parcel| parcel.instance.id.0).collect::<Vec<_>>()
    };
    requests.iter().map(|(_, request)| of(request)).collect()
}

#[test]
fn ordered_sends_one_and_commits_before_the_next() {
    let mut world = World::new(spec(Mode::Ordered));
    world.raise(3);
    let mut driver = Driver::new(1);
    let first = driver.settle(&mut world);
    assert_eq!(ids(&first), [[1]]);
    driver.answer(&world, first[0].0, PushAnswer::Delivered);
    assert!(driver.requests.is_empty(), "the cursor is not committed");
    assert_eq!(world.row().cursor, InstanceId(0));
    assert_eq!(ids(&driver.settle(&mut world)), [[2]]);
    assert_eq!((world.row().cursor, world.row().delivered), (InstanceId(1), 1));
}

#[test]
fn a_window_holds_as_many_as_it_says() {
    for (window, expected) in [(5, 5), (1, 1)] {
        let mut of = spec(Mode::Twoway);
        of.quality.window = Some(window);
        let mut world = World::new(of);
        world.raise(20);
        let mut driver = Driver::new(1);
        let open = driver.settle(&mut world);
        assert_eq!(open.len(), expected);
        // Out of order: the cursor waits for the first.
        if let [.., (last, _)] = &open[..]
            && expected > 1
        {
            driver.answer(&world, *last, PushAnswer::Delivered);
            assert!(driver.settle(&mut world).is_empty(), "the window begins at the cursor");
            assert_eq!(world.row().cursor, InstanceId(0));
        }
        for (token, _) in &open[..expected.max(2) - 1] {
            driver.answer(&world, *token, PushAnswer::Delivered);
        }
        assert_eq!(driver.settle(&mut world).len(), expected);
        assert_eq!(world.row().cursor, InstanceId(expected as u64));
    }
}

#[test]
fn a_batch_goes_when_its_first_event_has_waited() {
    let mut of = spec(Mode::Batch);
    of.quality.flush_ms = Some(200);
    let mut world = World::new(of);
    let mut driver = Driver::new(1);
    driver.settle(&mut world);
    let start = world.now;
    let mut batches = Vec::new();
    for step in (0..=500).step_by(10) {
        world.now = start + step;
        world.raise(u64::from([0, 50, 100, 250].contains(&step)));
        for (token, request) in driver.settle(&mut world) {
            batches.push((step, request.parcels.len()));
            driver.answer(&world, token, PushAnswer::Delivered);
        }
    }
    assert_eq!(batches, [(200, 3), (450, 1)]);
}

#[test]
fn a_batch_that_may_not_go_is_not_due_all_the_time() {
    let mut of = spec(Mode::Batch);
    of.quality.flush_ms = Some(20);
    of.retry_count = -1;
    let mut world = World::new(of);
    world.raise(2);
    let mut driver = Driver::new(1);
    driver.settle(&mut world);
    world.now += 20;
    let first = driver.settle(&mut world);
    assert_eq!(ids(&first), [[1, 2]]);
    // What comes meanwhile starts the timer anew; then the receiver is offline for a while.
    world.raise(3);
    driver.settle(&mut world);
    driver.answer(&world, first[0].0, PushAnswer::Failed(Trouble::Timeout));
    driver.settle(&mut world);
    assert!(matches!(world.row().state, PushState::Offline { .. }));
    for _ in 0..10 {
        world.now += 20;
        driver.settle(&mut world);
        let due = driver.lane.next_deadline();
        assert!(due.is_none_or(|at| at > world.now), "{due:?} at {}", world.now);
    }
}

#[test]
fn what_waits_beyond_the_bound_is_dropped_but_not_what_is_under_way() {
    let of = PushSpec {
        queue_max: Some(2000),
        on_overflow: Overflow::DropOldest,
        ..spec(Mode::Ordered)
    };
    let mut world = World::new(of);
    let mut driver = Driver::new(1);
    world.raise(1);
    let first = driver.settle(&mut world);
    world.raise(4999);
    world.now += 1000;
    assert!(driver.settle(&mut world).is_empty());
    driver.answer(&world, first[0].0, PushAnswer::Delivered);
    let sent = driver.serve(&mut world, PushAnswer::Delivered);
    assert_eq!(sent, (3001..=5000).collect::<Vec<_>>());
    assert_eq!((world.row().delivered, world.row().dropped), (2001, 2999));
}

#[test]
fn what_overflows_may_end_the_subscription() {
    let of = PushSpec { queue_max: Some(2), ..spec(Mode::Ordered) };
    let mut world = World::new(of);
    let mut driver = Driver::new(1);
    world.raise(4);
    driver.settle(&mut world);
    world.now += 1000;
    driver.settle(&mut world);
    let because = Trouble::Overflow;
    assert!(matches!(world.row().state, PushState::Cancelled { because: b, .. } if b == because));
}

#[test]
fn one_failure_cancels_unless_it_is_tolerated() {
    let failed = PushAnswer::Failed(Trouble::Status(500));
    let mut world = World::new(PushSpec { retry_count: 0, ..spec(Mode::Ordered) });
    world.raise(2);
    let mut driver = Driver::new(1);
    assert_eq!(driver.serve(&mut world, failed), [1]);
    assert!(matches!(world.row().state, PushState::Cancelled { .. }));
    let audit: Vec<_> = world.state.audit_before(SITE, u64::MAX).collect();
    assert_eq!(audit[0].note.act, "push.cancelled");

    world.act(AdminAction::ResumePush { id: "p".into(), owner: None });
    assert_eq!(driver.serve(&mut world, PushAnswer::Delivered), [1, 2]);
}

#[test]
fn a_tolerated_failure_is_followed_by_a_probe_of_the_same() {
    let failed = PushAnswer::Failed(Trouble::Timeout);
    let mut world = World::new(PushSpec { retry_count: 2, ..spec(Mode::Twoway) });
    world.raise(1);
    let mut driver = Driver::new(1);
    assert_eq!(driver.serve(&mut world, failed), [1]);
    world.raise(3);
    assert!(driver.settle(&mut world).is_empty(), "offline");
    assert!(driver.lane.next_deadline().is_some());
    world.now += 1000;
    let probe = driver.settle(&mut world);
    assert_eq!((ids(&probe), probe[0].1.parcels[0].attempt), (vec![vec![1]], 2));
    assert_eq!(world.row().state, PushState::Probing);
    driver.answer(&world, probe[0].0, PushAnswer::Delivered);
    assert_eq!(driver.serve(&mut world, PushAnswer::Delivered), [2, 3, 4]);
    assert_eq!((world.row().state, world.row().failures), (PushState::Active, 0));
}

#[test]
fn what_is_not_durable_goes_on_with_what_comes() {
    let failed = PushAnswer::Failed(Trouble::Connect);
    let mut world = World::new(PushSpec { durable: false, ..spec(Mode::Ordered) });
    world.raise(3);
    let mut driver = Driver::new(1);
    driver.serve(&mut world, failed);
    world.raise(2);
    world.now += 1000;
    assert!(driver.settle(&mut world).is_empty(), "discarded");
    assert_eq!((world.row().dropped, world.row().state), (5, PushState::Probing));
    world.raise(1);
    assert_eq!(driver.serve(&mut world, PushAnswer::Delivered), [6]);
}

#[test]
fn attempts_may_be_bounded() {
    let failed = PushAnswer::Failed(Trouble::Status(400));
    let mut world = World::new(PushSpec { max_attempts: Some(2), ..spec(Mode::Ordered) });
    world.raise(2);
    let mut driver = Driver::new(1);
    for _ in 0..2 {
        assert_eq!(driver.serve(&mut world, failed), [1]);
        world.now += 1000;
    }
    assert_eq!(driver.serve(&mut world, PushAnswer::Delivered), [2]);
    assert_eq!((world.row().dropped, world.row().delivered), (1, 1));
}

#[test]
fn oneway_is_delivered_once_it_is_written() {
    let mut world = World::new(spec(Mode::Oneway));
    world.raise(12);
    let mut driver = Driver::new(1);
    let open = driver.settle(&mut world);
    assert_eq!(open.len(), 5);
    for (token, _) in &open {
        driver.answer(&world, *token, PushAnswer::Written);
    }
    let more = driver.settle(&mut world);
    assert_eq!(ids(&more), [[6], [7], [8], [9], [10]]);
    assert_eq!(world.row().cursor, InstanceId(5));
    // What was written is not sent again, whatever is answered.
    driver.answer(&world, open[0].0, PushAnswer::Failed(Trouble::Broken));
    driver.settle(&mut world);
    assert!(matches!(world.row().state, PushState::Offline { .. }));
    assert_eq!(world.row().cursor, InstanceId(5));
}

#[test]
fn what_takes_all_of_oneway_and_answers_nothing_fails_until_it_is_cancelled() {
    let mut of = spec(Mode::Oneway);
    of.retry_count = 2;
    let mut world = World::new(of);
    world.raise(12);
    let mut driver = Driver::new(1);
    for failures in 1..=3 {
        let open = driver.settle(&mut world);
        for (token, _) in &open {
            driver.answer(&world, *token, PushAnswer::Written);
        }
        for (token, _) in driver.settle(&mut world).iter().chain(&open) {
            driver.answer(&world, *token, PushAnswer::Failed(Trouble::Timeout));
        }
        driver.settle(&mut world);
        assert_eq!(world.row().failures, failures);
        world.now += 2000;
    }
    assert!(matches!(world.row().state, PushState::Cancelled { because: Trouble::Timeout, .. }));
}

#[test]
fn the_newer_agent_wins_and_the_older_sends_nothing() {
    let mut world = World::new(spec(Mode::Ordered));
    world.raise(2);
    let (mut old, mut new) = (Driver::new(1), Driver::new(2));
    let under_way = old.settle(&mut world);
    assert_eq!(ids(&new.settle(&mut world)), [[1]]);
    // Its answer comes too late: the cursor is not its own to move.
    old.answer(&world, under_way[0].0, PushAnswer::Delivered);
    assert!(old.settle(&mut world).is_empty());
    assert_eq!((old.over, world.row().cursor), (Some(Over::Replaced), InstanceId(0)));
}

#[test]
fn a_node_that_nobody_confirms_sends_nothing() {
    let mut world = World::new(spec(Mode::Ordered));
    let mut driver = Driver::new(1);
    driver.settle(&mut world);
    world.raise(1);
    let view = world.view().confirmed_before(crate::session::STALE_MS);
    driver.tell(|lane, out| lane.on_wake(view, out));
    assert!(driver.requests.is_empty());
    assert!(driver.lane.next_deadline().is_some(), "it looks again");
    assert_eq!(driver.settle(&mut world).len(), 1);
}

/// What happens in the random runs.
#[derive(Clone, Debug)]
enum Step {
    Raise(u64),
    Pass(u64),
    Answer { which: usize, answer: u8 },
    Commit,
    Lose,
    Repeat,
    Takeover,
    Resume,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..4u64).prop_map(Step::Raise),
        2 => (1..700u64).prop_map(Step::Pass),
        6 => (0..8usize, 0..8u8).prop_map(|(which, answer)| Step::Answer { which, answer }),
        6 => Just(Step::Commit),
        1 => Just(Step::Lose),
        1 => Just(Step::Repeat),
        1 => Just(Step::Takeover),
        1 => Just(Step::Resume),
    ]
}

fn answer_of(mode: Mode, number: u8) -> PushAnswer {
    match number {
        0 => PushAnswer::Failed(Trouble::Status(500)),
        1 => PushAnswer::Failed(Trouble::Timeout),
        2 => PushAnswer::NotSent,
        3 if mode == Mode::Oneway => PushAnswer::Written,
        _ => PushAnswer::Delivered,
    }
}

/// Everything that was raised is delivered in the end, in order, whatever fails in between.
fn run(mode: Mode, steps: Vec<Step>) {
    let mut of = spec(mode);
    of.quality.window = (mode == Mode::Twoway).then_some(3);
    let mut world = World::new(of);
    let mut session = 1;
    let mut driver = Driver::new(session);
    let mut open: Vec<(Token, PushRequest)> = Vec::new();
    let mut acknowledged: BTreeSet<u64> = BTreeSet::new();
    let mut failures_in_a_row: BTreeMap<u64, u32> = BTreeMap::new();
    let (mut cursor, mut raised) = (InstanceId(0), 0);
    let finishing =
        std::iter::repeat_n(Step::Commit, 400).enumerate().map(|(at, _)| match at % 4 {
            0 => Step::Pass(1100),
            1 | 3 => Step::Commit,
            _ => Step::Answer { which: 0, answer: 7 },
        });
    for step in steps.into_iter().chain(finishing) {
        match step {
            Step::Raise(count) => {
                world.raise(count);
                raised += count;
            }
            Step::Pass(ms) => world.now += ms,
            Step::Answer { which, answer } if !open.is_empty() => {
                let (token, request) = open.remove(which % open.len());
                let answer = answer_of(mode, answer);
                let of = request.parcels.iter().map(|parcel| parcel.instance.id.0);
                match answer {
                    PushAnswer::Delivered => acknowledged.extend(of),
                    PushAnswer::Written => {
                        acknowledged.extend(of);
                        open.push((token, request));
                    }
                    PushAnswer::Failed(_) => {
                        of.for_each(|id| *failures_in_a_row.entry(id).or_default() += 1);
                    }
                    PushAnswer::NotSent | PushAnswer::Sent { .. } => {}
                }
                driver.answer(&world, token, answer);
            }
            Step::Answer { .. } => {}
            Step::Commit => {
                driver.wake(&world);
                driver.commit(&mut world);
            }
            // It is applied, and nobody is told; or it is not.
            Step::Lose | Step::Repeat => {
                driver.wake(&world);
                if let Some((token, command)) = driver.proposals.pop_front() {
                    if matches!(step, Step::Repeat) {
                        world.run(command);
                    }
                    let failed = Err(Failed::Unknown);
                    driver.tell(|lane, out| lane.on_outcome(token, failed, world.view(), out));
                }
            }
            Step::Takeover => {
                // What the old one still has under way may yet be applied, too late.
                let late: Vec<_> = driver.proposals.drain(..).collect();
                session += 1;
                let mut newer = Driver::new(session);
                newer.settle(&mut world);
                let settled = world.row().clone();
                for (_, command) in late {
                    world.run(command);
                }
                assert_eq!(world.row().cursor, settled.cursor, "an older epoch is not obeyed");
                let attached = driver.lane.epoch().is_some();
                driver.wake(&world);
                assert_eq!(driver.over, attached.then_some(Over::Replaced));
                assert!(driver.requests.is_empty());
                open.clear();
                driver = Driver::new(session + 1);
                session += 1;
            }
            Step::Resume => world.act(AdminAction::ResumePush { id: "p".into(), owner: None }),
        }
        open.extend(driver.requests.drain(..));
        check(mode, &open, &mut cursor, &acknowledged, &world);
    }
    let expected: BTreeSet<u64> = (1..=raised).collect();
    assert_eq!(acknowledged, expected, "{mode:?}: {:?}", world.row());
    assert_eq!(world.row().cursor.0, raised);
}

fn check(
    mode: Mode,
    open: &[(Token, PushRequest)],
    cursor: &mut InstanceId,
    acknowledged: &BTreeSet<u64>,
    world: &World,
) {
    let row = world.row();
    assert!(row.cursor >= *cursor, "the cursor fell");
    *cursor = row.cursor;
    let missing = (1..=cursor.0).find(|id| !acknowledged.contains(id));
    assert_eq!(missing, None, "{mode:?}: the cursor passed what nobody got");
    match mode {
        Mode::Ordered | Mode::Batch => assert!(open.len() <= 1, "{mode:?}"),
        Mode::Twoway => {
            assert!(open.len() <= 3);
            let highest = open.iter().map(|(_, request)| request.parcels[0].instance.id.0).max();
            assert!(
                highest.is_none_or(|id| id <= cursor.0 + 2 * 3),
                "the window follows the cursor"
            );
        }
        Mode::Oneway | Mode::Datagram => {}
    }
    for (_, request) in open {
        let ids: Vec<_> = request.parcels.iter().map(|parcel| parcel.instance.id).collect();
        assert!(ids.is_sorted(), "{mode:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn ordered_delivers_all_in_order(steps in prop::collection::vec(step(), 1..120)) {
        run(Mode::Ordered, steps);
    }

    #[test]
    fn twoway_delivers_all(steps in prop::collection::vec(step(), 1..120)) {
        run(Mode::Twoway, steps);
    }

    #[test]
    fn batch_delivers_all_in_order(steps in prop::collection::vec(step(), 1..120)) {
        run(Mode::Batch, steps);
    }
}
