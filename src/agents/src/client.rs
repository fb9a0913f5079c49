//! The agent of one connected client.

use ackord_machine::session::{
    ClientSession, CloseReason, Counts, Delivery, Failed, Lane, LaneState, Named, Output, ToClient,
    Token, View, Wake,
};
use ackord_machine::site::{Command, EventKey, InstanceId, Outcome};
use ackord_wire::DecodeError;
use ackord_wire::frame::{ClientFrame, ClientMessage, Closing};
use bytes::Bytes;

use crate::agent::{Agent, Serve};
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
        shell.look(|view| translate::client_frame(self, frame, view, out));
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

    fn close(&mut self, reason: CloseReason, detail: &str, out: &mut Out) {
        Self::close(self, reason, detail, out);
    }

    fn encode(&self, message: &ToClient, shell: &Shell) -> Bytes {
        let metrics = shell.metrics();
        match message {
            ToClient::Event(delivery) => {
                note_sent(self, delivery, shell);
                return shell.arbiter.cache.borrow_mut().frame(delivery, shell.codec);
            }
            ToClient::Events(deliveries) => {
                deliveries.iter().for_each(|delivery| note_sent(self, delivery, shell));
                return shell.arbiter.cache.borrow_mut().frame_of(deliveries, shell.codec);
            }
            ToClient::Committed { event, instance } => {
                metrics.commits.inc();
                shell.note_committed(*event, *instance);
            }
            ToClient::Welcome { .. }
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

fn note_sent(session: &ClientSession, delivery: &Delivery, shell: &Shell) {
    if delivery.attempt == 1 {
        shell.metrics().deliveries.inc();
    } else {
        shell.metrics().redeliveries.inc();
    }
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
