//! One file per command: each turns its arguments into calls and its results into lines.

pub mod account;
pub mod apply;
mod backup;
pub mod bench;
pub mod boiler;
pub mod boiler_parts;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod dev;
pub mod dev_cluster;
pub mod raise;
pub mod recover;
pub mod reload;
pub mod serve;
pub mod site;
pub mod subscribe;
