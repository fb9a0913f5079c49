//! The session of one connected service: its publish window.
//!
//! `hello ─▶ attach (epoch, marks) ─▶ welcome ─▶ raise* ─▶ answers in the order of the raises`
//!
//! How raises are answered is in `raises.rs`. Invariants of the opening:
//! - An attach comes again under one claim until its fate is known: the state lets it take over
//!   once, and never from a session that the claim does not know of.
//! - What attached after the connection was opened is newer, however late the hello arrives.
//! - A session that was overtaken takes over only after its service has answered a probe sent since:
//!   an endpoint that has opened a newer session does not answer on the older one.

use crate::site::{
    AttachService, Claim, Command, Epoch, Incarnation, Outcome, Parked, Place, Refusal, Sequence,
    ServiceId, SessionId, Site, SiteName, StorageUid, Structure, TokenId,
};

use super::credential::Credential;
use super::message::ToService;
use super::raises::Raises;
use super::{
    CUT_OFF, CloseReason, Failed, KICKED, Output, Patience, Token, View, close_of, close_of_failed,
    refusal_detail,
};

/// What a service says first.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceHello {
    /// What it declares.
    pub structure: Option<Structure>,
    /// Its store.
    pub uid: StorageUid,
    /// The store that this one continues.
    pub continues: Option<StorageUid>,
    /// Its version.
    pub version: String,
    /// Its host.
    pub hostname: String,
    /// Raises in flight that it may have, as granted.
    pub window: u32,
    /// A random value for the site's incarnation, should this attach construct the site.
    pub incarnation: Incarnation,
    /// Where the session is.
    pub place: Place,
    /// The service's epoch as applied on this node; the attach is told when there is a newer one.
    pub above: Epoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    New,
    Attaching {
        token: Token,
    },
    /// The attach failed; it is proposed again at this time.
    AttachDelayed {
        until_ms: u64,
    },
    /// Another session attached meanwhile: this one takes over if its service is still there to say
    /// so before this time.
    Probing {
        until_ms: u64,
    },
    /// Attached, but this node has not applied that yet.
    Attached,
    Open,
    /// The service said goodbye: what is in flight is answered, then the session closes.
    Draining,
    Closed,
}

/// How the attach went, until the welcome.
#[derive(Clone, Debug)]
struct Welcome {
    incarnation: Incarnation,
    last: Sequence,
    superseded: bool,
}

/// All of one connected service.
#[derive(Clone, Debug)]
pub struct ServiceSession {
    pub(super) site: SiteName,
    pub(super) service: ServiceId,
    credential: Credential,
    claim: Claim,
    /// The service's epoch as it was when the connection opened.
    opened: Option<Epoch>,
    pub(super) epoch: Epoch,
    pub(super) stage: Stage,
    patience: Patience,
    hello: Option<Box<ServiceHello>>,
    welcome: Option<Box<Welcome>>,
    pub(super) uid: StorageUid,
    pub(super) window: u32,
    pub(super) superseded: bool,
    pub(super) parked: Option<Parked>,
    tokens: u64,
    pub(super) raises: Raises,
}

/// What a session pushes to.
pub(super) type Out = Vec<Output<ToService>>;

impl ServiceSession {
    /// A session that waits for its hello. It closes when the token that opened it is revoked. `id`
    /// is random.
    pub fn new(
        site: SiteName,
        service: ServiceId,
        credential: Option<TokenId>,
        id: SessionId,
    ) -> Self {
        Self {
            site,
            service,
            credential: Credential::new(credential),
            claim: Claim { session: id, above: Epoch(0) },
            opened: None,
            epoch: Epoch(0),
            stage: Stage::New,
            patience: Patience::default(),
            hello: None,
            welcome: None,
            uid: StorageUid([0; 16]),
            window: 0,
            superseded: false,
            parked: None,
            tokens: 0,
            raises: Raises::default(),
        }
    }

    /// The connection is there: sessions that attach from now on are newer than this one, however
    /// late its hello arrives.
    pub fn on_opened(&mut self, site: &Site) {
        let row = site.service(self.service.as_str());
        self.opened = Some(row.map(|row| row.epoch).unwrap_or_default());
    }

    /// The site.
    pub fn site(&self) -> &SiteName {
        &self.site
    }

    /// The service.
    pub fn service(&self) -> &ServiceId {
        &self.service
    }

    /// The session's epoch; 0 before it is attached.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether nothing has been said yet.
    pub fn is_new(&self) -> bool {
        self.stage == Stage::New
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Whether the session was welcomed: what it asks for from now on are raises.
    pub fn is_welcomed(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Draining)
    }

