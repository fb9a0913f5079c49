//! When and where to connect next: the delay list, jitter, rotation over addresses.
//!
//! A session that had lasted and is lost is looked for at each other address once, almost at once:
//! what ended was one node, not the cluster. Then, or when there is one address only, the list of
//! delays holds.
//!
//! Invariants: an attempt is never earlier than `Retry-After` said; a delay is never longer than
//! its place in the list; addresses given by the application come before learned ones; an
//! application that asked for TLS is never led to an address without it.
//! Pure: time is not read here, randomness comes in.

use ackord_wire::limits::RECONNECT_DELAYS_S;

use crate::entropy::Entropy;

/// Learned addresses that are kept at most.
pub const LEARNED_MAX: usize = 16;
/// The longest pause before another address is tried after a session, milliseconds: what spreads
/// the endpoints of a node that has died.
pub const ELSEWHERE_MS_MAX: u64 = 200;
/// The longest wait that a broker can ask for, milliseconds.
pub const RETRY_AFTER_MS_MAX: u64 = 3_600_000;

/// The state of reconnecting.
#[derive(Clone, Debug)]
pub struct Reconnect {
    given: Vec<String>,
    learned: Vec<String>,
    /// Index into `given` then `learned`.
    current: usize,
    failures: usize,
    /// Addresses that are still to be tried at once.
    elsewhere: usize,
    scale: f64,
}

impl Reconnect {
    /// `given` holds at least one address; `scale` multiplies every delay of the list.
    pub fn new(given: Vec<String>, scale: f64) -> Self {
        debug_assert!(!given.is_empty(), "an endpoint has an address");
        Self { given, learned: Vec::new(), current: 0, failures: 0, elsewhere: 0, scale }
    }

    /// The address to try now.
    pub fn url(&self) -> &str {
        let learned = self.current.checked_sub(self.given.len());
        learned.and_then(|index| self.learned.get(index)).unwrap_or_else(|| {
            // `current` below the number of given ones, of which there is at least one.
            &self.given[self.current.min(self.given.len() - 1)]
        })
    }

    /// The broker answered: the list starts anew, and these addresses are known.
    pub fn welcomed(&mut self, addresses: &[String]) {
        self.failures = 0;
        self.elsewhere = 0;
        let current = self.url().to_owned();
        let secure = self.given.iter().all(|url| is_secure(url));
        self.learned = Vec::new();
        for address in addresses {
            let known = self.given.contains(address) || self.learned.contains(address);
            let safe = is_secure(address) || !secure;
            if !known && safe && self.learned.len() < LEARNED_MAX {
                self.learned.push(address.clone());
            }
        }
        // The address in use stays in use even when the broker did not list it.
        let all = self.given.iter().chain(&self.learned);
        match all.into_iter().position(|url| *url == current) {
            Some(index) => self.current = index,
            None => {
                self.learned.truncate(LEARNED_MAX - 1);
                self.learned.push(current);
                self.current = self.given.len() + self.learned.len() - 1;
            }
        }
    }

    /// A session that had lasted is over: the other addresses are worth trying at once.
    pub fn lost(&mut self) {
        self.elsewhere = self.given.len() + self.learned.len() - 1;
    }

    /// A connection ended or an attempt failed: milliseconds until the next one, which goes to
    /// the next address.
    pub fn failed(&mut self, entropy: &mut Entropy, retry_after_ms: Option<u64>) -> u64 {
        self.current = (self.current + 1) % (self.given.len() + self.learned.len());
        let delay = match self.elsewhere.checked_sub(1) {
            Some(left) => {
                self.elsewhere = left;
                let longest = (ELSEWHERE_MS_MAX as f64 * self.scale) as u64;
                entropy.next_u64() % (longest + 1)
            }
            None => {
                let place = self.failures.min(RECONNECT_DELAYS_S.len() - 1);
                self.failures = self.failures.saturating_add(1);
                entropy.jitter(((RECONNECT_DELAYS_S[place] * 1000) as f64 * self.scale) as u64)
            }
        };
        match retry_after_ms {
            Some(asked) => delay.max(asked.min(RETRY_AFTER_MS_MAX)),
            None => delay,
        }
    }
}

