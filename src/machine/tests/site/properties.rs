//! Properties over random histories: total, deterministic, rebuilt from rows, bounded, in order.
//!
//! Commands are drawn from a small world so that they meet; most are then guided towards what the
//! state expects (epochs, numbers, positions), the rest stay as wild as they came.

use std::collections::{BTreeMap, BTreeSet};

use ackord_machine::site::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::governed::governed;
use crate::world::*;

pub fn name<T: for<'a> From<&'a str> + std::fmt::Debug + 'static>(
    names: &'static [&'static str],
) -> impl Strategy<Value = T> {
    (0..names.len()).prop_map(move |index| T::from(names[index]))
}

pub fn site() -> impl Strategy<Value = SiteName> {
    name(&["s", "s", "s", "s", "t"])
}

pub fn service() -> impl Strategy<Value = ServiceId> {
    name(&["v", "v", "w"])
}

pub fn client() -> impl Strategy<Value = ClientId> {
    name(&["c", "c", "d", "bad id"])
}

fn user() -> impl Strategy<Value = UserId> {
    name(&["u", "owner"])
}

fn store() -> impl Strategy<Value = StorageUid> {
    (0u8..12).prop_map(uid)
}

fn roles() -> impl Strategy<Value = Vec<RoleName>> {
    vec(name(&["Admin", "Operator", "Stoker"]), 0..3)
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![
        Just(Access::Everyone),
        Just(Access::GuestsDenied),
        Just(Access::StatelessGuestsDenied),
        roles().prop_map(Access::Roles),
    ]
}

fn definition() -> impl Strategy<Value = EventDefinition> {
    let kind = prop_oneof![
        access().prop_map(|access| Kind::Replacing { access }),
        (58u32..70, 0u32..5, access()).prop_map(|(lifetime_s, size, access)| Kind::Queueing {
            lifetime_s,
            size,
            access
        }),
        (59u32..64).prop_map(|lifetime_s| Kind::Private { lifetime_s }),
    ];
    (name(&["r", "q", "p", "x"]), kind).prop_map(|(name, kind)| EventDefinition { name, kind })
}

fn structures() -> impl Strategy<Value = Structure> {
    let wild = (
        name::<String>(&["boiler", "boiler", "lamp", ""]),
        name::<RoleName>(&["Admin", "Operator"]),
        option::of(name(&["Admin"])),
        vec(definition(), 0..4),
    );
    let wild = wild.prop_map(|(service_type, role, owner_role, events)| Structure {
        service_type,
        roles: vec![role, "Stoker".into()],
        owner_role,
        ..structure(events)
    });
    prop_oneof![3 => Just(usual()), 2 => wild, 1 => Just(structure(vec![queueing("q", 2, 61)]))]
}

fn new_event() -> impl Strategy<Value = NewEvent> {
    let value = option::weighted(0.8, 0u8..3);
    let lifetime = option::weighted(0.2, 0u32..70);
    // One in three is not sound.
    let trace = option::weighted(0.3, (0u8..3).prop_map(|id| Box::new(context(id, ""))));
    let addressed = any::<bool>();
    (name::<String>(&["r", "q", "p", "x"]), value, addressed, client(), lifetime, trace).prop_map(
        |(name, value, addressed, client, lifetime_s, trace)| {
            let client = (addressed == (name == "p")).then_some(client).filter(|_| name == "p");
            let event = event(&name, &value.unwrap_or(0).to_string());
            let arguments = value.and(event.arguments);
            NewEvent { arguments, client, lifetime_s, trace, ..event }
        },
    )
}

pub fn items() -> impl Strategy<Value = Vec<SubscriptionRequest>> {
    let one = (name::<String>(&["r", "q", "p", "x"]), any::<bool>(), option::of(990u32..1100));
    let one = one.prop_map(|(name, latest, ack_timeout_ms)| SubscriptionRequest {
        start: if latest { Start::Latest } else { Start::Earliest },
        ack_timeout_ms,
        ..item(&name)
    });
    vec(one, 0..4)
}