    /// Whether the session is attached and exchanges events.
    pub fn is_online(&self) -> bool {
        self.stage == Stage::Open && self.parked.is_none()
    }

    /// Why it exchanges no events.
    pub fn parked(&self) -> Option<Parked> {
        self.parked
    }

    /// Raises that are not yet answered.
    pub fn in_flight(&self) -> usize {
        self.raises.len()
    }

    /// When `on_time` has something to do.
    pub fn next_deadline(&self) -> Option<u64> {
        match self.stage {
            Stage::AttachDelayed { until_ms } | Stage::Probing { until_ms } => Some(until_ms),
            Stage::Open | Stage::Draining => self.raises.retry_ms(),
            Stage::New | Stage::Attaching { .. } | Stage::Attached | Stage::Closed => None,
        }
    }

    /// The service opens the session.
    pub fn on_hello(&mut self, hello: ServiceHello, out: &mut Out) {
        match self.stage {
            Stage::New => {}
            Stage::Closed => return,
            Stage::Attaching { .. }
            | Stage::AttachDelayed { .. }
            | Stage::Probing { .. }
            | Stage::Attached
            | Stage::Open
            | Stage::Draining => {
                return self.close(CloseReason::ProtocolViolation, "hello was said before", out);
            }
        }
        self.uid = hello.uid;
        self.window = hello.window.max(1);
        self.claim.above = self.opened.unwrap_or(hello.above);
        self.hello = Some(Box::new(hello));
        self.attach(out);
    }

    /// Whether the service exists is the log's to say: this replica may lag.
    fn attach(&mut self, out: &mut Out) {
        let Some(hello) = &self.hello else { return };
        let command = Command::AttachService(AttachService {
            site: self.site.clone(),
            service: self.service.clone(),
            structure: hello.structure.clone(),
            version: hello.version.clone(),
            hostname: hello.hostname.clone(),
            uid: hello.uid,
            continues: hello.continues,
            incarnation: hello.incarnation,
            place: hello.place,
            claim: self.claim,
        });
        let token = self.token();
        self.stage = Stage::Attaching { token };
        out.push(Output::Propose { token, command });
    }

    /// What became of something that the session asked for under this token.
    pub fn on_outcome(
        &mut self,
        token: Token,
        result: Result<Outcome, Failed>,
        view: View<'_>,
        out: &mut Out,
    ) {
        if self.stage == (Stage::Attaching { token }) {
            self.on_attached(result, view, out);
        } else {
            self.on_raised(token, result, view.now_ms, out);
        }
    }

    /// Time has passed.
    pub fn on_time(&mut self, now_ms: u64, out: &mut Out) {
        match self.stage {
            Stage::AttachDelayed { until_ms } if until_ms <= now_ms => self.attach(out),
            Stage::Probing { until_ms } if until_ms <= now_ms => {
                // It may have opened the session that overtook this one.
                let detail = "overtaken, and no sign of life";
                self.close(CloseReason::Unavailable, detail, out);
            }
            Stage::Open | Stage::Draining => self.retry_raises(now_ms, out),
            Stage::New
            | Stage::Attaching { .. }
            | Stage::AttachDelayed { .. }
            | Stage::Probing { .. }
            | Stage::Attached
            | Stage::Closed => {}
        }
    }

    /// The service answered a probe: it is still there, and this is its session.
    pub fn on_alive(&mut self, out: &mut Out) {
        if let Stage::Probing { .. } = self.stage {
            self.attach(out);
        }
    }

    fn on_attached(&mut self, result: Result<Outcome, Failed>, view: View<'_>, out: &mut Out) {
        match result {
            Ok(Outcome::ServiceAttached { epoch, incarnation, last, superseded, parked }) => {
                self.epoch = epoch;
                self.parked = parked;
                self.superseded = superseded;
                self.raises.start_after(last);
                self.hello = None;
                self.welcome = Some(Box::new(Welcome { incarnation, last, superseded }));
                self.stage = Stage::Attached;
                self.open_when_applied(view, out);
            }
            Ok(Outcome::Refused(Refusal::Overtaken { newest })) => {
                self.claim.above = newest;
                let until_ms = self.patience.end_ms(view.now_ms);
                self.stage = Stage::Probing { until_ms };
                out.push(Output::Probe);
            }
            Ok(Outcome::Refused(refusal)) => {
                self.close(close_of(&refusal, self.epoch), refusal_detail(&refusal), out);
            }
            Ok(other) => {
                let detail = format!("unexpected answer to attach: {other:?}");
                self.close(CloseReason::Internal, detail, out);
            }
            // One of unknown fate comes again too: under its claim it takes over once.
            Err(failed) => match self.patience.again(view.now_ms) {
                Some(until_ms) => self.stage = Stage::AttachDelayed { until_ms },
                None => {
                    let (reason, detail) = close_of_failed(failed);
                    self.close(reason, detail, out);
                }
            },
        }
    }

