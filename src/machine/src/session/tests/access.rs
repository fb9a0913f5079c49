//! Authority and the terms of a session: who may receive, and what ends a session.

use super::*;

fn roles(world: &mut World, roles: &[&str]) {
    let roles = roles.iter().map(|role| RoleName::from(*role)).collect();
    world.admin(AdminAction::UpdateUser { id: "u".into(), roles });
}

fn settings(world: &mut World, guests_allowed: bool, stateless_guests_allowed: bool) {
    let multi_service = false;
    world.admin(AdminAction::UpdateSite {
        settings: SiteSettings {
            multi_service,
            constructible: true,
            guests_allowed,
            stateless_guests_allowed,
        },
    });
}

#[test]
fn a4_given_a_role_granted_while_connected_then_what_is_retained_is_delivered_in_order() {
    let mut world = World::new();
    let ids: Vec<u64> = (0..4).map(|_| world.raise("staff")).collect();
    let mut client = Client::with(&mut world, &["staff"]);
    assert_eq!(client.delivered(), []);
    assert_eq!(client.session.lanes()[0].state(), LaneState::Unauthorized);
    roles(&mut world, &["operator"]);
    client.settle(&mut world);
    let event = world.event("staff");
    assert!(client.said.contains(&ToClient::Authority { event, granted: true }));
    assert_eq!(client.drain(&mut world, "staff"), ids);
}

#[test]
fn a5_a6_a7_given_a_role_revoked_in_flight_then_the_ack_counts_and_nothing_more_until_granted() {
    let mut world = World::new();
    roles(&mut world, &["operator"]);
    let ids: Vec<u64> = (0..8).map(|_| world.raise("staff")).collect();
    let mut client = Client::with(&mut world, &["staff"]);
    for id in &ids[..4] {
        client.ack(&mut world, "staff", *id);
    }
    assert_eq!(client.delivered().last(), Some(&(ids[4], 1)));
    roles(&mut world, &[]);
    client.settle(&mut world);

    // Not sent again while revoked, and no timer spins.
    client.time_out(&mut world);
    assert_eq!(client.delivered(), []);
    assert_eq!(client.session.next_deadline(), None);

    client.ack(&mut world, "staff", ids[4]);
    assert_eq!(world.cursor("c", "staff"), ids[4]);
    assert_eq!(client.delivered(), []);
    roles(&mut world, &["operator"]);
    client.settle(&mut world);
    assert_eq!(client.drain(&mut world, "staff"), ids[5..]);
}

#[test]
fn given_a_role_revoked_and_granted_with_one_in_flight_then_it_is_sent_again_when_overdue() {
    let mut world = World::new();
    roles(&mut world, &["operator"]);
    let id = world.raise("staff");
    let mut client = Client::with(&mut world, &["staff"]);
    roles(&mut world, &[]);
    client.settle(&mut world);
    client.time_out(&mut world);
    roles(&mut world, &["operator"]);
    client.settle(&mut world);
    assert_eq!(client.delivered(), [(id, 1), (id, 2)]);
}

#[test]
fn given_a_revocation_that_no_wake_told_then_the_next_is_not_chosen_all_the_same() {
    let mut world = World::new();
    roles(&mut world, &["operator"]);
    let ids = [world.raise("staff"), world.raise("staff")];
    let mut client = Client::with(&mut world, &["staff"]);
    roles(&mut world, &[]);
    let event = world.event("staff");
    client
        .tell(&world, |session, view, out| session.on_ack((event, InstanceId(ids[0])), view, out));
    let (token, ask) = client.asked.pop_front().expect("the commit was proposed");
    let Ask::Propose(command) = ask else { panic!("{ask:?}") };
    let outcome = world.apply(command);
    client.answer(&world, token, Ok(outcome));
    assert_eq!(client.delivered(), [(ids[0], 1)]);
    assert!(client.said.contains(&ToClient::Authority { event, granted: false }));
}

#[test]
fn a1_given_guests_then_events_that_deny_them_are_subscribed_but_not_delivered() {
    let mut world = World::new();
    world.raise("members");
    let reading = world.raise("reading");
    world.admin(AdminAction::UpdateClient { id: "c".into(), user: None });
    let mut client = Client::with(&mut world, &["members", "reading"]);
    assert_eq!(client.delivered(), [(reading, 1)]);
    assert_eq!(client.closed, None);
}

#[test]
fn a10_given_guests_switched_off_then_guest_sessions_alone_are_closed() {
    let mut world = World::new();
    world.admin(AdminAction::CreateClient { id: "guest".into(), user: None });
    let mut guest = Client::new(Receiver::Client("guest".into()), &world);
    guest.hello(&mut world, None);
    let mut stateless = Client::stateless(&mut world, vec![item("reading")]);
    let mut member = Client::with(&mut world, &["reading"]);
    settings(&mut world, true, false);
    for client in [&mut guest, &mut stateless, &mut member] {
        client.settle(&mut world);
    }
    assert_eq!(
        (guest.closed, stateless.closed, member.closed),
        (None, Some(CloseReason::AccessDenied), None)
    );
    settings(&mut world, false, false);
    guest.settle(&mut world);
    member.settle(&mut world);
    assert_eq!((guest.closed, member.closed), (Some(CloseReason::AccessDenied), None));
}

