//! The harness of the black-box tests: nodes as processes, faults between them and their
//! endpoints, histories of what was called and handled, and an oracle that judges a history.
//!
//! Everything is driven from outside: the built `ackord` binary, real sockets, the public SDK, raw
//! protocol frames and the administration API. Conditions are polled with a deadline
//! ([`wait::until`]); nothing waits for a fixed time. What is random takes its seed from
//! [`seed::Seed`], which prints how to replay it.
//!
//! Deliberately absent: any look into the broker's memory or files, except to damage them.

pub mod admin;
mod artifact;
pub mod catch;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod disk;
pub mod history;
pub mod listener;
pub mod load;
pub mod matrix;
pub mod mesh;
pub mod node;
pub mod oracle;
pub mod plain;
pub mod process;
pub mod proxy;
pub mod raiser;
pub mod raw;
pub mod receiver;
pub mod report;
pub mod seed;
pub mod sim;
pub mod site;
pub mod wait;
pub mod wiretap;
