//! How what a node has once is shared by its sites, so that none uses all of it up.
//!
//! A site gets another piece only while it has fewer than [`SHARE`] times what is still free (the
//! dynamic thresholds of Choudhury and Hahne, 1998). One that takes all it can gets nine tenths, the
//! next one nine tenths of the rest: so neither of them can keep a third out, but many together can.
//! Against that there are quotas.

/// How many times as much as is free one site may have.
pub(crate) const SHARE: usize = 9;

/// Whether somebody who has `own` pieces of the `taken` ones of `max` may have another one.
pub(crate) fn may_have(own: usize, taken: usize, max: usize) -> bool {
    let free = max.saturating_sub(taken);
    own < free.saturating_mul(SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What greedy ones get who come one after the other, and then take turns.
    fn parts(greedy: usize, max: usize) -> Vec<usize> {
        let mut parts = vec![0; greedy];
        let mut first = 0;
        while first < greedy {
            let taken = parts.iter().sum();
            if may_have(parts[first], taken, max) {
                parts[first] += 1;
            } else {
                first += 1;
            }
        }
        parts
    }

    #[test]
    fn whoever_comes_after_greedy_ones_finds_room() {
        assert_eq!(parts(1, 1000), [900]);
        assert_eq!(parts(2, 1000), [900, 90]);
        assert!(may_have(0, 990, 1000));
    }

    #[test]
    fn of_a_single_piece_the_first_gets_it() {
        assert!(may_have(0, 0, 1));
        assert!(!may_have(0, 1, 1));
        assert!(!may_have(1, 1, 1));
        assert!(!may_have(0, 2, 1));
    }
}
