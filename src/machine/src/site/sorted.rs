//! A sorted map for what comes behind the last and goes from the front, in any order at need.
//!
//! Queues hold thousands, of services that nobody has looked at for as long as all others raised. A
//! tree reads a path of nodes from its root for each end; this one reads the end of a chunk.
//!
//! `chunks, each with a lower bound ─▶ the one that may hold a key ─▶ its place there`
//!
//! Invariants: no chunk is empty or larger than [`CHUNK`]; all keys of a chunk are at or above its
//! bound and below that of the next one; two neighbours hold more than half a chunk together, so that
//! what is thinned out gives its room back. What was put how leaves no trace in what is equal.

use std::collections::VecDeque;

/// Entries of a chunk at most.
const CHUNK: usize = 64;

#[derive(Clone, Debug)]
struct Chunk<K, V> {
    from: K,
    entries: VecDeque<(K, V)>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Sorted<K, V> {
    chunks: VecDeque<Chunk<K, V>>,
    len: usize,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), len: 0 }
    }
}

impl<K: Ord + Copy, V: PartialEq> PartialEq for Sorted<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Ord + Copy, V> Sorted<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry with the highest key.
    pub fn last(&self) -> Option<&(K, V)> {
        self.chunks.back()?.entries.back()
    }

    pub fn get(&self, key: K) -> Option<&V> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = place(&chunk.entries, key).ok()?;
        chunk.entries.get(at).map(|(_, value)| value)
    }

    pub fn contains_key(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    /// Inserts or replaces; what was there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.last().is_none_or(|(last, _)| *last < key) {
            self.push(key, value);
            return None;
        }
        let at = self.chunk_of(key);
        let chunk = self.chunks.get_mut(at)?;
        chunk.from = chunk.from.min(key);
        let place = match place(&chunk.entries, key) {
            Ok(place) => {
                let (_, old) = chunk.entries.get_mut(place)?;
                return Some(std::mem::replace(old, value));
            }
            Err(place) => place,
        };
        chunk.entries.insert(place, (key, value));
        self.len += 1;
        if chunk.entries.len() > CHUNK {
            let entries = chunk.entries.split_off(CHUNK / 2);
            if let Some((from, _)) = entries.front() {
                self.chunks.insert(at + 1, Chunk { from: *from, entries });
            }
        }
        None
    }

    fn push(&mut self, key: K, value: V) {
        self.len += 1;
        match self.chunks.back_mut().filter(|chunk| chunk.entries.len() < CHUNK) {
            Some(chunk) => chunk.entries.push_back((key, value)),
            None => {
                // What is small stays so; behind a full chunk comes another one.
                let room = if self.chunks.is_empty() { 1 } else { CHUNK };
                self.chunks.reserve_exact(usize::from(room == 1));
                let mut entries = VecDeque::with_capacity(room);
                entries.push_back((key, value));
                self.chunks.push_back(Chunk { from: key, entries });
            }
        }
    }

    pub fn remove(&mut self, key: K) -> Option<V> {
        let at = self.chunk_of(key);
        let chunk = self.chunks.get_mut(at)?;
        let place = place(&chunk.entries, key).ok()?;
        let (_, value) = chunk.entries.remove(place)?;
        self.len -= 1;
        if chunk.entries.is_empty() {
            self.chunks.remove(at);
        } else {
            self.join_next(at);
        }
        if let Some(before) = at.checked_sub(1) {
            self.join_next(before);
        }
        Some(value)
    }

    /// Makes one of a chunk and the next one, if that is half full at most.
    fn join_next(&mut self, at: usize) {
        let count = |at: usize| self.chunks.get(at).map(|chunk| chunk.entries.len());
        let (Some(left), Some(right)) = (count(at), count(at + 1)) else { return };
        if left + right <= CHUNK / 2
            && let Some(next) = self.chunks.remove(at + 1)
            && let Some(chunk) = self.chunks.get_mut(at)
        {
            chunk.entries.extend(next.entries);
        }
    }

    /// All entries, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.chunks.iter().flat_map(|chunk| &chunk.entries)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The entries above a key, ascending.
    pub fn above(&self, key: K) -> impl Iterator<Item = &(K, V)> {
        let at = self.chunk_of(key);
        let begun = self.chunks.get(at).into_iter().flat_map(move |chunk| {
            let place = chunk.entries.partition_point(|(known, _)| *known <= key);
            chunk.entries.range(place..)
        });
        let rest = self.chunks.range((at + 1).min(self.chunks.len())..);
        begun.chain(rest.flat_map(|chunk| &chunk.entries))
    }

    /// The chunk that holds a key, if any does, and where it belongs.
    fn chunk_of(&self, key: K) -> usize {
        let from = |at: usize| self.chunks.get(at).map(|chunk| chunk.from);
        let last = self.chunks.len().saturating_sub(1);
        if from(1).is_none_or(|from| key < from) {
            0
        } else if from(last).is_some_and(|from| from <= key) {
            last
        } else {
            self.chunks.partition_point(|chunk| chunk.from <= key).saturating_sub(1)
        }
    }
}

