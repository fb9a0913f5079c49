//! Judges a history: every property of [`crate::check`] over everything that happened.
//!
//! The oracle knows nothing about the broker; what it may hold against a history is stated in
//! [`Expectations`].

use std::collections::BTreeSet;

use crate::check;
use crate::history::{Entry, History};

/// What a test promises about the world it ran in, so that the properties can be strict.
#[derive(Clone, Debug, Default)]
pub struct Expectations {
    /// Events that lose nothing to eviction, replacement, expiry or authority during the test, and
    /// the subscribers that had to handle all of their instances.
    pub complete: Vec<(String, String)>,
    /// Subscribers that nobody remembers once they are killed (stateless, CPL-1): everything that
    /// is retained comes again.
    pub forgetful: BTreeSet<String>,
    /// Services whose pipelined raises are recorded in the order in which they were made.
    pub ordered_services: BTreeSet<String>,
    /// Events of which no two raises have equal arguments.
    pub unique_events: BTreeSet<String>,
}

/// A property that a history does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property's name, which is its file's.
    pub property: &'static str,
    /// What contradicts it.
    pub detail: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.property, self.detail)
    }
}

/// A property: its name and how it is checked.
pub type Property = (&'static str, fn(&[Entry], &Expectations) -> Vec<String>);

/// All properties.
pub const PROPERTIES: &[Property] = &[
    ("acknowledged_never_lost", check::acknowledged_never_lost::check),
    ("administration_linearizable", check::administration_linearizable::check),
    ("authority_respected", check::authority_respected::check),
    ("bounds_kept", check::bounds_kept::check),
    ("committed_never_again", check::committed_never_again::check),
    ("cursor_monotonic", check::cursor_monotonic::check),
    ("epochs_fence", check::epochs_fence::check),
    ("handled_once", check::handled_once::check),
    ("handler_never_concurrent", check::handler_never_concurrent::check),
    ("ids_follow_raise_order", check::ids_follow_raise_order::check),
    ("nothing_invented", check::nothing_invented::check),
    ("order_strictly_increasing", check::order_strictly_increasing::check),
    ("private_stays_private", check::private_stays_private::check),
    ("replay_equals_live", check::replay_equals_live::check),
    ("one_id_per_call", check::one_id_per_call::check),
    ("one_instance_per_content", check::one_instance_per_content::check),
];

/// Everything that contradicts a property.
pub fn judge(history: &History, expectations: &Expectations) -> Vec<Violation> {
    let entries = history.entries();
    let check = |(property, check): &Property| {
        let property = *property;
        let found = check(&entries, expectations).into_iter();
        found.map(move |detail| Violation { property, detail })
    };
    PROPERTIES.iter().flat_map(check).collect()
}

/// Fails the test when a property does not hold.
///
/// # Panics
/// With the first violations.
pub fn require(history: &History, expectations: &Expectations) {
    let violations = judge(history, expectations);
    let first: Vec<String> = violations.iter().take(10).map(ToString::to_string).collect();
    assert!(violations.is_empty(), "{} violations, first:\n{}", violations.len(), first.join("\n"));
}
