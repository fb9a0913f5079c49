//! Dead letters in the state: what is kept of what was given up, and what becomes of it.

use ackord_machine::site::dead::{DEAD_LETTERS_MAX, LETTER_NOTE_BYTES_MAX};
use ackord_machine::site::*;

use crate::world::*;

const RETURNED: GivenUp = GivenUp { attempts: 3, cause: LetterCause::Returned };

/// A world in which client `c` keeps what it gives up of each event.
fn world() -> World {
    let mut world = World::with(structure(vec![
        replacing("r"),
        queueing("q", 1000, 86_400),
        private("p", 86_400),
    ]));
    world.attach_client("c");
    for name in ["r", "q", "p"] {
        let item = SubscriptionRequest { max_attempts: Some(3), ..item(name) };
        let quality = Quality { dead_letter: true, ..Quality::default() };
        world.done(AdminAction::PutSubscriptionAs { client: "c".into(), item, quality });
    }
    world
}

fn give_up(world: &mut World, event: &str, instance: u64) -> Outcome {
    let Advance { site, client, event, epoch, incarnation, generation, .. } =
        world.advancing("c", event, instance);
    let (instance, given_up) = (InstanceId(instance), RETURNED);
    world.run(Command::GiveUp(GiveUp {
        site,
        client,
        event,
        epoch,
        incarnation,
        generation,
        instance,
        cursor: instance,
        given_up,
    }))
}

fn letters(world: &World) -> Vec<&DeadLetterRow> {
    world.site().dead_letters().collect()
}

