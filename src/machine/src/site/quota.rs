//! What a site may use: quotas, and the token buckets by which rates are judged.
//!
//! A bucket is refilled by log time alone, so every replica judges alike, whichever node a raise
//! came through. Levels are thousandths: a rate of one per second adds one thousandth per
//! millisecond, without rounding.

use serde::{Deserialize, Serialize};

use super::ids::{ServiceId, SiteName, Stamp};

/// How much of a second's rate a bucket holds: the burst that is let through at once.
const BURST_DIVISOR: u64 = 4;
/// The longest wait that a refusal names, milliseconds.
const RETRY_MS_MAX: u64 = 60_000;
/// The least wait that a refusal names, milliseconds: nobody comes again for a single event.
const RETRY_MS_MIN: u64 = 20;
/// Largest value of any quota: sums of thousandths stay far from the end of 64 bits.
pub const QUOTA_MAX: u64 = 1 << 40;

/// The bounds of one site; `None` is no bound but the deployment's own limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quotas {
    /// Connections (WebSockets, event streams and waiting polls) on each node.
    pub connections: Option<u64>,
    /// Connections of one account, or of all guests together, on each node.
    pub principal_connections: Option<u64>,
    /// Events raised per second, over all nodes.
    pub events_per_s: Option<u64>,
    /// Bytes of arguments raised per second, over all nodes.
    pub bytes_per_s: Option<u64>,
    /// Events raised per second by one service, over all nodes.
    pub service_events_per_s: Option<u64>,
    /// Bytes of arguments raised per second by one service, over all nodes.
    pub service_bytes_per_s: Option<u64>,
    /// HTTP requests per second on each node.
    pub requests_per_s: Option<u64>,
    /// HTTP requests per second of one account, or of all guests together, on each node.
    pub principal_requests_per_s: Option<u64>,
    /// Services.
    pub services: Option<u64>,
    /// Clients.
    pub clients: Option<u64>,
    /// Subscriptions of all clients together.
    pub subscriptions: Option<u64>,
    /// Subscriptions of one client.
    pub client_subscriptions: Option<u64>,
    /// Bytes of arguments that are retained in all queues together.
    pub queue_bytes: Option<u64>,
}

impl Quotas {
    /// Every bound with its name.
    pub fn named(&self) -> [(&'static str, Option<u64>); 13] {
        [
            ("connections", self.connections),
            ("principal_connections", self.principal_connections),
            ("events_per_s", self.events_per_s),
            ("bytes_per_s", self.bytes_per_s),
            ("service_events_per_s", self.service_events_per_s),
            ("service_bytes_per_s", self.service_bytes_per_s),
            ("requests_per_s", self.requests_per_s),
            ("principal_requests_per_s", self.principal_requests_per_s),
            ("services", self.services),
            ("clients", self.clients),
            ("subscriptions", self.subscriptions),
            ("client_subscriptions", self.client_subscriptions),
            ("queue_bytes", self.queue_bytes),
        ]
    }
}

/// A quota, by the name of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Quota {
    /// [`Quotas::events_per_s`].
    EventsPerSecond,
    /// [`Quotas::bytes_per_s`].
    BytesPerSecond,
    /// [`Quotas::service_events_per_s`].
    ServiceEventsPerSecond,
    /// [`Quotas::service_bytes_per_s`].
    ServiceBytesPerSecond,
    /// [`Quotas::services`].
    Services,
    /// [`Quotas::clients`].
    Clients,
    /// [`Quotas::subscriptions`].
    Subscriptions,
    /// [`Quotas::client_subscriptions`].
    ClientSubscriptions,
    /// [`Quotas::queue_bytes`].
    QueueBytes,
}

impl Quota {
    /// The name of the field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventsPerSecond => "events_per_s",
            Self::BytesPerSecond => "bytes_per_s",
            Self::ServiceEventsPerSecond => "service_events_per_s",
            Self::ServiceBytesPerSecond => "service_bytes_per_s",
            Self::Services => "services",
            Self::Clients => "clients",
            Self::Subscriptions => "subscriptions",
            Self::ClientSubscriptions => "client_subscriptions",
            Self::QueueBytes => "queue_bytes",
        }
    }
}

/// The quotas of a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuotaRow {
    /// The site.
    pub site: SiteName,
    /// What it may use.
    pub quotas: Quotas,
}

/// What is left of a rate, of a site or of one of its services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateRow {
    /// The site.
    pub site: SiteName,
    /// One of its services; `None` is all of the site.
    pub service: Option<ServiceId>,
    /// When the levels held.
    pub at: Stamp,
    /// Events left, thousandths.
    pub events: u64,
    /// Bytes left, thousandths.
    pub bytes: u64,
}

/// Not now: when there is enough again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// Milliseconds.
    pub ms: u32,
}

