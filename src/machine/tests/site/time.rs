//! Time: the clock of the log, lifetimes, expiry by ticks.

use ackord_machine::site::*;

use crate::world::*;

#[test]
fn the_clock_never_goes_back_and_stamps_what_is_raised() {
    let mut world = World::with(usual());
    world.store(event("q", "1"));
    let latest = world.now;
    world.now -= 500_000;
    world.store(event("q", "2"));
    assert_eq!(world.state.clock(), Stamp(latest));
    let second = world.site().instance(InstanceId(2)).unwrap();
    assert_eq!(second.created, Stamp(latest));
    assert_eq!(second.expires, Some(Stamp(latest + 60_000)));
    // Judged outside of a batch, an old stamp counts as little.
    let verdict = decide(&world.state, Stamp(0), &Command::Tick { limit: 9 });
    assert_eq!(verdict.outcome, Outcome::Ticked { removed: 0 });
}

#[test]
fn the_end_of_time_is_no_trouble() {
    let mut world = World::with(usual());
    world.now = u64::MAX;
    world.store(event("q", "1"));
    assert_eq!(world.site().instance(InstanceId(1)).unwrap().expires, Some(Stamp(u64::MAX)));
    world.tick(1000);
}

#[test]
fn an_expired_instance_is_never_next_even_before_a_tick() {
    let mut world = World::with(usual());
    world.store(event("q", "1"));
    world.now += 30_000;
    world.store(event("q", "2"));
    world.now += 29_999;
    assert_eq!(world.next("c", "q", 0), Some(1));
    world.now += 1;
    assert_eq!(world.next("c", "q", 0), Some(2));
    assert_eq!(world.retained("q"), [1, 2]);
    world.now += 30_000;
    assert_eq!(world.next("c", "q", 0), None);
}

#[test]
fn a_tick_removes_what_is_due_and_says_whom_it_concerns() {
    let mut world = World::with(usual());
    let start = world.now;
    world.store(event("q", "1"));
    world.store(to_client("p", "c", "2"));
    world.store(NewEvent { lifetime_s: Some(10), ..event("q", "3") });
    // The remembered answers of the set-up fall due later.
    assert_eq!(world.state.next_due(), Some(Stamp(start + 10_000)));
    world.now = start + 9_999;
    assert_eq!(world.tick(1000), 0);
    world.now = start + 10_000;
    assert_eq!(world.tick(1000), 1);
    assert_eq!(world.effects, [for_event(&world, "q")]);
    assert_eq!(world.retained("q"), [1]);
    assert_eq!(world.state.next_due(), Some(Stamp(start + 60_000)));
    world.now = start + 60_000;
    assert_eq!(world.tick(1000), 2);
    assert_eq!(world.effects, [for_event(&world, "q"), for_client("c")]);
    assert_eq!((world.retained("q"), world.retained("p")), (vec![], vec![]));
    assert_eq!(world.state.next_due(), Some(Stamp(start + 600_000)));
    world.now = start + 600_000;
    world.tick(1000);
    assert_eq!(world.state.next_due(), None);
}

#[test]
fn a_tick_removes_no_more_than_it_may() {
    let mut world = World::with(structure(vec![queueing("q", 100, 60)]));
    for _ in 0..5 {
        world.store(event("q", "x"));
    }
    world.now += 60_000;
    assert_eq!([2, 0, 2, 2, 2].map(|limit| world.tick(limit)), [2, 0, 2, 1, 0]);
}

#[test]
fn a_tick_serves_all_sites_the_earliest_due_first() {
    let mut world = World::with(usual());
    for (site, number) in [("a", 1001), ("z", 1002)] {
        let incarnation = Incarnation(1);
        let action = AdminAction::CreateSite { settings: settings(), incarnation };
        world.now += 1;
        world.run(Command::Admin { request: request(number), site: site.into(), action });
    }
    world.store(event("q", "x"));
    let due = |world: &World| world.state.next_due().unwrap().0;
    let first = due(&world);
    world.now = first;
    world.tick(1000);
    // Only the answers are left; those of the other sites fall due last.
    world.now = due(&world);
    let of_first_site = world.tick(1000);
    assert!(of_first_site > 2);
    world.now += 2;
    assert_eq!(world.tick(1000), 2);
    assert_eq!(world.state.next_due(), None);
}

#[test]
fn an_expired_instance_makes_no_room_before_its_time() {
    // Given a full queue whose oldest has expired, when one more is raised.
    let mut world = World::with(usual());
    world.store(NewEvent { lifetime_s: Some(1), ..event("q", "1") });
    world.store(event("q", "2"));
    world.store(event("q", "3"));
    world.now += 1000;
    world.store(event("q", "4"));
    // Then the oldest went, as always.
    assert_eq!(world.retained("q"), [2, 3, 4]);
}
