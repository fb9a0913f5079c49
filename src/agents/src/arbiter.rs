//! What the sessions of one arbiter share: timers, the indexes and hubs of partitions, the cache
//! of encoded events. It lives as long as a session of its broker does.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use ackord_replica::PartitionHandle;
use actix::prelude::{Actor, Addr};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cache::EncodeCache;
use crate::hub::{SessionId, SharedIndex, SiteHub, Stop};
use crate::timers::Timers;

thread_local! {
    /// This thread's arbiter of each broker (more than one only in tests).
    static ARBITERS: RefCell<Vec<(u64, Weak<Arbiter>)>> = const { RefCell::new(Vec::new()) };
}

struct Partition {
    index: SharedIndex,
    hub: Addr<SiteHub>,
}

/// See the head of this file.
pub(crate) struct Arbiter {
    pub timers: Timers,
    pub cache: RefCell<EncodeCache>,
    partitions: RefCell<HashMap<u32, Partition>>,
    last_session: Cell<SessionId>,
    shutdown: Cell<Option<JoinHandle<()>>>,
}

impl Arbiter {
    /// This thread's arbiter of a broker; made when there is none.
    pub fn of(broker: u64, origin: Instant, shutdown: watch::Receiver<bool>) -> Rc<Self> {
        ARBITERS.with_borrow_mut(|arbiters| {
            arbiters.retain(|(_, arbiter)| arbiter.strong_count() > 0);
            let found = arbiters.iter().find(|(id, _)| *id == broker);
            if let Some(arbiter) = found.and_then(|(_, arbiter)| arbiter.upgrade()) {
                return arbiter;
            }
            let arbiter = Rc::new(Self {
                timers: Timers::start(origin),
                cache: RefCell::new(EncodeCache::new()),
                partitions: RefCell::default(),
                last_session: Cell::new(0),
                shutdown: Cell::new(None),
            });
            let task = actix_rt::spawn(shut_down(Rc::downgrade(&arbiter), shutdown));
            arbiter.shutdown.set(Some(task));
            arbiters.push((broker, Rc::downgrade(&arbiter)));
            arbiter
        })
    }

    /// A number for a new session.
    pub fn next_session(&self) -> SessionId {
        let id = self.last_session.get() + 1;
        self.last_session.set(id);
        id
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
        if let Some(task) = self.shutdown.take() {
            task.abort();
        }
        for partition in self.partitions.get_mut().values() {
            // A hub whose mailbox takes nothing has stopped already.
            let _stopped = partition.hub.try_send(Stop);
        }
    }
}
