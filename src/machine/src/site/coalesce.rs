//! Group commit: of the cursor advances of one batch, the highest per session and subscription.
//!
//! Raises may stand between two advances that become one; anything else of the same site (an
//! attach, a seek, a role) keeps them apart, because it may change how they are judged.

use std::collections::BTreeMap;

use super::command::Command;
use super::ids::{ClientId, Epoch, EventKey, Generation, Incarnation, InstanceId, SiteName};

/// What two advances must share to become one; the first number counts the barriers before them.
type Identity<'a> = (usize, &'a SiteName, &'a ClientId, EventKey, Epoch, Incarnation, Generation);

/// The site that a command keeps advances of apart from each other.
enum Barrier<'a> {
    None,
    Site(&'a SiteName),
    All,
}

fn barrier(command: &Command) -> Barrier<'_> {
    match command {
        Command::Advance(_)
        | Command::Acknowledge(_)
        | Command::Raise(_)
        | Command::RaiseKeyed(_)
        | Command::RaiseAfter(_)
        | Command::Traced(_) => Barrier::None,
        Command::AttachPolling(attach) => Barrier::Site(&attach.site),
        Command::AttachService(attach) => Barrier::Site(&attach.site),
        Command::Subscribe(subscribe) => Barrier::Site(&subscribe.site),
        Command::SubscribeAs(list) => Barrier::Site(&list.subscribe.site),
        Command::Restore(restore) => Barrier::Site(&restore.site),
        Command::DetachService { site, .. }
        | Command::AttachClient { site, .. }
        | Command::Admin { site, .. } => Barrier::Site(site),
        Command::AttachPush(attach) => Barrier::Site(&attach.site),
        Command::Administer(administer) => Barrier::Site(&administer.site),
        Command::SettlePush(_)
        | Command::GiveUp(_)
        | Command::Record { .. }
        | Command::IssueTicket(_)
        | Command::DrawTicket(_)
        | Command::RedeemTicket(_) => Barrier::None,
        Command::Tick { .. }
        | Command::SetLimits(_)
        | Command::Renew { .. }
        | Command::Directory(_)
        | Command::Compare => Barrier::All,
    }
}

/// Drops the advances that a higher (or equal) one of the same session and subscription makes
/// superfluous. Returns what is left, in order, and for each input the index of the command that
/// answers for it.
pub fn coalesce(commands: Vec<Command>) -> (Vec<Command>, Vec<usize>) {
    let answers = answers(&commands);
    let mut places = vec![0; commands.len()];
    let mut kept = Vec::with_capacity(commands.len());
    for (index, command) in commands.into_iter().enumerate() {
        if answers[index] == index {
            places[index] = kept.len();
            kept.push(command);
        }
    }
    let survivors = answers.into_iter().map(|answer| places[answer]).collect();
    (kept, survivors)
}

/// For each command the one that answers for it: itself, or the highest advance of its group.
fn answers(commands: &[Command]) -> Vec<usize> {
    let mut everywhere = 0;
    let mut barriers: BTreeMap<&SiteName, usize> = BTreeMap::new();
    let mut groups: BTreeMap<Identity<'_>, usize> = BTreeMap::new();
    let mut highest: Vec<(InstanceId, usize)> = Vec::new();
    let mut group_of: Vec<Option<usize>> = Vec::with_capacity(commands.len());
    for (index, command) in commands.iter().enumerate() {
        match barrier(command) {
            Barrier::None => {}
            Barrier::Site(site) => *barriers.entry(site).or_default() += 1,
            Barrier::All => everywhere += 1,
        }
        let Command::Advance(advance) = command else {
            group_of.push(None);
            continue;
        };
        let before = everywhere + barriers.get(&advance.site).copied().unwrap_or(0);
        let identity = (
            before,
            &advance.site,
            &advance.client,
            advance.event,
            advance.epoch,
            advance.incarnation,
            advance.generation,
        );
        let group = *groups.entry(identity).or_insert_with(|| {
            highest.push((advance.instance, index));
            highest.len() - 1
        });
        if let Some(best) = highest.get_mut(group)
            && best.0 <= advance.instance
        {
            *best = (advance.instance, index);
        }
        group_of.push(Some(group));
    }
    let answer = |(index, group): (usize, &Option<usize>)| {
        group.and_then(|group| highest.get(group)).map_or(index, |(_, best)| *best)
    };
    group_of.iter().enumerate().map(answer).collect()
}
