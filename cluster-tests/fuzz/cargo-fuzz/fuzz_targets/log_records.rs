//! The target `log_records` for cargo fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ackord_fuzz::run("log_records", data));
