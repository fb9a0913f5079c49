//! Push subscriptions: what the broker carries to a receiver that has no connection to it.
//!
//! A push subscription has its own id and cursor and is not part of its client's set; what it
//! receives is what its client may. Nothing but failures shows that a receiver is gone, so they
//! decide its fate:
//!
//! `active ─(tolerated failure)▶ offline ─(interval)▶ probing ─(success)▶ active`, and one failure more
//! than tolerated, or a hard one, cancels.
//!
//! Invariants: the cursor never falls within a generation; only the newest epoch is obeyed, each of
//! its reports once; a cancelled subscription stays so until somebody resumes it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::command::{Claim, Start};
use super::ids::{
    ClientId, Epoch, EventKey, EventName, Generation, Incarnation, InstanceId, PushId, SessionId,
    SiteName, Stamp,
};
use super::outcome::Invalid;
use super::quality::{Mode, Quality};
use super::validate::invalid;

/// Milliseconds until a request has failed, unless the subscription says otherwise.
pub const SEND_TIMEOUT_MS_DEFAULT: u32 = 60_000;
/// The least that it may say.
pub const SEND_TIMEOUT_MS_MIN: u32 = 100;
/// The most that it may say.
pub const SEND_TIMEOUT_MS_MAX: u32 = 600_000;
/// Milliseconds that a subscription is offline after a tolerated failure, unless it says otherwise.
pub const DISCARD_INTERVAL_MS_DEFAULT: u32 = 60_000;
/// The most that it may say.
pub const DISCARD_INTERVAL_MS_MAX: u32 = 86_400_000;
/// Longest address of a target, bytes.
pub const TARGET_BYTES_MAX: usize = 2048;
/// Longest secret, bytes.
pub const SECRET_BYTES_MAX: usize = 256;
/// Shortest secret, bytes: a shorter one can be guessed from one signed body.
pub const SECRET_BYTES_MIN: usize = 16;
/// The most instances that a subscription may say are to wait.
pub const QUEUE_MAX_CEILING: u32 = 1_000_000;
/// Instances that are counted as dropped when all that waits is discarded.
pub const DISCARDED_COUNTED_MAX: u64 = 1_000_000;
/// Least and largest packet of a datagram, bytes.
pub const PACKET_BYTES: (u32, u32) = (512, 65_507);

/// What bodies are signed with. It is never shown, not even in a log.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a push subscription delivers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushTarget {
    /// A callback.
    Http {
        /// `http` or `https`, with a host.
        url: String,
    },
    /// A socket, of one receiver or of a group.
    Udp {
        /// `host:port`.
        address: String,
        /// Hops of a group's packets; `None` is 1.
        ttl: Option<u32>,
        /// The interface that a group's packets leave by: its address; `None` is the system's choice.
        interface: Option<String>,
        /// Largest packet, bytes; `None` is the deployment's.
        packet_bytes_max: Option<u32>,
    },
}

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushFormat {
    /// The `event` frame in JSON.
    #[default]
    Ackord,
    /// A CloudEvents envelope in JSON.
    CloudEvents,
}

/// What happens when more waits than may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overflow {
    /// The subscription is cancelled.
    #[default]
    Remove,
    /// The oldest are passed over.
    DropOldest,
}

/// What whoever registers a push subscription says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushSpec {
    /// The client on whose authority it receives.
    pub client: ClientId,
    /// The event.
    pub event: EventName,
    /// Where to.
    pub target: PushTarget,
    /// The mode and what belongs to it.
    pub quality: Quality,
    /// Where it starts when it is new.
    pub start: Start,
    /// Milliseconds until a request has failed.
    pub send_timeout_ms: Option<u32>,
    /// Consecutive failures that are tolerated; -1 is any number.
    pub retry_count: i32,
    /// Milliseconds offline after a tolerated failure.
    pub discard_interval_ms: Option<u32>,
    /// Whether events wait while it is offline.
    pub durable: bool,
    /// The most instances that may wait; `None` is what the queue retains.
    pub queue_max: Option<u32>,
    /// What happens when more do.
    pub on_overflow: Overflow,
    /// Attempts before an instance is passed over; `None` is for ever.
    pub max_attempts: Option<u32>,
    /// How events are written.
    pub format: PushFormat,
    /// What bodies are signed with; `None` signs nothing.
    pub secret: Option<Secret>,
    /// Whether its deliveries are held back.
    pub paused: bool,
}