/// What a bucket of this rate (per second) holds when it is full, thousandths: at least one.
fn capacity(rate: u64) -> u64 {
    (rate.min(QUOTA_MAX) * 1000 / BURST_DIVISOR).max(1000)
}

/// What a bucket holds now.
fn level(known: Option<(u64, Stamp)>, rate: u64, capacity: u64, now: Stamp) -> u64 {
    let Some((level, at)) = known else { return capacity };
    let passed_ms = now.0.saturating_sub(at.0);
    level.saturating_add(rate.min(QUOTA_MAX).saturating_mul(passed_ms)).min(capacity)
}

/// Takes an amount, thousandths, from a bucket.
fn take(level: u64, rate: u64, amount: u64) -> Result<u64, Wait> {
    level.checked_sub(amount).ok_or_else(|| {
        let wait_ms = (amount - level).div_ceil(rate.max(1));
        let wait_ms = wait_ms.clamp(RETRY_MS_MIN, RETRY_MS_MAX);
        Wait { ms: u32::try_from(wait_ms).unwrap_or(u32::MAX) }
    })
}

/// A pair of rates: events and bytes per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub events: Option<u64>,
    pub bytes: Option<u64>,
}

/// Which of the two was too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMuch {
    Events(u64, Wait),
    Bytes(u64, Wait),
}

/// Takes one event of so many bytes from the buckets of a site or a service: their next row.
pub(super) fn charge(
    site: &SiteName,
    service: Option<&ServiceId>,
    known: Option<&RateRow>,
    rates: Rates,
    now: Stamp,
    event_bytes: u64,
) -> Result<RateRow, TooMuch> {
    let now = known.map_or(now, |row| now.max(row.at));
    let judge = |rate: Option<u64>, level_then: Option<u64>, amount: u64| {
        let Some(rate) = rate else { return Ok(0) };
        let amount = amount.saturating_mul(1000);
        // For what is larger than a bucket it fills up further, so that all of it is paid for.
        let capacity = capacity(rate).max(amount);
        let then = level_then.zip(known.map(|row| row.at));
        take(level(then, rate, capacity, now), rate, amount).map_err(|wait| (rate, wait))
    };
    let events = judge(rates.events, known.map(|row| row.events), 1);
    let events = events.map_err(|(rate, wait)| TooMuch::Events(rate, wait))?;
    let bytes = judge(rates.bytes, known.map(|row| row.bytes), event_bytes);
    let bytes = bytes.map_err(|(rate, wait)| TooMuch::Bytes(rate, wait))?;
    Ok(RateRow { site: site.clone(), service: service.cloned(), at: now, events, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events let through in `seconds` when somebody tries every millisecond.
    fn let_through(rate: u64, seconds: u64) -> u64 {
        let site = SiteName::from("s");
        let rates = Rates { events: Some(rate), bytes: None };
        let mut known: Option<RateRow> = None;
        let mut passed = 0;
        for ms in 0..seconds * 1000 {
            for _ in 0..rate.div_ceil(500) {
                match charge(&site, None, known.as_ref(), rates, Stamp(1_000_000 + ms), 0) {
                    Ok(row) => {
                        known = Some(row);
                        passed += 1;
                    }
                    Err(TooMuch::Events(named, wait)) => {
                        assert_eq!(named, rate);
                        assert!((20..=60_000).contains(&wait.ms));
                        break;
                    }
                    Err(TooMuch::Bytes(..)) => panic!("no bound on bytes"),
                }
            }
        }
        passed
    }

    #[test]
    fn a_rate_is_held_within_its_burst() {
        for rate in [1, 7, 100, 12_345] {
            let passed = let_through(rate, 20);
            let burst = (rate / 4).max(1);
            assert!((rate * 20..=rate * 20 + burst).contains(&passed), "{rate}/s: {passed}");
        }
    }

    #[test]
    fn an_event_larger_than_the_bucket_is_waited_for_until_it_is_paid() {
        let site = SiteName::from("s");
        let rates = Rates { events: None, bytes: Some(100) };
        let first = charge(&site, None, None, rates, Stamp(0), 5000).unwrap();
        assert_eq!(first.bytes, 0);
        let early = charge(&site, None, Some(&first), rates, Stamp(49_999), 5000);
        assert_eq!(early, Err(TooMuch::Bytes(100, Wait { ms: 20 })));
        charge(&site, None, Some(&first), rates, Stamp(50_000), 5000).unwrap();
    }

    #[test]
    fn the_largest_rates_and_longest_pauses_do_not_overflow() {
        let site = SiteName::from("s");
        let rates = Rates { events: Some(u64::MAX), bytes: Some(u64::MAX) };
        let first = charge(&site, None, None, rates, Stamp(0), u64::MAX).unwrap();
        charge(&site, None, Some(&first), rates, Stamp(u64::MAX), u64::MAX).unwrap();
    }
}
