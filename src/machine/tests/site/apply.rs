//! Structures meeting sites: construction, parking, changes, rebuilds.

use ackord_machine::site::*;

use crate::world::*;

fn parked(outcome: Outcome) -> Option<Parked> {
    match outcome {
        Outcome::ServiceAttached { parked, .. } => parked,
        other => panic!("{other:?}"),
    }
}

fn rebuild(structure: Structure, incarnation: u64) -> AdminAction {
    let incarnation = Incarnation(incarnation);
    AdminAction::ApplyStructure { structure, rebuild: true, incarnation }
}

fn lamp() -> Structure {
    Structure { service_type: "lamp".into(), ..usual() }
}

#[test]
fn the_first_service_constructs_a_blank_site_and_is_online() {
    let mut world = World::blank(settings());
    let outcome = world.attach_with("v", Some(usual()), 1, None);
    let expected = Outcome::ServiceAttached {
        epoch: Epoch(1),
        incarnation: Incarnation(7),
        last: Sequence(0),
        superseded: false,
        parked: None,
    };
    assert_eq!(outcome, expected);
    assert_eq!(world.effects, [for_service("v"), for_site()]);
    assert_eq!(world.site().structure_hash(), Some(&usual().canonical_hash()));
    let names: Vec<_> = world.site().events().map(|event| event.definition.name.as_str()).collect();
    assert_eq!(names, ["r", "q", "p"]);
    assert!(world.site().declared("v").is_none());
    assert_eq!(world.raise(event("q", "x")), Decision::Stored(InstanceId(1)));
}

#[test]
fn a_site_created_without_incarnation_takes_that_of_the_construction() {
    let mut world = World::empty();
    world.done(AdminAction::CreateSite { settings: settings(), incarnation: Incarnation(0) });
    world.done(AdminAction::CreateService { id: "v".into() });
    match world.attach_with("v", Some(usual()), 1, None) {
        Outcome::ServiceAttached { incarnation, .. } => assert_eq!(incarnation, Incarnation(11)),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.site().incarnation(), Incarnation(11));
}

#[test]
fn a_blank_site_parks_what_may_not_construct_it() {
    // Given a site that services may not construct.
    let mut world = World::blank(SiteSettings { constructible: false, ..settings() });
    match world.attach_with("v", Some(usual()), 1, None) {
        Outcome::ServiceAttached { parked, incarnation, .. } => {
            assert_eq!(parked, Some(Parked::SiteBlank));
            assert_eq!(incarnation, Incarnation(0));
        }
        other => panic!("{other:?}"),
    }
    let refused = refusal(world.raise_as("v", 1, 1, event("q", "x")));
    assert_eq!(refused, Refusal::Parked(Parked::SiteBlank));
    assert_eq!(world.site().declared("v").map(|it| &**it), Some(&usual()));
    // When an administrator applies what it declared, then it comes online by itself.
    let incarnation = Incarnation(0);
    let service = "v".into();
    world.done(AdminAction::ApplyDeclared { service, rebuild: false, incarnation });
    assert_eq!(world.effects, [for_site()]);
    let row = world.site().service("v").unwrap();
    assert_eq!(world.site().parked(row), None);
    assert!(world.site().declared("v").is_none());
    assert_eq!(world.raise_as("v", 1, 1, event("q", "x")), stored(1));
}

#[test]
fn a_service_that_declares_nothing_takes_the_site_as_it_is() {
    let mut world = World::blank(settings());
    assert_eq!(parked(world.attach_with("v", None, 1, None)), Some(Parked::SiteBlank));
    world.apply_structure(usual());
    assert_eq!(world.raise_as("v", 1, 1, event("q", "x")), stored(1));
    world.apply_structure(structure(vec![queueing("q", 5, 90)]));
    assert_eq!(world.raise_as("v", 1, 2, event("q", "y")), stored(2));
}

#[test]
fn reordered_roles_and_another_version_are_the_same_structure() {
    let mut world = World::with(usual());
    let mut same = usual();
    same.roles.reverse();
    same.events.reverse();
    same.owner_role = None;
    assert_eq!(parked(world.attach_with("v", Some(same), 1, None)), None);
    assert_eq!(world.site().structure().unwrap().owner_role, Some("Admin".into()));
}

