//! Acts on somebody's behalf and their record, quotas, pauses, kicks, tokens that end, tickets.

use ackord_machine::site::audit::{AUDIT_ACTS_MAX, AUDIT_ATTEMPTS_MAX, COMMON, NODE_ADMIN, Told};
use ackord_machine::site::limits::{
    REQUESTS_PER_SITE, REQUESTS_RESERVED, TICKETS_MAX, USED_TICKETS_MAX,
};
use ackord_machine::site::*;

use crate::world::*;

const DRAWN_MAX: u32 = 100;

fn by() -> By {
    By { who: "token:t9".to_owned(), address: "192.0.2.7".to_owned() }
}

impl World {
    fn administer(
        &mut self,
        number: u64,
        action: AdminAction,
        expected: Option<Precondition>,
    ) -> Outcome {
        let (request, site) = (request(50_000 + number), SITE.into());
        self.run(Command::Administer(Administer { request, site, action, by: by(), expected }))
    }

    fn record(&self, site: &str) -> Vec<(String, String)> {
        let rows = self.state.audit_before(site, u64::MAX);
        let mut rows: Vec<_> =
            rows.map(|row| (row.note.act.clone(), row.note.target.clone())).collect();
        rows.reverse();
        rows
    }

    fn quotas(&mut self, quotas: Quotas) {
        self.done(AdminAction::SetQuotas { quotas });
    }
}

fn pair(act: &str, target: &str) -> (String, String) {
    (act.to_owned(), target.to_owned())
}

#[test]
fn an_act_and_its_entry_are_one() {
    let mut world = World::with(usual());
    let create = AdminAction::CreateClient { id: "new".into(), user: None };
    assert_eq!(world.administer(1, create.clone(), None), Outcome::Done);
    assert_eq!(world.record(SITE), [pair("client.create", "clients/new")]);
    // The same request again is the same act; a refused one is none.
    assert_eq!(world.administer(1, create.clone(), None), Outcome::Done);
    assert_eq!(refusal(world.administer(2, create, None)), Refusal::AlreadyExists);
    assert_eq!(world.record(SITE).len(), 1);
    let entry = world.state.audit_before(SITE, u64::MAX).next().unwrap();
    assert_eq!((entry.note.by.clone(), entry.at), (by(), Stamp(world.now)));
    // The end of a site is told where it outlives the site.
    assert_eq!(world.administer(3, AdminAction::DeleteSite, None), Outcome::Done);
    assert_eq!(world.record(SITE), []);
    assert_eq!(world.record(COMMON), [pair("site.delete", "sites/s")]);
}

fn note(result: &str, count: u32) -> Note {
    let (act, target) = ("site.read".to_owned(), String::new());
    Note { by: by(), act, target, result: result.to_owned(), count }
}

#[test]
fn refused_attempts_make_no_act_forgotten_nor_acts_an_attempt() {
    for (site, few, many, kept) in [
        (SITE, "done", "access-denied", AUDIT_ATTEMPTS_MAX),
        (COMMON, "done", "bad-credentials", AUDIT_ATTEMPTS_MAX),
        (SITE, "access-denied", "done", AUDIT_ACTS_MAX),
    ] {
        // Given three of one kind among those of the other,
        let mut world = World::with(usual());
        let write = |world: &mut World, notes| {
            world.run_unchecked(Command::Record { site: site.into(), notes });
        };
        let first = vec![note(many, 0), note(few, 1), note(many, 0), note(few, 2), note(few, 3)];
        write(&mut world, first);
        // when more of the other kind come than are kept,
        let rounds = kept as u32 / 250 + 1;
        for round in 0..rounds {
            let notes = (0..250).map(|index| note(many, round * 250 + index)).collect();
            write(&mut world, notes);
        }
        // then those are its newest, the three are all there, and the numbers still fall.
        let rows: Vec<_> = world.state.audit_before(site, u64::MAX).collect();
        assert!(rows.is_sorted_by(|a, b| a.number > b.number));
        let counts = |of: &str| {
            let rows = rows.iter().filter(|row| row.note.result == of);
            rows.map(|row| row.note.count).collect::<Vec<_>>()
        };
        assert_eq!(counts(few), [3, 2, 1]);
        assert_eq!(counts(many).len(), kept);
        assert_eq!(counts(many).first(), Some(&(rounds * 250 - 1)));
        // One more of the three takes the place of none of the others.
        write(&mut world, vec![note(few, 4)]);
        let rows = world.state.audit_before(site, u64::MAX);
        assert_eq!(rows.count(), kept + 4);
        // A replica that starts from the rows goes on as this one.
        assert_eq!(rebuilt(&world.state), world.state);
    }
    assert_eq!(Told::ALL.map(Told::entries_max), [AUDIT_ACTS_MAX, AUDIT_ATTEMPTS_MAX]);
}