#[test]
fn given_a_removed_user_then_its_clients_are_guests_or_closed_where_guests_are_not_let_in() {
    let mut world = World::new();
    let mut client = Client::with(&mut world, &["members", "reading"]);
    world.admin(AdminAction::DeleteUser { id: "u".into() });
    client.settle(&mut world);
    assert_eq!(client.closed, None);
    assert!(!client.session.lanes().iter().all(Lane::granted));
    settings(&mut world, false, false);
    client.settle(&mut world);
    assert_eq!(client.closed, Some(CloseReason::AccessDenied));
}

#[test]
fn given_a_deleted_client_then_its_session_is_closed_as_not_registered() {
    let mut world = World::new();
    let mut client = Client::with(&mut world, &["reading"]);
    world.admin(AdminAction::DeleteClient { id: "c".into() });
    client.settle(&mut world);
    assert_eq!(client.closed, Some(CloseReason::NotRegistered));
}

#[test]
fn given_a_client_deleted_and_created_again_before_its_session_looks_then_it_is_closed_too() {
    let mut world = World::new();
    let mut client = Client::with(&mut world, &["reading"]);
    world.admin(AdminAction::DeleteClient { id: "c".into() });
    world.admin(AdminAction::CreateClient { id: "c".into(), user: Some("u".into()) });
    client.settle(&mut world);
    assert_eq!(client.closed, Some(CloseReason::NotRegistered));
}

#[test]
fn d23_given_the_same_client_twice_then_the_newest_wins() {
    let mut world = World::new();
    let mut first = Client::with(&mut world, &["reading"]);
    let mut second = Client::with(&mut world, &["reading"]);
    let id = world.raise("reading");
    first.settle(&mut world);
    second.settle(&mut world);
    assert_eq!((first.closed, second.closed), (Some(CloseReason::Replaced), None));
    assert_eq!((first.delivered(), second.delivered()), (vec![], vec![(id, 1)]));
}

#[test]
fn given_a_rebuilt_or_deleted_site_then_its_sessions_are_closed() {
    let mut world = World::new();
    let mut client = Client::with(&mut world, &["reading"]);
    let mut other = structure();
    other.service_type = "pump".into();
    world.admin(AdminAction::ApplyStructure {
        structure: other,
        rebuild: true,
        incarnation: Incarnation(8),
    });
    client.settle(&mut world);
    assert_eq!(client.closed, Some(CloseReason::SiteRebuilt));

    let mut client = Client::with(&mut world, &["reading"]);
    world.admin(AdminAction::DeleteSite);
    client.settle(&mut world);
    assert_eq!(client.closed, Some(CloseReason::NotRegistered));
}

#[test]
fn given_a_revoked_token_then_the_session_that_used_it_is_closed() {
    let mut world = World::new();
    let (id, hash) = (TokenId::from("t"), Digest([1; 32]));
    let principal = Principal::Client("c".into());
    world.admin(AdminAction::CreateToken { id: id.clone(), hash, principal });
    let mut client = Client::new(Receiver::Client("c".into()), &world);
    client.session = ClientSession::new(
        SITE.into(),
        Receiver::Client("c".into()),
        Some(id.clone()),
        session_id(),
        SessionOptions::default(),
    );
    client.hello(&mut world, None);
    assert_eq!(client.closed, None);
    world.admin(AdminAction::RevokeToken { id });
    client.settle(&mut world);
    assert_eq!(client.closed, Some(CloseReason::TokenRevoked));
}

#[test]
fn given_frames_out_of_turn_then_the_session_is_closed_as_a_violation() {
    let world = World::new();
    let mut client = Client::new(Receiver::Client("c".into()), &world);
    client.tell(&world, |session, view, out| {
        session.on_ack((EventKey(1), InstanceId(1)), view, out);
    });
    assert_eq!(client.closed, Some(CloseReason::ProtocolViolation));

    let mut world = World::new();
    let mut client = Client::with(&mut world, &["reading"]);
    client.tell(&world, |session, view, out| session.on_hello(None, view, out));
    assert_eq!(client.closed, Some(CloseReason::ProtocolViolation));
}

#[test]
fn given_a_service_that_comes_and_goes_then_clients_are_told() {
    let mut world = World::new();
    let mut client = Client::with(&mut world, &["reading"]);
    let mut service = Service::connected(&mut world);
    client.settle(&mut world);
    let last = service.session.on_ended().expect("it was attached");
    world.apply(last);
    client.settle(&mut world);
    let seen: Vec<bool> = client
        .said
        .iter()
        .filter_map(|message| match message {
            ToClient::Presence { online, .. } => Some(*online),
            ToClient::Welcome { .. }
            | ToClient::Subscribed { .. }
            | ToClient::Event(_)
            | ToClient::Events(_)
            | ToClient::Committed { .. }
            | ToClient::Authority { .. } => None,
        })
        .collect();
    assert_eq!(seen, [true, false]);
    service.settle(&mut world);
}
