//! What the cluster agrees on about sites: structure, queues, cursors, stores, accounts.
//!
//! `command ──decide──▶ verdict {writes, outcome, effects} ──absorb──▶ state`

pub mod audit;
pub mod coalesce;
pub mod codec;
pub mod command;
pub mod credential;
pub mod dead;
mod decide;
pub mod directory;
pub mod history;
pub mod ids;
mod index;
pub mod lag;
pub mod limits;
pub mod outcome;
pub mod push;
pub mod quality;
pub mod quota;
pub mod revision;
pub mod row;
pub mod ruling;
#[allow(clippy::module_inception)]
pub mod site;
mod sorted;
pub mod state;
pub mod structure;
pub mod trace;
mod validate;
mod weight;
pub mod why;

pub use audit::{AuditRow, By, Note};
pub use coalesce::coalesce;
pub use codec::{
    DecodeError, decode_batch, decode_key, decode_row, encode_batch, encode_key, encode_row,
};
pub use command::*;
pub use credential::{DrawTicket, IssueTicket, RedeemTicket, TicketRow};
pub use dead::{DeadLetterRow, GiveUp, GivenUp, LetterCause, LetterState, Subscriber};
pub use decide::{Applied, Verdict, apply, decide};
pub use directory::{
    ClusterRow, Directory, DirectoryCommand, NodeInfo, NodeRow, NodeState, Placement,
};
pub use history::{Departed, Departures, Gone, Missed};
pub use ids::*;
pub use lag::Lag;
pub use limits::{Limit, Limits};
pub use outcome::*;
pub use push::{
    AttachPush, Overflow, PushFormat, PushReport, PushRow, PushSpec, PushState, PushTarget, Secret,
    SettlePush, Trouble,
};
pub use quality::{Mode, Quality, QualityRow};
pub use quota::{Quota, QuotaRow, Quotas, RateRow};
pub use revision::Object;
pub use row::*;
pub use ruling::{Denial, Ruling};
pub use site::{OWNER, Receiver, Site};
pub use state::State;
pub use structure::*;
pub use trace::{Raising, TRACE_STATE_BYTES_MAX, TraceContext, Traced, TracedRow};
pub use why::{Fate, Why, WhyNot};