#[test]
fn a_record_is_of_a_site_that_is_there_and_bounded_in_one_command() {
    let mut world = World::with(usual());
    let site = "nobody".into();
    let outcome = world.run(Command::Record { site, notes: vec![note("access-denied", 1)] });
    assert_eq!(refusal(outcome), Refusal::UnknownSite);
    let notes = vec![note("access-denied", 1); 257];
    let too_many = Command::Record { site: SITE.into(), notes };
    assert!(matches!(refusal(world.run(too_many)), Refusal::Invalid(_)));
}

#[test]
fn an_object_that_is_not_as_expected_stays_as_it_is() {
    let mut world = World::with(usual());
    let create = |roles: &[&str]| AdminAction::CreateUser {
        id: "z".into(),
        roles: roles.iter().map(|role| RoleName::from(*role)).collect(),
    };
    let update = AdminAction::UpdateUser { id: "z".into(), roles: vec!["Operator".into()] };
    let present = Some(Precondition::Present);
    assert_eq!(refusal(world.administer(1, update.clone(), present)), Refusal::Precondition);
    let absent = Some(Precondition::Absent);
    assert_eq!(world.administer(2, create(&["Admin"]), absent), Outcome::Done);
    assert_eq!(refusal(world.administer(3, create(&[]), absent)), Refusal::Precondition);
    let object = Object::User("z".into());
    let read = world.site().revision(&object).unwrap();
    assert_eq!(
        world.administer(4, update.clone(), Some(Precondition::Revision(read))),
        Outcome::Done
    );
    // Somebody was faster.
    let late = world.administer(5, update.clone(), Some(Precondition::Revision(read)));
    assert_eq!(refusal(late), Refusal::Precondition);
    // But a repeat of what was done is told so, although the object has changed by it.
    assert_eq!(world.administer(4, update, Some(Precondition::Revision(read))), Outcome::Done);
}

#[test]
fn counts_are_bounded_by_quotas() {
    let mut world = World::multi(usual());
    world.quotas(Quotas {
        services: Some(2),
        clients: Some(2),
        subscriptions: Some(3),
        client_subscriptions: Some(2),
        ..Quotas::default()
    });
    let exceeded = |quota, most| Refusal::QuotaExceeded { quota, most };
    let clients = world.site().clients().count();
    assert_eq!(clients, 1);
    world.create_client("d", None);
    let more = AdminAction::CreateClient { id: "e".into(), user: None };
    assert_eq!(world.refused(more), exceeded(Quota::Clients, 2));
    let more = AdminAction::CreateService { id: "x".into() };
    assert_eq!(world.refused(more), exceeded(Quota::Services, 2));
    world.subscribe("c", &["r", "q"]);
    let put = |client: &str, event: &str| AdminAction::PutSubscription {
        client: client.into(),
        item: item(event),
    };
    assert_eq!(world.refused(put("c", "p")), exceeded(Quota::ClientSubscriptions, 2));
    world.done(put("d", "r"));
    assert_eq!(world.refused(put("d", "q")), exceeded(Quota::Subscriptions, 3));
    // What is there may be changed all the same.
    world.done(put("d", "r"));
    let huge = Quotas { clients: Some(u64::MAX), ..Quotas::default() };
    assert!(matches!(
        world.refused(AdminAction::SetQuotas { quotas: huge }),
        Refusal::Invalid(invalid) if invalid.field == "clients"
    ));
}