impl PushSpec {
    /// Why the mode does not go with the target.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn check_mode(&self) -> Result<(), &'static str> {
        match (&self.target, self.quality.mode) {
            (
                PushTarget::Http { .. },
                Mode::Ordered | Mode::Twoway | Mode::Oneway | Mode::Batch,
            )
            | (PushTarget::Udp { .. }, Mode::Datagram | Mode::Batch) => Ok(()),
            (PushTarget::Http { .. }, Mode::Datagram) => {
                Err("datagram goes over UDP; a callback takes ordered, twoway, oneway or batch")
            }
            (PushTarget::Udp { .. }, Mode::Ordered | Mode::Twoway | Mode::Oneway) => {
                Err("nothing acknowledges over UDP: it takes datagram or batch")
            }
        }
    }

    /// Judges everything that can be judged of it alone.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn check(&self) -> Result<(), Invalid> {
        self.check_mode().map_err(|detail| invalid("mode", detail))?;
        self.quality.check("")?;
        self.quality.check_attempts("", self.max_attempts)?;
        let range = |name: &str, value: Option<u32>, min: u32, max: u32| match value {
            Some(value) if !(min..=max).contains(&value) => {
                Err(invalid(name, format!("{min}..={max}, was {value}")))
            }
            Some(_) | None => Ok(()),
        };
        match &self.target {
            PushTarget::Http { url } => check_text("url", url)?,
            PushTarget::Udp { address, ttl, interface, packet_bytes_max } => {
                check_text("address", address)?;
                range("ttl", *ttl, 0, 255)?;
                range("packet_bytes_max", *packet_bytes_max, PACKET_BYTES.0, PACKET_BYTES.1)?;
                interface.iter().try_for_each(|text| check_text("interface", text))?;
            }
        }
        range("send_timeout_ms", self.send_timeout_ms, SEND_TIMEOUT_MS_MIN, SEND_TIMEOUT_MS_MAX)?;
        range("discard_interval_ms", self.discard_interval_ms, 1, DISCARD_INTERVAL_MS_MAX)?;
        range("queue_max", self.queue_max, 1, QUEUE_MAX_CEILING)?;
        range("max_attempts", self.max_attempts, 1, u32::MAX)?;
        if self.retry_count < -1 {
            let detail = format!("-1 or more, was {}", self.retry_count);
            return Err(invalid("retry_count", detail));
        }
        match &self.secret {
            Some(_) if matches!(self.target, PushTarget::Udp { .. }) => {
                Err(invalid("secret", "only of a callback: datagrams are not signed"))
            }
            Some(Secret(text)) if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&text.len()) => {
                let detail = format!("{SECRET_BYTES_MIN}..={SECRET_BYTES_MAX} bytes");
                Err(invalid("secret", format!("{detail}, was {}", text.len())))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Bytes of its texts.
    pub fn bytes(&self) -> usize {
        let target = match &self.target {
            PushTarget::Http { url } => url.len(),
            PushTarget::Udp { address, interface, .. } => {
                address.len() + interface.as_ref().map_or(0, String::len)
            }
        };
        let secret = self.secret.as_ref().map_or(0, |secret| secret.0.len());
        self.client.as_str().len() + self.event.as_str().len() + target + secret
    }

    /// Milliseconds until a request has failed.
    pub fn send_timeout_ms(&self) -> u32 {
        self.send_timeout_ms.unwrap_or(SEND_TIMEOUT_MS_DEFAULT)
    }

    /// Milliseconds offline after a tolerated failure.
    pub fn discard_interval_ms(&self) -> u32 {
        self.discard_interval_ms.unwrap_or(DISCARD_INTERVAL_MS_DEFAULT)
    }
}

fn check_text(field: &str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() || text.len() > TARGET_BYTES_MAX {
        return Err(invalid(field, format!("1..={TARGET_BYTES_MAX} bytes, was {}", text.len())));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(invalid(field, "no spaces or control characters"));
    }
    Ok(())
}

/// Why a delivery failed, or a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Trouble {
    /// No connection.
    Connect,
    /// The peer is not who its name says.
    Tls,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Broken,
    /// The answer was not 2xx.
    Status(u16),
    /// The address is not one that the operator allows.
    NotAllowed,
    /// More waited than may.
    Overflow,
}

impl Trouble {
    /// Every kind once, by an example.
    pub const KINDS: [Self; 7] = [
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Broken,
        Self::Status(500),
        Self::NotAllowed,
        Self::Overflow,
    ];

