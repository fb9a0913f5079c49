//! Clients without connection: when a question attaches, what it is handed, and acknowledgements
//! that come past the session.

use ackord_machine::site::*;

use crate::world::*;

/// How long a session lasts here, milliseconds.
const LASTS_MS: u32 = 60_000;

fn epoch(outcome: Outcome) -> Epoch {
    match outcome {
        Outcome::ClientAttached { epoch, .. } => epoch,
        other => panic!("{other:?}"),
    }
}

/// The first event by id over all subscriptions of a client.
fn due(world: &World, client: &str) -> Option<u64> {
    let (site, id) = (world.site(), ClientId::from(client));
    let cursors: Vec<_> = site.subscriptions(&id).map(|row| (row.event, row.cursor)).collect();
    let next = site.next_of(cursors, &Receiver::Client(id), world.state.clock());
    next.map(|instance| instance.id.0)
}

#[test]
fn questions_go_on_with_one_session_until_it_is_over() {
    let mut world = World::with(usual());
    let before = world.attach_client("c");
    let first = epoch(world.poll("c", LASTS_MS));
    assert!(first > before, "it is an attach");
    assert_eq!(world.effects, [for_client("c")], "who was there hears of it");
    for _ in 0..3 {
        world.now += u64::from(LASTS_MS) - 1;
        assert_eq!(epoch(world.poll("c", LASTS_MS)), first, "each question lets it last");
        assert_eq!(world.effects, []);
    }
    world.now += u64::from(LASTS_MS);
    let second = epoch(world.poll("c", LASTS_MS));
    assert!(second > first, "a later one attaches anew");
}

#[test]
fn a_session_with_a_connection_ends_it_and_the_next_question_attaches_again() {
    let mut world = World::with(usual());
    let polling = epoch(world.poll("c", LASTS_MS));
    let connected = world.attach_client("c");
    assert!(connected > polling);
    assert_eq!(world.site().polling(&"c".into()), None);
    assert!(epoch(world.poll("c", LASTS_MS)) > connected);
}

#[test]
fn a_question_does_not_take_over_from_a_session_that_it_does_not_know_of() {
    let mut world = World::with(usual());
    let claim = world.claim(world.site().client("c").unwrap().epoch);
    let newest = world.attach_client("c");
    let (site, client) = (SITE.into(), "c".into());
    let late = AttachPolling { site, client, claim, lasts_ms: LASTS_MS };
    let outcome = world.run(Command::AttachPolling(late));
    assert_eq!(refusal(outcome), Refusal::Overtaken { newest });
    assert_eq!(world.site().polling(&"c".into()), None);
}

#[test]
fn it_goes_with_its_client() {
    let mut world = World::with(usual());
    world.poll("c", LASTS_MS);
    world.done(AdminAction::DeleteClient { id: "c".into() });
    assert_eq!(world.site().polling(&"c".into()), None);
    world.create_client("c", None);
    assert_eq!(world.site().polling(&"c".into()), None);
}

#[test]
fn one_thing_is_handed_out_the_first_over_all_subscriptions() {
    let mut world = World::with(usual());
    world.subscribe("c", &["q", "r", "p"]);
    assert_eq!(due(&world, "c"), None);
    let (q, r) = (world.store(event("q", "1")), world.store(event("r", "2")));
    let p = world.store(to_client("p", "c", "3"));
    for (name, id) in [("q", q), ("r", r), ("p", p)] {
        assert_eq!(due(&world, "c"), Some(id));
        assert_eq!(due(&world, "c"), Some(id), "until it is acknowledged");
        let advance = world.advancing("c", name, id);
        let done = world.run(Command::Acknowledge(advance));
        assert_eq!(done, Outcome::Advanced { cursor: InstanceId(id) });
        assert_eq!(world.effects, [for_client("c")], "the session that delivered hears of it");
    }
    assert_eq!(due(&world, "c"), None);
}

#[test]
fn an_acknowledgement_is_judged_as_through_a_session_and_says_nothing_twice() {
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    let id = world.store(event("q", "1"));
    let advance = world.advancing("c", "q", id);
    world.run(Command::Acknowledge(advance.clone()));
    let again = world.run(Command::Acknowledge(advance.clone()));
    assert_eq!(again, Outcome::Advanced { cursor: InstanceId(id) });
    assert_eq!(world.effects, [], "nothing moved, nobody is woken");
    let newest = epoch(world.poll("c", LASTS_MS));
    let stale = world.run(Command::Acknowledge(advance.clone()));
    assert_eq!(refusal(stale), Refusal::StaleEpoch { newest });
    let elsewhere = Advance { epoch: newest, generation: Generation(9), ..advance };
    let outcome = world.run(Command::Acknowledge(elsewhere));
    assert_eq!(refusal(outcome), Refusal::StalePosition);
}