#[test]
fn a_rate_is_one_over_all_services_and_each_has_its_own() {
    let mut world = World::multi(usual());
    world.quotas(Quotas {
        events_per_s: Some(40),
        service_events_per_s: Some(24),
        ..Quotas::default()
    });
    // A quarter of a second's worth at once: 10 of the site, 6 of a service.
    let mut raised = [0u64; 2];
    let mut refused = Vec::new();
    for (index, service) in ["v", "w"].into_iter().enumerate() {
        loop {
            let number = raised[index] + 1;
            match world.raise_as(service, 1, number, event("q", "1")) {
                Outcome::Raised(_) => raised[index] += 1,
                other => break refused.push(refusal(other)),
            }
        }
    }
    assert_eq!(raised, [6, 4]);
    let limited = |quota, most, retry_ms| Refusal::RateLimited { quota, most, retry_ms };
    assert_eq!(
        refused,
        [limited(Quota::ServiceEventsPerSecond, 24, 42), limited(Quota::EventsPerSecond, 40, 25)]
    );
    // The number was not used up, and a duplicate costs nothing.
    assert!(matches!(world.raise_as("v", 1, 6, event("q", "1")), Outcome::Raised(_)));
    world.now += 42;
    assert!(matches!(world.raise_as("v", 1, 7, event("q", "1")), Outcome::Raised(_)));
    // Without quotas nothing is left of the buckets.
    world.quotas(Quotas::default());
    assert!(!world.state.rows().any(|row| matches!(row, Row::Rate(_) | Row::Quota(_))));
}

#[test]
fn what_is_larger_than_a_bucket_is_paid_for_in_full() {
    let mut world = World::with(usual());
    world.attach("v", 1);
    world.quotas(Quotas { bytes_per_s: Some(100), ..Quotas::default() });
    // 84 bytes with "application/json": a bucket holds a quarter of a second's worth, 25.
    let large = || event("q", &format!("\"{}\"", "x".repeat(66)));
    let (mut raised, begun) = (0_u64, world.now);
    while world.now < begun + 60_000 {
        match world.raise_as("v", 1, raised + 1, large()) {
            Outcome::Raised(_) => raised += 1,
            other => assert!(matches!(refusal(other), Refusal::RateLimited { .. })),
        }
        world.now += 10;
    }
    // One was there at once; each of the others is paid for.
    let paid = (raised - 1) * 84;
    assert!((5_700..=6_000).contains(&paid), "{paid} bytes in a minute at 100 a second");
}

#[test]
fn queues_are_bounded_in_bytes_but_may_turn_over() {
    let mut world = World::with(usual());
    world.attach("v", 1);
    // "application/json" counts too: 16 bytes.
    world.quotas(Quotas { queue_bytes: Some(60), ..Quotas::default() });
    let mut number = 0;
    let mut raise = |world: &mut World, event: NewEvent| {
        number += 1;
        let outcome = world.raise_as("v", 1, number, event);
        if matches!(outcome, Outcome::Refused(_)) {
            number -= 1;
        }
        outcome
    };
    for _ in 0..3 {
        assert!(matches!(raise(&mut world, event("q", "1234")), Outcome::Raised(_)));
    }
    assert_eq!(world.site().queued_bytes(), 60);
    let exceeded = Refusal::QuotaExceeded { quota: Quota::QueueBytes, most: 60 };
    assert_eq!(refusal(raise(&mut world, event("r", "1"))), exceeded);
    // The full queue of three gives up as much as it gets.
    assert!(matches!(raise(&mut world, event("q", "5678")), Outcome::Raised(_)));
    assert_eq!(refusal(raise(&mut world, event("q", "56789"))), exceeded);
    assert!(matches!(raise(&mut world, event("q", "1")), Outcome::Raised(_)));
}

