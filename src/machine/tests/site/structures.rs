//! Rules of a structure, its canonical hash, and the names of accounts.

use ackord_machine::site::*;

use crate::world::*;

fn check(structure: &Structure) -> Result<(), String> {
    structure.validate(&Limits::default()).map_err(|invalid| invalid.field)
}

fn named(name: &str) -> Structure {
    structure(vec![replacing(name)])
}

#[test]
fn a_name_is_judged_by_length_characters_and_spaces() {
    let longest = "x".repeat(256);
    for good in ["a", "Z9", "boiler state", "A_-.@#$%&*':^/!()[]0", longest.as_str(), "a b c"] {
        assert_eq!(check(&named(good)), Ok(()), "{good:?}");
    }
    let too_long = "x".repeat(257);
    for bad in [
        "", "9a", " a", "_a", "a ", "a  b", "a\tb", "a\"b", "a+b", "ä", "aä", "a;", "a\\",
        &too_long,
    ] {
        assert_eq!(check(&named(bad)), Err("events[0].name".into()), "{bad:?}");
    }
}

#[test]
fn every_name_of_a_structure_is_judged_and_the_path_says_which() {
    type Break = fn(&mut Structure);
    let cases: &[(&str, Break)] = &[
        ("service_type", |it| it.service_type = "".into()),
        ("contract_author", |it| it.contract_author = "1".into()),
        ("roles[1]", |it| it.roles[1] = "a ".into()),
        ("events[2].name", |it| it.events[2].name = "-".into()),
        ("owner_role", |it| it.owner_role = Some("admin".into())),
        ("owner_role", |it| it.owner_role = Some("Stranger".into())),
    ];
    for (field, break_it) in cases {
        let mut broken = usual();
        break_it(&mut broken);
        assert_eq!(check(&broken), Err((*field).into()));
    }
    assert_eq!(check(&usual()), Ok(()));
}

#[test]
fn event_names_are_unique_over_all_categories_and_case_sensitive() {
    let two = |a, b| check(&structure(vec![replacing(a), queueing(b, 1, 60)]));
    assert_eq!(two("x", "x"), Err("events[1].name".into()));
    assert_eq!(two("x", "X"), Ok(()));
}

#[test]
fn roles_are_unique_ignoring_case() {
    let mut it = usual();
    it.roles = vec!["Admin".into(), "Operator".into(), "admin".into()];
    let invalid = it.validate(&Limits::default()).unwrap_err();
    assert_eq!(invalid.field, "roles[2]");
    assert_eq!(invalid.detail, "unique ignoring case, same as roles[0]");
}

#[test]
fn at_most_thirty_roles_and_a_hundred_events() {
    let with = |roles: usize, events: usize| {
        let mut it = structure((0..events).map(|n| replacing(&format!("e{n}"))).collect());
        it.roles = (0..roles).map(|n| format!("r{n}").into()).collect();
        it.owner_role = None;
        it.validate(&Limits::default()).map_err(|invalid| (invalid.field, invalid.detail))
    };
    assert_eq!(with(30, 100), Ok(()));
    assert_eq!(with(0, 0), Ok(()));
    assert_eq!(with(31, 100), Err(("roles".into(), "0..=30, was 31".into())));
    assert_eq!(with(30, 101), Err(("events".into(), "0..=100, was 101".into())));
}

#[test]
fn size_and_lifetime_are_bounded() {
    let cases = [
        (queueing("x", 1, 60), Ok(())),
        (queueing("x", 1000, 2_592_000), Ok(())),
        (queueing("x", 0, 60), Err(("events[0].size", "1..=1000, was 0"))),
        (queueing("x", 1001, 60), Err(("events[0].size", "1..=1000, was 1001"))),
        (queueing("x", 1, 59), Err(("events[0].lifetime_s", "60..=2592000, was 59"))),
        (queueing("x", 1, 2_592_001), Err(("events[0].lifetime_s", "60..=2592000, was 2592001"))),
        (private("x", 60), Ok(())),
        (private("x", 2_592_000), Ok(())),
        (private("x", 59), Err(("events[0].lifetime_s", "60..=2592000, was 59"))),
        (private("x", 2_592_001), Err(("events[0].lifetime_s", "60..=2592000, was 2592001"))),
    ];
    for (definition, expected) in cases {
        let found = structure(vec![definition.clone()]).validate(&Limits::default());
        let found = found.map_err(|invalid| (invalid.field, invalid.detail));
        let expected = expected.map_err(|(field, detail)| (field.to_owned(), detail.to_owned()));
        assert_eq!(found, expected, "{definition:?}");
    }
}

