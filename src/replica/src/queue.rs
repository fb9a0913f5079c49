//! Commands that wait for the next log entry of a partition, bounded in count and bytes, and shared
//! by its sites.

use std::collections::VecDeque;

use ackord_machine::site::{
    AdminAction, Command, NewEvent, Outcome, RaiseAfter, Raising, Structure, Subscribe, encode_row,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::error::ProposeError;
use crate::share::{Free, Shares, site_of};

/// Where an outcome is sent. Nobody may be listening any more.
pub(crate) type Waiter = oneshot::Sender<Result<Outcome, ProposeError>>;

/// Where a command entered the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// On this node.
    Here,
    /// On another node, which sent it because this one leads. It is not sent on.
    Peer,
}

/// What part of the queue's bytes waits for no more commands: with the default bounds an entry full.
const LATER_SHARE: usize = 16;

/// When the proposer learns of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// At once.
    Now,
    /// When whoever queued it says so, for more are to come; or with the next that is told at once, or
    /// when there is much.
    Later,
}

/// A command with the one who waits for its outcome.
pub(crate) struct Queued {
    pub(crate) command: Command,
    pub(crate) waiter: Waiter,
    pub(crate) origin: Origin,
    bytes: usize,
}

/// See the module.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    count_max: usize,
    bytes_max: usize,
    /// Wakes the proposer: a command arrived at an empty queue, those that it waits for are there, an
    /// entry came back, or closed.
    pub(crate) wake: Notify,
}

#[derive(Default)]
struct Inner {
    queued: VecDeque<Queued>,
    bytes: usize,
    shares: Shares,
    closed: bool,
    /// The proposer waits for so many.
    awaited: usize,
    /// There is enough for it, and it was not woken: whoever queued the last one has more to come.
    owed: bool,
}

impl Queue {
    pub(crate) fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), count_max, bytes_max, wake: Notify::new() }
    }

    /// Adds a command at the end. A command larger than the whole queue is taken when it is alone.
    /// A site that has much of the queue already is refused before others are.
    pub(crate) fn push(
        &self,
        command: Command,
        waiter: Waiter,
        (origin, wake): (Origin, Wake),
    ) -> Result<(), ProposeError> {
        let bytes = command_bytes(&command);
        let is_enough = {
            let mut inner = self.inner.lock();
            if inner.closed {
                return Err(ProposeError::Unavailable);
            }
            let was_empty = inner.queued.is_empty();
            if inner.queued.len() >= self.count_max
                || (!was_empty && inner.bytes + bytes > self.bytes_max)
            {
                return Err(ProposeError::Busy);
            }
            let free = Free {
                count: self.count_max - inner.queued.len(),
                bytes: self.bytes_max.saturating_sub(inner.bytes),
            };
            let site = site_of(&command);
            if !was_empty && !inner.shares.allows(site, free) {
                return Err(ProposeError::Busy);
            }
            inner.shares.add(site, bytes);
            inner.bytes += bytes;
            inner.queued.push_back(Queued { command, waiter, origin, bytes });
            inner.owed |= was_empty || inner.queued.len() == inner.awaited;
            let goes = match wake {
                Wake::Now => true,
                Wake::Later => inner.bytes >= self.bytes_max / LATER_SHARE,
            };
            goes && std::mem::take(&mut inner.owed)
        };
        if is_enough {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Whether there are so many commands, or the queue is closed; if not, the proposer is woken when
    /// there are. One that is nearly full waits for nothing: a queue of bytes may never hold more.
    pub(crate) fn holds(&self, count: usize) -> bool {
        let mut inner = self.inner.lock();
        let enough = count.min(self.count_max / 2);
        inner.awaited = enough;
        inner.closed
            || count <= 1
            || inner.queued.len() >= enough
            || inner.bytes >= self.bytes_max / 2
    }

    /// Takes commands from the front: at most `count_max`, and none after `bytes_max` are reached.
    pub(crate) fn take(&self, count_max: usize, bytes_max: usize) -> Vec<Queued> {
        let mut inner = self.inner.lock();
        let mut taken = Vec::with_capacity(inner.queued.len().min(count_max));
        let mut bytes = 0;
        inner.owed = false;
        while taken.len() < count_max && bytes < bytes_max {
            let Some(queued) = inner.queued.pop_front() else { break };
            bytes += queued.bytes;
            inner.shares.remove(site_of(&queued.command), queued.bytes);
            taken.push(queued);
        }
        inner.bytes -= bytes;
        taken
    }

    /// Commands that wait.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().queued.len()
    }

    /// Takes no further command; what is queued stays.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.wake.notify_one();
    }

    /// Whether it is closed and empty.
    pub(crate) fn finished(&self) -> bool {
        let inner = self.inner.lock();
        inner.closed && inner.queued.is_empty()
    }
}

