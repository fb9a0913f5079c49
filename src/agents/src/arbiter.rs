//! What the sessions of one arbiter share: timers, the indexes and hubs of partitions, the cache
//! of encoded events. It lives as long as a session of its broker does.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ackord_machine::site::Command;
use ackord_replica::{PartitionHandle, Pending, ProposeError};
use actix::prelude::{Actor, Addr};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::asked::{GATHERS_MAX, Gather};
use crate::broker::Inner;
use crate::cache::EncodeCache;
use crate::cork::Corks;
use crate::hub::{SharedIndex, SiteHub, Stop};
use crate::live::LivePart;
use crate::seat::Clocks;
use crate::timers::Timers;

thread_local! {
    /// This thread's arbiter of each broker (more than one only in tests).
    static ARBITERS: RefCell<Vec<(u64, Weak<Arbiter>)>> = const { RefCell::new(Vec::new()) };
}

/// How many turns of the arbiter a command waits at most for others of it.
const TURNS_MAX: usize = 32;
/// Commands of a partition that wait for no more.
const COMMANDS_ENOUGH: usize = 1024;

struct Partition {
    index: SharedIndex,
    hub: Addr<SiteHub>,
}

/// See the head of this file.
pub(crate) struct Arbiter {
    pub timers: Timers,
    pub corks: Corks,
    pub cache: RefCell<EncodeCache>,
    partitions: RefCell<HashMap<u32, Partition>>,
    /// Partitions that will be told of what is queued.
    gathering: RefCell<HashSet<u32>>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
}

impl Arbiter {
    /// This thread's arbiter of a broker; made when there is none.
    pub fn of(broker: &Arc<Inner>) -> Rc<Self> {
        ARBITERS.with_borrow_mut(|arbiters| {
            arbiters.retain(|(_, arbiter)| arbiter.strong_count() > 0);
            let found = arbiters.iter().find(|(id, _)| *id == broker.id);
            if let Some(arbiter) = found.and_then(|(_, arbiter)| arbiter.upgrade()) {
                return arbiter;
            }
            let arbiter = Rc::new(Self {
                timers: Timers::start(broker.origin),
                corks: Corks::start(broker.origin),
                cache: RefCell::new(EncodeCache::new()),
                partitions: RefCell::default(),
                gathering: RefCell::default(),
                tasks: RefCell::default(),
            });
            let (sender, gathers) = mpsc::channel(GATHERS_MAX);
            broker.arbiters.lock().push(sender);
            let shutdown = broker.shutdown.subscribe();
            arbiter.tasks.borrow_mut().extend([
                actix_rt::spawn(shut_down(Rc::downgrade(&arbiter), shutdown)),
                actix_rt::spawn(answer(Rc::downgrade(&arbiter), Arc::downgrade(broker), gathers)),
            ]);
            arbiters.push((broker.id, Rc::downgrade(&arbiter)));
            arbiter
        })
    }

    /// What the sessions of this arbiter are to a question.
    fn look(&self, gather: &Gather, clocks: Clocks) -> LivePart {
        let partitions = self.partitions.borrow();
        let Some(partition) = partitions.get(&gather.partition) else { return LivePart::default() };
        partition.index.borrow().look(&gather.site, &gather.query, clocks)
    }

    /// Queues a command for the partition's next log entry, with those that other sessions of this
    /// arbiter propose in the same turn: an entry costs the same for one command as for a hundred.
    /// An arbiter that has nothing else to do takes no turn longer.
    ///
    /// # Errors
    /// As [`PartitionHandle::try_propose`].
    pub fn propose(
        self: &Rc<Self>,
        partition: &PartitionHandle,
        command: Command,
    ) -> Result<Pending, ProposeError> {
        let pending = partition.try_propose_later(command)?;
        if self.gathering.borrow_mut().insert(partition.number()) {
            let gathering =
                Gathering { arbiter: Rc::downgrade(self), partition: partition.clone() };
            actix_rt::spawn(gathering.run());
        }
        Ok(pending)
    }

    /// The index of a partition, whose effects are watched from now on.
    pub fn index(&self, partition: &PartitionHandle) -> SharedIndex {
        let mut partitions = self.partitions.borrow_mut();
        let entry = partitions.entry(partition.number()).or_insert_with(|| {
            let index = SharedIndex::default();
            let hub = SiteHub::new(partition.watch(), index.clone()).start();
            Partition { index, hub }
        });
        entry.index.clone()
    }
}

/// What a partition has of this arbiter's commands may go when this is dropped, whatever becomes of the
/// arbiter.
struct Gathering {
    arbiter: Weak<Arbiter>,
    partition: PartitionHandle,
}

impl Gathering {
    /// Until a turn of the arbiter has brought no more commands.
    async fn run(self) {
        let mut queued = self.partition.queued();
        for _ in 0..TURNS_MAX {
            // All that is ready has its turn first, and what the sockets have by then.
            tokio::task::yield_now().await;
            let now = self.partition.queued();
            if now <= queued || now >= COMMANDS_ENOUGH {
                break;
            }
            queued = now;
        }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        if let Some(arbiter) = self.arbiter.upgrade() {
            arbiter.gathering.borrow_mut().remove(&self.partition.number());
        }
        self.partition.go();
    }
}

/// Answers what is asked of this arbiter's sessions.
async fn answer(
    arbiter: Weak<Arbiter>,
    broker: std::sync::Weak<Inner>,
    mut gathers: mpsc::Receiver<Gather>,
) {
    while let Some(gather) = gathers.recv().await {
        let (Some(arbiter), Some(broker)) = (arbiter.upgrade(), broker.upgrade()) else { return };
        let part = arbiter.look(&gather, broker.wall.clocks(broker.now_ms()));
        // Whoever asked may have given up.
        let _gone = gather.answer.send(part);
    }
}

async fn shut_down(arbiter: Weak<Arbiter>, mut shutdown: watch::Receiver<bool>) {
    // An error means that the broker is gone, and with it nobody is left to wait.
    if shutdown.wait_for(|begun| *begun).await.is_ok()
        && let Some(arbiter) = arbiter.upgrade()
    {
        for partition in arbiter.partitions.borrow().values() {
            partition.index.borrow().shut_down();
        }
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        self.tasks.get_mut().iter().for_each(JoinHandle::abort);
        for partition in self.partitions.get_mut().values() {
            // A hub whose mailbox takes nothing has stopped already.
            let _stopped = partition.hub.try_send(Stop);
        }
    }
}
