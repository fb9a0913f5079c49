//! Push subscriptions in the state: who may have them, what moves them, what ends them.

use ackord_machine::site::limits::PUSHES_PER_SITE;
use ackord_machine::site::*;

use crate::world::*;

fn spec(client: &str, event: &str) -> PushSpec {
    PushSpec {
        client: client.into(),
        event: event.into(),
        target: PushTarget::Http { url: "https://hooks.example.com/".to_owned() },
        quality: Quality::default(),
        start: Start::Earliest,
        send_timeout_ms: None,
        retry_count: 0,
        discard_interval_ms: None,
        durable: true,
        queue_max: None,
        on_overflow: Overflow::Remove,
        max_attempts: None,
        format: PushFormat::Ackord,
        secret: Some(Secret("0123456789abcdef".to_owned())),
        paused: false,
    }
}

pub fn put(id: &str, client: &str, event: &str) -> AdminAction {
    AdminAction::PutPush { id: id.into(), spec: Box::new(spec(client, event)) }
}

fn row(world: &World) -> &PushRow {
    world.state.site(SITE).unwrap().push("p").expect("the push subscription is there")
}

fn attach(world: &mut World, session: u64, above: u64) -> Outcome {
    let claim = Claim { session: SessionId(session), above: Epoch(above) };
    let attach = AttachPush { site: SITE.into(), id: "p".into(), claim };
    world.run(Command::AttachPush(attach))
}

fn settle(world: &mut World, epoch: u64, number: u64, report: PushReport) -> Outcome {
    let site = world.state.site(SITE).unwrap();
    let settle = SettlePush {
        site: SITE.into(),
        id: "p".into(),
        epoch: Epoch(epoch),
        incarnation: site.incarnation(),
        generation: row(world).generation,
        number,
        report,
    };
    world.run(Command::SettlePush(settle))
}

fn delivered(cursor: u64) -> PushReport {
    PushReport::Delivered { cursor: InstanceId(cursor), count: 1, dropped: 0 }
}

#[test]
fn only_the_newest_agent_is_obeyed_and_each_report_counts_once() {
    let mut world = World::with(usual());
    world.done(put("p", "c", "q"));
    for _ in 0..3 {
        world.store(event("q", "x"));
    }
    assert_eq!(attach(&mut world, 7, 0), Outcome::Done);
    assert_eq!(attach(&mut world, 7, 0), Outcome::Done, "the same again");
    let first = row(&world).epoch;
    assert_eq!(settle(&mut world, first.0, 1, delivered(1)), Outcome::Done);
    assert_eq!(settle(&mut world, first.0, 1, delivered(1)), Outcome::Done);
    assert_eq!((row(&world).cursor, row(&world).delivered), (InstanceId(1), 1));
    // One that has not heard of it takes nothing over.
    let newest = first;
    let overtaken = Outcome::Refused(Refusal::Overtaken { newest });
    assert_eq!(attach(&mut world, 8, 0), overtaken);
    assert_eq!(attach(&mut world, 8, first.0), Outcome::Done);
    let newest = row(&world).epoch;
    let stale = Outcome::Refused(Refusal::StaleEpoch { newest });
    assert_eq!(settle(&mut world, first.0, 2, delivered(2)), stale);
    assert_eq!(settle(&mut world, newest.0, 1, delivered(3)), Outcome::Done);
    assert_eq!(settle(&mut world, newest.0, 2, delivered(2)), Outcome::Done);
    assert_eq!(row(&world).cursor, InstanceId(3), "it never falls");
    let beyond = settle(&mut world, newest.0, 3, delivered(4));
    assert!(matches!(beyond, Outcome::Refused(Refusal::Invalid(_))), "{beyond:?}");
}

#[test]
fn a_change_keeps_the_cursor_and_a_client_its_own() {
    let mut world = World::with(usual());
    world.done(put("p", "c", "q"));
    world.store(event("q", "x"));
    attach(&mut world, 7, 0);
    let epoch = row(&world).epoch.0;
    settle(&mut world, epoch, 1, delivered(1));
    let before = world.state.site(SITE).unwrap().revision(&Object::Push("p".into()));
    world.now += 1;
    let changed = PushSpec { retry_count: 5, paused: true, ..spec("c", "q") };
    world.done(AdminAction::PutPush { id: "p".into(), spec: Box::new(changed) });
    assert_eq!((row(&world).cursor, row(&world).state), (InstanceId(1), PushState::Paused));
    let after = world.state.site(SITE).unwrap().revision(&Object::Push("p".into()));
    assert_ne!(before, after);
    let owner = Some(ClientId::from("other"));
    let delete = AdminAction::DeletePush { id: "p".into(), owner };
    assert_eq!(world.admin(delete), Outcome::Refused(Refusal::UnknownSubscription));
    world.done(AdminAction::DeletePush { id: "p".into(), owner: Some("c".into()) });
    assert!(world.state.site(SITE).unwrap().push("p").is_none());
}

#[test]
fn an_acknowledged_private_event_is_gone() {
    let mut world = World::with(usual());
    world.done(put("p", "c", "p"));
    let kept = world.store(to_client("p", "c", "x"));
    attach(&mut world, 7, 0);
    let epoch = row(&world).epoch.0;
    settle(&mut world, epoch, 1, delivered(kept));
    assert!(world.state.site(SITE).unwrap().instance(InstanceId(kept)).is_none());
}

#[test]
fn it_counts_as_a_subscription() {
    let mut world = World::with(usual());
    let quotas = Quotas { client_subscriptions: Some(2), ..Quotas::default() };
    world.done(AdminAction::SetQuotas { quotas });
    world.attach_client("c");
    world.subscribe("c", &["q"]);
    world.done(put("p", "c", "q"));
    let full = Refusal::QuotaExceeded { quota: Quota::ClientSubscriptions, most: 2 };
    assert_eq!(world.refused(put("more", "c", "q")), full);
    let refused = world.subscribe_items("c", SubscribeMode::Add, vec![item("r")]);
    assert_eq!(refused, [Err(full)]);
    // Changing one that is there takes no more room.
    let changed = PushSpec { retry_count: 5, ..spec("c", "q") };
    world.done(AdminAction::PutPush { id: "p".into(), spec: Box::new(changed) });
}

#[test]
fn a_private_event_is_gone_behind_one_that_failed() {
    let mut world = World::with(usual());
    world.done(put("p", "c", "p"));
    let ids = [world.store(to_client("p", "c", "x")), world.store(to_client("p", "c", "y"))];
    attach(&mut world, 7, 0);
    let epoch = row(&world).epoch.0;
    // In a window: the second was taken, then the first was given up.
    let report = PushReport::GivenUp {
        trouble: Trouble::Timeout,
        instance: InstanceId(ids[0]),
        attempts: 1,
        cursor: InstanceId(ids[1]),
    };
    settle(&mut world, epoch, 1, report);
    assert_eq!(world.retained("p"), []);
    assert_eq!(row(&world).dropped, 1);
}

#[test]
fn it_goes_with_its_client_and_there_are_so_many() {
    let mut world = World::with(usual());
    for number in 0..PUSHES_PER_SITE {
        world.done(put(&format!("p{number}"), "c", "q"));
    }
    let refused = world.admin(put("p", "c", "q"));
    let most = PUSHES_PER_SITE as u64;
    let full = Refusal::LimitReached { limit: Limit::Pushes, most };
    assert_eq!(refused, Outcome::Refused(full));
    world.done(AdminAction::DeleteClient { id: "c".into() });
    assert_eq!(world.state.site(SITE).unwrap().pushes().count(), 0);
}