/// Whether admission control applies: only what adds events can be refused for want of room.
pub(crate) fn is_raise(command: &Command) -> bool {
    match command {
        Command::Raise(_)
        | Command::RaiseKeyed(_)
        | Command::RaiseAfter(_)
        | Command::Traced(_) => true,
        Command::AttachService(_)
        | Command::DetachService { .. }
        | Command::AttachClient { .. }
        | Command::Subscribe(_)
        | Command::SubscribeAs(_)
        | Command::Advance(_)
        | Command::Acknowledge(_)
        | Command::AttachPolling(_)
        | Command::AttachPush(_)
        | Command::SettlePush(_)
        | Command::GiveUp(_)
        | Command::Admin { .. }
        | Command::Tick { .. }
        | Command::SetLimits(_)
        | Command::Renew { .. }
        | Command::Directory(_)
        | Command::Compare
        | Command::Administer(_)
        | Command::Record { .. }
        | Command::IssueTicket(_)
        | Command::DrawTicket(_)
        | Command::RedeemTicket(_)
        | Command::Restore(_) => false,
    }
}

/// Roughly what a command occupies, encoded or in memory.
fn command_bytes(command: &Command) -> usize {
    /// Names, numbers and the queue's own bookkeeping.
    const BASE_BYTES: usize = 160;
    let variable = match command {
        Command::Raise(raise) => event_bytes(&raise.event),
        Command::RaiseKeyed(raise) => raise.key.len() + event_bytes(&raise.event),
        Command::RaiseAfter(RaiseAfter { raise, after }) => {
            after.len() + raise.key.len() + event_bytes(&raise.event)
        }
        Command::Traced(traced) => {
            let names = match &traced.raise {
                Raising::Session(_) => 0,
                Raising::Keyed(raise) => raise.key.len(),
                Raising::After(RaiseAfter { raise, after }) => raise.key.len() + after.len(),
            };
            names + event_bytes(traced.raise.event()) + traced.trace.state.len()
        }
        Command::AttachService(attach) => {
            attach.version.len()
                + attach.hostname.len()
                + attach.structure.as_ref().map_or(0, structure_bytes)
        }
        Command::Subscribe(subscribe) => list_bytes(subscribe),
        Command::SubscribeAs(list) => list_bytes(&list.subscribe) + 16 * list.qualities.len(),
        Command::Admin { action, .. } => action_bytes(action),
        Command::Administer(asked) => {
            asked.by.who.len() + asked.by.address.len() + action_bytes(&asked.action)
        }
        Command::Record { notes, .. } => notes.len() * 512,
        Command::Restore(restore) => {
            restore.rows.iter().map(|row| encode_row(row).len()).sum::<usize>()
        }
        Command::DetachService { .. }
        | Command::AttachClient { .. }
        | Command::Advance(_)
        | Command::Acknowledge(_)
        | Command::AttachPolling(_)
        | Command::AttachPush(_)
        | Command::SettlePush(_)
        | Command::GiveUp(_)
        | Command::Tick { .. }
        | Command::SetLimits(_)
        | Command::Renew { .. }
        | Command::Directory(_)
        | Command::IssueTicket(_)
        | Command::DrawTicket(_)
        | Command::RedeemTicket(_)
        | Command::Compare => 0,
    };
    BASE_BYTES + variable
}

