//! The harness of the black-box tests: nodes, faults, history, oracle.

pub mod disk;
