//! What the broker itself can see of a delivery that is not exactly once: it should see nothing.
//!
//! Looks at what a session decided to say, before anything of it is sent, so that what counts is what
//! was decided and not what the network made of it. It decides nothing, and changes nothing: it
//! only counts. What it remembers is of one session, and of those of its subscriptions that delivered.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ackord_machine::session::{Delivery, ToService};
use ackord_machine::site::{EventKey, Generation, Incarnation, InstanceId, Mode, Sequence};

use crate::metrics::Violation;

/// Acknowledged instances above the cursor that are remembered of a subscription: no window is
/// larger.
const AHEAD_MAX: usize = 1024;

/// The life of a subscription: nothing of one counts for another.
type Life = (Incarnation, Generation);

/// What is known of one subscription.
#[derive(Debug)]
struct Track {
    life: Life,
    /// Acknowledged up to this one.
    committed: InstanceId,
    /// Acknowledged above that one.
    ahead: Vec<InstanceId>,
    /// The mode in which they were: another one begins behind what has no gap before it.
    mode: Option<Mode>,
}

/// The deliveries of a client's session.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    tracks: RefCell<BTreeMap<EventKey, Track>>,
}

impl Deliveries {
    fn of<R>(&self, event: EventKey, life: Life, note: impl FnOnce(&mut Track) -> R) -> R {
        let mut tracks = self.tracks.borrow_mut();
        let track = tracks.entry(event).or_insert_with(|| Track::new(life));
        if track.life != life {
            *track = Track::new(life);
        }
        note(track)
    }

    /// An instance is about to be delivered.
    pub fn delivers(&self, delivery: &Delivery) -> Option<Violation> {
        let instance = delivery.instance.id;
        self.of(delivery.event, (delivery.incarnation, delivery.generation), |track| {
            if track.mode.replace(delivery.mode).is_some_and(|before| before != delivery.mode) {
                track.ahead.clear();
            }
            let again = instance <= track.committed || track.ahead.contains(&instance);
            again.then_some(Violation::AcknowledgedAgain)
        })
    }

    /// The session took an acknowledgement of an instance.
    pub fn acknowledged(&self, event: EventKey, life: Life, instance: InstanceId) {
        self.of(event, life, |track| {
            if instance > track.committed && track.ahead.len() < AHEAD_MAX {
                track.ahead.push(instance);
            }
        });
    }

    /// The cursor is committed at an instance, and stands there or higher.
    pub fn commits(
        &self,
        event: EventKey,
        life: Life,
        instance: InstanceId,
        cursor: InstanceId,
    ) -> Option<Violation> {
        if cursor < instance {
            // The subscription was moved meanwhile: this is of its life before.
            return None;
        }
        self.of(event, life, |track| {
            if instance < track.committed {
                return Some(Violation::CursorBackwards);
            }
            track.committed = instance;
            track.ahead.retain(|acknowledged| *acknowledged > instance);
            None
        })
    }

    /// The client was told where a subscription goes on. A guest's may go on anywhere.
    pub fn begins(&self, event: EventKey, life: Life, at: InstanceId) {
        let mut tracks = self.tracks.borrow_mut();
        // Most subscriptions of most sessions never deliver anything: they take no room.
        if let Some(track) = tracks.get_mut(&event) {
            *track = Track { committed: at, ..Track::new(life) };
        }
    }

    /// Only these subscriptions are left.
    pub fn retain(&self, is_left: impl Fn(EventKey) -> bool) {
        self.tracks.borrow_mut().retain(|event, _| is_left(*event));
    }
}

impl Track {
    fn new(life: Life) -> Self {
        Self { life, committed: InstanceId(0), ahead: Vec::new(), mode: None }
    }
}

/// The raises of a service's session.
#[derive(Debug, Default)]
pub(crate) struct Raises {
    /// Up to this number every raise was decided, or may have been; `None` before the welcome.
    known: RefCell<Option<Sequence>>,
}

