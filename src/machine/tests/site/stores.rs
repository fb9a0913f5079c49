//! Sessions and stores of a service: epochs, deduplication, continuation, retirement.

use ackord_machine::site::*;

use crate::world::*;

fn attached(outcome: Outcome) -> (u64, u64, bool, Option<Parked>) {
    match outcome {
        Outcome::ServiceAttached { epoch, last, superseded, parked, .. } => {
            (epoch.0, last.0, superseded, parked)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_attach_takes_a_higher_epoch_and_the_newest_wins() {
    let mut world = World::with(usual());
    let old = world.site().service("v").unwrap().epoch;
    let new = world.attach("v", 1);
    assert!(new > old);
    assert!(world.wakes(&for_service("v")));
    let raise = |epoch| {
        Command::Raise(Raise {
            site: SITE.into(),
            service: "v".into(),
            epoch,
            uid: uid(1),
            sequence: Sequence(1),
            event: event("r", "x"),
        })
    };
    for stale in [old, new.next(), Epoch(0)] {
        assert_eq!(refusal(world.run(raise(stale))), Refusal::StaleEpoch { newest: new });
    }
    assert_eq!(world.run(raise(new)), stored(1));
}

#[test]
fn a_service_that_never_attached_raises_nothing() {
    let mut world = World::blank(settings());
    world.apply_structure(usual());
    let refused = refusal(world.raise_as("v", 1, 1, event("r", "x")));
    assert_eq!(refused, Refusal::StaleEpoch { newest: Epoch(0) });
}

#[test]
fn epoch_is_judged_before_the_store_and_the_store_before_the_number() {
    let mut world = World::with(usual());
    let wrong_store = refusal(world.raise_as("v", 9, 77, event("r", "x")));
    assert_eq!(wrong_store, Refusal::WrongStore);
    let stale = Command::Raise(Raise {
        site: SITE.into(),
        service: "v".into(),
        epoch: Epoch(9),
        uid: uid(9),
        sequence: Sequence(77),
        event: event("r", "x"),
    });
    assert_eq!(refusal(world.run(stale)), Refusal::StaleEpoch { newest: Epoch(1) });
}

#[test]
fn a_store_that_is_known_but_not_the_sessions_is_the_wrong_one() {
    let mut world = World::with(usual());
    world.attach("v", 2);
    assert_eq!(refusal(world.raise_as("v", 1, 1, event("r", "x"))), Refusal::WrongStore);
    assert_eq!(world.raise_as("v", 2, 1, event("r", "x")), stored(1));
}

#[test]
fn the_same_number_twice_gives_two_answers_and_one_instance() {
    let mut world = World::with(usual());
    assert_eq!(world.raise_as("v", 1, 1, event("q", "x")), stored(1));
    let again = world.raise_as("v", 1, 1, event("q", "x"));
    assert_eq!(again, duplicate(Decision::Stored(InstanceId(1))));
    assert_eq!(world.retained("q"), [1]);
    assert_eq!(world.effects, []);
}

#[test]
fn a_number_with_other_content_is_reused() {
    let mut world = World::with(usual());
    world.raise_as("v", 1, 1, event("q", "x"));
    let changes: [NewEvent; 5] = [
        event("q", "y"),
        event("r", "x"),
        NewEvent { lifetime_s: Some(5), ..event("q", "x") },
        NewEvent { category: Some(Category::Queueing), ..event("q", "x") },
        NewEvent { client: Some("c".into()), ..event("q", "x") },
    ];
    for other in changes {
        assert_eq!(refusal(world.raise_as("v", 1, 1, other)), Refusal::SequenceReused);
    }
}

#[test]
fn a_number_too_high_says_where_to_go_on() {
    // Given number 1 decided, when 3 comes before 2.
    let mut world = World::with(usual());
    world.raise_as("v", 1, 1, event("q", "1"));
    let refused = refusal(world.raise_as("v", 1, 3, event("q", "3")));
    // Then nothing is stored and the store is told to send 2.
    assert_eq!(refused, Refusal::OutOfSequence { expected: Sequence(2) });
    assert_eq!(world.raise_as("v", 1, 2, event("q", "2")), stored(2));
    assert_eq!(world.raise_as("v", 1, 3, event("q", "3")), stored(3));
    assert_eq!(world.values("q"), ["1", "2", "3"]);
}

#[test]
fn there_is_no_number_zero() {
    let mut world = World::with(usual());
    match refusal(world.raise_as("v", 1, 0, event("q", "x"))) {
        Refusal::Invalid(invalid) => assert_eq!(invalid.field, "sequence"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_last_2048_decisions_are_remembered() {
    let mut world = World::with(usual());
    let epoch = world.site().service("v").unwrap().epoch;
    let raise = |number: u64| {
        let (site, service) = (SITE.into(), "v".into());
        let event = event("r", &number.to_string());
        Command::Raise(Raise {
            site,
            service,
            epoch,
            uid: uid(1),
            sequence: Sequence(number),
            event,
        })
    };
    let commands = (1..=2049).map(raise).collect();
    apply(&mut world.state, &Batch { stamp: Stamp(world.now), commands });
    assert_eq!(world.run(raise(1)), duplicate(Decision::Forgotten));
    assert_eq!(world.run(raise(2)), duplicate(Decision::Stored(InstanceId(2))));
    assert_eq!(world.run(raise(2049)), duplicate(Decision::Stored(InstanceId(2049))));
    let outcomes = world.state.rows().filter(|row| matches!(row, Row::Outcome(_))).count();
    assert_eq!(outcomes, 2048);
}

#[test]
fn a_store_that_comes_back_is_told_its_mark() {
    let mut world = World::with(usual());
    world.raise(event("q", "1"));
    world.raise(event("q", "2"));
    assert_eq!(attached(world.attach_with("v", None, 1, None)), (2, 2, false, None));
    assert_eq!(attached(world.attach_with("v", None, 2, None)), (3, 0, false, None));
    assert_eq!(attached(world.attach_with("v", None, 1, None)), (4, 2, false, None));
}

#[test]
fn a_continued_store_hands_over_its_mark_and_is_retired() {
    // Given store 1 with two events decided, when store 2 continues it.
    let mut world = World::with(usual());
    world.raise(event("q", "1"));
    world.raise(event("q", "2"));
    assert_eq!(attached(world.attach_with("v", None, 2, Some(1))), (2, 2, false, None));
    // Then nothing that was in flight is stored twice, and the numbers go on.
    let again = world.raise_as("v", 2, 2, event("q", "2"));
    assert_eq!(again, duplicate(Decision::Stored(InstanceId(2))));
    assert_eq!(refusal(world.raise_as("v", 2, 1, event("q", "z"))), Refusal::SequenceReused);
    assert_eq!(world.raise_as("v", 2, 3, event("q", "3")), stored(3));
    // And store 1, should it come back, is told to drop what it holds.
    assert_eq!(attached(world.attach_with("v", None, 1, None)), (3, 2, true, None));
    let late = refusal(world.raise_as("v", 1, 3, event("q", "late")));
    assert_eq!(late, Refusal::StoreSuperseded);
    assert_eq!(world.retained("q"), [1, 2, 3]);
}

#[test]
fn continuing_is_repeatable() {
    let mut world = World::with(usual());
    world.raise(event("q", "1"));
    world.attach_with("v", None, 2, Some(1));
    world.raise(event("q", "2"));
    assert_eq!(attached(world.attach_with("v", None, 2, Some(1))), (3, 2, false, None));
    assert_eq!(attached(world.attach_with("v", None, 2, Some(2))), (4, 2, false, None));
    assert_eq!(world.raise_as("v", 2, 3, event("q", "3")), stored(3));
}

#[test]
fn a_store_that_was_never_seen_is_retired_when_it_is_continued() {
    let mut world = World::with(usual());
    assert_eq!(attached(world.attach_with("v", None, 5, Some(4))), (2, 0, false, None));
    assert_eq!(world.raise_as("v", 5, 1, event("q", "x")), stored(1));
    assert_eq!(attached(world.attach_with("v", None, 4, None)), (3, 0, true, None));
}

#[test]
fn a_known_store_that_says_it_continues_another_retires_it_and_keeps_its_own_mark() {
    let mut world = World::with(usual());
    world.raise(event("q", "1"));
    world.attach("v", 2);
    assert_eq!(attached(world.attach_with("v", None, 2, Some(1))), (3, 0, false, None));
    assert_eq!(attached(world.attach_with("v", None, 1, None)), (4, 1, true, None));
}

#[test]
fn nobody_continues_a_store_that_was_continued() {
    // Given store 1 continued by 2, when 3 claims to continue 1 as well.
    let mut world = World::with(usual());
    world.attach_with("v", None, 2, Some(1));
    // Then what it holds may be stored under 2 already: it is to drop it.
    let (_, _, superseded, _) = attached(world.attach_with("v", None, 3, Some(1)));
    assert!(superseded);
    let late = refusal(world.raise_as("v", 3, 1, event("q", "late")));
    assert_eq!(late, Refusal::StoreSuperseded);
    // A chain is fine.
    let (_, _, superseded, _) = attached(world.attach_with("v", None, 4, Some(2)));
    assert!(!superseded);
}

#[test]
fn eight_stores_are_remembered_and_the_one_used_longest_ago_goes() {
    let mut world = World::with(usual());
    world.raise(event("q", "x"));
    for store in 2..=8 {
        world.attach("v", store);
    }
    assert_eq!(world.site().stores("v").count(), 8);
    // Store 1 is used again, so 2 is the oldest now.
    assert_eq!(attached(world.attach_with("v", None, 1, None)).1, 1);
    world.attach("v", 9);
    assert_eq!(world.site().stores("v").count(), 8);
    assert!(world.site().store("v", uid(2)).is_none());
    assert!(world.site().store("v", uid(1)).is_some());
    // A continuation of an unknown store needs two places.
    world.attach_with("v", None, 11, Some(10));
    assert_eq!(world.site().stores("v").count(), 8);
    assert!(world.site().store("v", uid(4)).is_none());
    assert!(world.site().store("v", uid(10)).is_some_and(|store| store.retired));
}

#[test]
fn a_forgotten_store_takes_its_decisions_with_it() {
    let mut world = World::with(usual());
    world.raise(event("q", "x"));
    for store in 2..=9 {
        world.attach("v", store);
    }
    assert!(world.site().store("v", uid(1)).is_none());
    assert_eq!(world.state.rows().filter(|row| matches!(row, Row::Outcome(_))).count(), 0);
}

#[test]
fn presence_follows_the_newest_session() {
    let mut world = World::with(usual());
    let detach =
        |session| Command::DetachService { site: SITE.into(), service: "v".into(), session };
    let newest = |world: &World| *world.site().service("v").unwrap().sessions.last().unwrap();
    let first = newest(&world);
    world.attach("v", 1);
    let second = newest(&world);
    assert_eq!(world.run(detach(first)), Outcome::Done);
    assert!(world.site().service("v").unwrap().online(), "an older session's end is no news");
    assert_eq!(world.effects, []);
    assert_eq!(world.run(detach(second)), Outcome::Done);
    assert!(!world.site().service("v").unwrap().online());
    assert_eq!(world.effects, [for_service("v")]);
    world.attach("v", 1);
    assert!(world.site().service("v").unwrap().online());
}

#[test]
fn an_attach_of_a_service_that_comes_again_gets_its_answer_and_changes_nothing() {
    let mut world = World::with(usual());
    world.raise(event("q", "x"));
    let attach = |claim| {
        Command::AttachService(AttachService {
            site: SITE.into(),
            service: "v".into(),
            structure: Some(usual()),
            version: String::new(),
            hostname: String::new(),
            uid: uid(2),
            continues: Some(uid(1)),
            incarnation: Incarnation(1),
            place: Place { node: 1, run: 1 },
            claim,
        })
    };
    let known = world.site().service("v").unwrap().epoch;
    let claim = world.claim(known);
    let outcome = world.run(attach(claim));
    assert_eq!(attached(outcome.clone()), (known.0 + 1, 1, false, None));
    let hash = world.state.hash();
    assert_eq!(world.run(attach(claim)), outcome);
    assert_eq!(world.state.hash(), hash);
    // What another session attached since is not undone.
    world.attach("v", 2);
    let newest = world.site().service("v").unwrap().epoch;
    assert_eq!(refusal(world.run(attach(claim))), Refusal::StaleEpoch { newest });
    let late = world.claim(known);
    assert_eq!(refusal(world.run(attach(late))), Refusal::Overtaken { newest });
}

#[test]
fn version_and_hostname_are_cut_at_a_character() {
    let mut world = World::with(usual());
    let claim = world.claim(Epoch(9));
    world.run(Command::AttachService(AttachService {
        site: SITE.into(),
        service: "v".into(),
        structure: None,
        version: "é".repeat(40),
        hostname: format!("x{}", "é".repeat(200)),
        uid: uid(1),
        continues: None,
        incarnation: Incarnation(1),
        place: Place { node: 1, run: 1 },
        claim,
    }));
    let row = world.site().service("v").unwrap();
    assert_eq!(row.version, "é".repeat(32));
    assert_eq!(row.hostname, format!("x{}", "é".repeat(127)));
}

#[test]
fn who_is_unknown_is_refused() {
    let mut world = World::with(usual());
    assert_eq!(refusal(world.attach_with("x", None, 1, None)), Refusal::UnknownService);
    assert_eq!(refusal(world.raise_as("x", 1, 1, event("r", "x"))), Refusal::UnknownService);
    let mut nowhere = World::empty();
    assert_eq!(refusal(nowhere.attach_with("v", None, 1, None)), Refusal::UnknownSite);
    assert_eq!(refusal(nowhere.raise_keyed("k", event("r", "x"))), Refusal::UnknownSite);
}

#[test]
fn an_account_created_again_is_another_one() {
    // Given a service deleted and created again, whose session of old still sends.
    let mut world = World::with(usual());
    let old = world.attach("v", 1);
    world.done(AdminAction::DeleteService { id: "v".into() });
    assert!(world.wakes(&for_service("v")));
    assert_eq!(refusal(world.raise_as("v", 1, 1, event("r", "x"))), Refusal::UnknownService);
    world.done(AdminAction::CreateService { id: "v".into() });
    let new = world.attach("v", 1);
    assert!(new > old, "{new} > {old}");
    // The same for a client, whatever is raised meanwhile.
    let old = (0..5).map(|_| world.attach_client("c")).max().unwrap();
    world.done(AdminAction::DeleteClient { id: "c".into() });
    world.store(event("r", "x"));
    world.create_client("c", None);
    let new = world.attach_client("c");
    assert!(new > old, "{new} > {old}");
}
