//! The paths do their work, as often as they are asked.

use crate::paths;

#[test]
fn given_any_path_then_it_goes_on_after_it_was_made_ready_again() {
    for path in paths() {
        let mut work = (path.prepare)();
        for _ in 0..3 {
            let rounds = work.ready();
            assert!(rounds > 0, "{}", path.name);
            (0..rounds).for_each(|_| work.round());
        }
    }
}

#[test]
fn given_the_paths_then_each_has_a_name_of_its_own() {
    let mut names: Vec<_> = paths().iter().map(|path| path.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), paths().len());
}
