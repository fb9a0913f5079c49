//! What is given up after the last attempt and kept: by which modes, and what follows it.

use super::*;

fn kept(world: &World) -> Vec<(u64, GivenUp)> {
    world.site().dead_letters().map(|letter| (letter.instance.0, letter.given_up)).collect()
}

fn subscribed(world: &mut World, mode: Mode) -> Client {
    let quality = Quality { mode, dead_letter: true, ..Quality::default() };
    let mut item = SubscribeItem { quality, ..item("reading") };
    item.request.max_attempts = Some(2);
    let mut client = Client::new(Receiver::Client("c".into()), world);
    client.hello(world, Some(Digest([0; 32])));
    client.tell(world, |session, view, out| {
        session.on_subscribe(ListMode::Exact, vec![item], view, out);
    });
    client.settle(world);
    client
}

fn raise(world: &mut World, count: usize) -> Vec<u64> {
    (0..count).map(|_| world.raise("reading")).collect()
}

const fn given_up(cause: LetterCause) -> GivenUp {
    GivenUp { attempts: 2, cause }
}

#[test]
fn given_returns_or_silence_to_the_last_attempt_then_it_is_kept_and_the_next_follows() {
    let mut world = World::new();
    let ids = raise(&mut world, 3);
    let mut client = subscribed(&mut world, Mode::Ordered);
    client.nack(&mut world, "reading", ids[0], 0);
    client.time_out(&mut world);
    client.nack(&mut world, "reading", ids[0], 0);
    let mut expected = vec![(ids[0], given_up(LetterCause::Returned))];
    assert_eq!(kept(&world), expected);
    assert_eq!(world.cursor("c", "reading"), ids[0]);
    // The second one is not answered at all.
    client.time_out(&mut world);
    client.time_out(&mut world);
    expected.push((ids[1], given_up(LetterCause::Timeout)));
    assert_eq!(kept(&world), expected);
    assert_eq!(client.committed(), ids[..2]);
    client.ack(&mut world, "reading", ids[2]);
    assert_eq!(world.cursor("c", "reading"), ids[2]);
    let attempts: Vec<_> = client.delivered();
    let both = |id| [(id, 1), (id, 2)];
    assert_eq!(attempts, [&both(ids[0])[..], &both(ids[1]), &[(ids[2], 1)]].concat());
}

#[test]
fn given_a_letter_that_could_not_be_proposed_then_it_is_again_and_nothing_else_is_sent() {
    let mut world = World::new();
    let ids = raise(&mut world, 2);
    let mut client = subscribed(&mut world, Mode::Ordered);
    client.nack(&mut world, "reading", ids[0], 0);
    client.time_out(&mut world);
    let event = world.event("reading");
    let named = (event, InstanceId(ids[0]));
    client.tell(&world, |session, view, out| session.on_nack(named, 0, view, out));
    let (token, command) = client.asked.pop_front().expect("a letter");
    assert!(matches!(command, Ask::Propose(Command::GiveUp(_))), "{command:?}");
    client.answer(&world, token, Ok(Outcome::Refused(Refusal::OverCapacity)));
    client.delivered();
    assert_eq!((kept(&world), client.asked.len()), (Vec::new(), 0));
    client.time_out(&mut world);
    assert_eq!(kept(&world), [(ids[0], given_up(LetterCause::Returned))]);
    assert_eq!(client.delivered(), [(ids[1], 1)]);
}

#[test]
fn given_a_window_then_the_cursor_waits_for_the_letter_and_passes_it_when_it_is_kept() {
    let mut world = World::new();
    let ids = raise(&mut world, 3);
    let mut client = subscribed(&mut world, Mode::Twoway);
    client.ack(&mut world, "reading", ids[1]);
    client.nack(&mut world, "reading", ids[0], 0);
    client.time_out(&mut world);
    let event = world.event("reading");
    let named = (event, InstanceId(ids[0]));
    client.tell(&world, |session, view, out| session.on_nack(named, 0, view, out));
    assert_eq!(client.asked.len(), 1, "the letter, and no commit before it");
    // An acknowledgement that comes too late changes nothing.
    client.tell(&world, |session, view, out| session.on_ack(named, view, out));
    assert_eq!(client.asked.len(), 1);
    client.settle(&mut world);
    assert_eq!(kept(&world), [(ids[0], given_up(LetterCause::Returned))]);
    assert_eq!(world.cursor("c", "reading"), ids[1]);
    client.ack(&mut world, "reading", ids[2]);
    assert_eq!(world.cursor("c", "reading"), ids[2]);
    assert_eq!(client.session.next_deadline(), None);
}

#[test]
fn given_a_letter_behind_a_gap_then_a_new_session_is_not_sent_it_again() {
    let mut world = World::new();
    let ids = raise(&mut world, 3);
    let mut client = subscribed(&mut world, Mode::Twoway);
    client.nack(&mut world, "reading", ids[1], 0);
    client.time_out(&mut world);
    client.nack(&mut world, "reading", ids[1], 0);
    assert_eq!(kept(&world), [(ids[1], given_up(LetterCause::Returned))]);
    assert_eq!(world.cursor("c", "reading"), 0);
    let mut again = Client::new(Receiver::Client("c".into()), &world);
    again.hello(&mut world, None);
    assert_eq!(again.delivered(), [(ids[0], 1), (ids[2], 1)]);
    again.ack(&mut world, "reading", ids[0]);
    assert_eq!(world.cursor("c", "reading"), ids[1]);
    again.ack(&mut world, "reading", ids[2]);
    assert_eq!(world.cursor("c", "reading"), ids[2]);
}

#[test]
fn given_a_seek_back_then_what_has_a_letter_is_passed_over() {
    let mut world = World::new();
    let ids = raise(&mut world, 2);
    let mut client = subscribed(&mut world, Mode::Ordered);
    client.nack(&mut world, "reading", ids[0], 0);
    client.time_out(&mut world);
    client.nack(&mut world, "reading", ids[0], 0);
    client.ack(&mut world, "reading", ids[1]);
    client.delivered();
    let (after, event) = (InstanceId(0), "reading".into());
    world.admin(AdminAction::Seek { client: "c".into(), event, after });
    client.settle(&mut world);
    assert_eq!(client.delivered(), [(ids[1], 1)]);
}

#[test]
fn given_a_guest_without_account_or_no_last_attempt_then_it_is_refused() {
    let mut world = World::new();
    let quality = Quality { dead_letter: true, ..Quality::default() };
    let mut item = SubscribeItem { quality, ..item("reading") };
    let refused = |client: &Client| {
        client.said.iter().any(|said| {
            matches!(said, ToClient::Subscribed { refused, .. }
                if matches!(&refused[..], [one]
                    if matches!(&one.refusal, Refusal::BadQuality(it) if it.field.ends_with("dead_letter"))))
        })
    };
    let mut client = Client::new(Receiver::Client("c".into()), &world);
    client.hello(&mut world, Some(Digest([0; 32])));
    let items = vec![item.clone()];
    client.tell(&world, |session, view, out| {
        session.on_subscribe(ListMode::Exact, items, view, out);
    });
    client.settle(&mut world);
    assert!(refused(&client), "{:?}", client.said);
    item.request.max_attempts = Some(2);
    let guest = Client::stateless(&mut world, vec![item]);
    assert!(refused(&guest), "{:?}", guest.said);
}