#[test]
fn another_structure_parks_and_its_own_re_applied_brings_it_online() {
    let mut world = World::with(usual());
    let newer = structure(vec![replacing("r"), queueing("q", 3, 90), private("p", 60)]);
    let outcome = world.attach_with("v", Some(newer.clone()), 1, None);
    assert_eq!(parked(outcome), Some(Parked::StructureMismatch));
    let refused = refusal(world.raise_as("v", 1, 1, event("q", "x")));
    assert_eq!(refused, Refusal::Parked(Parked::StructureMismatch));
    world.apply_structure(newer);
    assert_eq!(world.raise_as("v", 1, 1, event("q", "x")), stored(1));
}

#[test]
fn what_was_decided_before_parking_is_still_answered() {
    let mut world = World::with(usual());
    world.raise(event("q", "x"));
    world.attach_with("v", Some(structure(vec![])), 1, None);
    let again = world.raise_as("v", 1, 1, event("q", "x"));
    assert_eq!(again, duplicate(Decision::Stored(InstanceId(1))));
    let refused = refusal(world.raise_as("v", 1, 7, event("q", "x")));
    assert_eq!(refused, Refusal::Parked(Parked::StructureMismatch));
}

#[test]
fn another_type_or_author_is_a_conflict() {
    for other in [lamp(), Structure { contract_author: "Another".into(), ..usual() }] {
        let mut world = World::with(usual());
        let outcome = world.attach_with("v", Some(other.clone()), 1, None);
        assert_eq!(parked(outcome), Some(Parked::ServiceTypeConflict));
        // Only a rebuild makes the site so.
        let plain = AdminAction::ApplyStructure {
            structure: other.clone(),
            rebuild: false,
            incarnation: Incarnation(8),
        };
        assert!(matches!(world.refused(plain), Refusal::Conflict { .. }));
        assert!(matches!(world.refused(rebuild(other.clone(), 7)), Refusal::Conflict { .. }));
        world.done(rebuild(other, 8));
        assert_eq!(world.site().incarnation(), Incarnation(8));
        let row = world.site().service("v").unwrap();
        assert_eq!(world.site().parked(row), None);
    }
}

#[test]
fn a_change_can_park_a_service_that_was_online() {
    let mut world = World::with(usual());
    world.attach_with("v", Some(usual()), 1, None);
    world.apply_structure(structure(vec![]));
    let row = world.site().service("v").unwrap();
    assert_eq!(world.site().parked(row), Some(Parked::StructureMismatch));
    world.apply_structure(usual());
    assert_eq!(world.site().parked(world.site().service("v").unwrap()), None);
}