#[test]
fn a_kicked_session_is_told_so_and_a_new_one_may_come() {
    let mut world = World::with(usual());
    let epoch = world.attach_client("c");
    world.subscribe("c", &["q"]);
    assert!(matches!(world.raise_as("v", 1, 1, event("q", "1")), Outcome::Raised(_)));
    let kick = AdminAction::KickClient { client: "c".into() };
    world.done(kick.clone());
    let advance = Command::Advance(Advance {
        site: SITE.into(),
        client: "c".into(),
        event: world.site().event_named("q").unwrap().key,
        epoch,
        incarnation: world.site().incarnation(),
        generation: Generation(0),
        instance: InstanceId(1),
    });
    assert_eq!(refusal(world.run(advance)), Refusal::Kicked);
    // Again: there is no session to end.
    let before = world.state.clone();
    world.done(kick);
    assert_eq!(world.site().client("c"), before.site(SITE).unwrap().client("c"));
    assert!(world.attach_client("c") > epoch.next());
    let old = world.site().service("v").unwrap().epoch;
    world.done(AdminAction::KickService { service: "v".into() });
    assert!(!world.site().service("v").unwrap().online());
    let raise = Command::Raise(Raise {
        site: SITE.into(),
        service: "v".into(),
        epoch: old,
        uid: uid(1),
        sequence: Sequence(2),
        event: event("q", "2"),
    });
    assert_eq!(refusal(world.run(raise)), Refusal::Kicked);
    world.attach("v", 1);
    assert!(matches!(world.raise_as("v", 1, 2, event("q", "2")), Outcome::Raised(_)));
}

#[test]
fn a_paused_subscription_gets_nothing_until_it_is_resumed() {
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    let (client, event) = (ClientId::from("c"), EventName::from("q"));
    let key = world.site().event_named("q").unwrap().key;
    let receiver = Receiver::Client(client.clone());
    world.done(AdminAction::Pause { client: client.clone(), event: event.clone() });
    assert!(!world.site().may_receive(key, &receiver));
    // A client that lists it again does not get round it.
    world.subscribe("c", &["q"]);
    assert!(world.site().is_paused(key, &receiver));
    world.done(AdminAction::Resume { client: client.clone(), event });
    assert!(world.site().may_receive(key, &receiver));
    let unknown = AdminAction::Pause { client, event: "r".into() };
    assert_eq!(world.refused(unknown), Refusal::UnknownSubscription);
}

#[test]
fn a_token_ends_by_itself_and_wakes_its_sessions() {
    let mut world = World::with(usual());
    let issue = |lifetime_ms, note: &str| AdminAction::IssueToken {
        id: "t".into(),
        hash: Digest([1; 32]),
        principal: Principal::Operator,
        lifetime_ms,
        note: note.to_owned(),
    };
    assert!(matches!(world.refused(issue(Some(0), "")), Refusal::Invalid(_)));
    assert!(matches!(world.refused(issue(None, "a\nb")), Refusal::Invalid(_)));
    world.done(issue(Some(5000), "the panel in the hall"));
    let end = Stamp(world.now + 5000);
    assert!(world.site().valid_token("t", Stamp(end.0 - 1)).is_some());
    assert!(world.site().valid_token("t", end).is_none(), "before any tick");
    assert_eq!(world.state.next_due(), Some(end));
    world.now += 5000;
    world.effects.clear();
    assert_eq!(world.run(Command::Tick { limit: 10 }), Outcome::Ticked { removed: 1 });
    assert!(world.site().token("t").is_none());
    assert_eq!(world.effects, [Effect::Site { site: SITE.into() }]);
}

