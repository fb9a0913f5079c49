//! What follows a failure, and what a change of the subscription finds under way.

use super::*;

const FAILED: PushAnswer = PushAnswer::Failed(Trouble::Status(503));

fn changed(world: &mut World, spec: PushSpec) {
    world.act(AdminAction::PutPush { id: "p".into(), spec: Box::new(spec) });
}

/// A window of which the first instance failed and all others are delivered; the probe is due.
fn failed_in_front(window: u32) -> (World, Driver) {
    let mut of = spec(Mode::Twoway);
    of.quality.window = Some(window);
    let mut world = World::new(of);
    world.raise(20);
    let mut driver = Driver::new(1);
    let open = driver.settle(&mut world);
    for (token, _) in open[1..].iter().rev() {
        driver.answer(&world, *token, PushAnswer::Delivered);
    }
    driver.answer(&world, open[0].0, FAILED);
    assert!(driver.settle(&mut world).is_empty(), "offline");
    world.now += 1000;
    (world, driver)
}

/// What is sent as soon as enough time has passed.
fn next(world: &mut World, driver: &mut Driver) -> Vec<(Token, PushRequest)> {
    loop {
        let open = driver.settle(world);
        if !open.is_empty() {
            return open;
        }
        world.now += 500;
        assert!(world.now < 100_000, "nothing is sent: {:?}", world.row());
    }
}

#[test]
fn what_is_done_behind_a_failed_one_takes_no_place_from_it_in_another_mode() {
    let smaller = Quality { window: Some(2), ..spec(Mode::Twoway).quality };
    for quality in [spec(Mode::Ordered).quality, smaller] {
        for resumed in [true, false] {
            let (mut world, mut driver) = failed_in_front(8);
            changed(&mut world, PushSpec { quality, ..spec(Mode::Twoway) });
            if resumed {
                world.act(AdminAction::ResumePush { id: "p".into(), owner: None });
            }
            let sent = driver.serve(&mut world, PushAnswer::Delivered);
            let expected: Vec<u64> = [1].into_iter().chain(9..=20).collect();
            assert_eq!(sent, expected, "{quality:?} {resumed}");
            assert_eq!(world.row().cursor, InstanceId(20));
        }
    }
}

#[test]
fn a_batch_passes_over_what_is_done_in_another_mode() {
    let (mut world, mut driver) = failed_in_front(5);
    changed(&mut world, spec(Mode::Batch));
    let first = next(&mut world, &mut driver);
    assert_eq!(ids(&first), [[1]]);
    driver.answer(&world, first[0].0, PushAnswer::Delivered);
    driver.settle(&mut world);
    assert_eq!(ids(&next(&mut world, &mut driver)), [(6..=20).collect::<Vec<u64>>()]);
}

#[test]
fn oneway_succeeds_when_it_is_answered_not_when_it_is_written() {
    let mut world = World::new(PushSpec { retry_count: 2, ..spec(Mode::Oneway) });
    let mut driver = Driver::new(1);
    for failures in 1..=3 {
        world.raise(1);
        let open = driver.settle(&mut world);
        assert_eq!(open.len(), 1, "after {failures} failures");
        driver.answer(&world, open[0].0, PushAnswer::Written);
        driver.settle(&mut world);
        assert_eq!(world.row().cursor, InstanceId(failures), "the transport has it");
        driver.answer(&world, open[0].0, FAILED);
        driver.settle(&mut world);
        assert_eq!(u64::from(world.row().failures), failures);
        world.now += 1000;
    }
    assert!(matches!(world.row().state, PushState::Cancelled { .. }));
    world.act(AdminAction::ResumePush { id: "p".into(), owner: None });
    world.raise(1);
    let open = driver.settle(&mut world);
    driver.answer(&world, open[0].0, PushAnswer::Written);
    driver.answer(&world, open[0].0, PushAnswer::Delivered);
    driver.settle(&mut world);
    assert_eq!((world.row().delivered, world.row().cursor), (1, InstanceId(4)));
}

#[test]
fn a_batch_that_failed_goes_again_as_it_went() {
    let mut world = World::new(PushSpec { max_attempts: Some(2), ..spec(Mode::Batch) });
    let mut driver = Driver::new(1);
    world.raise(2);
    for attempt in 1..=2 {
        let open = next(&mut world, &mut driver);
        assert_eq!(ids(&open), [[1, 2]]);
        assert_eq!(open[0].1.parcels[0].attempt, attempt);
        world.raise(1);
        driver.answer(&world, open[0].0, FAILED);
        driver.settle(&mut world);
    }
    // The two are given up; what was never sent is not.
    assert_eq!(world.row().dropped, 2);
    let open = next(&mut world, &mut driver);
    assert_eq!(ids(&open), [[3, 4]]);
    assert_eq!(open[0].1.parcels[0].attempt, 1);
}

#[test]
fn however_large_its_window_a_subscription_has_a_bounded_number_of_requests() {
    let mut of = spec(Mode::Twoway);
    of.quality.window = Some(1000);
    let mut world = World::new(of);
    world.raise(300);
    let mut driver = Driver::new(1);
    let mut open: VecDeque<_> = driver.settle(&mut world).into();
    let mut sent = open.len();
    assert_eq!(sent, TWOWAY_OPEN_MAX);
    while let Some((token, _)) = open.pop_back() {
        driver.answer(&world, token, PushAnswer::Delivered);
        let more = driver.settle(&mut world);
        sent += more.len();
        open.extend(more);
        assert!(open.len() <= TWOWAY_OPEN_MAX);
    }
    assert_eq!((sent, world.row().cursor), (300, InstanceId(300)));
}

#[test]
fn what_waits_for_room_may_go_only_as_long_as_the_subscription_is_as_it_was() {
    let of = || spec(Mode::Ordered);
    let wanted = |change: &dyn Fn(&mut World)| {
        let mut world = World::new(of());
        world.raise(1);
        let (_, request) = Driver::new(1).settle(&mut world).remove(0);
        assert!(request.is_wanted(world.view()));
        change(&mut world);
        request.is_wanted(world.view())
    };
    assert!(wanted(&|world| world.raise(10)));
    assert!(!wanted(&|world| changed(world, PushSpec { paused: true, ..of() })));
    let elsewhere = PushTarget::Http { url: "http://elsewhere.example/".to_owned() };
    assert!(!wanted(&|world| changed(world, PushSpec { target: elsewhere.clone(), ..of() })));
    assert!(!wanted(&|world| world.act(AdminAction::DeletePush { id: "p".into(), owner: None })));
    assert!(!wanted(&|world| world.act(AdminAction::DeleteClient { id: "c".into() })));
    assert!(!wanted(&|world| world.now += 3_601_000), "past its lifetime");
    assert!(!wanted(&|world| {
        Driver::new(2).settle(world);
    }));
}
