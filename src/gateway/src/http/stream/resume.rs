//! What is said where delivery goes on: what was asked for, what holds, and what went unseen.
//!
//! Invariant: a number is said only when it is known to be right; otherwise it is absent.

use ackord_machine::site::{EventKey, InstanceId, Receiver, Site};
use ackord_wire::frame::{Position, SubscribedItem};
use ackord_wire::stream::{Resume, Resumed};

use super::ask::Given;
use super::position::Positions;

/// The header that carries a [`Resume`] without its subscriptions.
pub const HEADER: &str = "ackord-resume";

/// How many events went unseen by somebody who has seen all up to a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missed {
    lost: u64,
    superseded: u64,
}

/// What went unseen of an event above an id; `None` when this node does not remember all of it.
fn missed(site: &Site, event: EventKey, after: InstanceId, who: &Receiver) -> Option<Missed> {
    let missed = site.missed(event, after, who);
    missed.complete.then_some(Missed { lost: missed.lost, superseded: missed.superseded })
}

/// Says where these subscriptions go on. `standing` are their positions.
pub fn resume(
    site: &Site,
    who: &Receiver,
    given: &Given,
    accepted: &[SubscribedItem],
    standing: &Positions,
) -> Resume {
    let mut subscriptions = Vec::with_capacity(accepted.len());
    let mut total = Some(Missed { lost: 0, superseded: 0 });
    for item in accepted {
        let event = EventKey(item.subscription);
        let requested = given.positions().and_then(|positions| positions.of(event));
        let requested = requested.map(|position| Position {
            incarnation: position.incarnation.0,
            generation: position.generation.0,
            instance_id: position.instance.0,
        });
        // A guest has seen what it says; of a registered client that is what its cursor says. Who
        // has seen nothing yet can have missed nothing.
        let has_seen = match who {
            Receiver::Stateless => item.resumed == Some(true),
            Receiver::Client(_) => item.position.instance_id > 0,
        };
        let after = InstanceId(item.position.instance_id);
        // Nor is anybody told how much there is of what they may not receive.
        let told = has_seen && item.granted;
        let missed = if told { missed(site, event, after, who) } else { None };
        total = total.zip(missed).map(|(total, missed)| Missed {
            lost: total.lost + missed.lost,
            superseded: total.superseded + missed.superseded,
        });
        subscriptions.push(Resumed {
            event: item.event.clone(),
            subscription: item.subscription,
            requested,
            resumed_from: item.position,
            granted: item.granted,
            lost: missed.map(|missed| missed.lost),
            superseded: missed.map(|missed| missed.superseded),
        });
    }
    let total = total.filter(|_| !subscriptions.is_empty());
    Resume {
        requested: match given {
            Given::Read(text, _) => Some(text.clone()),
            Given::Nothing | Given::Unreadable => None,
        },
        unreadable: *given == Given::Unreadable,
        resumed_from: standing.text(),
        lost: total.map(|total| total.lost),
        superseded: total.map(|total| total.superseded),
        subscriptions,
    }
}

/// The text of the header.
pub fn header(resume: &Resume) -> String {
    let short = Resume { subscriptions: Vec::new(), ..resume.clone() };
    // Texts of base64url and numbers, which the encoder cannot refuse; all of it is ASCII.
    serde_json::to_string(&short).unwrap_or_default()
}
