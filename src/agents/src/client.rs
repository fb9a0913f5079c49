//! The agent of one connected client.

use ackord_machine::session::{
    AcceptedSubscription, ClientSession, CloseReason, Counts, Delivery, Failed, Lane, LaneState,
    Named, Output, ToClient, Token, View, Wake,
};
use ackord_machine::site::{Command, EventKey, Generation, Incarnation, InstanceId, Outcome};
use ackord_wire::DecodeError;
use ackord_wire::frame::{ClientFrame, ClientMessage, Closing};
use bytes::Bytes;

use crate::agent::{Agent, Serve};
use crate::cork::Urgency;
use crate::live::{LiveCounts, LiveLane, LiveLaneState, LiveSession, LiveState};
use crate::seat::Clocks;
use crate::shell::Shell;
use crate::translate;

/// The broker-side actor of one connected client: one delivery lane per subscription.
pub(crate) type ClientAgent = Agent<ClientSession>;

type Out = Vec<Output<ToClient>>;

impl Serve for ClientSession {
    type Message = ToClient;

    fn on_frame(
        &mut self,
        frame: &[u8],
        shell: &mut Shell,
        out: &mut Out,
    ) -> Result<(), DecodeError> {
        let frame: ClientFrame = shell.codec.decode(frame)?;
        match &frame {
            ClientFrame::Hello(hello) if self.is_new() => shell.on_hello(hello.keepalive_s),
            ClientFrame::Ack(ack) => {
                shell.metrics().acks.inc();
                let (event, instance) = (EventKey(ack.subscription), InstanceId(ack.instance_id));
                shell.note_acknowledged(event, instance);
            }
            ClientFrame::Nack(_) => shell.metrics().nacks.inc(),
            ClientFrame::Hello(_)
            | ClientFrame::Subscriptions(_)
            | ClientFrame::Subscribe(_)
            | ClientFrame::Unsubscribe { .. }
            | ClientFrame::Working(_)
            | ClientFrame::Goodbye {} => {}
        }
        let named = match &frame {
            ClientFrame::Ack(ack) => {
                Some((EventKey(ack.subscription), InstanceId(ack.instance_id)))
            }
            ClientFrame::Hello(_)
            | ClientFrame::Nack(_)
            | ClientFrame::Subscriptions(_)
            | ClientFrame::Subscribe(_)
            | ClientFrame::Unsubscribe { .. }
            | ClientFrame::Working(_)
            | ClientFrame::Goodbye {} => None,
        };
        let before = named.and_then(|(event, _)| handled(self, event));
        shell.look(|view| translate::client_frame(self, frame, view, out));
        if let Some((event, instance)) = named
            && let Some((life, after)) = handled(self, event)
            && before.is_some_and(|(_, before)| before < after)
        {
            shell.deliveries.acknowledged(event, life, instance);
        }
        Ok(())
    }

    fn on_outcome(
        &mut self,
        token: Token,
        result: Result<Outcome, Failed>,
        shell: &Shell,
        out: &mut Out,
    ) {
        shell.look(|view| Self::on_outcome(self, token, result, view, out));
    }

    fn on_wake(&mut self, wake: &Wake, view: View<'_>, out: &mut Out) {
        Self::on_wake(self, wake, view, out);
    }

    fn on_time(&mut self, view: View<'_>, out: &mut Out) {
        Self::on_time(self, view, out);
    }

    fn on_alive(&mut self, out: &mut Out) {
        Self::on_alive(self, out);
    }

    fn next_deadline(&self) -> Option<u64> {
        Self::next_deadline(self)
    }

    fn on_written(&mut self, named: &Named, view: View<'_>, out: &mut Out) {
        Self::on_written(self, named, view, out);
    }

    fn receipt(&self, message: &ToClient) -> Option<Named> {
        let last = match message {
            ToClient::Event(delivery) => delivery,
            ToClient::Events(deliveries) => deliveries.last()?,
            ToClient::Welcome { .. }
            | ToClient::Subscribed { .. }
            | ToClient::Committed { .. }
            | ToClient::Authority { .. }
            | ToClient::Presence { .. } => return None,
        };
        (!last.mode.is_acknowledged()).then_some(Named {
            event: last.event,
            instance: last.instance.id,
            generation: Some(last.generation),
        })
    }

