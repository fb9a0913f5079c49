//! Sites that are put back from a backup: whole, or not at all.

use ackord_machine::site::*;

use crate::world::*;

/// The rows of a site with everything in it, its own at the end, in three parts.
fn backup() -> [Vec<Row>; 3] {
    let mut world = World::with(usual());
    world.subscribe("c", &["q"]);
    for value in ["1", "2", "3"] {
        world.store(event("q", value));
    }
    world.advance("c", "q", 1);
    let (hash, principal) = (Digest([3; 32]), Principal::Client("c".into()));
    world.done(AdminAction::CreateToken { id: "t".into(), hash, principal });
    let mut rows: Vec<Row> = world.state.rows_of_sites().collect();
    assert!(matches!(rows[0], Row::Site(_)));
    rows.reverse();
    let last = rows.split_off(rows.len() - 2);
    let middle = rows.split_off(rows.len() / 2);
    [rows, middle, last]
}

fn put(world: &mut World, attempt: u8, part: u32, rows: &[Row]) -> Outcome {
    let attempt = AttemptId([attempt; 16]);
    world.run(Command::Restore(Restore { site: SITE.into(), attempt, part, rows: rows.to_vec() }))
}

/// Does an act under a request that the backup does not remember.
fn done(world: &mut World, action: AdminAction) {
    let act = Command::Admin { request: request(7_777), site: SITE.into(), action };
    assert_eq!(world.run(act), Outcome::Done);
}

fn is_conflict(outcome: Outcome) {
    assert!(matches!(refusal(outcome), Refusal::Conflict { .. }));
}

/// The rows of the site as they would be backed up, sorted by their keys.
fn rows(world: &World) -> Vec<Row> {
    let mut rows: Vec<_> = world.state.rows_of_sites().collect();
    rows.sort_by_key(Row::key);
    rows
}

/// The rows of a whole backup as they are restored, sorted by their keys.
fn whole(parts: &[Vec<Row>]) -> Vec<Row> {
    let mut rows = parts.concat();
    for row in &mut rows {
        if let Row::Service(row) = row {
            row.at = None;
        }
    }
    rows.sort_by_key(Row::key);
    rows
}

#[test]
fn a_site_is_there_with_its_last_part_and_whole() {
    let parts = backup();
    let mut world = World::empty();
    for (number, part) in parts.iter().enumerate() {
        assert!(world.state.site(SITE).is_none());
        assert_eq!(put(&mut world, 1, number as u32, part), Outcome::Done);
    }
    assert_eq!(rows(&world), whole(&parts));
    assert_eq!(world.cursor("c", "q"), Some(1));
    // And it can be used, deleted, and restored once more.
    world.attach("v", 1);
    done(&mut world, AdminAction::DeleteSite);
    is_conflict(put(&mut world, 1, 1, &parts[1]));
    for (number, part) in parts.iter().enumerate() {
        assert_eq!(put(&mut world, 2, number as u32, part), Outcome::Done);
    }
    assert_eq!(rows(&world), whole(&parts));
}

#[test]
fn of_two_interleaved_attempts_only_the_newer_one_makes_the_site() {
    let parts = backup();
    let mut world = World::empty();
    assert_eq!(put(&mut world, 1, 0, &parts[0]), Outcome::Done);
    assert_eq!(put(&mut world, 2, 0, &parts[0]), Outcome::Done);
    is_conflict(put(&mut world, 1, 1, &parts[1]));
    assert_eq!(put(&mut world, 2, 1, &parts[1]), Outcome::Done);
    is_conflict(put(&mut world, 1, 2, &parts[2]));
    assert!(world.state.site(SITE).is_none());
    assert_eq!(put(&mut world, 2, 2, &parts[2]), Outcome::Done);
    assert_eq!(rows(&world), whole(&parts));
    for (number, part) in parts.iter().enumerate() {
        let refused = refusal(put(&mut world, 1, number as u32, part));
        assert_eq!(refused, Refusal::AlreadyExists);
    }
}

#[test]
fn another_attempt_leaves_nothing_of_the_one_before() {
    let parts = backup();
    let mut world = World::empty();
    let stray = UserRow { site: SITE.into(), id: "stray".into(), roles: vec![] };
    put(&mut world, 1, 0, &[Row::User(stray)]);
    for (number, part) in parts.iter().enumerate() {
        assert_eq!(put(&mut world, 2, number as u32, part), Outcome::Done);
    }
    assert!(world.site().user("stray").is_none());
    assert_eq!(rows(&world), whole(&parts));
}

