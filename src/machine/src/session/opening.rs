//! How a client's session opens: the attach, or for a stateless client the read, and the welcome.
//!
//! `hello ─▶ attach ─▶ welcome`, `attach ─▶ (failed) ─▶ attach`, `attach ─▶ (overtaken) ─▶ probe ─▶ attach`
//!
//! Invariants:
//! - An attach comes again under one claim until its fate is known: the state lets it take over
//!   once, and never from a session that the claim does not know of.
//! - What attached after the connection was opened is newer, however late the hello arrives.
//! - A session that was overtaken takes over only after its client has answered a probe sent since:
//!   an endpoint that has opened a newer session does not answer on the older one.

use crate::site::{Command, Digest, Outcome, Receiver, Refusal};

use super::client::{ClientSession, Out, PRESENCE_AT_OPEN_MAX, Stage, presence};
use super::message::{SubscriptionSync, ToClient};
use super::subscriptions::Told;
use super::{
    CloseReason, Failed, Output, Patience, View, close_of, close_of_failed, refusal_detail,
};

impl ClientSession {
    /// The client opens the session. `set` is the hash of its subscriptions, if it gave one.
    pub fn on_hello(&mut self, set: Option<Digest>, view: View<'_>, out: &mut Out) {
        match self.stage {
            Stage::New => {}
            Stage::Closed => return,
            Stage::Opening { .. }
            | Stage::OpeningDelayed { .. }
            | Stage::Probing { .. }
            | Stage::Attached
            | Stage::AwaitingSet
            | Stage::Open => {
                return self.close(CloseReason::ProtocolViolation, "hello was said before", out);
            }
        }
        self.requests_mut().set = set;
        // What this replica has not applied yet, the attach is told.
        let row = self.client().and_then(|client| view.site?.client(client.as_str()));
        let seen = || row.map(|row| row.epoch).unwrap_or_default();
        self.claim.above = self.opened.unwrap_or_else(seen);
        self.begin_opening(out);
    }

    /// Whether the client exists and may enter is the log's to say: this replica may lag.
    pub(super) fn begin_opening(&mut self, out: &mut Out) {
        let token = self.token();
        self.stage = Stage::Opening { token };
        out.push(match &self.receiver {
            Receiver::Client(client) => {
                let (site, client, claim) = (self.site.clone(), client.clone(), self.claim);
                Output::Propose { token, command: Command::AttachClient { site, client, claim } }
            }
            Receiver::Stateless => Output::Linearize { token },
        });
    }

    pub(super) fn on_attached(
        &mut self,
        result: Result<Outcome, Failed>,
        view: View<'_>,
        out: &mut Out,
    ) {
        match result {
            Ok(Outcome::ClientAttached { epoch, incarnation }) => {
                self.epoch = epoch;
                self.incarnation = incarnation;
                self.stage = Stage::Attached;
                self.open_when_applied(view, out);
            }
            Ok(Outcome::Refused(Refusal::Overtaken { newest })) => {
                self.claim.above = newest;
                let until_ms = self.requests_mut().patience.end_ms(view.now_ms);
                self.stage = Stage::Probing { until_ms };
                out.push(Output::Probe);
            }
            Ok(Outcome::Refused(refusal)) => {
                self.close(close_of(&refusal, self.epoch), refusal_detail(&refusal), out);
            }
            Ok(_) if self.receiver == Receiver::Stateless => {
                self.stage = Stage::Attached;
                self.open_when_applied(view, out);
            }
            Ok(other) => self.contradiction("attach", &other, out),
            Err(failed) => self.on_open_failed(failed, view, out),
        }
    }

    /// An attach of unknown fate comes again too: under its claim it takes over once.
    fn on_open_failed(&mut self, failed: Failed, view: View<'_>, out: &mut Out) {
        match self.requests_mut().patience.again(view.now_ms) {
            Some(until_ms) => self.stage = Stage::OpeningDelayed { until_ms },
            None => {
                let (reason, detail) = close_of_failed(failed);
                self.close(reason, detail, out);
            }
        }
    }

    /// The client answered a probe: it is still there, and this is its session.
    pub fn on_alive(&mut self, out: &mut Out) {
        if let Stage::Probing { .. } = self.stage {
            self.begin_opening(out);
        }
    }

    /// The client did not answer the probe: it may have opened the session that overtook this one.
    pub(super) fn not_alive(&mut self, out: &mut Out) {
        self.close(CloseReason::Unavailable, "overtaken, and no sign of life", out);
    }

    /// Welcomes the client once this node has applied the session's own attach.
    pub(super) fn open_when_applied(&mut self, view: View<'_>, out: &mut Out) {
        let Some(site) = view.site else {
            return self.close(CloseReason::NotRegistered, "the site does not exist", out);
        };
        match &self.receiver {
            Receiver::Client(client) => {
                let applied =
                    site.client(client.as_str()).is_none_or(|row| row.epoch >= self.epoch);
                if !applied {
                    return;
                }
            }
            Receiver::Stateless => self.incarnation = site.incarnation(),
        }
        if !self.holds(view, out) || !self.may_enter(view, out) {
            return;
        }
        let requests = self.requests_mut();
        requests.patience = Patience::default();
        let set = requests.set.take();
        let sync = match (&self.receiver, set) {
            (Receiver::Stateless, _) => SubscriptionSync::Send,
            (Receiver::Client(_), None) => SubscriptionSync::Kept,
            (Receiver::Client(client), Some(given)) if given == Self::set_of(site, client) => {
                SubscriptionSync::Equal
            }
            (Receiver::Client(_), Some(_)) => SubscriptionSync::Send,
        };
        out.push(Output::Send(ToClient::Welcome {
            client: self.client().cloned(),
            epoch: self.epoch,
            incarnation: self.incarnation,
            sync,
        }));
        let online = site.services().filter(|service| service.online()).take(PRESENCE_AT_OPEN_MAX);
        for service in online {
            out.push(Output::Send(presence(site, &service.id)));
        }
        match sync {
            SubscriptionSync::Send => {
                self.stage = Stage::AwaitingSet;
                self.serve_requests(view, out);
            }
            SubscriptionSync::Equal | SubscriptionSync::Kept => {
                self.stage = Stage::Open;
                self.sync_lanes(&Told::All, view, out);
                out.push(Output::Send(ToClient::Subscribed {
                    accepted: self.accepted_all(),
                    refused: Vec::new(),
                    removed: Vec::new(),
                }));
                self.serve_requests(view, out);
                self.pump_all(view, out);
            }
        }
    }

    /// Whether the client may be here at all; closes the session when it may not.
    pub(super) fn may_enter(&mut self, view: View<'_>, out: &mut Out) -> bool {
        let Some(site) = view.site else {
            self.close(CloseReason::NotRegistered, "the site does not exist", out);
            return false;
        };
        match site.admits(&self.receiver) {
            Ok(()) => match self.credential.judge(view) {
                Ok(()) => true,
                Err((reason, detail)) => {
                    self.close(reason, detail, out);
                    false
                }
            },
            Err(refusal) => {
                self.close(close_of(&refusal, self.epoch), refusal_detail(&refusal), out);
                false
            }
        }
    }
}
