//! The set of subscriptions: compared by hash, listed, added, removed; positions of stateless
//! clients.

use super::*;

/// The names of one `subscribed`: accepted, refused, removed.
type Names<'a> = (Vec<&'a str>, Vec<&'a str>, Vec<&'a str>);

fn names(message: &ToClient) -> Option<Names<'_>> {
    match message {
        ToClient::Subscribed { accepted, refused, removed } => Some((
            accepted.iter().map(|item| item.name.as_str()).collect(),
            refused.iter().map(|item| item.name.as_str()).collect(),
            removed.iter().map(EventName::as_str).collect(),
        )),
        ToClient::Welcome { .. }
        | ToClient::Event(_)
        | ToClient::Events(_)
        | ToClient::Committed { .. }
        | ToClient::Authority { .. }
        | ToClient::Presence { .. } => None,
    }
}

fn subscribed(client: &Client) -> Vec<Names<'_>> {
    client.said.iter().filter_map(names).collect()
}

fn sync(client: &Client) -> Option<SubscriptionSync> {
    match client.said.first() {
        Some(ToClient::Welcome { sync, .. }) => Some(*sync),
        _ => None,
    }
}

fn hash(names: &[&str]) -> Digest {
    let names: Vec<EventName> = names.iter().map(|name| EventName::from(*name)).collect();
    set_hash(names.iter().map(|name| (name, Start::Earliest, None, None, Quality::default())))
}

#[test]
fn d1_given_an_unchanged_set_then_no_list_is_asked_for_and_delivery_starts() {
    let mut world = World::new();
    Client::with(&mut world, &["short", "reading"]);
    let id = world.raise("reading");
    let mut again = Client::new(Receiver::Client("c".into()), &world);
    again.hello(&mut world, Some(hash(&["reading", "short"])));
    assert_eq!(sync(&again), Some(SubscriptionSync::Equal));
    assert_eq!(subscribed(&again), [(vec!["reading", "short"], vec![], vec![])]);
    assert_eq!(again.delivered(), [(id, 1)]);
}

#[test]
fn given_no_hash_then_the_brokers_set_stays() {
    let mut world = World::new();
    Client::with(&mut world, &["reading"]);
    let mut again = Client::new(Receiver::Client("c".into()), &world);
    again.hello(&mut world, None);
    assert_eq!(sync(&again), Some(SubscriptionSync::Kept));
    assert_eq!(subscribed(&again), [(vec!["reading"], vec![], vec![])]);
}

#[test]
fn d2_given_a_changed_set_then_the_kept_keep_their_cursor_and_the_unlisted_go() {
    let mut world = World::new();
    let ids = [world.raise("reading"), world.raise("reading")];
    let mut client = Client::with(&mut world, &["reading", "short"]);
    client.ack(&mut world, "reading", ids[0]);
    drop(client);

    let mut again = Client::new(Receiver::Client("c".into()), &world);
    again.hello(&mut world, Some(hash(&["reading", "state"])));
    assert_eq!(sync(&again), Some(SubscriptionSync::Send));
    assert_eq!(again.delivered(), [], "deliveries start after the set");
    again.subscribe(&mut world, ListMode::Exact, &["reading", "state"]);
    assert_eq!(subscribed(&again), [(vec!["reading", "state"], vec![], vec![])]);
    assert_eq!(again.delivered(), [(ids[1], 1)]);
    let short = world.event("short");
    assert!(world.site().subscription(&"c".into(), short).is_none());
}

#[test]
fn given_a_connected_client_then_lists_add_and_remove_and_what_is_in_flight_stays() {
    let mut world = World::new();
    let reading = world.raise("reading");
    let mut client = Client::with(&mut world, &["reading"]);
    client.subscribe(&mut world, ListMode::Add, &["reading", "state"]);
    assert_eq!(client.delivered(), [(reading, 1)]);
    client.tell(&world, |session, view, out| {
        session.on_unsubscribe(vec!["reading".into(), "none".into()], view, out);
    });
    client.settle(&mut world);
    assert_eq!(
        subscribed(&client),
        [
            (vec!["reading"], vec![], vec![]),
            (vec!["reading", "state"], vec![], vec![]),
            (vec![], vec![], vec!["reading"]),
        ]
    );
    client.ack(&mut world, "reading", reading);
    assert_eq!(client.committed(), [] as [u64; 0]);
    assert_eq!(client.session.lanes().len(), 1);
}

#[test]
fn given_bad_names_then_they_are_refused_alone_and_each_once_per_session() {
    let mut world = World::new();
    let id = world.raise("reading");
    let mut client = Client::with(&mut world, &["reading", "nonsense"]);
    assert_eq!(client.delivered(), [(id, 1)]);
    let mut wrong = item("short");
    wrong.request.category = Some(Category::Replacing);
    client.tell(&world, |session, view, out| {
        session.on_subscribe(ListMode::Add, vec![wrong, item("nonsense")], view, out);
    });
    client.settle(&mut world);
    assert_eq!(
        subscribed(&client),
        [(vec!["reading"], vec!["nonsense"], vec![]), (vec![], vec!["short"], vec![])]
    );
}

#[test]
fn given_start_latest_then_only_later_events_are_delivered() {
    let mut world = World::new();
    world.raise("reading");
    let mut client = Client::with(&mut world, &[]);
    let mut latest = item("reading");
    latest.request.start = Start::Latest;
    client.tell(&world, |session, view, out| {
        session.on_subscribe(ListMode::Add, vec![latest], view, out);
    });
    client.settle(&mut world);
    assert_eq!(client.delivered(), []);
    let id = world.raise("reading");
    client.settle(&mut world);
    assert_eq!(client.delivered(), [(id, 1)]);
}