/// Where a key is or belongs. Most that are asked for are at one of the ends.
fn place<K: Ord, V>(entries: &VecDeque<(K, V)>, key: K) -> Result<usize, usize> {
    match entries.front() {
        Some((first, _)) if *first == key => Ok(0),
        _ => entries.binary_search_by(|(known, _)| known.cmp(&key)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Append,
        Put(u64),
        First,
        Remove(u64),
        /// Takes all but every so many out.
        Thin(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            20 => Just(Change::Append),
            5 => (0_u64..600).prop_map(Change::Put),
            8 => Just(Change::First),
            5 => (0_u64..600).prop_map(Change::Remove),
            1 => (2_u64..40).prop_map(Change::Thin),
        ]
    }

    fn check(sorted: &Sorted<u64, usize>, map: &BTreeMap<u64, usize>) {
        assert!(sorted.iter().map(|(key, value)| (key, value)).eq(map));
        assert_eq!((sorted.len(), sorted.is_empty()), (map.len(), map.is_empty()));
        assert_eq!(sorted.last().map(|(key, value)| (key, value)), map.last_key_value());
        for chunk in &sorted.chunks {
            assert!((1..=CHUNK).contains(&chunk.entries.len()));
            assert!(chunk.from <= chunk.entries[0].0);
        }
        for (one, next) in sorted.chunks.iter().zip(sorted.chunks.iter().skip(1)) {
            assert!(one.entries.back().is_some_and(|(last, _)| *last < next.from));
            assert!(one.entries.len() + next.entries.len() > CHUNK / 2);
        }
    }

    proptest! {
        #[test]
        fn given_any_changes_then_it_is_a_map(changes in prop::collection::vec(change(), 0..500)) {
            let (mut sorted, mut map) = (Sorted::default(), BTreeMap::new());
            for (at, change) in changes.into_iter().enumerate() {
                match change {
                    Change::Append => {
                        for _ in 0..5 {
                            let key = map.last_key_value().map_or(0, |(last, _)| last + 1);
                            prop_assert_eq!(sorted.insert(key, at), map.insert(key, at));
                        }
                    }
                    Change::Put(key) => prop_assert_eq!(sorted.insert(key, at), map.insert(key, at)),
                    Change::First => {
                        let first = sorted.iter().next().map(|(key, _)| *key);
                        let removed = first.and_then(|first| sorted.remove(first));
                        prop_assert_eq!(removed, map.pop_first().map(|(_, value)| value));
                    }
                    Change::Remove(key) => {
                        prop_assert_eq!(sorted.remove(key), map.remove(&key));
                        prop_assert_eq!(sorted.remove(key), None);
                    }
                    Change::Thin(every) => {
                        let gone: Vec<u64> = map.keys().copied().filter(|key| key % every != 0).collect();
                        for key in gone {
                            prop_assert_eq!(sorted.remove(key), map.remove(&key));
                        }
                    }
                }
                check(&sorted, &map);
            }
            for key in (0..620).step_by(7) {
                prop_assert_eq!(sorted.get(key), map.get(&key));
                prop_assert_eq!(sorted.contains_key(key), map.contains_key(&key));
                let above = map.range((Bound::Excluded(key), Bound::Unbounded));
                prop_assert!(sorted.above(key).map(|(key, value)| (key, value)).eq(above));
            }
            let mut again = Sorted::default();
            for (key, value) in map.into_iter().rev() {
                again.insert(key, value);
            }
            prop_assert_eq!(again, sorted);
        }
    }
}
