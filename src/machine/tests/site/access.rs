//! Authority: who may enter a site, who may receive an event.

use ackord_machine::site::*;

use crate::world::*;

/// A site with every access rule, a client of each kind, and user `u` without roles.
fn guarded(guests: GuestSupport, settings: SiteSettings) -> World {
    let roles = Access::Roles(vec!["Operator".into(), "Admin".into()]);
    let mut it = structure(vec![
        restricted("everyone", Access::Everyone),
        restricted("users", Access::GuestsDenied),
        restricted("registered", Access::StatelessGuestsDenied),
        restricted("roles", roles),
        private("private", 60),
    ]);
    it.guests = guests;
    let mut world = World::blank(settings);
    world.apply_structure(it);
    world.done(AdminAction::CreateUser { id: "u".into(), roles: vec![] });
    world.done(AdminAction::CreateUser { id: "op".into(), roles: vec!["Operator".into()] });
    world.done(AdminAction::CreateUser { id: OWNER.into(), roles: vec![] });
    world.create_client("of-user", Some("u"));
    world.create_client("of-operator", Some("op"));
    world.create_client("of-owner", Some(OWNER));
    world.create_client("guest", None);
    world
}

fn may(world: &World, who: &str) -> Vec<&'static str> {
    let receiver = match who {
        "stateless" => Receiver::Stateless,
        client => Receiver::Client(client.into()),
    };
    let events = ["everyone", "users", "registered", "roles", "private"];
    let may = |event: &&str| world.site().may_receive(world.key(event), &receiver);
    events.into_iter().filter(may).collect()
}

#[test]
fn each_rule_admits_whom_it_names() {
    let world = guarded(GuestSupport::GuestAndStateless, settings());
    let users = ["everyone", "users", "registered", "private"];
    let all = ["everyone", "users", "registered", "roles", "private"];
    assert_eq!(may(&world, "of-user"), users);
    assert_eq!(may(&world, "of-operator"), all);
    assert_eq!(may(&world, "guest"), ["everyone", "registered", "private"]);
    assert_eq!(may(&world, "stateless"), ["everyone"]);
    assert_eq!(may(&world, "nobody"), [""; 0]);
    assert!(!world.site().may_receive(EventKey(99), &Receiver::Client("of-user".into())));
}

#[test]
fn the_owner_holds_the_owner_role_without_being_given_it() {
    let mut world = guarded(GuestSupport::None, settings());
    assert!(may(&world, "of-owner").contains(&"roles"));
    let mut without = (**world.site().structure().unwrap()).clone();
    without.owner_role = None;
    world.apply_structure(without);
    assert!(!may(&world, "of-owner").contains(&"roles"));
}

#[test]
fn a_role_given_and_taken_counts_at_once() {
    let mut world = guarded(GuestSupport::None, settings());
    let roles = |roles: &[&str]| AdminAction::UpdateUser {
        id: "u".into(),
        roles: roles.iter().map(|role| (*role).into()).collect(),
    };
    world.done(roles(&["Admin"]));
    assert_eq!(world.effects, [for_site()]);
    assert!(may(&world, "of-user").contains(&"roles"));
    world.done(roles(&[]));
    assert!(!may(&world, "of-user").contains(&"roles"));
}

#[test]
fn guests_enter_where_structure_and_settings_agree() {
    let support = [GuestSupport::None, GuestSupport::Guest, GuestSupport::GuestAndStateless];
    for guests in support {
        for (guests_allowed, stateless_guests_allowed) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let settings = SiteSettings { guests_allowed, stateless_guests_allowed, ..settings() };
            let mut world = guarded(guests, settings);
            let guest = guests_allowed && guests != GuestSupport::None;
            let stateless =
                guest && stateless_guests_allowed && guests == GuestSupport::GuestAndStateless;
            let admitted = |who| match world.site().admits(&who) {
                Ok(()) => true,
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::AccessDenied);
                    false
                }
            };
            assert!(admitted(Receiver::Client("of-user".into())));
            assert_eq!(admitted(Receiver::Client("guest".into())), guest);
            assert_eq!(admitted(Receiver::Stateless), stateless);
            // One that may not enter receives nothing, and does not attach.
            assert_eq!(may(&world, "guest").is_empty(), !guest);
            assert_eq!(may(&world, "stateless").is_empty(), !stateless);
            let attached =
                matches!(world.try_attach_client("guest"), Outcome::ClientAttached { .. });
            assert_eq!(attached, guest);
        }
    }
}

#[test]
fn a_blank_site_tells_guests_to_come_back() {
    let mut world = World::blank(settings());
    assert_eq!(world.site().admits(&Receiver::Stateless), Err(Refusal::SiteBlank));
    world.create_client("guest", None);
    let guest = Receiver::Client("guest".into());
    assert_eq!(world.site().admits(&guest), Err(Refusal::SiteBlank));
    let unknown = Receiver::Client("nobody".into());
    assert_eq!(world.site().admits(&unknown), Err(Refusal::UnknownClient));
    world.done(AdminAction::UpdateSite {
        settings: SiteSettings { guests_allowed: false, ..settings() },
    });
    assert_eq!(world.site().admits(&guest), Err(Refusal::AccessDenied));
}

#[test]
fn a_deleted_users_clients_become_guests() {
    let mut world = guarded(GuestSupport::Guest, settings());
    world.done(AdminAction::DeleteUser { id: "u".into() });
    assert_eq!(world.effects, [for_client("of-user"), for_site()]);
    assert_eq!(world.site().client("of-user").unwrap().user, None);
    assert_eq!(may(&world, "of-user"), ["everyone", "registered", "private"]);
    assert_eq!(world.site().client("of-operator").unwrap().user, Some("op".into()));
    // A user of that name created again has no claim to them.
    world.done(AdminAction::CreateUser { id: "u".into(), roles: vec!["Admin".into()] });
    assert_eq!(world.site().client("of-user").unwrap().user, None);
}
