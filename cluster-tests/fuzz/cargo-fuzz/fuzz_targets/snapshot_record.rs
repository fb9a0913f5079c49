//! The target `snapshot_record` for cargo fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ackord_fuzz::run("snapshot_record", data));
