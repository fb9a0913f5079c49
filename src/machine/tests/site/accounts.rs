//! Administration: sites, services, clients, users, tokens, limits, and the memory of requests.

use ackord_machine::site::*;

use crate::world::*;

fn conflict(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::Conflict { .. })
}

fn create_site(incarnation: u64) -> AdminAction {
    AdminAction::CreateSite { settings: settings(), incarnation: Incarnation(incarnation) }
}

#[test]
fn a_site_is_created_once() {
    let mut world = World::empty();
    world.done(create_site(7));
    assert_eq!(world.effects, [for_site()]);
    assert_eq!(world.site().incarnation(), Incarnation(7));
    assert_eq!(world.site().created(), Stamp(world.now));
    assert_eq!(*world.site().settings(), settings());
    assert!(world.site().structure().is_none());
    assert_eq!(world.refused(create_site(8)), Refusal::AlreadyExists);
}

#[test]
fn an_incarnation_is_below_2_to_the_53() {
    let end = 1 << 53;
    assert!(matches!(World::empty().refused(create_site(end)), Refusal::Invalid(_)));
    World::empty().done(create_site(end - 1));
    let mut world = World::with(usual());
    let structure = Structure { service_type: "lamp".into(), ..usual() };
    let incarnation = Incarnation(end);
    let apply = AdminAction::ApplyStructure { structure, rebuild: true, incarnation };
    assert!(matches!(world.refused(apply), Refusal::Invalid(_)));
}

#[test]
fn a_partition_holds_so_many_sites_and_a_site_so_many_accounts() {
    let mut world = World::with(usual());
    let tight = Limits {
        sites_max: 1,
        services_max: 1,
        clients_max: 1,
        users_max: 1,
        tokens_max: 1,
        ..Limits::default()
    };
    world.run(Command::SetLimits(tight));
    let action = create_site(1);
    let elsewhere = Command::Admin { request: request(500), site: "t".into(), action };
    assert!(conflict(refusal(world.run(elsewhere))));
    let client = AdminAction::CreateClient { id: "d".into(), user: None };
    assert!(conflict(world.refused(client)));
    let user = AdminAction::CreateUser { id: "d".into(), roles: vec![] };
    assert!(conflict(world.refused(user)));
    let token = |id: &str| AdminAction::CreateToken {
        id: id.into(),
        hash: Digest([1; 32]),
        principal: Principal::Admin,
    };
    world.done(token("t"));
    assert!(conflict(world.refused(token("d"))));
    let mut multi = World::multi(usual());
    multi.run(Command::SetLimits(Limits { services_max: 2, ..Limits::default() }));
    assert!(conflict(multi.refused(AdminAction::CreateService { id: "x".into() })));
}

#[test]
fn a_single_service_site_takes_one_service() {
    let mut world = World::blank(settings());
    let another = AdminAction::CreateService { id: "w".into() };
    assert!(conflict(world.refused(another.clone())));
    let mut multi = World::blank(SiteSettings { multi_service: true, ..settings() });
    multi.done(another);
    assert_eq!(multi.effects, [for_service("w")]);
    // With two services, or a structure, there is no way back.
    assert!(conflict(multi.refused(AdminAction::UpdateSite { settings: settings() })));
    multi.done(AdminAction::DeleteService { id: "w".into() });
    multi.done(AdminAction::UpdateSite { settings: settings() });
    assert!(!multi.site().settings().multi_service);
    multi.apply_structure(usual());
    let again = SiteSettings { multi_service: true, ..settings() };
    assert!(conflict(multi.refused(AdminAction::UpdateSite { settings: again })));
}

#[test]
fn settings_change_and_wake_the_site() {
    let mut world = World::with(usual());
    let settings = SiteSettings { guests_allowed: false, ..settings() };
    world.done(AdminAction::UpdateSite { settings: settings.clone() });
    assert_eq!(world.effects, [for_site()]);
    assert_eq!(*world.site().settings(), settings);
    assert!(world.site().structure().is_some());
    world.done(AdminAction::UpdateSite { settings });
    assert_eq!(world.effects, []);
}