    fn open_when_applied(&mut self, view: View<'_>, out: &mut Out) {
        let row = view.site.and_then(|site| site.service(self.service.as_str()));
        if row.is_some_and(|row| row.epoch < self.epoch) || !self.holds(view, out) {
            return;
        }
        let Some(welcome) = self.welcome.take() else { return };
        self.stage = Stage::Open;
        out.push(Output::Send(ToService::Welcome {
            service: self.service.clone(),
            epoch: self.epoch,
            incarnation: welcome.incarnation,
            parked: self.parked,
            last: welcome.last,
            superseded: welcome.superseded,
            window: self.window,
            args_bytes_max: view.limits.args_bytes_max,
        }));
        self.look_at_state(view, out);
    }

    /// Something about the service or its site may have changed.
    pub fn on_wake(&mut self, view: View<'_>, out: &mut Out) {
        match self.stage {
            Stage::New
            | Stage::Attaching { .. }
            | Stage::AttachDelayed { .. }
            | Stage::Probing { .. }
            | Stage::Closed => {}
            Stage::Attached => self.open_when_applied(view, out),
            Stage::Open | Stage::Draining => {
                if view.is_cut_off() {
                    self.close(CloseReason::Unavailable, CUT_OFF, out);
                } else if self.holds(view, out) {
                    self.look_at_state(view, out);
                }
            }
        }
    }

    /// Tells the service when it was parked or came online.
    fn look_at_state(&mut self, view: View<'_>, out: &mut Out) {
        let Some(site) = view.site else { return };
        let Some(row) = site.service(self.service.as_str()) else { return };
        let parked = site.parked(row);
        if parked != self.parked {
            self.parked = parked;
            out.push(Output::Send(ToService::State(parked)));
        }
    }

    /// Whether the session's terms still hold; closes it when they do not.
    fn holds(&mut self, view: View<'_>, out: &mut Out) -> bool {
        let row = view.site.and_then(|site| site.service(self.service.as_str()));
        match row {
            None => {
                self.close(CloseReason::NotRegistered, "the service was deleted", out);
                false
            }
            Some(row)
                if row.epoch > self.epoch && row.sessions.last() == Some(&SessionId::KICKED) =>
            {
                self.close(CloseReason::Kicked, KICKED, out);
                false
            }
            Some(row) if row.epoch > self.epoch => {
                let detail = format!("a newer session, epoch {}, took over", row.epoch);
                self.close(CloseReason::Replaced, detail, out);
                false
            }
            Some(row) if row.epoch < self.epoch => {
                let detail = "the service was deleted and created again";
                self.close(CloseReason::NotRegistered, detail, out);
                false
            }
            Some(_) => self.credential_holds(view, out),
        }
    }

    fn credential_holds(&mut self, view: View<'_>, out: &mut Out) -> bool {
        match self.credential.judge(view) {
            Ok(()) => true,
            Err((reason, detail)) => {
                self.close(reason, detail, out);
                false
            }
        }
    }

    /// The service leaves: the session closes when all raises are answered.
    pub fn on_goodbye(&mut self, out: &mut Out) {
        if self.stage == Stage::Open && self.raises.len() > 0 {
            self.stage = Stage::Draining;
        } else {
            self.close(CloseReason::Goodbye, "", out);
        }
    }

    /// The connection ended, for whatever reason: what to propose so that the service counts as
    /// offline, also when the attach is still under way. Nobody waits for its outcome.
    pub fn on_ended(&self) -> Option<Command> {
        (self.tokens > 0).then(|| Command::DetachService {
            site: self.site.clone(),
            service: self.service.clone(),
            session: self.claim.session,
        })
    }

    /// Closes the session unless it is closed.
    pub fn close(&mut self, reason: CloseReason, detail: impl Into<String>, out: &mut Out) {
        if self.is_closed() {
            return;
        }
        self.stage = Stage::Closed;
        self.raises.clear();
        out.push(Output::Close { reason, detail: detail.into() });
    }

    pub(super) fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }
}