#[test]
fn a_broken_structure_is_refused_with_the_field() {
    let mut world = World::with(usual());
    let broken = structure(vec![queueing("q", 0, 60)]);
    for outcome in [
        world.attach_with("v", Some(broken.clone()), 1, None),
        world.admin(rebuild(broken.clone(), 8)),
    ] {
        match refusal(outcome) {
            Refusal::Invalid(invalid) => assert_eq!(invalid.field, "events[0].size"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn limits_tightened_later_do_not_lock_services_out() {
    let mut world = World::with(usual());
    world.run(Command::SetLimits(Limits { queue_size_max: 1, ..Limits::default() }));
    assert_eq!(parked(world.attach_with("v", Some(usual()), 1, None)), None);
}

#[test]
fn nothing_declared_is_nothing_to_apply() {
    let mut world = World::with(usual());
    let declared = |service: &str| AdminAction::ApplyDeclared {
        service: service.into(),
        rebuild: false,
        incarnation: Incarnation(0),
    };
    assert!(matches!(world.refused(declared("v")), Refusal::Conflict { .. }));
    assert_eq!(world.refused(declared("x")), Refusal::UnknownService);
}

#[test]
fn over_capacity_a_parked_service_leaves_no_declaration() {
    let mut world = World::with(usual());
    world.attach_with("v", Some(structure(vec![])), 1, None);
    assert!(world.site().declared("v").is_some());
    world.run(Command::SetLimits(Limits { partition_bytes_max: 1, ..Limits::default() }));
    let outcome = world.attach_with("v", Some(structure(vec![replacing("x")])), 1, None);
    assert_eq!(parked(outcome), Some(Parked::StructureMismatch));
    assert!(world.site().declared("v").is_none());
}

#[test]
fn a_smaller_queue_loses_its_oldest_and_cursors_stay() {
    // Given ten retained and a cursor at 4, when the size becomes 3.
    let mut world = World::with(structure(vec![queueing("q", 10, 60)]));
    world.subscribe("c", &["q"]);
    for n in 1..=10 {
        world.store(event("q", &n.to_string()));
    }
    world.advance("c", "q", 4);
    let key = world.key("q");
    world.apply_structure(structure(vec![queueing("q", 3, 60)]));
    // Then the last three are left, and they are what comes next.
    assert_eq!(world.retained("q"), [8, 9, 10]);
    assert_eq!(world.key("q"), key);
    assert_eq!(world.cursor("c", "q"), Some(4));
    assert_eq!(world.next("c", "q", 4), Some(8));
    // And the size holds for what is raised.
    world.store(event("q", "11"));
    assert_eq!(world.retained("q"), [9, 10, 11]);
}

#[test]
fn each_services_queue_is_trimmed_by_itself() {
    let mut world = World::multi(structure(vec![queueing("q", 3, 60)]));
    for _ in 0..3 {
        world.raise_next("v", event("q", "a"));
        world.raise_next("w", event("q", "b"));
    }
    world.raise_next("w", event("q", "b"));
    world.apply_structure(structure(vec![queueing("q", 2, 60)]));
    assert_eq!(world.retained("q"), [3, 5, 6, 7]);
}

#[test]
fn a_longer_lifetime_is_for_what_comes_and_a_shorter_one_for_all() {
    let mut world = World::with(structure(vec![queueing("q", 9, 100), private("p", 100)]));
    let start = world.now;
    world.store(event("q", "1"));
    world.store(NewEvent { lifetime_s: Some(10), ..event("q", "2") });
    world.store(to_client("p", "c", "3"));
    let expires = |world: &World, id| {
        let instance = world.site().instance(InstanceId(id)).unwrap();
        (instance.expires.unwrap().0 - start) / 1000
    };
    world.apply_structure(structure(vec![queueing("q", 9, 200), private("p", 200)]));
    assert_eq!([1, 2, 3].map(|id| expires(&world, id)), [100, 10, 100]);
    assert_eq!(world.store(event("q", "4")), 4);
    assert_eq!(expires(&world, 4), 200);
    world.apply_structure(structure(vec![queueing("q", 9, 60), private("p", 70)]));
    assert_eq!([1, 2, 3, 4].map(|id| expires(&world, id)), [60, 10, 70, 60]);
    assert_eq!(world.values("q"), ["1", "2", "4"]);
    assert_eq!(world.state.next_due(), Some(Stamp(start + 10_000)));
}

#[test]
fn what_is_trimmed_is_not_kept_by_a_shorter_lifetime() {
    let mut world = World::with(structure(vec![queueing("q", 3, 100)]));
    for value in ["1", "2", "3"] {
        world.store(event("q", value));
    }
    world.apply_structure(structure(vec![queueing("q", 2, 60)]));
    assert_eq!(world.values("q"), ["2", "3"]);
}

#[test]
fn events_are_matched_by_name_and_category() {
    // Given subscriptions to four events.
    let mut world = World::with(structure(vec![
        replacing("same"),
        replacing("other"),
        replacing("gone"),
        queueing("q", 3, 60),
    ]));
    world.subscribe("c", &["same", "other", "gone", "q"]);
    for name in ["same", "other", "gone", "q"] {
        world.store(event(name, name));
    }
    let keys: Vec<_> = ["same", "other", "gone", "q"].map(|name| world.key(name)).into();
    // When one changes its category, one goes, one comes, one changes its rule.
    world.apply_structure(structure(vec![
        queueing("q", 3, 60),
        queueing("other", 3, 60),
        replacing("new"),
        restricted("same", Access::GuestsDenied),
    ]));
    // Then the matched keep number, instances and subscriptions.
    assert_eq!((world.key("same"), world.key("q")), (keys[0], keys[3]));
    assert_eq!((world.values("same"), world.values("q")), (vec!["same".into()], vec!["q".into()]));
    assert_eq!((world.cursor("c", "same"), world.cursor("c", "q")), (Some(0), Some(0)));
    let kind = &world.site().event_named("same").unwrap().definition.kind;
    assert_eq!(*kind, Kind::Replacing { access: Access::GuestsDenied });
    // The others are gone with all that was theirs; numbers are not given twice.
    assert!(world.site().event_named("gone").is_none());
    assert_eq!(world.values("other"), [""; 0]);
    assert_eq!(world.cursor("c", "other"), None);
    assert!(!keys.contains(&world.key("other")) && !keys.contains(&world.key("new")));
    assert_eq!(world.site().subscriptions(&"c".into()).count(), 2);
    assert!(world.site().instance(InstanceId(2)).is_none());
    assert_eq!(world.site().events().count(), 4);
    assert_eq!(world.effects, [for_site()]);
    assert_eq!(world.site().incarnation(), Incarnation(7));
}

#[test]
fn a_removed_event_that_comes_back_is_a_new_one() {
    let mut world = World::with(usual());
    world.store(event("q", "x"));
    let old = world.key("q");
    world.apply_structure(structure(vec![]));
    assert_eq!(world.raise(event("q", "y")), Decision::Rejected(Rejection::UnknownEvent));
    world.apply_structure(usual());
    assert!(world.key("q") > old);
    assert_eq!(world.retained("q"), [0; 0]);
}

#[test]
fn a_rebuild_drops_queues_starts_subscriptions_over_and_keeps_accounts() {
    let mut world = World::with(usual());
    world.done(AdminAction::CreateUser { id: "x".into(), roles: vec!["Admin".into()] });
    world.subscribe("c", &["q", "p", "r"]);
    world.raise_keyed("k", event("q", "0"));
    world.store(event("q", "1"));
    world.store(to_client("p", "c", "2"));
    world.advance("c", "q", 2);
    let stale = world.advancing("c", "q", 2);
    let events = vec![queueing("q", 3, 60), queueing("r", 3, 60)];
    world.done(rebuild(Structure { events, ..lamp() }, 8));
    // Queues are empty, ids go on.
    assert_eq!(world.retained("q"), [0; 0]);
    assert_eq!(world.store(event("q", "1")), 4);
    // The subscription to what matches starts over; what was delivered before counts no more.
    assert_eq!(world.cursor("c", "q"), Some(0));
    assert_eq!(world.cursor("c", "r"), None);
    assert_eq!(refusal(world.run(Command::Advance(stale))), Refusal::StalePosition);
    assert_eq!(world.next("c", "q", 0), Some(4));
    // Accounts, marks and keys are still there.
    assert_eq!(world.site().user("x").unwrap().roles, ["Admin".into()]);
    assert_eq!(world.site().client("c").unwrap().epoch, Epoch(1));
    assert_eq!(world.site().store("v", uid(1)).unwrap().last, Sequence(3));
    let known = duplicate(Decision::Stored(InstanceId(1)));
    assert_eq!(world.raise_keyed("k", event("q", "0")), known);
}

#[test]
fn rebuild_allowed_is_no_rebuild_where_none_is_needed() {
    let mut world = World::with(usual());
    world.store(event("q", "x"));
    world.done(rebuild(usual(), 8));
    assert_eq!(world.site().incarnation(), Incarnation(7));
    assert_eq!(world.values("q"), ["x"]);
}

#[test]
fn roles_that_are_declared_no_more_are_taken_from_users() {
    let mut world = World::with(usual());
    let roles = vec!["Admin".into(), "Operator".into()];
    world.done(AdminAction::CreateUser { id: "x".into(), roles });
    let mut fewer = usual();
    fewer.roles = vec!["Operator".into()];
    fewer.owner_role = None;
    world.apply_structure(fewer);
    assert_eq!(world.site().user("x").unwrap().roles, ["Operator".into()]);
    world.apply_structure(usual());
    assert_eq!(world.site().user("x").unwrap().roles, ["Operator".into()]);
}

#[test]
fn the_owner_role_can_change_alone() {
    let mut world = World::with(usual());
    let owner_role = Some("Operator".into());
    world.apply_structure(Structure { owner_role: owner_role.clone(), ..usual() });
    assert_eq!(world.site().structure().unwrap().owner_role, owner_role);
    assert_eq!(world.effects, [for_site()]);
}

#[test]
fn after_a_renewal_every_site_has_another_incarnation_and_everything_else_is_as_it_was() {
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    let id = world.store(event("q", "x"));
    world.advance("c", "q", id);
    let before = world.site().incarnation();
    let mut replica = rebuilt(&world.state);

    assert_eq!(world.run(Command::Renew { seed: 5 }), Outcome::Done);

    let after = world.site().incarnation();
    assert_ne!(after, before);
    assert!(after.0 > 0 && after.0 < 1 << 53, "{after}");
    assert_eq!((world.cursor("c", "q"), world.retained("q")), (Some(id), vec![id]));
    apply(
        &mut replica,
        &Batch { stamp: world.state.clock(), commands: vec![Command::Renew { seed: 5 }] },
    );
    assert_eq!(replica.hash(), world.state.hash());
    assert_eq!(world.run(Command::Renew { seed: 6 }), Outcome::Done);
    assert_ne!(world.site().incarnation(), after);
}
