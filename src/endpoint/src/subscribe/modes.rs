//! Subscriptions that are not ordered: several instances at hand, handled one after the other.
//!
//! Invariants:
//! - Twoway: an id is handled once, whatever the order in which ids come: what was handled above
//!   the highest id that the broker has committed is remembered one by one. The broker sends no more
//!   than a thousand above that, so there are never more. A subscription that somebody else has made
//!   twoway is remembered in the same way from when the broker says so.
//! - Oneway, batch, datagram: nothing is acknowledged; what came and no handler has seen outlives
//!   the connection, for the broker may not send it again. It is bounded: a handler that is too slow
//!   for too long loses the oldest, and the application is told.

use ackord_wire::frame::{Ack, Mode, Position};

use super::Subscribe;
use super::lane::{Work, life};
use crate::cpl::PositionChange;
use crate::event::Delivery;
use crate::notice::ClientNotice;

/// Instances of a subscription without acknowledgement that wait for its handler.
pub const BACKLOG_MAX: usize = 10_000;

impl Subscribe {
    pub(super) fn mode(&self, index: usize) -> Mode {
        self.lanes[index].mode
    }

    /// An instance of a subscription that is not ordered.
    pub(super) fn arrived_beside(&mut self, index: usize, delivery: Delivery) {
        let position = delivery.position();
        self.enter_life(index, life(&position), None);
        let acknowledged = self.mode(index).is_acknowledged();
        let lane = &mut self.lanes[index];
        if lane.handled(&position) {
            return self.acknowledge(index, &position);
        }
        if !acknowledged && position.instance_id <= lane.received {
            return;
        }
        if lane.has_in_hand(&position) || lane.is_waiting(&position) {
            return;
        }
        lane.received = lane.received.max(position.instance_id);
        lane.queue.push_back(delivery);
        let overrun = !acknowledged && lane.queue.len() > BACKLOG_MAX;
        if let Some(lost) = overrun.then(|| lane.queue.pop_front()).flatten() {
            let (event, instance_id) = (lost.event, lost.instance_id);
            self.tell(ClientNotice::Overrun { event, instance_id });
        }
        self.start_next(index);
    }

    /// The subscription of a handler's place.
    pub(super) fn index_of(&self, place: usize) -> usize {
        place % self.lanes.len()
    }

    /// What a handler's place does.
    pub(super) fn work(&mut self, place: usize) -> &mut Work {
        let (index, row) = (self.index_of(place), place / self.lanes.len());
        let lane = &mut self.lanes[index];
        match row.checked_sub(1) {
            Some(beside) if beside < lane.beside.len() => &mut lane.beside[beside],
            Some(_) | None => &mut lane.work,
        }
    }

    /// Puts what waits in line for handlers, the first first, as far as places of it are free.
    pub(super) fn start_next(&mut self, index: usize) {
        for row in 0..=self.lanes[index].beside.len() {
            let place = index + row * self.lanes.len();
            if let Work::Idle = self.work(place)
                && let Some(delivery) = self.lanes[index].queue.pop_front()
            {
                *self.work(place) = Work::Waiting(delivery);
                self.ready.push_back(place);
            }
        }
    }

    /// What goes to the store for an instance that was handled.
    pub(super) fn remember(&mut self, index: usize, position: Position) {
        let lane = &mut self.lanes[index];
        let event = lane.subscription.event.clone();
        if !lane.one_by_one {
            return self.changes.push(PositionChange::Handled { event, position });
        }
        if let Some(floor) = lane.last.filter(|_| std::mem::take(&mut lane.floor_rose)) {
            let event = event.clone();
            self.changes.push(PositionChange::Handled { event, position: floor });
        }
        self.changes.push(PositionChange::HandledAbove { event, position });
    }

    /// The broker sends nothing at or below this id again.
    pub(super) fn raise_floor(&mut self, index: usize, ack: Ack) {
        let lane = &mut self.lanes[index];
        let Some((incarnation, generation)) = lane.life else { return };
        let position = Position { incarnation, generation, instance_id: ack.instance_id };
        let below = lane.last.is_none_or(|last| last.instance_id < ack.instance_id);
        if lane.one_by_one && below {
            lane.last = Some(position);
            lane.above = lane.above.split_off(&(ack.instance_id + 1));
            lane.floor_rose = true;
        }
    }
}