    fn watch(&self, message: &ToClient, shell: &Shell) {
        let metrics = shell.metrics();
        let delivers = |delivery: &Delivery| {
            if let Some(violation) = shell.deliveries.delivers(delivery) {
                metrics.violated(violation, &format!("{}: {delivery:?}", shell.site));
            }
        };
        match message {
            ToClient::Event(delivery) => delivers(delivery),
            ToClient::Events(deliveries) => deliveries.iter().for_each(delivers),
            ToClient::Committed { event, instance } => {
                metrics.commits.inc();
                shell.note_committed(*event, *instance);
                let Some(lane) = lane_of(self, *event) else { return };
                let life = (self.incarnation(), lane.generation());
                let cursor = lane.cursor();
                if let Some(violation) = shell.deliveries.commits(*event, life, *instance, cursor) {
                    let detail = format!("{}: {event} at {instance}", shell.site);
                    metrics.violated(violation, &detail);
                }
            }
            ToClient::Subscribed { accepted, .. } => {
                shell.deliveries.retain(|event| lane_of(self, event).is_some());
                for AcceptedSubscription { event, position, resumed, .. } in accepted {
                    let life = (position.incarnation, position.generation);
                    shell.deliveries.begins(*event, life, position.instance);
                    let Some(resumed) = *resumed else { continue };
                    let counter = if resumed { &metrics.resumed } else { &metrics.restarted };
                    counter.inc();
                }
            }
            ToClient::Welcome { .. } | ToClient::Authority { .. } | ToClient::Presence { .. } => {}
        }
    }

    fn close(&mut self, reason: CloseReason, detail: &str, out: &mut Out) {
        Self::close(self, reason, detail, out);
    }

    fn urgency(message: &ToClient) -> Urgency {
        match message {
            ToClient::Event(_) | ToClient::Events(_) => Urgency::Event,
            ToClient::Committed { .. } => Urgency::Confirmation,
            ToClient::Welcome { .. }
            | ToClient::Subscribed { .. }
            | ToClient::Authority { .. }
            | ToClient::Presence { .. } => Urgency::Now,
        }
    }

    fn encode(&self, message: &ToClient, shell: &Shell) -> Bytes {
        match message {
            ToClient::Event(delivery) => {
                note_sent(self, delivery, shell);
                return shell.arbiter.cache.borrow_mut().frame(delivery, shell.codec);
            }
            ToClient::Events(deliveries) => {
                deliveries.iter().for_each(|delivery| note_sent(self, delivery, shell));
                return shell.arbiter.cache.borrow_mut().frame_of(deliveries, shell.codec);
            }
            ToClient::Committed { .. }
            | ToClient::Welcome { .. }
            | ToClient::Subscribed { .. }
            | ToClient::Authority { .. }
            | ToClient::Presence { .. } => {}
        }
        let codec = shell.codec;
        let frame = shell.with_terms(|terms| translate::client_message(message, codec, terms));
        shell.codec.encode(&frame).into()
    }

    fn encode_closing(&self, closing: Closing, shell: &Shell) -> Bytes {
        shell.codec.encode(&ClientMessage::Closing(closing)).into()
    }

    fn interests(&self) -> impl Iterator<Item = EventKey> {
        self.lanes().iter().map(Lane::event)
    }

    fn on_ended(&self) -> Option<Command> {
        None
    }

    fn tell(&self, clocks: Clocks, lanes: bool, session: &mut LiveSession) {
        session.state = if self.is_closed() {
            LiveState::Closing
        } else if self.is_open() {
            LiveState::Open
        } else {
            LiveState::Opening
        };
        session.epoch = self.epoch().0;
        session.subscriptions = self.lanes().len() as u32;
        session.in_flight =
            self.lanes().iter().filter(|lane| lane.in_flight().is_some()).count() as u32;
        if lanes {
            session.lanes = self.lanes().iter().map(|lane| live_lane(lane, clocks)).collect();
        }
    }
}

fn lane_of(session: &ClientSession, event: EventKey) -> Option<&Lane> {
    let at = session.lanes().binary_search_by_key(&event, Lane::event).ok()?;
    session.lanes().get(at)
}

/// The life of a subscription, and how many instances it took as handled.
fn handled(session: &ClientSession, event: EventKey) -> Option<((Incarnation, Generation), u64)> {
    let lane = lane_of(session, event)?;
    Some(((session.incarnation(), lane.generation()), lane.counts().delivered))
}

fn note_sent(session: &ClientSession, delivery: &Delivery, shell: &Shell) {
    shell.metrics().delivered(delivery.attempt, delivery.age_ms);
    shell.note_sent(delivery, session.lanes().len());
}

fn live_lane(lane: &Lane, clocks: Clocks) -> LiveLane {
    let (state, instance) = match lane.state() {
        LaneState::Idle => (LiveLaneState::Idle, None),
        LaneState::Unauthorized => (LiveLaneState::Unauthorized, None),
        LaneState::InFlight(instance) => (LiveLaneState::InFlight, Some(instance)),
        LaneState::BackingOff(instance) => (LiveLaneState::BackingOff, Some(instance)),
        LaneState::Committing(instance) => (LiveLaneState::Committing, Some(instance)),
    };
    let in_flight = lane.in_flight();
    let Counts { delivered, failed, dropped } = lane.counts();
    LiveLane {
        event: lane.event(),
        state,
        instance: instance.map(|instance| instance.0),
        attempt: in_flight.map_or(0, |in_flight| in_flight.attempt),
        since_ms: in_flight.map(|in_flight| clocks.wall(in_flight.since_ms)),
        mode: lane.mode(),
        in_flight: lane.in_flight_count() as u32,
        reached: lane.reached().0,
        counts: Some(LiveCounts { delivered, failed, dropped }),
    }
}