fn is_secure(url: &str) -> bool {
    url.starts_with("wss://") || url.starts_with("https://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(list: &[&str]) -> Vec<String> {
        list.iter().map(|url| (*url).to_owned()).collect()
    }

    #[test]
    fn delays_follow_the_list_and_start_anew_after_a_session() {
        let mut reconnect = Reconnect::new(urls(&["ws://a"]), 1.0);
        let mut entropy = Entropy::from_number(1);
        for seconds in [1, 1, 2, 5, 10, 20, 40, 60, 60, 60] {
            let delay = reconnect.failed(&mut entropy, None);
            assert!((seconds * 500..=seconds * 1000).contains(&delay), "{seconds}: {delay}");
        }
        reconnect.welcomed(&[]);
        assert!(reconnect.failed(&mut entropy, None) <= 1000);
    }

    #[test]
    fn a_session_that_lasted_is_looked_for_at_each_other_address_once_almost_at_once() {
        let mut reconnect = Reconnect::new(urls(&["ws://a", "ws://b"]), 1.0);
        let mut entropy = Entropy::from_number(1);
        reconnect.welcomed(&urls(&["ws://c"]));
        reconnect.lost();
        for elsewhere in ["ws://b", "ws://c"] {
            assert!(reconnect.failed(&mut entropy, None) <= ELSEWHERE_MS_MAX);
            assert_eq!(reconnect.url(), elsewhere);
        }
        // All have been tried: the list.
        assert!(reconnect.failed(&mut entropy, None) >= 500);
        reconnect.lost();
        assert_eq!(reconnect.failed(&mut entropy, Some(7_000)), 7_000, "a broker that says when");
        let mut alone = Reconnect::new(urls(&["ws://a"]), 1.0);
        alone.lost();
        assert!(alone.failed(&mut entropy, None) >= 500, "there is no other address");
    }

    #[test]
    fn retry_after_is_honoured_within_a_bound() {
        let mut reconnect = Reconnect::new(urls(&["ws://a"]), 1.0);
        let mut entropy = Entropy::from_number(1);
        assert!(reconnect.failed(&mut entropy, Some(7_000)) >= 7_000);
        assert_eq!(reconnect.failed(&mut entropy, Some(u64::MAX)), RETRY_AFTER_MS_MAX);
    }

    #[test]
    fn addresses_go_round_and_learned_ones_come_last() {
        let mut reconnect = Reconnect::new(urls(&["ws://a", "ws://b"]), 0.0);
        let mut entropy = Entropy::from_number(1);
        reconnect.welcomed(&urls(&["ws://b", "ws://c"]));
        let mut seen = vec![reconnect.url().to_owned()];
        for _ in 0..3 {
            reconnect.failed(&mut entropy, None);
            seen.push(reconnect.url().to_owned());
        }
        assert_eq!(seen, ["ws://a", "ws://b", "ws://c", "ws://a"]);
    }

    #[test]
    fn an_address_in_use_survives_a_list_without_it() {
        let mut reconnect = Reconnect::new(urls(&["ws://a"]), 0.0);
        let mut entropy = Entropy::from_number(1);
        reconnect.welcomed(&urls(&["ws://b"]));
        reconnect.failed(&mut entropy, None);
        assert_eq!(reconnect.url(), "ws://b");
        reconnect.welcomed(&urls(&["ws://c"]));
        assert_eq!(reconnect.url(), "ws://b");
    }

    #[test]
    fn tls_is_never_given_up() {
        let mut reconnect = Reconnect::new(urls(&["https://a"]), 0.0);
        reconnect.welcomed(&urls(&["http://b", "wss://c"]));
        reconnect.failed(&mut Entropy::from_number(1), None);
        assert_eq!(reconnect.url(), "wss://c");
    }
}
