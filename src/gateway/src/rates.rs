//! How many requests per second each site and each of its accounts may make on this node.
//!
//! A bucket per site and per account, made when it is first needed and forgotten when it is full
//! again. Sites without a quota have none and cost nothing.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ackord_machine::site::{Principal, Quotas};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;

/// Buckets kept at most; beyond it those that are full again are forgotten, then all.
const BUCKETS_MAX: usize = 100_000;
/// Part of a second's requests that may come at once.
const BURST_DIVISOR: u32 = 4;

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Of {
    Site,
    /// `None` is all guests.
    Account(Option<Principal>),
}

struct Bucket {
    rate: u32,
    limiter: Arc<DefaultDirectRateLimiter>,
}

/// See the module.
#[derive(Default)]
pub struct Rates {
    buckets: Mutex<HashMap<(String, Of), Bucket>>,
    clock: DefaultClock,
}

/// Faster than the quota allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// The quota.
    pub quota: &'static str,
    /// Its value.
    pub most: u64,
    /// When to come again.
    pub wait: Duration,
}

impl Rates {
    /// Takes one request of this account from what the site's quotas leave.
    pub fn take(
        &self,
        site: &str,
        account: &Option<Principal>,
        quotas: &Quotas,
    ) -> Result<(), TooFast> {
        // An account that is refused takes nothing from the others of its site; strangers, where a
        // site has guests, are one.
        if let Some(rate) = quotas.principal_requests_per_s {
            self.take_one(site, Of::Account(account.clone()), "principal_requests_per_s", rate)?;
        }
        if let Some(rate) = quotas.requests_per_s {
            self.take_one(site, Of::Site, "requests_per_s", rate)?;
        }
        Ok(())
    }

    fn take_one(&self, site: &str, of: Of, quota: &'static str, rate: u64) -> Result<(), TooFast> {
        let too_fast = |wait| TooFast { quota, most: rate, wait };
        let Some(per_s) = NonZeroU32::new(u32::try_from(rate).unwrap_or(u32::MAX)) else {
            return Err(too_fast(Duration::from_secs(1)));
        };
        let limiter = self.limiter(site, of, per_s);
        limiter.check().map_err(|early| too_fast(early.wait_time_from(self.clock.now())))
    }

    fn limiter(&self, site: &str, of: Of, per_s: NonZeroU32) -> Arc<DefaultDirectRateLimiter> {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= BUCKETS_MAX {
            // A bucket that nobody holds and that lets a whole burst through is as good as none.
            buckets.retain(|_, bucket| {
                let burst = burst(bucket.rate);
                bucket.limiter.check_n(burst).is_err()
            });
            if buckets.len() >= BUCKETS_MAX {
                buckets.clear();
            }
        }
        let bucket = buckets.entry((site.to_owned(), of)).or_insert_with(|| Bucket::new(per_s));
        if bucket.rate != per_s.get() {
            *bucket = Bucket::new(per_s);
        }
        bucket.limiter.clone()
    }
}

fn burst(rate: u32) -> NonZeroU32 {
    NonZeroU32::new(rate / BURST_DIVISOR).unwrap_or(NonZeroU32::MIN)
}

impl Bucket {
    fn new(per_s: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_s).allow_burst(burst(per_s.get()));
        Self { rate: per_s.get(), limiter: Arc::new(RateLimiter::direct(quota)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_have_their_own_buckets_and_share_the_sites() {
        let rates = Rates::default();
        let quotas = Quotas {
            requests_per_s: Some(40),
            principal_requests_per_s: Some(24),
            ..Quotas::default()
        };
        let client = |id: &str| Some(Principal::Client(id.into()));
        let mut taken = [0; 2];
        let mut refused = Vec::new();
        for (index, account) in [client("a"), client("b")].iter().enumerate() {
            loop {
                match rates.take("s", account, &quotas) {
                    Ok(()) => taken[index] += 1,
                    Err(too_fast) => break refused.push(too_fast.quota),
                }
            }
        }
        // What was refused of the first took nothing from the site's bucket.
        assert_eq!(taken, [6, 4]);
        assert_eq!(refused, ["principal_requests_per_s", "requests_per_s"]);
        assert_eq!(rates.take("other", &client("a"), &quotas), Ok(()));
        assert_eq!(rates.take("s", &client("a"), &Quotas::default()), Ok(()));
        let none = Quotas { requests_per_s: Some(0), ..Quotas::default() };
        assert_eq!(rates.take("s", &None, &none).unwrap_err().most, 0);
    }
}