    /// The name of its kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Status(_) => "status",
            Self::NotAllowed => "not-allowed",
            Self::Overflow => "overflow",
        }
    }

    /// Whether the receiver says that it does not want to be asked again.
    pub fn is_hard(self) -> bool {
        matches!(self, Self::Status(404 | 410))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            other => f.write_str(other.kind()),
        }
    }
}

/// What a push subscription is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushState {
    /// It delivers.
    #[default]
    Active,
    /// A failure was tolerated: nothing is sent before this time.
    Offline {
        /// Until when.
        until: Stamp,
        /// The failure.
        because: Trouble,
    },
    /// The interval is over: one delivery is tried.
    Probing,
    /// It delivers no more.
    Cancelled {
        /// Since when.
        at: Stamp,
        /// Why.
        because: Trouble,
    },
    /// It is held back.
    Paused,
}

impl PushState {
    /// Every name.
    pub const NAMES: [&'static str; 5] = ["active", "offline", "probing", "cancelled", "paused"];

    /// The name.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Offline { .. } => "offline",
            Self::Probing => "probing",
            Self::Cancelled { .. } => "cancelled",
            Self::Paused => "paused",
        }
    }
}

/// A push subscription with its cursor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PushRow {
    /// The site.
    pub site: SiteName,
    /// Its id.
    pub id: PushId,
    /// As registered.
    pub spec: PushSpec,
    /// The event.
    pub event: EventKey,
    /// When it was registered.
    pub created: Stamp,
    /// When it was last changed by somebody.
    pub changed: Stamp,
    /// The last instance delivered or passed over, with all before it; 0 for none.
    pub cursor: InstanceId,
    /// Rises when the cursor is set anew.
    pub generation: Generation,
    /// The epoch of the newest agent; 0 before the first.
    pub epoch: Epoch,
    /// The agents that attached last, the newest at the end.
    pub sessions: Vec<SessionId>,
    /// The number of the newest report of the newest agent.
    pub reported: u64,
    /// Consecutive failures.
    pub failures: u32,
    /// The instance that failed last, and how often it was sent.
    pub attempts: Option<(InstanceId, u32)>,
    /// What it is doing.
    pub state: PushState,
    /// Instances delivered.
    pub delivered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Instances passed over: discarded, or larger than a packet, or given up.
    pub dropped: u64,
}

impl PushRow {
    /// A delivery succeeded.
    pub fn succeed(&mut self) {
        self.failures = 0;
        self.attempts = None;
        if self.state == PushState::Probing {
            self.state = PushState::Active;
        }
    }

    /// A delivery failed. One that was under way when another had failed counts with that one.
    pub fn fail(&mut self, trouble: Trouble, now: Stamp) {
        self.failed = self.failed.saturating_add(1);
        let cancelled = PushState::Cancelled { at: now, because: trouble };
        match self.state {
            PushState::Cancelled { .. } => {}
            _ if trouble.is_hard() => self.state = cancelled,
            PushState::Offline { .. } | PushState::Paused => {}
            PushState::Active | PushState::Probing => {
                self.failures = self.failures.saturating_add(1);
                let tolerated = u32::try_from(self.spec.retry_count);
                self.state = if tolerated.is_ok_and(|most| self.failures > most) {
                    cancelled
                } else {
                    let interval = u64::from(self.spec.discard_interval_ms());
                    let until = Stamp(now.0.saturating_add(interval));
                    PushState::Offline { until, because: trouble }
                };
            }
        }
    }
}

/// See [`super::Command::AttachPush`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachPush {
    /// The site.
    pub site: SiteName,
    /// The push subscription.
    pub id: PushId,
    /// Why this agent is the newest.
    pub claim: Claim,
}

/// See [`super::Command::SettlePush`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettlePush {
    /// The site.
    pub site: SiteName,
    /// The push subscription.
    pub id: PushId,
    /// The epoch of the agent.
    pub epoch: Epoch,
    /// The incarnation in which it delivered.
    pub incarnation: Incarnation,
    /// The generation in which it delivered.
    pub generation: Generation,
    /// Counts the agent's reports from 1: one that comes again changes nothing.
    pub number: u64,
    /// What happened.
    pub report: PushReport,
}