impl Raises {
    /// A session is about to tell what became of a raise.
    pub fn says(&self, message: &ToService) -> Option<Violation> {
        let mut known = self.known.borrow_mut();
        let (sequence, decided_now) = match message {
            ToService::Welcome { last, .. } => {
                *known = Some(*last);
                return None;
            }
            ToService::Accepted { sequence, duplicate, .. }
            | ToService::Rejected { sequence, duplicate, .. } => (*sequence, !duplicate),
            // Its fate may be unknown: it may have been decided all the same.
            ToService::Refused { sequence, .. } => (*sequence, false),
            ToService::State(_) => return None,
        };
        let last = (*known)?;
        *known = Some(last.max(sequence));
        (decided_now && sequence > last.next()).then_some(Violation::SequenceGap)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ackord_machine::site::{Category, Instance, Mode, Stamp};

    use super::*;

    const LIFE: Life = (Incarnation(7), Generation(1));
    const EVENT: EventKey = EventKey(3);

    fn delivery(instance: u64, life: Life) -> Delivery {
        Delivery {
            event: EVENT,
            name: "e".into(),
            category: Category::Queueing,
            incarnation: life.0,
            generation: life.1,
            attempt: 1,
            age_ms: 0,
            mode: Mode::Twoway,
            instance: Arc::new(Instance {
                site: "s".into(),
                id: InstanceId(instance),
                event: EVENT,
                service: "s".into(),
                client: None,
                created: Stamp(1),
                expires: None,
                arguments: None,
                original: None,
                trace: None,
            }),
        }
    }

    #[test]
    fn given_an_acknowledged_instance_when_it_is_delivered_again_then_it_is_a_violation() {
        let deliveries = Deliveries::default();
        let again = Some(Violation::AcknowledgedAgain);
        for id in [5, 6, 6, 7] {
            assert_eq!(deliveries.delivers(&delivery(id, LIFE)), None, "not acknowledged: {id}");
        }
        deliveries.acknowledged(EVENT, LIFE, InstanceId(7));
        assert_eq!(deliveries.delivers(&delivery(6, LIFE)), None);
        assert_eq!(deliveries.delivers(&delivery(7, LIFE)), again, "ahead of the cursor");
        let at = InstanceId(6);
        assert_eq!(deliveries.commits(EVENT, LIFE, at, at), None);
        assert_eq!(deliveries.delivers(&delivery(5, LIFE)), again, "below the cursor");
        assert_eq!(deliveries.delivers(&delivery(7, LIFE)), again, "still ahead of it");
        let ordered = Delivery { mode: Mode::Ordered, ..delivery(7, LIFE) };
        assert_eq!(deliveries.delivers(&ordered), None, "in another mode it may");
        let ordered = Delivery { mode: Mode::Ordered, ..delivery(6, LIFE) };
        assert_eq!(deliveries.delivers(&ordered), again, "below the cursor in any mode");
        let moved = (LIFE.0, Generation(2));
        assert_eq!(deliveries.delivers(&delivery(5, moved)), None, "in another life it may");
    }

    #[test]
    fn given_a_cursor_when_a_lower_one_is_committed_then_it_is_a_violation_in_the_same_life() {
        let deliveries = Deliveries::default();
        let commit =
            |life, id, cursor| deliveries.commits(EVENT, life, InstanceId(id), InstanceId(cursor));
        assert_eq!(commit(LIFE, 9, 9), None);
        assert_eq!(commit(LIFE, 8, 9), Some(Violation::CursorBackwards));
        let moved = (LIFE.0, Generation(2));
        assert_eq!(commit(moved, 9, 2), None, "told late, of the life before");
        assert_eq!(commit(moved, 3, 3), None);
        deliveries.begins(EVENT, moved, InstanceId(1));
        assert_eq!(commit(moved, 2, 2), None, "a guest went back");
        deliveries.retain(|_| false);
        assert_eq!(commit(moved, 1, 1), None);
    }

    #[test]
    fn given_raises_when_one_is_passed_over_then_it_is_a_violation() {
        let raises = Raises::default();
        let accepted = |sequence, duplicate| ToService::Accepted {
            sequence: Sequence(sequence),
            instance: None,
            ignored: false,
            duplicate,
        };
        assert_eq!(raises.says(&accepted(9, false)), None, "before the welcome nothing is known");
        raises.known.replace(Some(Sequence(4)));
        assert_eq!(raises.says(&accepted(3, true)), None);
        assert_eq!(raises.says(&accepted(5, false)), None);
        assert_eq!(raises.says(&accepted(7, false)), Some(Violation::SequenceGap));
        let refused = ackord_machine::session::RefusedRaise::WindowFull;
        let refused = ToService::Refused { sequence: Sequence(8), cause: refused };
        assert_eq!(raises.says(&refused), None);
        assert_eq!(raises.says(&accepted(9, false)), None, "8 may have been decided");
    }
}
