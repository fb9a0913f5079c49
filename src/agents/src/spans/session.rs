//! What is under way in one session and becomes spans: raises by number, deliveries by instance.

use std::collections::VecDeque;
use std::time::SystemTime;

use ackord_machine::session::Delivery;
use ackord_machine::site::{EventKey, Incarnation, InstanceId, SiteName};
use ackord_wire::TraceContext;

use super::{Begun, Published, Span, Spans, Work, publish_id};
use crate::token;
use crate::translate;

/// Raises, and deliveries, of a session that are followed at a time; the oldest is let go.
const FOLLOWED_MAX: usize = 1024;

/// What a session is in the middle of.
#[derive(Default)]
pub(crate) struct SessionSpans {
    raises: VecDeque<(u64, String, Begun)>,
    deliveries: VecDeque<Delivering>,
}

struct Delivering {
    event: EventKey,
    instance: InstanceId,
    span: Span,
}

impl SessionSpans {
    /// A raise came in.
    pub fn raised(&mut self, sequence: u64, event: &str, begun: Begun) {
        // What is sent again goes on as it began.
        if self.raises.iter().any(|(known, ..)| *known == sequence) {
            return;
        }
        make_room(&mut self.raises);
        self.raises.push_back((sequence, event.to_owned(), begun));
    }

    /// A raise is answered for good, or is to come again.
    pub fn answered(
        &mut self,
        spans: &Spans,
        sequence: u64,
        of: (&SiteName, &str),
        (outcome, instance, stored): (&str, Option<(Incarnation, u64)>, bool),
    ) {
        let Some(at) = self.raises.iter().position(|(known, ..)| *known == sequence) else {
            return;
        };
        let Some((_, event, begun)) = self.raises.remove(at) else { return };
        let (site, service) = of;
        let event = &*event;
        spans.end(begun.published(&Published { site, service, event, outcome, instance, stored }));
    }

    /// An instance is handed to the front.
    pub fn sent(&mut self, site: &SiteName, client: Option<&str>, delivery: &Delivery) {
        let sampled = delivery.instance.trace.as_deref().filter(|trace| trace.is_sampled());
        let Some(trace) = sampled.and_then(translate::trace_to_wire) else { return };
        let (event, instance) = (delivery.event, delivery.instance.id);
        let now = SystemTime::now();
        let same = |known: &&mut Delivering| (known.event, known.instance) == (event, instance);
        if let Some(known) = self.deliveries.iter_mut().find(same) {
            known.span.moments.push(("sent again", now));
            return;
        }
        make_room(&mut self.deliveries);
        let link = Some(publish_id(&trace, delivery.incarnation, instance));
        let TraceContext { trace_id, parent_id: parent, state, .. } = trace;
        let name = delivery.name.as_str();
        let mut facts = vec![
            ("messaging.system", "ackord".to_owned()),
            ("messaging.operation.name", "deliver".to_owned()),
            ("messaging.destination.name", name.to_owned()),
            ("messaging.message.id", instance.to_string()),
            ("ackord.site", site.to_string()),
            ("ackord.service", delivery.instance.service.to_string()),
            ("ackord.attempt", delivery.attempt.to_string()),
        ];
        facts.extend(client.map(|client| ("ackord.client", client.to_owned())));
        let span = Span {
            name: format!("deliver {name}"),
            work: Work::Sent,
            trace_id,
            id: token::random(),
            parent,
            state,
            link,
            begun: now,
            ended: now,
            moments: Vec::new(),
            facts,
            failed: None,
        };
        self.deliveries.push_back(Delivering { event, instance, span });
    }

    /// The client said that it handled an instance.
    pub fn acknowledged(&mut self, event: EventKey, instance: InstanceId) {
        let now = SystemTime::now();
        let same = |known: &&mut Delivering| (known.event, known.instance) == (event, instance);
        if let Some(known) = self.deliveries.iter_mut().find(same) {
            known.span.moments.push(("acknowledged", now));
        }
    }

    /// The cursor is committed at an instance, and with it all before.
    pub fn committed(&mut self, spans: &Spans, event: EventKey, instance: InstanceId) {
        let now = SystemTime::now();
        self.deliveries.retain_mut(|known| {
            let committed = known.event == event && known.instance <= instance;
            if committed {
                known.span.moments.push(("committed", now));
                spans.end(Span { ended: now, ..known.span.clone() });
            }
            !committed
        });
    }

    /// The session is over.
    pub fn over(&mut self, spans: &Spans) {
        let now = SystemTime::now();
        for Delivering { span, .. } in self.deliveries.drain(..) {
            let failed = Some("the session ended before it was committed".to_owned());
            spans.end(Span { ended: now, failed, ..span });
        }
        self.raises.clear();
    }
}

fn make_room<T>(followed: &mut VecDeque<T>) {
    if followed.len() >= FOLLOWED_MAX {
        followed.pop_front();
    }
}
