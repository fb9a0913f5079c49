//! The randomness of a test: one printed seed that replays every choice.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The environment variable that fixes the seed.
pub const SEED_VARIABLE: &str = "ACKORD_TEST_SEED";

/// A small deterministic generator (SplitMix64, after Steele, Lea and Flood 2014). Good enough to
/// choose moments and victims; not for keys.
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// The seed of a test: from [`SEED_VARIABLE`] when set, else new. Prints the command that
    /// replays the run, which the test runner shows when the test fails.
    pub fn of_test(test_binary: &str, test: &str) -> Self {
        let given = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::from(now.subsec_nanos()) ^ (now.as_secs() << 20)
        });
        eprintln!(
            "replay: {SEED_VARIABLE}={seed} cargo test -p cluster-tests --test {test_binary} -- {test}"
        );
        Self(seed)
    }

    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of its own for one part of a test, so that parts do not disturb each other.
    pub fn fork(&mut self) -> Self {
        Self(self.bits())
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `low..high`.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low < high, "an empty range");
        low + self.bits() % (high - low)
    }

    /// A duration between two numbers of milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }
}
