//! The agent of one connected service.

use ackord_machine::session::{
    CloseReason, Failed, Output, ServiceSession, ToService, Token, View, Wake,
};
use ackord_machine::site::{Command, Epoch, EventKey, Incarnation, Outcome};
use ackord_wire::frame::{Closing, ServiceFrame, ServiceMessage};
use ackord_wire::{Code, DecodeError};
use bytes::Bytes;

use crate::agent::{Agent, Serve};
use crate::live::{LiveSession, LiveState};
use crate::seat::Clocks;
use crate::shell::Shell;
use crate::token;
use crate::translate::{self, Grant};

/// The broker-side actor of one connected service.
pub(crate) type ServiceAgent = Agent<ServiceSession>;

type Out = Vec<Output<ToService>>;

/// Incarnations stay below 2^53, so that every JSON reader keeps them exact.
const INCARNATION_BITS: u32 = 53;

/// A number for a site's life.
pub(crate) fn random_incarnation() -> Incarnation {
    let number = u64::from_le_bytes(token::random()) >> (u64::BITS - INCARNATION_BITS);
    Incarnation(number.max(1))
}

impl Serve for ServiceSession {
    type Message = ToService;

    fn on_frame(
        &mut self,
        frame: &[u8],
        shell: &mut Shell,
        out: &mut Out,
    ) -> Result<(), DecodeError> {
        let mut frame: ServiceFrame = shell.codec.decode(frame)?;
        if let ServiceFrame::Raise(raise) = &mut frame {
            shell.note_raise(raise);
        }
        let (mut incarnation, mut above) = (Incarnation(0), Epoch(0));
        match &frame {
            ServiceFrame::Hello(hello) if self.is_new() => {
                shell.on_hello(hello.keepalive_s);
                incarnation = random_incarnation();
                let service = self.service().as_str();
                let row = |view: View<'_>| Some(view.site?.service(service)?.epoch);
                above = shell.look(row).unwrap_or_default();
            }
            ServiceFrame::Hello(_) | ServiceFrame::Raise(_) | ServiceFrame::Goodbye {} => {}
        }
        let options = &shell.broker.options;
        let (window_default, window_max) = (options.window_default, options.window_max);
        let place = shell.broker.place;
        let grant = Grant { window_default, window_max, incarnation, place, above };
        let pushed = out.len();
        translate::service_frame(self, frame, grant, out);
        for output in &out[pushed..] {
            if let Output::Propose { command, .. } = output
                && let Some(event) = command.raised()
            {
                let bytes = event.arguments.as_ref().map_or(0, |given| given.data.len());
                shell.metrics().raise_bytes.observe(bytes as f64);
            }
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
        if self.is_welcomed() {
            self.on_raised(token, result, shell.broker.now_ms(), out);
        } else {
            shell.look(|view| Self::on_outcome(self, token, result, view, out));
        }
    }

    fn on_wake(&mut self, wake: &Wake, view: View<'_>, out: &mut Out) {
        match wake {
            Wake::Client | Wake::All => Self::on_wake(self, view, out),
            // Of another service, or of an event: nothing of this session.
            Wake::Service(_) | Wake::Event(_) => {}
        }
    }

    fn on_time(&mut self, view: View<'_>, out: &mut Out) {
        Self::on_time(self, view.now_ms, out);
    }

    fn on_alive(&mut self, out: &mut Out) {
        Self::on_alive(self, out);
    }

    fn next_deadline(&self) -> Option<u64> {
        Self::next_deadline(self)
    }

    fn watch(&self, message: &ToService, shell: &Shell) {
        if let Some(violation) = shell.raises.says(message) {
            let detail = format!("{} {:?}: {message:?}", shell.site, shell.who);
            shell.metrics().violated(violation, &detail);
        }
    }

    fn close(&mut self, reason: CloseReason, detail: &str, out: &mut Out) {
        Self::close(self, reason, detail, out);
    }

    fn encode(&self, message: &ToService, shell: &Shell) -> Bytes {
        let frame = shell.with_terms(|terms| translate::service_message(message, terms));
        count(&frame, shell);
        match message {
            ToService::Accepted { sequence, instance, duplicate, .. } => {
                let outcome = if *duplicate { "duplicate" } else { "accepted" };
                shell.note_decided(sequence.0, outcome, *instance);
            }
            ToService::Rejected { sequence, rejection, .. } => {
                let code = translate::rejection_code(*rejection);
                shell.note_decided(sequence.0, code.as_str(), None);
            }
            // It comes again, or never.
            ToService::Refused { .. } | ToService::Welcome { .. } | ToService::State(_) => {}
        }
        shell.codec.encode(&frame).into()
    }

    fn encode_closing(&self, closing: Closing, shell: &Shell) -> Bytes {
        shell.codec.encode(&ServiceMessage::Closing(closing)).into()
    }

    fn interests(&self) -> impl Iterator<Item = EventKey> {
        std::iter::empty()
    }

    fn on_ended(&self) -> Option<Command> {
        Self::on_ended(self)
    }

    fn tell(&self, _clocks: Clocks, _lanes: bool, session: &mut LiveSession) {
        session.state = if self.is_closed() {
            LiveState::Closing
        } else if !self.is_welcomed() {
            LiveState::Opening
        } else if self.parked().is_some() {
            LiveState::Parked
        } else {
            LiveState::Open
        };
        session.epoch = self.epoch().0;
        session.in_flight = self.in_flight() as u32;
    }
}

fn count(frame: &ServiceMessage, shell: &Shell) {
    let metrics = shell.metrics();
    let failed = |code: Code| metrics.raise_failed(code);
    match frame {
        ServiceMessage::Accepted(accepted) if accepted.duplicate => metrics.duplicate.inc(),
        ServiceMessage::Accepted(accepted) if accepted.ignored => metrics.ignored.inc(),
        ServiceMessage::Accepted(_) => metrics.accepted.inc(),
        ServiceMessage::Rejected(rejected) => failed(rejected.code),
        ServiceMessage::Refused(refused) => failed(refused.code),
        ServiceMessage::Welcome(_) | ServiceMessage::State(_) | ServiceMessage::Closing(_) => {}
    }
}