fn some_settings() -> impl Strategy<Value = SiteSettings> {
    any::<[bool; 3]>().prop_map(|[multi_service, guests_allowed, constructible]| SiteSettings {
        multi_service,
        constructible,
        guests_allowed,
        ..settings()
    })
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    prop_oneof![5 => 0u64..5, 1 => Just(u64::MAX)].prop_map(Incarnation)
}

pub fn action() -> impl Strategy<Value = AdminAction> {
    use AdminAction::*;
    let token = || name::<TokenId>(&["t1", "t2"]);
    let principal = prop_oneof![
        Just(Principal::Admin),
        service().prop_map(Principal::Service),
        client().prop_map(Principal::Client),
    ];
    prop_oneof![
        4 => (some_settings(), incarnation())
            .prop_map(|(settings, incarnation)| CreateSite { settings, incarnation }),
        1 => some_settings().prop_map(|settings| UpdateSite { settings }),
        1 => Just(DeleteSite),
        4 => (structures(), any::<bool>(), incarnation()).prop_map(
            |(structure, rebuild, incarnation)| ApplyStructure { structure, rebuild, incarnation }
        ),
        1 => (service(), any::<bool>(), incarnation())
            .prop_map(|(service, rebuild, incarnation)| ApplyDeclared { service, rebuild, incarnation }),
        4 => service().prop_map(|id| CreateService { id }),
        1 => service().prop_map(|id| DeleteService { id }),
        4 => (client(), option::of(user())).prop_map(|(id, user)| CreateClient { id, user }),
        1 => (client(), option::of(user())).prop_map(|(id, user)| UpdateClient { id, user }),
        1 => client().prop_map(|id| DeleteClient { id }),
        2 => (user(), roles()).prop_map(|(id, roles)| CreateUser { id, roles }),
        1 => (user(), roles()).prop_map(|(id, roles)| UpdateUser { id, roles }),
        1 => user().prop_map(|id| DeleteUser { id }),
        1 => (token(), principal)
            .prop_map(|(id, principal)| CreateToken { id, hash: Digest([0; 32]), principal }),
        1 => token().prop_map(|id| RevokeToken { id }),
        2 => (client(), name(&["q", "p"]), 0u64..40)
            .prop_map(|(client, event, after)| Seek { client, event, after: InstanceId(after) }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (1u32..4, 0u32..3, prop_oneof![Just(1u64 << 30), 3000u64..20_000]).prop_map(
        |(keys_max, args_bytes_max, partition_bytes_max)| Limits {
            keys_max,
            args_bytes_max,
            partition_bytes_max,
            ..Limits::default()
        },
    )
}

fn session() -> impl Strategy<Value = SessionId> {
    (0u64..12).prop_map(SessionId)
}

fn claim() -> impl Strategy<Value = Claim> {
    (session(), 0u64..4).prop_map(|(session, above)| Claim { session, above: Epoch(above) })
}

fn attach_service() -> impl Strategy<Value = Command> {
    let stores = (store(), option::of(store()));
    let parts = (site(), service(), option::of(structures()), stores, incarnation(), claim());
    parts.prop_map(|(site, service, structure, (uid, continues), incarnation, claim)| {
        Command::AttachService(AttachService {
            site,
            service,
            structure,
            version: "1".into(),
            hostname: "h".into(),
            uid,
            continues,
            incarnation,
            place: Place { node: 1, run: 1 },
            claim,
        })
    })
}

fn command() -> impl Strategy<Value = Command> {
    let epoch = || (0u64..4).prop_map(Epoch);
    let raise = (site(), service(), epoch(), store(), 0u64..6, new_event());
    let raise = raise.prop_map(|(site, service, epoch, uid, number, event)| {
        let sequence = Sequence(number);
        Command::from(Raising::Session(Raise { site, service, epoch, uid, sequence, event }))
    });
    let key = || name::<String>(&["", "k1", "k2", "k3"]);
    let keyed = (site(), service(), key(), new_event(), option::weighted(0.4, key()));
    let keyed = keyed.prop_map(|(site, service, key, event, after)| {
        let raise = RaiseKeyed { site, service, key, event };
        match after {
            Some(after) => Raising::After(RaiseAfter { raise, after }).into(),
            None => Raising::Keyed(raise).into(),
        }
    });
    let mode = prop_oneof![
        Just(SubscribeMode::Exact),
        Just(SubscribeMode::Add),
        Just(SubscribeMode::Remove)
    ];
    let subscribe = (site(), client(), epoch(), 0u64..4, mode, items());
    let subscribe = (subscribe, proptest::option::of(quality()));
    let subscribe = subscribe.prop_map(|((site, client, epoch, number, mode, items), quality)| {
        let subscribe = Subscribe { site, client, epoch, number, mode, items };
        let Some(quality) = quality else { return Command::Subscribe(subscribe) };
        let qualities = vec![quality; subscribe.items.len()];
        Command::SubscribeAs(SubscribeAs { subscribe, qualities })
    });
    let advance = (site(), client(), 0u32..6, epoch(), incarnation(), 0u32..3, 0u64..40);
    let advance = advance.prop_map(|(site, client, event, epoch, incarnation, generation, id)| {
        Command::Advance(Advance {
            site,
            client,
            event: EventKey(event),
            epoch,
            incarnation,
            generation: Generation(generation),
            instance: InstanceId(id),
        })
    });
    prop_oneof![
        3 => attach_service(),
        1 => (site(), service(), session())
            .prop_map(|(site, service, session)| Command::DetachService { site, service, session }),
        14 => raise,
        5 => keyed,
        3 => (site(), client(), claim())
            .prop_map(|(site, client, claim)| Command::AttachClient { site, client, claim }),
        2 => (site(), client(), claim(), any::<u16>()).prop_map(|(site, client, claim, lasts)| {
            let lasts_ms = u32::from(lasts);
            Command::AttachPolling(AttachPolling { site, client, claim, lasts_ms })
        }),
        5 => subscribe,
        10 => (advance, 0u8..5).prop_map(|(command, way)| match command {
            Command::Advance(advance) if way == 0 => Command::Acknowledge(advance),
            other => other,
        }),
        12 => (0u64..60, site(), action()).prop_map(|(number, site, action)| Command::Admin {
            request: request(number), site, action
        }),
        2 => (0u32..20).prop_map(|limit| Command::Tick { limit }),
        1 => limits().prop_map(Command::SetLimits),
        1 => any::<u64>().prop_map(|seed| Command::Renew { seed }),
        3 => restore(),
        6 => governed(),
    ]
}

/// A mode with settings, not all of which belong to it.
fn quality() -> impl Strategy<Value = Quality> {
    let settings = (proptest::option::of(0u32..3), proptest::option::of(0u32..3));
    (proptest::sample::select(Mode::ALL.to_vec()), settings).prop_map(
        |(mode, (window, flush_ms))| Quality { mode, window, flush_ms, dead_letter: false },
    )
}

/// A part of an attempt to restore a site, often the last one.
fn restore() -> impl Strategy<Value = Command> {
    let parts = (site(), 0u8..3, 0u32..3, any::<bool>());
    parts.prop_map(|(site, attempt, part, last)| {
        let (id, hash) = ("restored".into(), Digest([1; 32]));
        let (principal, created) = (Principal::Observer, Stamp(1));
        let (expires, note) = (Some(Stamp(9_000_000)), String::new());
        let token = TokenRow { site: site.clone(), id, hash, principal, created, expires, note };
        let row = last.then(|| SiteRow {
            site: site.clone(),
            created: Stamp(1),
            settings: settings(),
            incarnation: Incarnation(5),
            structure: None,
            next_event: EventKey(1),
        });
        let rows = std::iter::once(Row::Token(token)).chain(row.map(Row::Site)).collect();
        Command::Restore(Restore { site, attempt: AttemptId([attempt; 16]), part, rows })
    })
}

/// Turns a wild command into one that the state may well accept.
fn guide(state: &State, command: &mut Command) {
    if matches!(command, Command::Traced(_)) {
        return as_if_untraced(command, |plain| guide(state, plain));
    }
    match command {
        Command::Raise(raise) => {
            let Some(site) = state.site(raise.site.as_str()) else { return };
            let Some(service) = site.service(raise.service.as_str()) else { return };
            raise.epoch = service.epoch;
            raise.uid = service.uid.unwrap_or(raise.uid);
            if let Some(store) = site.store(service.id.as_str(), raise.uid) {
                // Mostly the next number, sometimes one around it.
                let step = [1, 1, 1, 1, 0, 2].get(raise.sequence.0 as usize).copied().unwrap_or(1);
                raise.sequence = Sequence(store.last.0 + step);
            }
        }
        Command::Subscribe(subscribe) | Command::SubscribeAs(SubscribeAs { subscribe, .. }) => {
            let site = state.site(subscribe.site.as_str());
            if let Some(row) = site.and_then(|site| site.client(subscribe.client.as_str())) {
                subscribe.epoch = row.epoch;
                // Mostly the next list, sometimes one that came before.
                subscribe.number = row.listed + u64::from(subscribe.number > 0);
            }
        }
        Command::Advance(advance) | Command::Acknowledge(advance) => {
            let Some(site) = state.site(advance.site.as_str()) else { return };
            advance.incarnation = site.incarnation();
            if let Some(row) = site.client(advance.client.as_str()) {
                advance.epoch = row.epoch;
            }
            let wanted = advance.event.0 as usize;
            let subscriptions: Vec<_> = site.subscriptions(&advance.client).collect();
            if !subscriptions.is_empty() {
                let row = subscriptions[wanted % subscriptions.len()];
                advance.event = row.event;
                advance.generation = row.generation;
                advance.instance = advance.instance.min(site.head());
            }
        }
        Command::AttachService(attach) => {
            let site = state.site(attach.site.as_str());
            if let Some(row) = site.and_then(|site| site.service(attach.service.as_str())) {
                attach.claim.above = row.epoch;
            }
        }
        Command::AttachClient { site, client, claim }
        | Command::AttachPolling(AttachPolling { site, client, claim, .. }) => {
            let site = state.site(site.as_str());
            if let Some(row) = site.and_then(|site| site.client(client.as_str())) {
                claim.above = row.epoch;
            }
        }
        Command::DetachService { .. }
        | Command::RaiseKeyed(_)
        | Command::RaiseAfter(_)
        | Command::Traced(_)
        | Command::Admin { .. }
        | Command::Tick { .. }
        | Command::SetLimits(_)
        | Command::Renew { .. }
        | Command::Directory(_)
        | Command::Compare
        | Command::Administer(_)
        | Command::Record { .. }
        | Command::IssueTicket(_)
        | Command::DrawTicket(_)
        | Command::AttachPush(_)
        | Command::SettlePush(_)
        | Command::GiveUp(_)
        | Command::Restore(_) => {}
        Command::RedeemTicket(redeem) => {
            let site = state.site(redeem.site.as_str());
            if let Some(row) = site.and_then(|site| site.ticket(redeem.id.as_str())) {
                redeem.hash = row.hash;
            }
        }
    }
}

/// One step of a history: how much time passes, what is asked, and whether it is guided.
fn history() -> impl Strategy<Value = Vec<(u64, Command, bool)>> {
    let pause = prop_oneof![6 => 0u64..2000, 1 => 0u64..200_000, 1 => Just(90_000_000)];
    let step = (pause, command(), prop::bool::weighted(0.85));
    vec(step, 1..80)
}

/// A world that has something in it, so that histories get anywhere.
fn start() -> State {
    let mut world = World::multi(usual());
    world.done(AdminAction::CreateUser { id: "u".into(), roles: vec!["Admin".into()] });
    world.create_client("d", Some("u"));
    world.subscribe("c", &["r", "q", "p"]);
    world.state
}

fn check_invariants(state: &State) {
    assert_eq!(rebuilt(state), *state, "indexes follow from the rows");
    let rows: Vec<_> = state.rows().collect();
    let keys: BTreeSet<_> = rows.iter().map(Row::key).collect();
    assert_eq!(keys.len(), rows.len(), "every row once");
    let due = rows.iter().filter_map(|row| match row {
        Row::Instance(row) => row.expires,
        Row::Traced(row) => row.instance.expires,
        Row::Key(row) => Some(row.expires),
        Row::Request(row) => Some(row.expires),
        Row::Ticket(row) => Some(row.expires),
        Row::Token(row) => row.expires,
        _ => None,
    });
    assert_eq!(state.next_due(), due.min());
    state.sites().for_each(|site| check_site(site, &rows));
}

fn check_site(site: &Site, rows: &[Row]) {
    let own = |row: &&Row| row.site() == Some(site.name());
    let instances: BTreeMap<_, _> = rows
        .iter()
        .filter(own)
        .filter_map(|row| match row {
            Row::Instance(row) => Some((row.id, row.clone())),
            Row::Traced(row) => Some((row.instance.id, row.whole())),
            _ => None,
        })
        .collect();
    let mut seen = 0;
    for event in site.events() {
        let (key, kind) = (event.key, &event.definition.kind);
        assert_eq!(site.event_named(event.definition.name.as_str()), Some(event));
        let size = match kind {
            Kind::Replacing { .. } => 1,
            Kind::Queueing { size, .. } => *size as usize,
            Kind::Private { .. } => 1000,
        };
        let retained: Vec<_> = site.retained(key).map(|it| it.id).collect();
        assert!(retained.is_sorted_by(|a, b| a < b));
        seen += retained.len();
        let mut queued = BTreeSet::new();
        for service in site.services() {
            let queue: Vec<_> = site.queue(key, &service.id).map(|it| it.id).collect();
            assert!(queue.len() <= size, "at most size per queue");
            queued.extend(queue);
        }
        assert!(queued.into_iter().eq(retained.iter().copied()), "queues make up the event");
        for id in retained {
            let instance = &instances[&id];
            assert_eq!(site.instance(id), Some(instance));
            assert!(id <= site.head(), "no id above the head");
            assert_eq!(instance.client.is_some(), kind.category() == Category::Private);
            assert_eq!(instance.expires.is_none(), kind.category() == Category::Replacing);
            if let Some(client) = &instance.client {
                assert!(site.client(client.as_str()).is_some(), "addressees exist");
                let after = InstanceId(id.0 - 1);
                let to = Receiver::Client(client.clone());
                assert_eq!(site.next_instance(key, after, &to, Stamp(0)), Some(instance));
            }
        }
    }
    assert_eq!(seen, instances.len(), "no instance without its event");
    let bytes: u64 = instances.values().map(|it| it.argument_bytes()).sum();
    assert_eq!(site.queued_bytes(), bytes);
    let subscribed: usize = site.clients().map(|it| site.subscriptions(&it.id).count()).sum();
    assert_eq!(site.subscribed(), subscribed);
    check_accounts(site);
    check_rulings(site);
}

/// A ruling says what authority says.
fn check_rulings(site: &Site) {
    let clients = site.clients().map(|row| Receiver::Client(row.id.clone()));
    for receiver in clients.chain([Receiver::Stateless, Receiver::Client("nobody".into())]) {
        let enters = matches!(site.ruling_enter(&receiver), Ruling::Allowed(_));
        assert_eq!(enters, site.admits(&receiver).is_ok());
        for event in site.events() {
            let name = event.definition.name.as_str();
            let receives = matches!(site.ruling_receive(name, &receiver), Ruling::Allowed(_));
            assert_eq!(receives, site.may_receive(event.key, &receiver), "{name} {receiver:?}");
        }
    }
}

fn check_accounts(site: &Site) {
    let defined: BTreeSet<_> = site.events().map(|event| event.definition.name.clone()).collect();
    let declared = site.structure().map_or(&[][..], |structure| &structure.events[..]);
    assert_eq!(defined, declared.iter().map(|event| event.name.clone()).collect());
    assert_eq!(site.structure().is_some(), site.structure_hash().is_some());
    for client in site.clients() {
        assert!(client.user.as_ref().is_none_or(|user| site.user(user.as_str()).is_some()));
        for row in site.subscriptions(&client.id) {
            assert!(row.cursor <= site.head(), "no cursor above the head");
            assert!(site.event(row.event).is_some(), "no subscription without its event");
        }
    }
    for user in site.users() {
        let declared = |role| site.structure().is_none_or(|it| it.roles.contains(role));
        assert!(user.roles.iter().all(declared), "users hold declared roles");
    }
    for service in site.services() {
        let stores: Vec<_> = site.stores(service.id.as_str()).collect();
        assert!(stores.len() <= 8, "eight stores at most");
        assert!(stores.iter().all(|store| store.used <= service.epoch));
        if site.declared(service.id.as_str()).is_some() {
            assert!(site.parked(service).is_some(), "declarations are of parked services");
        }
    }
    assert!(site.settings().multi_service || site.services().count() <= 1);
    for token in site.tokens() {
        assert!(match &token.principal {
            Principal::Admin | Principal::Operator | Principal::Observer => true,
            Principal::Service(id) => site.service(id.as_str()).is_some(),
            Principal::Client(id) => site.client(id.as_str()).is_some(),
        });
    }
}

/// What one command may do to the heads, cursors and epochs of a site that lives on.
fn check_progress(before: &State, after: &State, outcome: &Outcome, command: &Command) {
    assert!(before.clock() <= after.clock());
    for site in before.sites() {
        let Some(now) = after.site(site.name().as_str()) else { continue };
        assert!(site.head() <= now.head(), "heads rise");
        for client in site.clients() {
            let Some(row) = now.client(client.id.as_str()) else { continue };
            assert!(client.epoch <= row.epoch, "epochs rise");
            for known in site.subscriptions(&client.id) {
                let Some(row) = now.subscription(&client.id, known.event) else { continue };
                assert!(known.generation <= row.generation, "generations rise");
                let same = site.incarnation() == now.incarnation();
                if same && known.generation == row.generation {
                    assert!(known.cursor <= row.cursor, "cursors rise within a generation");
                }
            }
        }
        for service in site.services() {
            for known in site.stores(service.id.as_str()) {
                if let Some(row) = now.store(service.id.as_str(), known.uid) {
                    assert!(known.last <= row.last && known.retired <= row.retired);
                    assert!(row.last.0 <= known.last.0 + 1, "numbers have no holes");
                }
            }
        }
    }
    if let (Outcome::Raised(raised), Some(Decision::Stored(id))) = (outcome, decision(outcome)) {
        let name = match command {
            Command::Traced(traced) => traced.raise.site(),
            Command::Raise(raise) => &raise.site,
            Command::RaiseKeyed(raise) => &raise.site,
            Command::RaiseAfter(RaiseAfter { raise, .. }) => &raise.site,
            other => panic!("{other:?} stored an instance"),
        };
        let head = |state: &State| state.site(name.as_str()).map(Site::head);
        if raised.duplicate {
            assert_eq!(before.rows().count(), after.rows().count(), "nothing is stored twice");
        } else {
            assert_eq!(head(after), Some(*id));
            assert!(head(before) < Some(*id), "ids rise strictly");
        }
    }
}

fn decision(outcome: &Outcome) -> Option<&Decision> {
    match outcome {
        Outcome::Raised(raised) => Some(&raised.decision),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn any_history_keeps_every_invariant(steps in history(), cut in 0usize..80) {
        let mut state = start();
        let mut stamp = state.clock().0;
        let mut log = Vec::new();
        let mut restarted = None;
        for (index, (pause, mut command, guided)) in steps.into_iter().enumerate() {
            stamp += pause;
            if guided {
                guide(&state, &mut command);
            }
            let batch = Batch { stamp: Stamp(stamp), commands: vec![command.clone()] };
            let verdict = decide(&state, Stamp(stamp), &command);
            prop_assert_eq!(&decide(&state, Stamp(stamp), &command), &verdict);
            if matches!(verdict.outcome, Outcome::Refused(_)) {
                prop_assert!(verdict.writes.is_empty() && verdict.effects.is_empty());
            }
            let before = state.clone();
            let applied = apply(&mut state, &batch);
            prop_assert_eq!(&applied.outcomes, &vec![verdict.outcome]);
            check_progress(&before, &state, &applied.outcomes[0], &command);
            check_invariants(&state);
            // A replica that starts from the rows at any point goes on as this one.
            if index == cut {
                restarted = Some(rebuilt(&before));
            }
            if let Some(replica) = &mut restarted {
                prop_assert_eq!(apply(replica, &batch), applied);
                prop_assert_eq!(&*replica, &state);
            }
            log.push(encode_batch(&batch));
        }
        // Replay equals live.
        let mut replayed = start();
        for bytes in &log {
            apply(&mut replayed, &decode_batch(bytes).unwrap());
        }
        prop_assert_eq!(replayed.hash(), state.hash());
        prop_assert_eq!(replayed, state);
    }

    #[test]
    fn a_batch_is_its_commands_one_by_one(steps in history()) {
        let commands: Vec<_> = steps.into_iter().map(|(_, command, _)| command).collect();
        let stamp = Stamp(2_000_000);
        let mut together = start();
        let all = apply(&mut together, &Batch { stamp, commands: commands.clone() });
        let mut apart = start();
        let mut outcomes = Vec::new();
        let mut effects = BTreeSet::new();
        for command in commands {
            let one = apply(&mut apart, &Batch { stamp, commands: vec![command] });
            outcomes.extend(one.outcomes);
            effects.extend(one.effects);
        }
        prop_assert_eq!(together, apart);
        prop_assert_eq!(all.outcomes, outcomes);
        prop_assert!(all.effects.into_iter().eq(effects), "sorted, each once");
    }

    #[test]
    fn coalesced_advances_come_to_the_same(ids in vec((0u32..3, 0u64..7, any::<bool>()), 0..20)) {
        let mut world = World::with(usual());
        world.subscribe("c", &["r", "q", "p"]);
        for round in 0..2 {
            world.store(event("q", &round.to_string()));
            world.store(event("r", &round.to_string()));
            world.store(to_client("p", "c", "x"));
        }
        let command = |(event, id, stale): (u32, u64, bool)| {
            let name = ["r", "q", "p"][event as usize];
            let mut advance = world.advancing("c", name, id);
            advance.generation = Generation(u32::from(stale));
            Command::Advance(advance)
        };
        let commands: Vec<_> = ids.into_iter().map(command).collect();
        let stamp = Stamp(world.now);
        let mut plain = world.state.clone();
        let all = apply(&mut plain, &Batch { stamp, commands: commands.clone() });
        let (left, survivors) = coalesce(commands.clone());
        let mut coalesced = world.state.clone();
        let some = apply(&mut coalesced, &Batch { stamp, commands: left });
        prop_assert_eq!(plain, coalesced);
        prop_assert_eq!(survivors.len(), commands.len());
        for (outcome, survivor) in all.outcomes.iter().zip(survivors) {
            match (outcome, &some.outcomes[survivor]) {
                (Outcome::Advanced { cursor: own }, Outcome::Advanced { cursor }) => {
                    prop_assert!(own <= cursor);
                }
                (own, other) => prop_assert_eq!(own, other),
            }
        }
    }

    #[test]
    fn commands_survive_their_encoding(command in command(), stamp: u64) {
        let batch = Batch { stamp: Stamp(stamp), commands: vec![command] };
        prop_assert_eq!(decode_batch(&encode_batch(&batch)), Ok(batch));
    }

    #[test]
    fn decoding_any_bytes_gives_a_value_or_an_error(mut bytes in vec(any::<u8>(), 0..200)) {
        if let Some(version) = bytes.first_mut() {
            *version = FORMAT_VERSION;
        }
        let _value = (decode_batch(&bytes), decode_row(&bytes), decode_key(&bytes));
    }

    #[test]
    fn a_damaged_state_or_log_is_judged_without_panic(
        flips in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..20),
        steps in history(),
    ) {
        let mut state = start();
        let rows: Vec<_> = state.rows().collect();
        for (row, at, flip) in &flips {
            let mut bytes = encode_row(row.get(&rows)).to_vec();
            *at.get_mut(&mut bytes[1..]) ^= flip;
            if let Ok(row) = decode_row(&bytes) {
                state.absorb(&Write::Put(row));
            }
        }
        for (index, (_, mut command, guided)) in steps.into_iter().enumerate() {
            if guided {
                guide(&state, &mut command);
            }
            let batch = Batch { stamp: Stamp(index as u64), commands: vec![command] };
            let mut bytes = encode_batch(&batch).to_vec();
            if let Some((_, at, flip)) = flips.get(index).filter(|_| !guided) {
                *at.get_mut(&mut bytes[1..]) ^= flip;
            }
            if let Ok(batch) = decode_batch(&bytes) {
                apply(&mut state, &batch);
            }
        }
        state.hash();
    }
}
