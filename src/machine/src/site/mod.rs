//! What the cluster agrees on about sites: structure, queues, cursors, stores, accounts.
//!
//! `command ──decide──▶ verdict {writes, outcome, effects} ──absorb──▶ state`

pub mod command;
pub mod ids;
pub mod limits;
pub mod outcome;
pub mod row;
pub mod structure;

pub use command::*;
pub use ids::*;
pub use limits::Limits;
pub use outcome::*;
pub use row::*;
pub use structure::*;
