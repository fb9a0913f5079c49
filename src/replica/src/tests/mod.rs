//! Scenarios of a whole node on a real data directory, and openraft's own storage suite.

mod asking;
mod cluster;
mod durability;
mod failure;
mod fixture;
mod forwarding;
mod founding;
mod large;
mod leads;
mod membership;
mod older_disk;
mod proposals;
mod proxy;
mod reading;
mod recovery;
mod replication;
mod restart;
mod snapshots;
mod storage_suite;
mod succession;
mod traces;
mod transport;
