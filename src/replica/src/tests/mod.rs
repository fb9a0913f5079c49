//! Scenarios of a whole node on a real data directory, and openraft's own storage suite.

mod durability;
mod failure;
mod fixture;
mod large;
mod membership;
mod proposals;
mod restart;
mod storage_suite;