#[test]
fn a_ticket_is_good_once_and_not_for_long() {
    let mut world = World::with(usual());
    let token = AdminAction::CreateToken {
        id: "t".into(),
        hash: Digest([9; 32]),
        principal: Principal::Client("c".into()),
    };
    world.done(token);
    let ticket = |id: &str, lifetime_ms| IssueTicket {
        site: SITE.into(),
        id: id.into(),
        hash: Digest([1; 32]),
        principal: Principal::Client("c".into()),
        token: Some("t".into()),
        until: None,
        lifetime_ms,
    };
    let issue = |id: &str, lifetime_ms| Command::IssueTicket(ticket(id, lifetime_ms));
    let redeem = |id: &str, hash: u8, attempt| {
        Command::RedeemTicket(RedeemTicket {
            site: SITE.into(),
            id: id.into(),
            hash: Digest([hash; 32]),
            attempt,
        })
    };
    for lifetime in [0, 300_001] {
        assert!(matches!(refusal(world.run(issue("k", lifetime))), Refusal::Invalid(_)));
    }
    assert_eq!(world.run(issue("k", 60_000)), Outcome::Done);
    assert_eq!(world.run(issue("k", 60_000)), Outcome::Done, "the same again");
    assert_eq!(refusal(world.run(redeem("k", 2, 1))), Refusal::UnknownToken, "wrong secret");
    let (principal, token) = (Principal::Client("c".into()), Some("t".into()));
    let good = Outcome::Redeemed { principal: principal.clone(), token, until: None };
    assert_eq!(world.run(redeem("k", 1, 1)), good);
    assert_eq!(world.run(redeem("k", 1, 1)), good, "the same attempt gets its answer");
    assert_eq!(refusal(world.run(redeem("k", 1, 2))), Refusal::UnknownToken, "used");
    world.run(issue("late", 1000));
    world.now += 1000;
    assert_eq!(refusal(world.run(redeem("late", 1, 1))), Refusal::UnknownToken, "expired");
    // Drawn with a credential that is not kept here, and that ends before the ticket does.
    let until = Some(Stamp(world.now + 500));
    let foreign = |id: &str| IssueTicket { token: None, until, ..ticket(id, 60_000) };
    world.run(Command::IssueTicket(foreign("foreign")));
    world.run(Command::IssueTicket(foreign("over")));
    let good = Outcome::Redeemed { principal, token: None, until };
    assert_eq!(world.run(redeem("foreign", 1, 1)), good);
    world.now += 500;
    assert_eq!(refusal(world.run(redeem("over", 1, 1))), Refusal::UnknownToken, "over");
    world.run(issue("orphan", 60_000));
    world.done(AdminAction::RevokeToken { id: "t".into() });
    assert_eq!(refusal(world.run(redeem("orphan", 1, 1))), Refusal::UnknownToken, "revoked");
}

impl World {
    fn draw(&mut self, id: &str, client: &str) -> Outcome {
        let ticket = IssueTicket {
            site: SITE.into(),
            id: id.into(),
            hash: Digest([1; 32]),
            principal: Principal::Client(client.into()),
            token: None,
            until: None,
            lifetime_ms: 300_000,
        };
        let draw = DrawTicket { ticket, principal_max: DRAWN_MAX };
        let batch = Batch { stamp: Stamp(self.now), commands: vec![Command::DrawTicket(draw)] };
        apply(&mut self.state, &batch).outcomes.remove(0)
    }

    fn redeem(&mut self, id: &str, attempt: u64) -> Outcome {
        let (site, id, hash) = (SITE.into(), id.into(), Digest([1; 32]));
        let redeem = Command::RedeemTicket(RedeemTicket { site, id, hash, attempt });
        let batch = Batch { stamp: Stamp(self.now), commands: vec![redeem] };
        apply(&mut self.state, &batch).outcomes.remove(0)
    }
}

