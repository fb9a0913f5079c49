//! What became of instances, what somebody missed, and why a client got one or did not.

use ackord_machine::site::history::DEPARTED_MAX;
use ackord_machine::site::*;

use crate::world::*;

fn raised(world: &mut World, number: u64, event: NewEvent) -> InstanceId {
    match world.raise_as("v", 1, number, event) {
        Outcome::Raised(Raised { decision: Decision::Stored(id), .. }) => id,
        other => panic!("{other:?}"),
    }
}

fn gone(world: &World, id: InstanceId) -> Gone {
    match world.site().fate(id) {
        Fate::Departed(departed) => departed.gone,
        other => panic!("{other:?}"),
    }
}

fn why(world: &World, event: &str, id: u64) -> WhyNot {
    world.site().why(Stamp(world.now), &"c".into(), event, InstanceId(id)).verdict
}

#[test]
fn every_way_to_go_is_told_apart() {
    let mut world = World::with(usual());
    world.create_client("gone", None);
    world.subscribe("c", &["p"]);
    let mut ids = Vec::new();
    let events = [
        event("r", "1"),
        event("r", "2"),
        event("q", "1"),
        event("q", "2"),
        event("q", "3"),
        event("q", "4"),
        to_client("p", "c", "1"),
        to_client("p", "gone", "1"),
    ];
    for (number, event) in events.into_iter().enumerate() {
        ids.push(raised(&mut world, number as u64 + 1, event));
    }
    assert_eq!(gone(&world, ids[0]), Gone::Superseded { by: ids[1] });
    assert_eq!(gone(&world, ids[2]), Gone::Evicted { by: ids[5] });
    world.advance("c", "p", ids[6].0);
    assert_eq!(gone(&world, ids[6]), Gone::Acknowledged);
    world.done(AdminAction::DeleteClient { id: "gone".into() });
    assert_eq!(gone(&world, ids[7]), Gone::Removed);
    world.now += 60_000;
    world.run(Command::Tick { limit: 1 });
    assert_eq!(gone(&world, ids[3]), Gone::Expired);
    world.done(AdminAction::DeleteService { id: "v".into() });
    assert_eq!(gone(&world, ids[1]), Gone::Removed);
    let newest = InstanceId(8);
    assert_eq!(world.site().fate(InstanceId(9)), Fate::NotRaised { newest });
}

#[test]
fn what_was_missed_is_counted_or_said_to_be_unknown() {
    let mut world = World::with(usual());
    for number in 1..=10 {
        raised(&mut world, number, event("q", "x"));
    }
    for number in 11..=13 {
        raised(&mut world, number, event("r", "x"));
    }
    let key = |name: &str| world.site().event_named(name).unwrap().key;
    let missed =
        |name, after| world.site().missed(key(name), InstanceId(after), &Receiver::Stateless);
    // 8, 9 and 10 are retained of the queue, 13 of the other.
    assert_eq!(missed("q", 2), Missed { superseded: 0, lost: 5, complete: true });
    assert_eq!(missed("q", 9), Missed { superseded: 0, lost: 0, complete: true });
    assert_eq!(missed("r", 10), Missed { superseded: 2, lost: 0, complete: true });
    // A replica that was rebuilt knows nothing of the time before.
    let copy = rebuilt(&world.state);
    let site = copy.site(SITE).unwrap();
    let after = |id| site.missed(key("q"), InstanceId(id), &Receiver::Stateless);
    assert_eq!(after(2), Missed { superseded: 0, lost: 0, complete: false });
    assert!(after(13).complete);
    assert_eq!(site.fate(InstanceId(3)), Fate::Forgotten { remembered_above: InstanceId(13) });
}

#[test]
fn what_is_forgotten_is_said_to_be() {
    let mut world = World::with(usual());
    let last = DEPARTED_MAX as u64 + 10;
    for number in 1..=last {
        let epoch = world.site().service("v").unwrap().epoch;
        world.run_unchecked(Command::Raise(Raise {
            site: SITE.into(),
            service: "v".into(),
            epoch,
            uid: uid(1),
            sequence: Sequence(number),
            event: event("r", "x"),
        }));
    }
    assert_eq!(gone(&world, InstanceId(last - 1)), Gone::Superseded { by: InstanceId(last) });
    let Fate::Forgotten { remembered_above } = world.site().fate(InstanceId(1)) else { panic!() };
    assert_eq!(remembered_above, InstanceId(9));
    let key = world.site().event_named("r").unwrap().key;
    let missed = |after| world.site().missed(key, InstanceId(after), &Receiver::Stateless);
    assert!(missed(9).complete && !missed(8).complete);
}

#[test]
fn why_names_the_first_reason() {
    let mut world = World::with(usual());
    world.create_client("other", None);
    for number in 1..=3 {
        raised(&mut world, number, event("q", "x"));
    }
    let mine = raised(&mut world, 4, to_client("p", "other", "x"));
    assert_eq!(why(&world, "nothing", 1), WhyNot::UnknownEvent);
    assert_eq!(why(&world, "q", 9), WhyNot::NotRaised);
    assert_eq!(why(&world, "r", 1), WhyNot::OtherEvent);
    assert_eq!(why(&world, "p", mine.0), WhyNot::NotAddressed);
    assert_eq!(why(&world, "q", 1), WhyNot::NotSubscribed);
    world.subscribe("c", &["q"]);
    assert_eq!(why(&world, "q", 1), WhyNot::Next);
    assert_eq!(why(&world, "q", 3), WhyNot::Waits { next: InstanceId(1) });
    world.advance("c", "q", 1);
    assert_eq!(why(&world, "q", 1), WhyNot::Passed { cursor: InstanceId(1) });
    raised(&mut world, 5, event("q", "x"));
    raised(&mut world, 6, event("q", "x"));
    assert_eq!(why(&world, "q", 2), WhyNot::Departed);
    world.done(AdminAction::Pause { client: "c".into(), event: "q".into() });
    assert_eq!(why(&world, "q", 3), WhyNot::Unauthorised(Denial::Paused));
    world.now += 60_000;
    assert_eq!(why(&world, "q", 3), WhyNot::Expired);
    let nobody = world.site().why(Stamp(0), &"nobody".into(), "q", InstanceId(3));
    assert_eq!(nobody.verdict, WhyNot::UnknownClient);
}
