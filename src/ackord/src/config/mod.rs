//! What a broker runs with: gathered from its sources, judged as a whole, explained by one table.
//!
//! `defaults ◀ file ◀ environment ◀ flags ─▶ Gathered ─▶ judge ─▶ Config | every problem there is`
//!
//! - `table`: every key; `key`: what one is; `settings`: what the keys set.
//! - `issuers`: the tables of `jwt`.
//! - `sources`: where values come from. `judge`: what they must be together.
//! - `document`: the example, the schema, the page and what is shown, all from the table.

pub mod document;
pub mod issuers;
mod judge;
pub mod key;
mod serving;
pub mod settings;
pub mod sources;
pub mod table;

pub use judge::{AdminToken, Config};
pub use settings::Settings;
pub use sources::Sources;
