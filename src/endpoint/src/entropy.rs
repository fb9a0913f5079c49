//! Randomness as an argument: a small generator that a simulator seeds and a shell feeds from the
//! operating system. Equal seeds give equal runs. Not for secrets.

/// xoshiro256++ (Blackman and Vigna, 2019).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entropy([u64; 4]);

impl Entropy {
    /// From 256 bits; all zero is replaced, since the generator would never leave it.
    pub fn from_seed(seed: [u64; 4]) -> Self {
        if seed == [0; 4] { Self::from_number(0) } else { Self(seed) }
    }

    /// From one number, stretched with SplitMix64.
    pub fn from_number(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    /// From the operating system.
    pub fn from_system() -> Result<Self, getrandom::Error> {
        let mut seed = [0; 4];
        for word in &mut seed {
            *word = getrandom::u64()?;
        }
        Ok(Self::from_seed(seed))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [mut s0, mut s1, mut s2, mut s3] = self.0;
        let result = s0.wrapping_add(s3).rotate_left(23).wrapping_add(s0);
        let shifted = s1 << 17;
        s2 ^= s0;
        s3 ^= s1;
        s1 ^= s2;
        s0 ^= s3;
        s2 ^= shifted;
        s3 = s3.rotate_left(45);
        self.0 = [s0, s1, s2, s3];
        result
    }

    /// A value between half of `span` and all of it: jitter that never makes a delay longer.
    pub fn jitter(&mut self, span: u64) -> u64 {
        let half = span / 2;
        span - half + self.next_u64() % (half + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_runs_and_jitter_stays_within_bounds() {
        let (mut a, mut b) = (Entropy::from_number(7), Entropy::from_number(7));
        for _ in 0..1000 {
            assert_eq!(a.next_u64(), b.next_u64());
            let delay = a.jitter(1000);
            assert!((500..=1000).contains(&delay), "{delay}");
            b.jitter(1000);
        }
        assert!(Entropy::from_number(8).next_u64() != Entropy::from_number(7).next_u64());
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // First outputs of xoshiro256++ from the state 1, 2, 3, 4.
        let mut generator = Entropy::from_seed([1, 2, 3, 4]);
        let got: Vec<u64> = (0..4).map(|_| generator.next_u64()).collect();
        assert_eq!(got, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }
}