#[test]
fn what_exists_is_not_created_and_what_does_not_is_unknown() {
    let mut world = World::with(usual());
    let token = AdminAction::CreateToken {
        id: "t".into(),
        hash: Digest([1; 32]),
        principal: Principal::Observer,
    };
    world.done(token.clone());
    let user = |name: &str| Some(UserId::from(name));
    let cases = [
        (AdminAction::CreateService { id: "v".into() }, Refusal::AlreadyExists),
        (AdminAction::CreateClient { id: "c".into(), user: None }, Refusal::AlreadyExists),
        (AdminAction::CreateUser { id: "u".into(), roles: vec![] }, Refusal::AlreadyExists),
        (token, Refusal::AlreadyExists),
        (AdminAction::CreateClient { id: "d".into(), user: user("x") }, Refusal::UnknownUser),
        (AdminAction::UpdateClient { id: "c".into(), user: user("x") }, Refusal::UnknownUser),
        (AdminAction::UpdateClient { id: "x".into(), user: None }, Refusal::UnknownClient),
        (AdminAction::DeleteClient { id: "x".into() }, Refusal::UnknownClient),
        (AdminAction::UpdateUser { id: "x".into(), roles: vec![] }, Refusal::UnknownUser),
        (AdminAction::DeleteUser { id: "x".into() }, Refusal::UnknownUser),
        (AdminAction::DeleteService { id: "x".into() }, Refusal::UnknownService),
        (AdminAction::RevokeToken { id: "x".into() }, Refusal::UnknownToken),
    ];
    for (action, expected) in cases {
        assert_eq!(world.refused(action.clone()), expected, "{action:?}");
    }
    let mut nowhere = World::empty();
    assert_eq!(nowhere.refused(AdminAction::DeleteSite), Refusal::UnknownSite);
}

