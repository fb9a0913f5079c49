//! How far a subscription is behind: counted from its queue, with a bound.

use super::ids::{EventKey, InstanceId, Stamp};
use super::site::{Receiver, Site};

/// What waits for a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Retained instances above the cursor that are for the receiver and have not expired.
    pub count: u64,
    /// Whether there are more than were counted.
    pub more: bool,
    /// When the first of them was committed.
    pub oldest: Option<Stamp>,
}

impl Site {
    /// What waits for a receiver of an event above a cursor; counts up to `count_max`. Says nothing
    /// about authority.
    pub fn lag(
        &self,
        event: EventKey,
        cursor: InstanceId,
        receiver: &Receiver,
        now: Stamp,
        count_max: u64,
    ) -> Lag {
        let mut lag = Lag::default();
        let Some(queue) = self.queue_for(event, receiver) else { return lag };
        let above = queue.above(cursor);
        for (_, instance) in above.filter(|(_, instance)| !instance.expired(now)) {
            if lag.count == count_max {
                lag.more = true;
                break;
            }
            lag.oldest.get_or_insert(instance.created);
            lag.count += 1;
        }
        lag
    }

    /// Instances that are retained, of all events.
    pub fn retained_total(&self) -> usize {
        self.instances.len()
    }

    /// The ids of what waits for a receiver of an event above an id, ascending.
    pub fn waiting(
        &self,
        event: EventKey,
        after: InstanceId,
        receiver: &Receiver,
        now: Stamp,
    ) -> impl Iterator<Item = InstanceId> + use<'_> {
        let queue = self.queue_for(event, receiver).into_iter();
        let above = queue.flat_map(move |queue| queue.above(after));
        above.filter(move |(_, instance)| !instance.expired(now)).map(|(id, _)| *id)
    }
}
