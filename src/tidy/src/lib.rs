//! The house rules of the repository, as tests: `cargo test -p ackord-tidy`.
//!
//! Each rule answers with the places that break it, so that a failure says what to mend.
//! Read-only: nothing here changes a file.

pub mod docs;
pub mod edges;
pub mod files;
pub mod tree;

/// A place that breaks a rule: where, and what is wrong there.
pub type Finding = String;