#[test]
fn given_lists_that_wait_then_they_are_served_in_order_and_too_many_close_the_session() {
    let mut world = World::new();
    let mut client = Client::with(&mut world, &["reading"]);
    for name in ["short", "state"] {
        client.tell(&world, |session, view, out| {
            session.on_subscribe(ListMode::Add, vec![item(name)], view, out);
        });
    }
    assert_eq!(client.asked.len(), 1, "one at a time");
    let (token, _) = client.asked.pop_front().expect("the first was proposed");
    client.answer(&world, token, Err(Failed::Busy));
    assert!(client.asked.is_empty(), "the second does not overtake the first");
    world.pass_ms(PROPOSE_RETRY_MS);
    client.tell(&world, |session, view, out| session.on_time(view, out));
    client.settle(&mut world);
    assert_eq!(client.session.lanes().len(), 3);

    for _ in 0..=crate::session::subscriptions::REQUESTS_WAITING_MAX {
        client.tell(&world, |session, view, out| {
            session.on_subscribe(ListMode::Add, vec![item("short")], view, out);
        });
    }
    assert_eq!(client.closed, Some(CloseReason::LimitReached));
}

#[test]
fn given_an_event_that_the_structure_loses_then_its_subscription_is_reported_as_removed() {
    let mut world = World::new();
    let mut client = Client::with(&mut world, &["reading", "short"]);
    let mut smaller = structure();
    smaller.events.retain(|event| event.name.as_str() != "short");
    world.admin(AdminAction::ApplyStructure {
        structure: smaller,
        rebuild: false,
        incarnation: Incarnation(9),
    });
    client.settle(&mut world);
    assert_eq!(subscribed(&client).last(), Some(&(vec![], vec![], vec!["short"])));
    assert_eq!((client.session.lanes().len(), client.closed), (1, None));
}

#[test]
fn given_a_replica_that_lags_then_the_session_opens_once_its_own_attach_is_applied() {
    let mut world = World::new();
    let id = world.raise("reading");
    drop(Client::with(&mut world, &["reading"]));
    let lagging = World::new();
    let mut client = Client::new(Receiver::Client("c".into()), &world);
    client.tell(&world, |session, view, out| session.on_hello(None, view, out));
    let (token, ask) = client.asked.pop_front().expect("the attach was proposed");
    let Ask::Propose(command) = ask else { panic!("{ask:?}") };
    let outcome = world.apply(command);
    client.answer(&lagging, token, Ok(outcome));
    assert!(client.said.is_empty());
    client.tell(&world, |session, view, out| session.on_wake(&Wake::Client, view, out));
    assert_eq!(client.delivered(), [(id, 1)]);
}

fn resume(name: &str, incarnation: u64, instance: u64) -> SubscribeItem {
    let (incarnation, instance) = (Incarnation(incarnation), InstanceId(instance));
    let position = Position { incarnation, generation: Generation(0), instance };
    SubscribeItem { resume: Some(position), ..item(name) }
}

#[test]
fn d12_given_a_stateless_client_then_it_starts_at_its_own_position() {
    let mut world = World::new();
    let ids: Vec<u64> = (0..4).map(|_| world.raise("reading")).collect();
    let mut client = Client::stateless(&mut world, vec![item("reading")]);
    assert_eq!(sync(&client), Some(SubscriptionSync::Send));
    assert_eq!(client.drain(&mut world, "reading"), ids);
    assert_eq!(client.committed(), ids);

    let life = world.site().incarnation().0;
    let mut again = Client::stateless(&mut world, vec![resume("reading", life, ids[1])]);
    assert_eq!(again.drain(&mut world, "reading"), ids[2..]);
}

#[test]
fn given_a_position_of_another_life_or_above_the_head_then_delivery_starts_at_the_first_and_says_so()
 {
    let mut world = World::new();
    let ids = [world.raise("reading"), world.raise("reading")];
    let life = world.site().incarnation().0;
    for bad in [resume("reading", life + 1, ids[0]), resume("reading", life, ids[1] + 1)] {
        let mut client = Client::stateless(&mut world, vec![bad]);
        let resumed = client.said.iter().find_map(|message| match message {
            ToClient::Subscribed { accepted, .. } => accepted[0].resumed,
            _ => None,
        });
        assert_eq!(resumed, Some(false));
        assert_eq!(client.drain(&mut world, "reading"), ids);
    }
}

#[test]
fn q13_given_a_stateless_client_then_a_private_event_is_refused() {
    let mut world = World::new();
    let client = Client::stateless(&mut world, vec![item("notice"), item("reading")]);
    assert_eq!(subscribed(&client), [(vec!["reading"], vec!["notice"], vec![])]);
}

#[test]
fn given_a_stateless_client_then_lists_change_its_lanes_and_kept_ones_go_on() {
    let mut world = World::new();
    let ids = [world.raise("reading"), world.raise("reading")];
    let mut client = Client::stateless(&mut world, vec![item("reading"), item("short")]);
    client.ack(&mut world, "reading", ids[0]);
    client.subscribe(&mut world, ListMode::Exact, &["reading", "state"]);
    assert_eq!(
        subscribed(&client).last(),
        Some(&(vec!["reading", "state"], vec![], vec!["short"]))
    );
    assert_eq!(client.delivered(), [(ids[0], 1), (ids[1], 1)]);
    client.tell(&world, |session, view, out| {
        session.on_unsubscribe(vec!["state".into()], view, out);
    });
    client.settle(&mut world);
    assert_eq!(client.session.lanes().len(), 1);
}