fn list_bytes(subscribe: &Subscribe) -> usize {
    subscribe.items.iter().map(|item| 64 + item.event.as_str().len()).sum()
}

fn event_bytes(event: &NewEvent) -> usize {
    let arguments = event
        .arguments
        .as_ref()
        .map_or(0, |arguments| arguments.content_type.len() + arguments.data.len());
    event.name.as_str().len() + arguments
}

fn structure_bytes(structure: &Structure) -> usize {
    // An access rule names at most all roles, so events times roles bounds it; in practice few do.
    let roles: usize = structure.roles.iter().map(|role| 16 + role.as_str().len()).sum();
    let events: usize = structure.events.iter().map(|event| 64 + event.name.as_str().len()).sum();
    structure.service_type.len() + structure.contract_author.len() + 2 * roles + events
}

fn action_bytes(action: &AdminAction) -> usize {
    match action {
        AdminAction::ApplyStructure { structure, .. } => structure_bytes(structure),
        AdminAction::CreateUser { roles, .. } | AdminAction::UpdateUser { roles, .. } => {
            roles.iter().map(|role| 16 + role.as_str().len()).sum()
        }
        AdminAction::CreateSite { .. }
        | AdminAction::UpdateSite { .. }
        | AdminAction::DeleteSite
        | AdminAction::ApplyDeclared { .. }
        | AdminAction::CreateService { .. }
        | AdminAction::DeleteService { .. }
        | AdminAction::CreateClient { .. }
        | AdminAction::UpdateClient { .. }
        | AdminAction::DeleteClient { .. }
        | AdminAction::DeleteUser { .. }
        | AdminAction::CreateToken { .. }
        | AdminAction::RevokeToken { .. }
        | AdminAction::Seek { .. }
        | AdminAction::Unsubscribe { .. }
        | AdminAction::SetQuotas { .. }
        | AdminAction::Pause { .. }
        | AdminAction::Resume { .. }
        | AdminAction::KickClient { .. }
        | AdminAction::KickService { .. }
        | AdminAction::DeletePush { .. }
        | AdminAction::ResumePush { .. }
        | AdminAction::ReplayDeadLetter { .. }
        | AdminAction::DeleteDeadLetter { .. } => 0,
        AdminAction::EditDeadLetter { arguments, note, .. } => {
            let arguments = arguments.as_ref();
            arguments.map_or(0, |it| it.content_type.len() + it.data.len())
                + note.as_ref().map_or(0, String::len)
        }
        AdminAction::PutPush { spec, .. } => spec.bytes(),
        AdminAction::IssueToken { note, .. } => note.len(),
        AdminAction::PutSubscription { item, .. } | AdminAction::PutSubscriptionAs { item, .. } => {
            item.event.as_str().len()
        }
    }
}

#[cfg(test)]
mod tests {
    use ackord_machine::site::SessionId;

    use super::*;

    fn tick() -> (Command, Waiter) {
        (Command::Tick { limit: 1 }, oneshot::channel().0)
    }

    fn push(queue: &Queue) -> Result<(), ProposeError> {
        let (command, waiter) = tick();
        queue.push(command, waiter, (Origin::Here, Wake::Now))
    }

    #[test]
    fn given_a_full_queue_when_pushing_then_busy_until_something_is_taken() {
        let queue = Queue::new(2, usize::MAX);
        assert_eq!(push(&queue), Ok(()));
        assert_eq!(push(&queue), Ok(()));
        assert_eq!(push(&queue), Err(ProposeError::Busy));
        assert_eq!(queue.take(1, usize::MAX).len(), 1);
        assert_eq!(push(&queue), Ok(()));
    }