#[test]
fn the_tickets_of_one_client_keep_nobody_else_from_theirs() {
    let mut world = World::with(usual());
    world.create_client("d", None);
    for number in 0..DRAWN_MAX {
        assert_eq!(world.draw(&format!("c{number}"), "c"), Outcome::Done);
    }
    let full = |limit, most| Refusal::LimitReached { limit, most };
    let own = full(Limit::PrincipalTickets, u64::from(DRAWN_MAX));
    assert_eq!(refusal(world.draw("more", "c")), own);
    assert_eq!(world.draw("c0", "c"), Outcome::Done, "the same again is no other one");
    assert_eq!(world.draw("d0", "d"), Outcome::Done);
    // One that is used makes room at once, and is good no second time.
    assert!(matches!(world.redeem("c0", 1), Outcome::Redeemed { .. }));
    assert_eq!(world.draw("more", "c"), Outcome::Done);
    assert_eq!(refusal(world.draw("yet-more", "c")), own);
    assert!(matches!(world.redeem("c0", 1), Outcome::Redeemed { .. }), "the same attempt");
    assert_eq!(refusal(world.redeem("c0", 2)), Refusal::UnknownToken);
    // So do those whose time is over.
    world.now += 300_000;
    world.run(Command::Tick { limit: 1000 });
    assert_eq!(world.draw("yet-more", "c"), Outcome::Done);
}

#[test]
fn the_tickets_of_a_site_are_bounded_used_or_not() {
    let mut world = World::with(usual());
    let clients = TICKETS_MAX as u32 / DRAWN_MAX;
    for client in 0..clients {
        let client = format!("c{client}");
        world.create_client(&client, None);
        for number in 0..DRAWN_MAX {
            assert_eq!(world.draw(&format!("{client}-{number}"), &client), Outcome::Done);
        }
    }
    let most = TICKETS_MAX as u64;
    let full = Refusal::LimitReached { limit: Limit::Tickets, most };
    assert_eq!(refusal(world.draw("more", "c")), full);
    // However many are used, those that are remembered are bounded too,
    for round in 0..USED_TICKETS_MAX + 50 {
        let id = match round {
            0 => "c0-0".to_owned(),
            round => format!("more{round}"),
        };
        if round > 0 {
            world.now += 1;
            assert_eq!(world.draw(&id, "c0"), Outcome::Done);
        }
        assert!(matches!(world.redeem(&id, 1), Outcome::Redeemed { .. }), "{id}");
        let tickets = world.state.rows().filter(|row| matches!(row, Row::Ticket(_)));
        if round % 1000 == 0 || round > USED_TICKETS_MAX {
            assert!(tickets.count() <= TICKETS_MAX + USED_TICKETS_MAX);
        }
    }
    // and what is forgotten is good no second time either.
    assert_eq!(world.site().ticket("c0-0"), None);
    for attempt in [1, 2] {
        assert_eq!(refusal(world.redeem("c0-0", attempt)), Refusal::UnknownToken);
    }
    assert_eq!(rebuilt(&world.state), world.state);
}

