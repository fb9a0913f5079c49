//! Which rows differ from the checkpoint.
//!
//! Invariant: bounded. A partition that changes faster than its checkpoint can be written stops
//! taking down what changed; its checkpoint stays as it is, old but sound, until it is written
//! anew as a whole.

use std::collections::HashSet;

use ackord_machine::site::RowKey;

/// What the next checkpoint has to write.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Changes {
    /// Nothing.
    #[default]
    None,
    /// No row, but entries were applied.
    Applied,
    /// These rows. Never empty.
    Rows(HashSet<RowKey>),
    /// More than can be told.
    Lost,
}

impl Changes {
    /// An entry was applied and changed the rows of `keys`; more than `rows_max` are not taken
    /// down.
    pub(crate) fn note(&mut self, keys: Vec<RowKey>, rows_max: usize) {
        if matches!(self, Self::None) {
            *self = Self::Applied;
        }
        if keys.is_empty() {
            return;
        }
        if matches!(self, Self::Applied) {
            *self = Self::Rows(HashSet::new());
        }
        if let Self::Rows(rows) = self {
            rows.extend(keys);
            if rows.len() > rows_max {
                *self = Self::Lost;
            }
        }
    }

    /// Takes back what could not be written.
    pub(crate) fn put_back(&mut self, earlier: Self, rows_max: usize) {
        match (&mut *self, earlier) {
            (_, Self::None) | (Self::Lost, _) => {}
            (_, Self::Lost) => *self = Self::Lost,
            (_, Self::Applied) => self.note(Vec::new(), rows_max),
            (_, Self::Rows(rows)) => self.note(rows.into_iter().collect(), rows_max),
        }
    }

    /// How many rows there are to write; as many as can be when that is not known.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::None | Self::Applied => 0,
            Self::Rows(rows) => rows.len(),
            Self::Lost => usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use ackord_machine::site::{InstanceId, SiteName};

    use super::*;

    fn keys(ids: std::ops::Range<u64>) -> Vec<RowKey> {
        ids.map(|id| RowKey::Instance(SiteName::from("s"), InstanceId(id))).collect()
    }

    #[test]
    fn given_repeated_changes_when_noted_then_each_row_counts_once() {
        let mut changes = Changes::default();
        changes.note(Vec::new(), 100);
        assert_eq!(changes, Changes::Applied);
        changes.note(keys(0..10), 100);
        changes.note(keys(5..15), 100);
        assert_eq!(changes.rows(), 15);
    }

    #[test]
    fn given_more_changes_than_the_bound_when_noted_then_they_are_lost_and_stay_so() {
        let mut changes = Changes::default();
        changes.note(keys(0..100), 100);
        assert_eq!(changes.rows(), 100);
        changes.note(keys(100..101), 100);
        assert_eq!((&changes, changes.rows()), (&Changes::Lost, usize::MAX));
        changes.note(keys(0..1), 100);
        assert_eq!(changes, Changes::Lost);
    }

    #[test]
    fn given_one_entry_with_more_than_the_bound_when_noted_then_there_is_something_to_write() {
        let mut changes = Changes::default();
        changes.note(keys(0..101), 100);
        assert!(changes.rows() > 0);
    }

    #[test]
    fn given_changes_that_could_not_be_written_when_put_back_then_they_join_the_newer_ones() {
        let mut changes = Changes::default();
        changes.note(keys(0..3), 100);
        let earlier = std::mem::take(&mut changes);
        changes.note(keys(2..5), 100);
        changes.put_back(earlier, 100);
        assert_eq!(changes.rows(), 5);
        changes.put_back(Changes::Lost, 100);
        assert_eq!(changes, Changes::Lost);
    }
}