fn replay(world: &mut World, id: InstanceId) -> u64 {
    match world.admin(AdminAction::ReplayDeadLetter { id }) {
        Outcome::Raised(Raised { decision: Decision::Stored(id), .. }) => id.0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_given_up_is_kept_whole_once_and_the_cursor_passes_it() {
    let mut world = world();
    let id = world.store(event("q", "{\"x\":1}"));
    let cursor = InstanceId(id);
    assert_eq!(give_up(&mut world, "q", id), Outcome::Advanced { cursor });
    assert_eq!(give_up(&mut world, "q", id), Outcome::Advanced { cursor }, "the same again");
    let [letter] = letters(&world)[..] else { panic!("one letter") };
    assert_eq!((letter.instance, letter.original), (cursor, cursor));
    assert_eq!(letter.subscriber, Subscriber::Client("c".into(), world.key("q")));
    assert_eq!(letter.arguments, event("q", "{\"x\":1}").arguments);
    assert_eq!((letter.given_up, letter.state), (RETURNED, LetterState::Waiting));
    assert_eq!(world.cursor("c", "q"), Some(id));
    assert!(letter.id > cursor, "a number of its own");
}

#[test]
fn without_the_option_or_the_instance_nothing_is_kept() {
    let mut world = world();
    let gone = world.store(event("r", "1"));
    let newer = world.store(event("r", "2"));
    give_up(&mut world, "r", gone);
    assert_eq!(letters(&world).len(), 0);
    let item = SubscriptionRequest { max_attempts: Some(3), ..item("r") };
    world.done(AdminAction::PutSubscription { client: "c".into(), item });
    give_up(&mut world, "r", newer);
    assert_eq!(letters(&world).len(), 0);
    assert_eq!(world.cursor("c", "r"), Some(newer));
}

#[test]
fn a_letter_is_raised_again_once_as_a_new_instance_that_names_the_first() {
    let mut world = world();
    let first = world.store(event("q", "1"));
    give_up(&mut world, "q", first);
    let id = letters(&world)[0].id;
    let second = replay(&mut world, id);
    let instance = world.site().instance(InstanceId(second)).unwrap();
    assert_eq!(instance.original, Some(InstanceId(first)));
    assert_eq!(instance.arguments, event("q", "1").arguments);
    assert_eq!(world.next("c", "q", first), Some(second));
    let state = LetterState::Replayed { at: Stamp(world.now), instance: InstanceId(second) };
    assert_eq!(letters(&world)[0].state, state);
    let again = world.refused(AdminAction::ReplayDeadLetter { id });
    assert!(matches!(again, Refusal::Conflict { .. }), "{again:?}");

    // Given up again it is another letter, of the same first instance.
    give_up(&mut world, "q", second);
    let [_, letter] = letters(&world)[..] else { panic!("two letters") };
    assert_eq!((letter.instance, letter.original), (InstanceId(second), InstanceId(first)));
    let id = letter.id;
    let third = replay(&mut world, id);
    let instance = world.site().instance(InstanceId(third)).unwrap();
    assert_eq!(instance.original, Some(InstanceId(first)));
}

#[test]
fn a_private_letter_comes_again_to_its_addressee() {
    let mut world = world();
    let first = world.store(to_client("p", "c", "1"));
    give_up(&mut world, "p", first);
    assert!(world.site().instance(InstanceId(first)).is_none(), "the cursor passed it");
    let id = letters(&world)[0].id;
    let second = replay(&mut world, id);
    let instance = world.site().instance(InstanceId(second)).unwrap();
    assert_eq!(instance.client, Some("c".into()));
}

#[test]
fn what_was_true_before_does_not_replace_what_is_true_now() {
    let mut world = world();
    let first = world.store(event("r", "1"));
    give_up(&mut world, "r", first);
    let id = letters(&world)[0].id;
    world.store(event("r", "2"));
    let refused = world.refused(AdminAction::ReplayDeadLetter { id });
    assert!(matches!(refused, Refusal::Conflict { .. }), "{refused:?}");
    assert_eq!(world.values("r"), ["2"]);
}

#[test]
fn a_letter_is_mended_within_the_limits_of_events() {
    let mut world = world();
    let first = world.store(event("q", "1"));
    give_up(&mut world, "q", first);
    let id = letters(&world)[0].id;
    let edit = |arguments, note| AdminAction::EditDeadLetter { id, arguments, note };
    let most = world.state.limits().args_bytes_max as usize;
    let sized = |bytes: usize| {
        Some(Arguments { content_type: "text/plain".into(), data: vec![b'x'; bytes].into() })
    };
    let before = world.site().revision(&Object::DeadLetter(id));
    for wrong in [
        edit(sized(most + 1), None),
        edit(None, Some("x".repeat(LETTER_NOTE_BYTES_MAX + 1))),
        edit(None, Some("\u{7}".to_owned())),
    ] {
        let refused = world.refused(wrong);
        assert!(matches!(refused, Refusal::Invalid(_)), "{refused:?}");
    }
    assert_eq!(world.site().revision(&Object::DeadLetter(id)), before);
    world.done(edit(None, Some("unit was wrong\nsee the manual".to_owned())));
    assert_eq!(
        (letters(&world)[0].edited, letters(&world)[0].arguments.clone()),
        (None, event("q", "1").arguments)
    );
    world.done(edit(sized(most), None));
    assert_eq!(letters(&world)[0].note, "unit was wrong\nsee the manual");
    assert_eq!(letters(&world)[0].edited, Some(Stamp(world.now)));
    assert_ne!(world.site().revision(&Object::DeadLetter(id)), before);
    let second = replay(&mut world, id);
    let instance = world.site().instance(InstanceId(second)).unwrap();
    assert_eq!(instance.arguments, sized(most));
    let late = world.refused(edit(None, Some("late".to_owned())));
    assert!(matches!(late, Refusal::Conflict { .. }), "{late:?}");
    let absent = AdminAction::DeleteDeadLetter { id: InstanceId(9999) };
    assert_eq!(world.refused(absent), Refusal::UnknownDeadLetter);
}

#[test]
fn of_one_subscription_so_many_are_kept_and_the_oldest_goes_but_first_what_was_raised_again() {
    let mut world = world();
    let mut given = Vec::new();
    for n in 0..DEAD_LETTERS_MAX {
        let id = world.store(event("q", &n.to_string()));
        give_up(&mut world, "q", id);
        given.push(id);
    }
    let other = world.store(event("r", "1"));
    give_up(&mut world, "r", other);
    let fifth = letters(&world)[4].id;
    replay(&mut world, fifth);
    let oldest = |world: &World| -> Vec<u64> {
        letters(world).iter().take(5).map(|letter| letter.instance.0).collect()
    };
    assert_eq!(oldest(&world), given[..5]);
    for n in 0..2 {
        let id = world.store(event("q", "x"));
        give_up(&mut world, "q", id);
        assert_eq!(letters(&world).len(), DEAD_LETTERS_MAX + 1, "{n}");
    }
    assert_eq!(oldest(&world), [given[1], given[2], given[3], given[5], given[6]]);
}

#[test]
fn a_letter_that_is_deleted_is_not_delivered_for_that() {
    let mut world = world();
    let (first, second) = (world.store(event("q", "1")), world.store(event("q", "2")));
    // As in the mode twoway: the second is given up while the first is under way.
    let Advance { site, client, event, epoch, incarnation, generation, .. } =
        world.advancing("c", "q", 0);
    world.run(Command::GiveUp(GiveUp {
        site,
        client,
        event,
        epoch,
        incarnation,
        generation,
        instance: InstanceId(second),
        cursor: InstanceId(0),
        given_up: RETURNED,
    }));
    let id = letters(&world)[0].id;
    let subscriber = Subscriber::Client("c".into(), world.key("q"));
    world.done(AdminAction::DeleteDeadLetter { id });
    assert!(world.site().is_given_up(&subscriber, InstanceId(second)));
    assert_eq!(letters(&world)[0].arguments, None);
    let again = world.refused(AdminAction::DeleteDeadLetter { id });
    assert_eq!(again, Refusal::UnknownDeadLetter);
    // Once the cursor is behind it, nothing needs to be known any more.
    world.advance("c", "q", first);
    let third = world.store(to_client("p", "c", "1"));
    give_up(&mut world, "p", third);
    let id = letters(&world)[1].id;
    world.done(AdminAction::DeleteDeadLetter { id });
    assert_eq!(letters(&world).len(), 1);
}

#[test]
fn letters_outlive_their_subscription_but_not_their_client_or_event() {
    let mut world = world();
    for name in ["r", "q"] {
        let id = world.store(event(name, "1"));
        give_up(&mut world, name, id);
    }
    world.done(AdminAction::Unsubscribe { client: "c".into(), event: "q".into() });
    assert_eq!(letters(&world).len(), 2);
    world.apply_structure(structure(vec![queueing("q", 1000, 86_400)]));
    assert_eq!(letters(&world).len(), 1);
    world.done(AdminAction::DeleteClient { id: "c".into() });
    assert_eq!(letters(&world).len(), 0);
}

#[test]
fn a_callback_gives_up_into_letters_too() {
    let mut world = world();
    let AdminAction::PutPush { spec, .. } = crate::pushes::put("p", "c", "q") else {
        panic!("a push subscription")
    };
    let quality = Quality { dead_letter: true, ..Quality::default() };
    let without = PushSpec { quality, ..*spec.clone() };
    let put = |spec| AdminAction::PutPush { id: "p".into(), spec: Box::new(spec) };
    let refused = world.refused(put(without));
    assert!(
        matches!(&refused, Refusal::BadQuality(it) if it.field == "dead_letter"),
        "{refused:?}"
    );
    world.done(put(PushSpec { quality, max_attempts: Some(2), retry_count: -1, ..*spec }));
    let first = world.store(event("q", "1"));
    let claim = Claim { session: SessionId(7), above: Epoch(0) };
    world.run(Command::AttachPush(AttachPush { site: SITE.into(), id: "p".into(), claim }));
    let (instance, trouble) = (InstanceId(first), Trouble::Status(500));
    let row = world.site().push("p").unwrap();
    let settle = SettlePush {
        site: SITE.into(),
        id: "p".into(),
        epoch: row.epoch,
        incarnation: world.site().incarnation(),
        generation: row.generation,
        number: 1,
        report: PushReport::GivenUp { trouble, instance, attempts: 2, cursor: instance },
    };
    world.run(Command::SettlePush(settle));
    let [letter] = letters(&world)[..] else { panic!("one letter") };
    assert_eq!(letter.subscriber, Subscriber::Push("p".into()));
    let given_up = GivenUp { attempts: 2, cause: LetterCause::Failed(trouble) };
    assert_eq!((letter.instance, letter.given_up), (instance, given_up));
    let row = world.site().push("p").unwrap();
    assert_eq!((row.cursor, row.failed, row.dropped), (instance, 1, 0));
    world.done(AdminAction::DeletePush { id: "p".into(), owner: None });
    assert_eq!(letters(&world).len(), 0);
}