#[test]
fn ids_of_every_account_are_judged() {
    let mut world = World::multi(usual());
    let actions = [
        AdminAction::CreateService { id: "a b".into() },
        AdminAction::CreateClient { id: "a b".into(), user: None },
        AdminAction::CreateUser { id: "a b".into(), roles: vec![] },
        AdminAction::CreateToken {
            id: "a b".into(),
            hash: Digest([0; 32]),
            principal: Principal::Admin,
        },
    ];
    for action in actions {
        assert!(matches!(world.refused(action.clone()), Refusal::Invalid(_)), "{action:?}");
    }
    let action = create_site(1);
    let command = Command::Admin { request: request(500), site: "a b".into(), action };
    match refusal(world.run(command)) {
        Refusal::Invalid(invalid) => assert_eq!(invalid.field, "site"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_users_roles_are_declared_ones() {
    let mut world = World::with(usual());
    let cases: [(&[&str], Option<&str>); 5] = [
        (&["Admin", "Operator"], None),
        (&["admin"], Some("roles[0]")),
        (&["Admin", "Guest"], Some("roles[1]")),
        (&["Admin", "Admin"], Some("roles[1]")),
        (&["Admin", ""], Some("roles[1]")),
    ];
    for (roles, expected) in cases {
        let roles: Vec<RoleName> = roles.iter().map(|role| (*role).into()).collect();
        let update = AdminAction::UpdateUser { id: "u".into(), roles: roles.clone() };
        match (world.admin(update), expected) {
            (Outcome::Done, None) => assert_eq!(world.site().user("u").unwrap().roles, roles),
            (Outcome::Refused(Refusal::Invalid(invalid)), Some(field)) => {
                assert_eq!(invalid.field, field);
            }
            other => panic!("{other:?}"),
        }
    }
    // On a blank site any well-formed ones; the structure then decides.
    let mut blank = World::blank(settings());
    let roles = vec!["Operator".into(), "Stoker".into()];
    blank.done(AdminAction::CreateUser { id: "x".into(), roles });
    blank.attach_with("v", Some(usual()), 1, None);
    assert_eq!(blank.site().user("x").unwrap().roles, ["Operator".into()]);
}

#[test]
fn a_token_is_for_someone_who_exists() {
    let mut world = World::with(usual());
    let create = |id: &str, principal| AdminAction::CreateToken {
        id: id.into(),
        hash: Digest([9; 32]),
        principal,
    };
    let service = |id: &str| Principal::Service(id.into());
    let client = |id: &str| Principal::Client(id.into());
    assert_eq!(world.refused(create("t", service("x"))), Refusal::UnknownService);
    assert_eq!(world.refused(create("t", client("x"))), Refusal::UnknownClient);
    for (id, principal) in [
        ("ts", service("v")),
        ("tc", client("c")),
        ("ta", Principal::Admin),
        ("to", Principal::Observer),
    ] {
        world.done(create(id, principal.clone()));
        let token = world.site().token(id).unwrap();
        assert_eq!((token.hash, &token.principal), (Digest([9; 32]), &principal));
        assert_eq!(token.created, Stamp(world.now));
    }
    // A token goes with its account, or by itself; then the site is looked at again.
    world.done(AdminAction::DeleteClient { id: "c".into() });
    world.done(AdminAction::DeleteService { id: "v".into() });
    world.done(AdminAction::RevokeToken { id: "ta".into() });
    assert_eq!(world.effects, [for_site()]);
    let left: Vec<_> = world.site().tokens().map(|token| token.id.as_str()).collect();
    assert_eq!(left, ["to"]);
}

#[test]
fn deleting_a_service_removes_its_queues_and_marks_only() {
    let mut world = World::multi(usual());
    world.raise_next("v", event("q", "1"));
    world.raise_next("w", event("q", "2"));
    world.raise_next("v", to_client("p", "c", "3"));
    world.raise_keyed("k", event("q", "4"));
    world.attach_with("v", Some(structure(vec![])), 1, None);
    world.done(AdminAction::DeleteService { id: "v".into() });
    let mut expected = vec![for_event(&world, "q"), for_event(&world, "p"), for_service("v")];
    expected.sort();
    assert_eq!(world.effects, expected);
    assert_eq!((world.values("q"), world.values("p")), (vec!["2".into()], vec![]));
    let of_v = |row: &Row| match row {
        Row::Service(row) => row.id.as_str() == "v",
        Row::Declared(_) | Row::Key(_) => true,
        Row::Store(row) => row.service.as_str() == "v",
        Row::Outcome(row) => row.service.as_str() == "v",
        _ => false,
    };
    assert_eq!(world.state.rows().filter(of_v).count(), 0);
    assert_eq!(world.raise_next("w", event("q", "5")), Decision::Stored(InstanceId(5)));
}

#[test]
fn deleting_a_client_removes_what_was_its_own() {
    let mut world = World::with(usual());
    world.create_client("d", None);
    world.attach_client("d");
    world.subscribe("c", &["q", "p"]);
    world.subscribe("d", &["q", "p"]);
    world.store(to_client("p", "c", "1"));
    world.store(to_client("p", "d", "2"));
    world.store(event("q", "3"));
    world.done(AdminAction::DeleteClient { id: "c".into() });
    assert_eq!(world.effects, [for_client("c")]);
    assert!(world.site().client("c").is_none());
    assert_eq!(world.site().subscriptions(&"c".into()).count(), 0);
    assert_eq!((world.values("p"), world.values("q")), (vec!["2".into()], vec!["3".into()]));
    assert_eq!(world.site().subscriptions(&"d".into()).count(), 2);
    // Created again it starts from nothing.
    world.create_client("c", None);
    assert_eq!(world.site().subscriptions(&"c".into()).count(), 0);
    assert_eq!(world.next("c", "p", 0), None);
}

#[test]
fn a_clients_user_changes() {
    let mut world = World::with(usual());
    world.done(AdminAction::UpdateClient { id: "c".into(), user: None });
    assert_eq!(world.effects, [for_client("c")]);
    assert_eq!(world.site().client("c").unwrap().user, None);
    assert_eq!(world.site().client("c").unwrap().epoch, Epoch(1));
    world.done(AdminAction::UpdateClient { id: "c".into(), user: None });
    assert_eq!(world.effects, []);
}

#[test]
fn a_request_repeated_gets_its_first_answer_for_ten_minutes() {
    let mut world = World::with(usual());
    let action = AdminAction::CreateClient { id: "d".into(), user: None };
    let create = Command::Admin { request: request(900), site: SITE.into(), action };
    assert_eq!(world.run(create.clone()), Outcome::Done);
    assert_eq!(world.run(create.clone()), Outcome::Done);
    assert_eq!(world.effects, []);
    world.now += 600_000 - 1;
    assert_eq!(world.run(create.clone()), Outcome::Done);
    // Forgotten at its time, whether or not a tick has come by.
    world.now += 1;
    assert_eq!(refusal(world.run(create.clone())), Refusal::AlreadyExists);
    world.tick(1000);
    assert_eq!(refusal(world.run(create)), Refusal::AlreadyExists);
}

#[test]
fn a_refused_request_is_judged_anew() {
    let mut world = World::with(usual());
    let delete = AdminAction::DeleteClient { id: "d".into() };
    let delete = Command::Admin { request: request(900), site: SITE.into(), action: delete };
    assert_eq!(refusal(world.run(delete.clone())), Refusal::UnknownClient);
    world.create_client("d", None);
    assert_eq!(world.run(delete), Outcome::Done);
}

#[test]
fn a_seek_repeated_moves_nothing_a_second_time() {
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    world.store(event("q", "1"));
    let action = AdminAction::Seek { client: "c".into(), event: "q".into(), after: InstanceId(0) };
    let seek = Command::Admin { request: request(900), site: SITE.into(), action };
    world.run(seek.clone());
    world.advance("c", "q", 1);
    assert_eq!(world.run(seek), Outcome::Done);
    assert_eq!(world.cursor("c", "q"), Some(1));
}

#[test]
fn a_deleted_site_leaves_nothing_but_the_answer_to_its_deletion() {
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    world.store(event("q", "1"));
    world.raise_keyed("k", event("q", "2"));
    let action = AdminAction::DeleteSite;
    let delete = Command::Admin { request: request(900), site: SITE.into(), action };
    assert_eq!(world.run(delete.clone()), Outcome::Done);
    assert_eq!(world.effects, [for_site()]);
    assert!(world.state.site(SITE).is_none());
    assert_eq!(world.state.sites().count(), 0);
    let left = |row: &Row| !matches!(row, Row::Clock(_) | Row::Request(_));
    assert_eq!(world.state.rows().filter(left).count(), 0);
    assert_eq!(world.run(delete), Outcome::Done);
    // It can be created again, and starts from the beginning.
    world.done(create_site(8));
    assert_eq!(world.site().head(), InstanceId(0));
    assert_eq!(world.site().services().count(), 0);
}

#[test]
fn limits_are_set_once_they_agree_with_each_other() {
    let mut world = World::with(usual());
    let set = |limits| Command::SetLimits(limits);
    let good = Limits {
        queue_size_max: 1_000_000,
        args_bytes_max: 65_536,
        lifetime_ms_min: 500,
        lifetime_ms_max: 31_536_000_000,
        ack_timeout_ms_min: 10,
        ..Limits::default()
    };
    assert_eq!(world.run(set(good.clone())), Outcome::Done);
    assert_eq!(*world.state.limits(), good);
    type Break = fn(&mut Limits);
    let cases: &[(&str, Break)] = &[
        ("queue_size_max", |it| it.queue_size_max = 0),
        ("queue_size_max", |it| it.queue_size_max = 1_000_001),
        ("args_bytes_max", |it| it.args_bytes_max = 65_537),
        ("lifetime_ms_max", |it| it.lifetime_ms_max = 999),
        ("lifetime_ms_max", |it| it.lifetime_ms_max = 366 * 86_400_000 + 1),
        ("lifetime_ms_min", |it| it.lifetime_ms_min = 31_536_000_001),
        ("ack_timeout_ms_min", |it| it.ack_timeout_ms_min = 0),
        ("ack_timeout_ms_max", |it| it.ack_timeout_ms_max = 9),
        ("sites_max", |it| it.sites_max = 0),
        ("services_max", |it| it.services_max = 0),
        ("clients_max", |it| it.clients_max = 0),
        ("users_max", |it| it.users_max = 0),
        ("tokens_max", |it| it.tokens_max = 0),
        ("keys_max", |it| it.keys_max = 0),
    ];
    for (field, break_it) in cases {
        let mut bad = good.clone();
        break_it(&mut bad);
        match refusal(world.run(set(bad))) {
            Refusal::Invalid(invalid) => assert_eq!(invalid.field, *field),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(*world.state.limits(), good);
}

#[test]
fn lists_are_paged_by_id() {
    let mut world = World::multi(usual());
    for id in ["a", "b", "d"] {
        world.create_client(id, None);
        world.done(AdminAction::CreateUser { id: id.into(), roles: vec![] });
    }
    let clients: Vec<_> = world.site().clients_after("b").map(|row| row.id.as_str()).collect();
    assert_eq!(clients, ["c", "d"]);
    let users: Vec<_> = world.site().users_after("a").map(|row| row.id.as_str()).collect();
    assert_eq!(users, ["b", "d"]);
    let services: Vec<_> = world.site().services_after("v").map(|row| row.id.as_str()).collect();
    assert_eq!(services, ["w"]);
    assert_eq!(world.site().tokens_after("").count(), 0);
    world.raise_next("v", event("q", "1"));
    world.raise_next("w", event("q", "2"));
    let page = world.site().retained_after(world.key("q"), InstanceId(1));
    assert_eq!(page.map(|it| it.id.0).collect::<Vec<_>>(), [2]);
}