#[test]
fn a_part_that_comes_again_changes_nothing() {
    let parts = backup();
    let mut world = World::empty();
    for (number, part) in parts.iter().enumerate() {
        assert_eq!(put(&mut world, 1, number as u32, part), Outcome::Done);
        let before = world.state.clone();
        for (again, part) in parts.iter().enumerate().take(number + 1) {
            assert_eq!(put(&mut world, 1, again as u32, part), Outcome::Done);
            assert_eq!(world.state, before);
        }
    }
    // Also once the site has changed: the last part was put, whatever came after it.
    done(&mut world, AdminAction::CreateUser { id: "new".into(), roles: vec![] });
    assert_eq!(put(&mut world, 1, 2, &parts[2]), Outcome::Done);
    assert!(world.site().user("new").is_some());
    assert_eq!(refusal(put(&mut world, 1, 3, &parts[2])), Refusal::AlreadyExists);
}

#[test]
fn a_part_out_of_order_is_refused() {
    let parts = backup();
    let mut world = World::empty();
    is_conflict(put(&mut world, 1, 1, &parts[1]));
    put(&mut world, 1, 0, &parts[0]);
    is_conflict(put(&mut world, 1, 2, &parts[2]));
    assert!(world.state.site(SITE).is_none());
}

#[test]
fn a_site_created_after_an_interrupted_restore_is_blank() {
    let parts = backup();
    let mut world = World::empty();
    put(&mut world, 1, 0, &parts[0]);
    put(&mut world, 1, 1, &parts[1]);
    // The backup remembers the creation under the first request of a world: it is judged anew.
    world.done(AdminAction::CreateSite { settings: settings(), incarnation: Incarnation(5) });
    let site = world.site();
    assert_eq!((site.services().count(), site.clients().count(), site.events().count()), (0, 0, 0));
    assert!(site.token("t").is_none() && site.user("u").is_none() && site.structure().is_none());
    assert_eq!((site.head(), site.incarnation()), (InstanceId(0), Incarnation(5)));
    let kinds = |row: &Row| matches!(row, Row::Site(_) | Row::Request(_));
    assert_eq!((rows(&world).len(), rows(&world).iter().all(kinds)), (2, true));
    assert_eq!(refusal(put(&mut world, 1, 2, &parts[2])), Refusal::AlreadyExists);
    world.done(AdminAction::DeleteSite);
    is_conflict(put(&mut world, 1, 2, &parts[2]));
}

#[test]
fn a_site_that_was_deleted_remembers_its_answers_when_it_is_created_again() {
    let mut world = World::blank(settings());
    let (request, site) = (request(9_999), SiteName::from(SITE));
    let delete = Command::Admin { request, site, action: AdminAction::DeleteSite };
    assert_eq!(world.run(delete.clone()), Outcome::Done);
    world.done(AdminAction::CreateSite { settings: settings(), incarnation: Incarnation(5) });
    assert_eq!(world.run(delete), Outcome::Done);
    assert!(world.state.site(SITE).is_some());
}

#[test]
fn a_backup_has_no_rows_of_sites_that_do_not_exist() {
    let parts = backup();
    let mut world = World::empty();
    put(&mut world, 1, 0, &parts[0]);
    assert!(world.state.rows().count() > 1);
    assert_eq!(rows(&world), []);
    put(&mut world, 1, 1, &parts[1]);
    put(&mut world, 1, 2, &parts[2]);
    // Nor the attempt by which one was restored, which would not fit another restore of it.
    assert!(world.state.rows().any(|row| matches!(row, Row::Attempt(_))));
    assert_eq!(rows(&world), whole(&parts));
    done(&mut world, AdminAction::DeleteSite);
    assert_eq!(rows(&world), []);
}

#[test]
fn rows_that_are_not_of_the_site_are_refused() {
    let mut world = World::empty();
    let id = AttemptId([1; 16]);
    let user = UserRow { site: "other".into(), id: "u".into(), roles: vec![] };
    let attempt = AttemptRow { site: SITE.into(), id, next: 7 };
    for row in [Row::Clock(Stamp(1)), Row::User(user), Row::Attempt(attempt)] {
        assert!(matches!(refusal(put(&mut world, 1, 0, &[row])), Refusal::Invalid(_)));
    }
}