    #[test]
    fn given_a_bound_in_bytes_when_pushing_then_one_always_fits_and_the_next_is_busy() {
        let queue = Queue::new(100, 1);
        assert_eq!(push(&queue), Ok(()));
        assert_eq!(push(&queue), Err(ProposeError::Busy));
        assert_eq!(queue.take(100, 1).len(), 1);
        assert_eq!(push(&queue), Ok(()));
    }

    #[test]
    fn given_a_site_that_pushes_all_it_can_then_others_still_find_room() {
        let queue = Queue::new(100, usize::MAX);
        let of = |site: &str| {
            let (session, service) = (SessionId(1), "s".into());
            let command = Command::DetachService { site: site.into(), service, session };
            queue.push(command, oneshot::channel().0, (Origin::Here, Wake::Now))
        };
        let greedy = (0..200).filter(|_| of("greedy").is_ok()).count();
        assert_eq!(greedy, 90);
        assert_eq!(of("modest"), Ok(()));
        assert_eq!(push(&queue), Ok(()), "what is of no site");
        assert_eq!(queue.take(100, usize::MAX).len(), 92);
        let again = (0..200).filter(|_| of("greedy").is_ok()).count();
        assert_eq!(again, 90, "what was taken out is free again");
    }

    #[tokio::test]
    async fn given_a_proposer_that_waits_for_three_then_the_third_wakes_it_and_the_second_does_not()
    {
        let queue = Queue::new(100, usize::MAX);
        push(&queue).unwrap();
        queue.wake.notified().await;
        assert!(queue.holds(1) && !queue.holds(3));
        push(&queue).unwrap();
        let woken = || queue.wake.notified();
        assert!(futures_util::FutureExt::now_or_never(woken()).is_none());
        push(&queue).unwrap();
        assert!(futures_util::FutureExt::now_or_never(woken()).is_some());
        assert!(queue.holds(3));
    }

    #[tokio::test]
    async fn given_a_command_that_waits_for_more_then_the_proposer_is_not_woken_for_it() {
        let queue = Queue::new(100, usize::MAX);
        let (waiter, _outcome) = oneshot::channel();
        queue.push(Command::Compare, waiter, (Origin::Here, Wake::Later)).unwrap();
        assert_eq!(queue.len(), 1);
        let woken = || futures_util::FutureExt::now_or_never(queue.wake.notified()).is_some();
        assert!(!woken());
        push(&queue).unwrap();
        assert!(woken(), "one that does not wait takes it along");
        push(&queue).unwrap();
        assert!(!woken(), "it knows already");
    }

    #[tokio::test]
    async fn given_commands_that_wait_for_more_and_are_much_then_the_proposer_is_woken() {
        let queue = Queue::new(100, LATER_SHARE);
        let (waiter, _outcome) = oneshot::channel();
        queue.push(Command::Compare, waiter, (Origin::Here, Wake::Later)).unwrap();
        assert!(futures_util::FutureExt::now_or_never(queue.wake.notified()).is_some());
    }

    #[test]
    fn given_a_queue_that_can_never_hold_as_many_then_half_of_it_is_enough() {
        let queue = Queue::new(4, usize::MAX);
        push(&queue).unwrap();
        assert!(!queue.holds(1000));
        push(&queue).unwrap();
        assert!(queue.holds(1000));
        queue.close();
        assert_eq!(queue.take(usize::MAX, usize::MAX).len(), 2);
        assert!(queue.holds(1000), "nothing more will come");
    }

    #[test]
    fn given_a_closed_queue_when_pushing_then_unavailable_and_the_rest_can_be_taken() {
        let queue = Queue::new(2, usize::MAX);
        push(&queue).unwrap();
        queue.close();
        assert_eq!(push(&queue), Err(ProposeError::Unavailable));
        assert!(!queue.finished());
        assert_eq!(queue.take(2, usize::MAX).len(), 1);
        assert!(queue.finished());
    }
}