/// What an agent reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushReport {
    /// Everything up to the cursor is delivered or passed over.
    Delivered {
        /// The cursor; not above the one before where something in front is still missing.
        cursor: InstanceId,
        /// Instances delivered since the report before.
        count: u32,
        /// Instances passed over since then.
        dropped: u32,
    },
    /// A request failed.
    Failed {
        /// How.
        trouble: Trouble,
        /// What failed, and how often it was sent.
        attempt: Option<(InstanceId, u32)>,
        /// The cursor behind what is given up.
        cursor: InstanceId,
        /// Instances given up.
        dropped: u32,
    },
    /// The time offline is over.
    Probe,
    /// More waits than may.
    Overflow {
        /// The cursor that leaves as many as may wait.
        cursor: InstanceId,
        /// Instances below it that nobody got.
        count: u32,
    },
    /// As [`PushReport::Failed`], of the last attempt of an instance, which is given up.
    GivenUp {
        /// How it failed.
        trouble: Trouble,
        /// What is given up.
        instance: InstanceId,
        /// How often it was sent.
        attempts: u32,
        /// The cursor behind what is done.
        cursor: InstanceId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(retry_count: i32) -> PushRow {
        PushRow {
            site: "s".into(),
            id: "p".into(),
            spec: PushSpec {
                client: "c".into(),
                event: "q".into(),
                target: PushTarget::Http { url: "http://h/".to_owned() },
                quality: Quality::default(),
                start: Start::Earliest,
                send_timeout_ms: None,
                retry_count,
                discard_interval_ms: Some(1000),
                durable: true,
                queue_max: None,
                on_overflow: Overflow::Remove,
                max_attempts: None,
                format: PushFormat::Ackord,
                secret: None,
                paused: false,
            },
            event: EventKey(1),
            created: Stamp(0),
            changed: Stamp(0),
            cursor: InstanceId(0),
            generation: Generation(0),
            epoch: Epoch(1),
            sessions: Vec::new(),
            reported: 0,
            failures: 0,
            attempts: None,
            state: PushState::Active,
            delivered: 0,
            failed: 0,
            dropped: 0,
        }
    }

    fn is_cancelled(row: &PushRow) -> bool {
        matches!(row.state, PushState::Cancelled { .. })
    }

    /// As many failures as wanted, each after a probe.
    fn fail(row: &mut PushRow, times: usize, trouble: Trouble) {
        for _ in 0..times {
            if let PushState::Offline { .. } = row.state {
                row.state = PushState::Probing;
            }
            row.fail(trouble, Stamp(5));
        }
    }

    #[test]
    fn one_failure_more_than_tolerated_cancels() {
        for tolerated in [0, 1, 2, 5] {
            let mut row = row(tolerated);
            fail(&mut row, tolerated as usize, Trouble::Timeout);
            assert!(!is_cancelled(&row), "{tolerated}");
            fail(&mut row, 1, Trouble::Timeout);
            assert!(is_cancelled(&row), "{tolerated}");
        }
    }

    #[test]
    fn a_success_starts_the_count_anew() {
        let mut row = row(2);
        fail(&mut row, 1, Trouble::Connect);
        row.state = PushState::Probing;
        row.succeed();
        assert_eq!((row.state, row.failures), (PushState::Active, 0));
        fail(&mut row, 2, Trouble::Connect);
        assert!(!is_cancelled(&row));
        fail(&mut row, 1, Trouble::Connect);
        assert!(is_cancelled(&row));
    }

    #[test]
    fn any_number_may_be_tolerated_but_no_hard_one() {
        let mut row = row(-1);
        fail(&mut row, 1000, Trouble::Status(503));
        assert!(!is_cancelled(&row));
        for hard in [404, 410] {
            let mut row = row.clone();
            fail(&mut row, 1, Trouble::Status(hard));
            assert!(is_cancelled(&row));
        }
    }

    #[test]
    fn what_fails_together_counts_once() {
        let mut row = row(1);
        row.fail(Trouble::Timeout, Stamp(5));
        row.fail(Trouble::Timeout, Stamp(5));
        assert_eq!((row.failures, row.failed), (1, 2));
        assert!(matches!(row.state, PushState::Offline { until: Stamp(1005), .. }));
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret("0123456789abcdef".to_owned())), "Secret(..)");
    }

    #[test]
    fn modes_go_with_their_targets() {
        let udp = PushTarget::Udp {
            address: "h:1".to_owned(),
            ttl: None,
            interface: None,
            packet_bytes_max: None,
        };
        for mode in Mode::ALL {
            let mut spec = row(0).spec;
            spec.quality.mode = mode;
            assert_eq!(spec.check().is_ok(), mode != Mode::Datagram, "{mode:?}");
            spec.target = udp.clone();
            let fits = matches!(mode, Mode::Datagram | Mode::Batch);
            assert_eq!(spec.check().is_ok(), fits, "{mode:?}");
        }
    }
}
