//! How a subscriber wants its events: the delivery mode of a subscription and its settings.

use serde::{Deserialize, Serialize};

use super::ids::{ClientId, EventKey, SiteName};
use super::outcome::Invalid;
use super::validate::invalid;

/// Instances of a `twoway` subscription that are under way unless it says otherwise.
pub const WINDOW_DEFAULT: u32 = 5;
/// The most that it may say.
pub const WINDOW_MAX: u32 = 1000;
/// Milliseconds from the first event of a batch to its flush, unless the subscription says
/// otherwise.
pub const FLUSH_MS_DEFAULT: u32 = 1000;
/// The most that it may say.
pub const FLUSH_MS_MAX: u32 = 3_600_000;
/// Instances of a `oneway` subscription that the transport has not taken yet.
pub const UNWRITTEN_MAX: usize = 5;
/// Bytes of a batch; an instance that is larger goes alone.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Instances of a batch.
pub const BATCH_COUNT_MAX: usize = 1000;

/// What counts as delivered, and how many instances are under way.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Mode {
    /// One under way; the next after the acknowledgement of that one is committed.
    #[default]
    Ordered,
    /// A window under way, acknowledged in any order; the cursor is the highest below which all are.
    Twoway,
    /// Delivered when the transport has taken it: what a broken connection held is lost.
    Oneway,
    /// As [`Mode::Oneway`], many at a time: the first one that waits starts the flush timer.
    Batch,
    /// Handed to the socket, or dropped where that has no room: at most once, in any order.
    Datagram,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Ordered, Self::Twoway, Self::Oneway, Self::Batch, Self::Datagram];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Twoway => "twoway",
            Self::Oneway => "oneway",
            Self::Batch => "batch",
            Self::Datagram => "datagram",
        }
    }

    /// Whether a delivery waits for the subscriber's own word.
    pub fn is_acknowledged(self) -> bool {
        matches!(self, Self::Ordered | Self::Twoway)
    }
}

/// The mode of a subscription and what belongs to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quality {
    /// The mode.
    pub mode: Mode,
    /// Of `twoway`: instances under way; `None` is [`WINDOW_DEFAULT`].
    pub window: Option<u32>,
    /// Of `batch`: milliseconds; `None` is [`FLUSH_MS_DEFAULT`].
    pub flush_ms: Option<u32>,
    /// Of the acknowledged modes: what is given up after its last attempt is kept apart, to be
    /// looked at and raised again.
    pub dead_letter: bool,
}

/// The quality of a client's subscription. One that has none is ordered; it goes with its
/// subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityRow {
    /// The site.
    pub site: SiteName,
    /// The client.
    pub client: ClientId,
    /// The event.
    pub event: EventKey,
    /// As asked for.
    pub quality: Quality,
}

impl Quality {
    /// Whether it is what a subscription is that says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Judges the settings: each belongs to its mode and has its bounds. The field is named below
    /// `path`.
    ///
    /// # Errors
    /// The first that breaks its rule.
    pub fn check(&self, path: &str) -> Result<(), Invalid> {
        let field = |name: &str| {
            if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
        };
        if let Some(window) = self.window {
            if self.mode != Mode::Twoway {
                return Err(invalid(field("window"), "only of the mode twoway"));
            }
            if !(1..=WINDOW_MAX).contains(&window) {
                return Err(invalid(field("window"), format!("1..={WINDOW_MAX}, was {window}")));
            }
        }
        if let Some(flush_ms) = self.flush_ms {
            if self.mode != Mode::Batch {
                return Err(invalid(field("flush_ms"), "only of the mode batch"));
            }
            if !(1..=FLUSH_MS_MAX).contains(&flush_ms) {
                let detail = format!("1..={FLUSH_MS_MAX}, was {flush_ms}");
                return Err(invalid(field("flush_ms"), detail));
            }
        }
        if self.dead_letter && !self.mode.is_acknowledged() {
            return Err(invalid(field("dead_letter"), "only of the modes ordered and twoway"));
        }
        Ok(())
    }

    /// Judges that there is a last attempt after which something can be kept apart.
    ///
    /// # Errors
    /// There is none.
    pub fn check_attempts(&self, path: &str, most: Option<u32>) -> Result<(), Invalid> {
        if !self.dead_letter || most.is_some() {
            return Ok(());
        }
        let dot = if path.is_empty() { "" } else { "." };
        Err(invalid(format!("{path}{dot}dead_letter"), "needs `max_attempts`"))
    }

    /// Instances under way in the mode twoway.
    pub fn window(&self) -> u32 {
        self.window.unwrap_or(WINDOW_DEFAULT)
    }

    /// Milliseconds until a flush in the mode batch.
    pub fn flush_ms(&self) -> u32 {
        self.flush_ms.unwrap_or(FLUSH_MS_DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_belong_to_their_mode_and_have_bounds() {
        let of = |mode| Quality { mode, ..Quality::default() };
        for mode in Mode::ALL {
            assert_eq!(of(mode).check(""), Ok(()), "{mode:?}");
        }
        let wrong = [
            (Quality { window: Some(5), ..of(Mode::Ordered) }, "window"),
            (Quality { window: Some(0), ..of(Mode::Twoway) }, "window"),
            (Quality { window: Some(WINDOW_MAX + 1), ..of(Mode::Twoway) }, "window"),
            (Quality { flush_ms: Some(5), ..of(Mode::Oneway) }, "flush_ms"),
            (Quality { flush_ms: Some(0), ..of(Mode::Batch) }, "flush_ms"),
            (Quality { dead_letter: true, ..of(Mode::Oneway) }, "dead_letter"),
        ];
        for (quality, field) in wrong {
            let refused = quality.check("items[0]").unwrap_err();
            assert_eq!(refused.field, format!("items[0].{field}"));
        }
    }
}