#[test]
fn however_many_acts_an_operator_does_an_administrator_is_not_kept_out() {
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    world.done(AdminAction::CreateToken {
        id: "t".into(),
        hash: Digest([9; 32]),
        principal: Principal::Operator,
    });
    let ask = |world: &World, number: u64, who: &str, action: AdminAction| {
        let by = By { who: who.to_owned(), address: String::new() };
        let (request, site) = (request(900_000 + number), SITE.into());
        let asked = Administer { request, site, action, by, expected: None };
        decide(&world.state, Stamp(world.now), &Command::Administer(asked)).outcome
    };
    let pause = || AdminAction::Pause { client: "c".into(), event: "q".into() };
    let revoke = || AdminAction::RevokeToken { id: "t".into() };
    let quotas = || AdminAction::SetQuotas { quotas: Quotas::default() };
    let full = |most: usize| Refusal::LimitReached { limit: Limit::Requests, most: most as u64 };
    // Given as many remembered answers as leave no place but the reserved ones,
    let mut filled = world.state.rows().filter(|row| matches!(row, Row::Request(_))).count();
    let mut fill = |world: &mut World, most: usize| {
        for number in filled..most {
            let (site, id) = (SITE.into(), request(100_000_000 + number as u64));
            let (outcome, expires) = (Outcome::Done, Stamp(world.now + 600_000));
            let row = RequestRow { site, id, outcome, expires };
            world.state.absorb(&Write::Put(Row::Request(row)));
        }
        filled = most;
    };
    let operators = REQUESTS_PER_SITE - 2 * REQUESTS_RESERVED;
    fill(&mut world, operators - 1);
    assert_eq!(ask(&world, 1, "token:t", pause()), Outcome::Done);
    fill(&mut world, operators);
    // when an operator goes on, then it is refused, and an administrator ends that.
    assert_eq!(refusal(ask(&world, 2, "token:t", pause())), full(operators));
    assert_eq!(ask(&world, 3, "token:admin", revoke()), Outcome::Done);
    // So it is with an administrator of the site and that of the node.
    let admins = REQUESTS_PER_SITE - REQUESTS_RESERVED;
    fill(&mut world, admins);
    assert_eq!(refusal(ask(&world, 4, "jwt:issuer#ann", revoke())), full(admins));
    assert_eq!(ask(&world, 5, NODE_ADMIN, quotas()), Outcome::Done);
    assert_eq!(ask(&world, 6, NODE_ADMIN, pause()), Outcome::Done);
    fill(&mut world, REQUESTS_PER_SITE);
    assert_eq!(refusal(ask(&world, 7, NODE_ADMIN, quotas())), full(REQUESTS_PER_SITE));
    // It passes by itself.
    world.now += 600_000;
    let limit = REQUESTS_PER_SITE as u32;
    let batch = Batch { stamp: Stamp(world.now), commands: vec![Command::Tick { limit }] };
    apply(&mut world.state, &batch);
    assert_eq!(ask(&world, 8, "token:t", pause()), Outcome::Done);
}

#[test]
fn a_quality_goes_with_its_subscription_and_is_part_of_its_revision() {
    let mut world = World::with(usual());
    let quality = Quality { mode: Mode::Twoway, window: Some(9), ..Quality::default() };
    let object = Object::Subscription("c".into(), "q".into());
    let put =
        |quality| AdminAction::PutSubscriptionAs { client: "c".into(), item: item("q"), quality };
    let bad = Quality { flush_ms: Some(1), ..quality };
    assert!(matches!(
        world.refused(put(bad)),
        Refusal::BadQuality(invalid) if invalid.field == "items[0].flush_ms"
    ));
    assert_eq!(world.site().subscriptions(&"c".into()).count(), 0);
    world.done(AdminAction::PutSubscription { client: "c".into(), item: item("q") });
    let ordered = world.site().revision(&object);
    world.done(put(quality));
    let key = world.key("q");
    assert_eq!(world.site().quality(&"c".into(), key), quality);
    assert_ne!(world.site().revision(&object), ordered);
    // Rebuilt from its rows it is the same.
    let mut rebuilt = State::new();
    for row in world.state.rows() {
        rebuilt.absorb(&Write::Put(row));
    }
    assert_eq!(rebuilt.hash(), world.state.hash());
    assert_eq!(rebuilt.bytes(), world.state.bytes());
    // Put without one it is ordered again, and the row is gone.
    world.done(AdminAction::PutSubscription { client: "c".into(), item: item("q") });
    assert_eq!(world.site().revision(&object), ordered);
    let quality_row = RowKey::Quality(SITE.into(), "c".into(), key);
    assert_eq!(world.state.row(&quality_row), None);
    world.done(put(quality));
    world.done(AdminAction::Unsubscribe { client: "c".into(), event: "q".into() });
    assert_eq!(world.state.row(&quality_row), None);
    world.done(put(quality));
    world.done(AdminAction::DeleteClient { id: "c".into() });
    assert_eq!(world.state.row(&quality_row), None);
}
