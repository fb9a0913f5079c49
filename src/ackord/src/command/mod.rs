//! One file per command: each turns its arguments into calls and its results into lines.

pub mod account;
pub mod apply;
pub mod audit;
mod backup;
pub mod bench;
pub mod boiler;
pub mod boiler_parts;
pub mod can_i;
pub mod check;
pub mod cluster;
pub mod config;
pub mod context;
pub mod demo;
pub mod dev;
pub mod dev_cluster;
pub mod explain;
pub mod peek;
pub mod quota;
pub mod raise;
pub mod recover;
pub mod reload;
pub mod serve;
pub mod site;
pub mod subscribe;
pub mod subscription;
pub mod ticket;
pub mod why;
