//! Which instances are sent next.

use std::sync::Arc;

use crate::site::quality::{BATCH_BYTES_MAX, BATCH_COUNT_MAX};
use crate::site::{EventKey, Instance, InstanceId, PushRow, Receiver, Site};

use super::super::View;

/// What an event occupies beside its arguments, roughly.
const FRAME_BYTES: usize = 512;

/// The receiver of a push subscription.
pub(super) fn receiver(row: &PushRow) -> Receiver {
    Receiver::Client(row.spec.client.clone())
}

/// The first instance above an id that is not among those to pass over.
pub(super) fn next(
    site: &Site,
    row: &PushRow,
    view: View<'_>,
    mut after: InstanceId,
    is_under_way: impl Fn(InstanceId) -> bool,
) -> Option<Arc<Instance>> {
    let receiver = receiver(row);
    loop {
        let found = site.next_instance(row.event, after, &receiver, view.stamp)?;
        if !is_under_way(found.id) {
            return Some(found.clone());
        }
        after = found.id;
    }
}

/// As many as go into one batch; whether more are left.
pub(super) fn batch(
    site: &Site,
    row: &PushRow,
    view: View<'_>,
    mut after: InstanceId,
    count_max: usize,
) -> (Vec<Arc<Instance>>, bool) {
    let (receiver, mut bytes, mut taken) = (receiver(row), 0, Vec::new());
    while let Some(found) = site.next_instance(row.event, after, &receiver, view.stamp) {
        // Base64 takes four bytes for three.
        let more = FRAME_BYTES + found.argument_bytes() as usize * 4 / 3;
        let full = taken.len() == count_max.min(BATCH_COUNT_MAX);
        if full || (bytes + more > BATCH_BYTES_MAX && !taken.is_empty()) {
            return (taken, true);
        }
        bytes += more;
        after = found.id;
        taken.push(found.clone());
    }
    (taken, false)
}

/// Where the cursor must be for so many to wait at most, and how many it passes over; `None` when
/// no more wait.
pub(super) fn overflow(
    site: &Site,
    row: &PushRow,
    view: View<'_>,
    after: InstanceId,
    most: u32,
) -> Option<(InstanceId, u32)> {
    let most = most as usize;
    // Nobody can have more waiting than the event has instances.
    if waiting_at_most(site, row.event) <= most {
        return None;
    }
    let receiver = receiver(row);
    let ids = || site.waiting(row.event, after, &receiver, view.stamp);
    let surplus = ids().count().checked_sub(most).filter(|surplus| *surplus > 0)?;
    let cursor = ids().nth(surplus - 1)?;
    Some((cursor, u32::try_from(surplus).unwrap_or(u32::MAX)))
}

fn waiting_at_most(site: &Site, event: EventKey) -> usize {
    site.retained_len(event)
}