#[test]
fn a_deployment_sets_the_bounds() {
    let limits = Limits {
        queue_size_max: 5,
        lifetime_ms_min: 1500,
        lifetime_ms_max: 3999,
        ..Limits::default()
    };
    let check = |size, lifetime_s| {
        let it = structure(vec![queueing("x", size, lifetime_s)]);
        it.validate(&limits).map_err(|invalid| invalid.detail)
    };
    assert_eq!(check(5, 2), Ok(()));
    assert_eq!(check(5, 3), Ok(()));
    assert_eq!(check(6, 2), Err("1..=5, was 6".into()));
    assert_eq!(check(5, 1), Err("2..=3, was 1".into()));
    assert_eq!(check(5, 4), Err("2..=3, was 4".into()));
}

#[test]
fn an_access_rule_lists_declared_roles() {
    let with = |roles: &[&str]| {
        let roles = roles.iter().map(|role| (*role).into()).collect();
        check(&structure(vec![restricted("x", Access::Roles(roles))]))
    };
    assert_eq!(with(&["Admin"]), Ok(()));
    assert_eq!(with(&["Operator", "Admin"]), Ok(()));
    assert_eq!(with(&[]), Err("events[0].access.roles".into()));
    assert_eq!(with(&["admin"]), Err("events[0].access.roles[0]".into()));
    assert_eq!(with(&["Admin", "Guest"]), Err("events[0].access.roles[1]".into()));
    assert_eq!(with(&["Admin", "Admin"]), Err("events[0].access.roles[1]".into()));
}

#[test]
fn order_and_owner_role_do_not_change_the_hash() {
    let one = structure(vec![
        restricted("a", Access::Roles(vec!["Admin".into(), "Operator".into()])),
        queueing("b", 3, 60),
    ]);
    let mut other = structure(vec![
        queueing("b", 3, 60),
        restricted("a", Access::Roles(vec!["Operator".into(), "Admin".into()])),
    ]);
    other.roles.reverse();
    other.owner_role = None;
    assert_eq!(one.canonical_hash(), other.canonical_hash());
}

#[test]
fn everything_else_changes_the_hash() {
    type Change = fn(&mut Structure);
    let changes: &[Change] = &[
        |it| it.service_type = "lamp".into(),
        |it| it.contract_author = "Another".into(),
        |it| std::mem::swap(&mut it.service_type, &mut it.contract_author),
        |it| it.guests = GuestSupport::Guest,
        |it| it.guests = GuestSupport::None,
        |it| it.roles[0] = "Adm".into(),
        |it| {
            it.roles.pop();
        },
        |it| {
            it.events.pop();
        },
        |it| it.events[0].name = "rr".into(),
        |it| it.events[0].kind = Kind::Replacing { access: Access::GuestsDenied },
        |it| it.events[0].kind = Kind::Replacing { access: Access::StatelessGuestsDenied },
        |it| it.events[0].kind = Kind::Replacing { access: Access::Roles(vec!["Admin".into()]) },
        |it| it.events[0].kind = Kind::Private { lifetime_s: 60 },
        |it| it.events[1] = queueing("q", 4, 60),
        |it| it.events[1] = queueing("q", 3, 61),
        |it| it.events[1] = queueing("q", 60, 3),
        |it| it.events[1] = private("q", 60),
        |it| it.events[2] = private("p", 61),
    ];
    let mut seen = vec![usual().canonical_hash()];
    for (index, change) in changes.iter().enumerate() {
        let mut it = usual();
        change(&mut it);
        let hash = it.canonical_hash();
        assert!(!seen.contains(&hash), "change {index}");
        seen.push(hash);
    }
}

#[test]
fn the_canonical_form_is_pinned() {
    // Services and brokers of different versions compare this hash: it may never change by chance.
    let hash = format!("{:?}", usual().canonical_hash());
    assert_eq!(hash, "1d239bf85a525651b95261b2831f9408dc068163b6a235c40dee4f475fec8dfa");
}

#[test]
fn an_account_name_is_short_and_plain() {
    let longest = "x".repeat(64);
    for good in ["a", "9", "client-1", "a_b.c@d:e", longest.as_str()] {
        World::with(usual()).create_client(good, None);
    }
    let too_long = "x".repeat(65);
    for bad in ["", "-a", "a b", "a/b", "ä", "a%", too_long.as_str()] {
        let action = AdminAction::CreateClient { id: bad.into(), user: None };
        match World::with(usual()).refused(action) {
            Refusal::Invalid(invalid) => assert_eq!(invalid.field, "id", "{bad:?}"),
            other => panic!("{bad:?}: {other:?}"),
        }
    }
}
