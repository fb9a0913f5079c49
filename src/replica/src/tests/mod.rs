//! Scenarios of a whole node on a real data directory, and openraft's own storage suite.

mod cluster;
mod durability;
mod failure;
mod fixture;
mod large;
mod membership;
mod proposals;
mod proxy;
mod replication;
mod restart;
mod storage_suite;
