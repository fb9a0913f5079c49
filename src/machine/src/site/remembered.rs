//! The decisions that are remembered of a store, by number.
//!
//! With each raise one comes behind the last and the first one goes, in services that nobody has
//! looked at for as long as all others raised: that touches two places of one block of memory, where
//! a tree touches two paths from its root. Others come and go in any order, and there are never more
//! than [`super::limits::OUTCOMES_PER_STORE`] but for a moment.

use std::collections::VecDeque;
use std::collections::vec_deque::Iter;

use super::ids::Sequence;
use super::outcome::Decision;

/// The hash of what was raised, and what was decided about it.
pub(super) type Memory = (u64, Decision);

/// See the module. Sorted, each number once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Remembered(VecDeque<(Sequence, Memory)>);

impl Remembered {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, sequence: Sequence) -> Option<&Memory> {
        let at = self.place(sequence).ok()?;
        self.0.get(at).map(|(_, memory)| memory)
    }

    /// Inserts or replaces; what was there before.
    pub fn insert(&mut self, sequence: Sequence, memory: Memory) -> Option<Memory> {
        if self.0.back().is_none_or(|(last, _)| *last < sequence) {
            self.0.push_back((sequence, memory));
            return None;
        }
        match self.place(sequence) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| std::mem::replace(old, memory)),
            Err(at) => {
                self.0.insert(at, (sequence, memory));
                None
            }
        }
    }

    pub fn remove(&mut self, sequence: Sequence) -> Option<Memory> {
        let is_first = self.0.front().is_some_and(|(first, _)| *first == sequence);
        let at = if is_first { 0 } else { self.place(sequence).ok()? };
        self.0.remove(at).map(|(_, memory)| memory)
    }

    pub fn iter(&self) -> Iter<'_, (Sequence, Memory)> {
        self.0.iter()
    }

    fn place(&self, sequence: Sequence) -> Result<usize, usize> {
        self.0.binary_search_by_key(&sequence, |(known, _)| *known)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::ids::InstanceId;
    use super::*;

    proptest! {
        #[test]
        fn given_any_order_then_it_is_a_map(
            changes in prop::collection::vec((0_u64..20, any::<bool>()), 0..200),
        ) {
            let (mut remembered, mut map) = (Remembered::default(), BTreeMap::new());
            for (at, (number, put)) in changes.into_iter().enumerate() {
                let (sequence, memory) = (Sequence(number), (at as u64, Decision::Stored(InstanceId(1))));
                if put {
                    let old = map.insert(sequence, memory.clone());
                    prop_assert_eq!(remembered.insert(sequence, memory), old);
                } else {
                    prop_assert_eq!(remembered.remove(sequence), map.remove(&sequence));
                }
                prop_assert_eq!(remembered.get(sequence), map.get(&sequence));
                prop_assert_eq!(remembered.is_empty(), map.is_empty());
                let all: Vec<_> = remembered.iter().cloned().collect();
                prop_assert_eq!(all, map.clone().into_iter().collect::<Vec<_>>());
            }
        }
    }
}
