//! What the cluster agrees on about sites: structure, queues, cursors, stores, accounts.
//!
//! `command ──decide──▶ verdict {writes, outcome, effects} ──absorb──▶ state`

pub mod coalesce;
pub mod codec;
pub mod command;
pub mod decide;
pub mod directory;
pub mod ids;
mod index;
pub mod limits;
pub mod outcome;
pub mod row;
#[allow(clippy::module_inception)]
pub mod site;
pub mod state;
pub mod structure;
mod validate;
mod weight;

pub use coalesce::coalesce;
pub use codec::{
    DecodeError, decode_batch, decode_key, decode_row, encode_batch, encode_key, encode_row,
};
pub use command::*;
pub use decide::{Applied, Verdict, apply, decide};
pub use directory::{
    ClusterRow, Directory, DirectoryCommand, NodeInfo, NodeRow, NodeState, Placement,
};
pub use ids::*;
pub use limits::Limits;
pub use outcome::*;
pub use row::*;
pub use site::{OWNER, Receiver, Site};
pub use state::State;
pub use structure::*;
