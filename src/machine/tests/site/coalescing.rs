//! Group commit: which advances become one, and who answers for whom.

use ackord_machine::site::*;

use crate::world::*;

fn advance(client: &str, instance: u64) -> Advance {
    Advance {
        site: SITE.into(),
        client: client.into(),
        event: EventKey(1),
        epoch: Epoch(1),
        incarnation: Incarnation(1),
        generation: Generation(1),
        instance: InstanceId(instance),
    }
}

fn to(client: &str, instance: u64) -> Command {
    Command::Advance(advance(client, instance))
}

fn keyed() -> Command {
    let (site, service, key) = (SITE.into(), "v".into(), "k".into());
    Command::RaiseKeyed(RaiseKeyed { site, service, key, event: event("r", "x") })
}

fn attach(site: &str) -> Command {
    let claim = Claim { session: SessionId(1), above: Epoch(0) };
    Command::AttachClient { site: site.into(), client: "z".into(), claim }
}

/// Inputs, the indexes of those that are left, and for each input the place of its survivor.
fn check(commands: Vec<Command>, kept: &[usize], survivors: &[usize]) {
    let expected: Vec<_> = kept.iter().map(|index| commands[*index].clone()).collect();
    assert_eq!(coalesce(commands), (expected, survivors.to_vec()));
}

#[test]
fn of_one_subscriptions_advances_the_highest_is_left() {
    check(vec![], &[], &[]);
    check(vec![to("c", 1)], &[0], &[0]);
    check(vec![to("c", 1), to("c", 2), to("c", 3)], &[2], &[0, 0, 0]);
    check(vec![to("c", 3), to("c", 2)], &[0], &[0, 0]);
    check(vec![to("c", 2), to("c", 2)], &[1], &[0, 0]);
    check(vec![to("c", 1), to("d", 5), to("c", 2)], &[1, 2], &[1, 0, 1]);
    check(vec![to("c", 2), to("c", 9), to("c", 3)], &[1], &[0, 0, 0]);
}

#[test]
fn raises_do_not_keep_advances_apart() {
    check(vec![to("c", 1), keyed(), to("c", 2), keyed()], &[1, 2, 3], &[1, 0, 1, 2]);
}

#[test]
fn anything_else_of_the_site_does() {
    check(vec![to("c", 1), attach(SITE), to("c", 2)], &[0, 1, 2], &[0, 1, 2]);
    check(vec![to("c", 1), attach("other"), to("c", 2)], &[1, 2], &[1, 0, 1]);
    check(vec![to("c", 1), Command::Tick { limit: 1 }, to("c", 2)], &[0, 1, 2], &[0, 1, 2]);
    let limits = Command::SetLimits(Limits::default());
    check(vec![to("c", 1), limits, to("c", 2)], &[0, 1, 2], &[0, 1, 2]);
    let action = AdminAction::DeleteSite;
    let admin = Command::Admin { request: request(1), site: SITE.into(), action };
    check(vec![to("c", 1), admin, to("c", 2)], &[0, 1, 2], &[0, 1, 2]);
    let (site, service, session) = (SITE.into(), "v".into(), SessionId(1));
    let detach = Command::DetachService { site, service, session };
    check(vec![to("c", 1), to("c", 2), detach, to("c", 3)], &[1, 2, 3], &[0, 0, 1, 2]);
}

#[test]
fn only_equal_sessions_subscriptions_and_lives_are_the_same() {
    let one = advance("c", 1);
    let two = advance("c", 2);
    let others = [
        Advance { site: "t".into(), ..two.clone() },
        Advance { event: EventKey(2), ..two.clone() },
        Advance { epoch: Epoch(2), ..two.clone() },
        Advance { incarnation: Incarnation(2), ..two.clone() },
        Advance { generation: Generation(2), ..two.clone() },
        Advance { client: "d".into(), ..two },
    ];
    for other in others {
        let commands = vec![Command::Advance(one.clone()), Command::Advance(other)];
        check(commands, &[0, 1], &[0, 1]);
    }
}
