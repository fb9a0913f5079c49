//! Acknowledgements that come past the session: taken by any node, committed through the log.

use super::*;

fn acknowledge(world: &mut World, client: &Client, name: &str, id: u64) -> Outcome {
    let (site, event) = (world.site(), world.event(name));
    let row = site.subscription(&"c".into(), event).expect("it is subscribed");
    let advance = Advance {
        site: SITE.into(),
        client: "c".into(),
        event,
        epoch: client.session.epoch(),
        incarnation: site.incarnation(),
        generation: row.generation,
        instance: InstanceId(id),
    };
    world.apply(Command::Acknowledge(advance))
}

#[test]
fn given_an_acknowledgement_past_the_session_then_it_delivers_the_next() {
    let mut world = World::new();
    let ids = [world.raise("reading"), world.raise("reading"), world.raise("reading")];
    let mut client = Client::with(&mut world, &["reading"]);
    for id in ids {
        assert_eq!(client.delivered(), [(id, 1)]);
        acknowledge(&mut world, &client, "reading", id);
        assert!(client.wake(&world), "the session is woken");
    }
    assert_eq!(client.committed(), ids);
    assert_eq!(client.session.next_deadline(), None);
}

#[test]
fn given_an_acknowledgement_whose_wake_is_late_then_the_instance_is_not_sent_again() {
    let mut world = World::new();
    let ids = [world.raise("reading"), world.raise("reading")];
    let mut client = Client::with(&mut world, &["reading"]);
    assert_eq!(client.delivered(), [(ids[0], 1)]);
    acknowledge(&mut world, &client, "reading", ids[0]);
    world.pass_ms(ACK_TIMEOUT_MS);
    client.tell(&world, |session, view, out| session.on_time(view, out));
    assert_eq!(client.delivered(), [(ids[1], 1)]);
}
