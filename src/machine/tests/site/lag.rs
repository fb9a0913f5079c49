//! How far a subscription is behind.

use ackord_machine::site::*;

use crate::world::*;

fn lag(world: &World, event: &str, cursor: u64, count_max: u64) -> Lag {
    let site = world.site();
    let key = site.event_named(event).unwrap().key;
    let receiver = Receiver::Client("c".into());
    site.lag(key, InstanceId(cursor), &receiver, Stamp(world.now), count_max)
}

#[test]
fn what_is_retained_above_the_cursor_and_for_the_client_is_counted_up_to_the_bound() {
    let mut world = World::with(usual());
    world.create_client("other", None);
    let events = [
        event("q", "1"),
        event("q", "2"),
        event("q", "3"),
        to_client("p", "c", "1"),
        to_client("p", "other", "1"),
        event("r", "1"),
    ];
    let began = world.now;
    for (number, event) in events.into_iter().enumerate() {
        world.raise_as("v", 1, number as u64 + 1, event);
    }
    let oldest = Some(world.site().instance(InstanceId(1)).unwrap().created);
    assert!(oldest >= Some(Stamp(began)));
    assert_eq!(lag(&world, "q", 0, 10), Lag { count: 3, more: false, oldest });
    assert_eq!(lag(&world, "q", 0, 3), Lag { count: 3, more: false, oldest });
    assert_eq!(lag(&world, "q", 0, 2), Lag { count: 2, more: true, oldest });
    assert_eq!(lag(&world, "q", 2, 10).count, 1);
    assert_eq!(lag(&world, "q", 3, 10), Lag::default());
    assert_eq!((lag(&world, "p", 0, 10).count, lag(&world, "r", 0, 10).count), (1, 1));
    // Past their lifetime they are not sent any more, so nobody waits for them.
    world.now += 60_000_000;
    assert_eq!(lag(&world, "q", 0, 10), Lag::default());
}
