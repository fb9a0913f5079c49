//! A deterministic simulation of the broker's and the endpoints' machines in a hostile world.
//!
//! `application ─▶ publish machine ─▶ link ─▶ broker ─▶ link ─▶ subscribe machine ─▶ handler`
//!
//! Everything that decides is production code: the site machine, the sessions, the translation of
//! frames, the publish and subscribe machines, the codecs. The world around it is made of one seed:
//! links that delay and break, zombie connections, crashes of broker, services and clients, torn
//! stores, revoked roles, sought cursors. A run has a phase with faults and one without, in which
//! everything must come to rest. The seed is the bug report:
//! `ACKORD_TEST_SEED=N cargo test -p cluster-tests --test simulation`; `ACKORD_TEST_TRACE=1` tells it all.

mod agenda;
mod broker;
mod client;
mod faults;
mod link;
mod oracle;
mod scene;
mod service;
mod world;

pub use broker::Mistakes;
pub use oracle::Violation;
pub use world::{Report, run};
