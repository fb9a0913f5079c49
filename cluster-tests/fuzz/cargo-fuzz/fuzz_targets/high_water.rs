//! The target `high_water` for cargo fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ackord_fuzz::run("high_water", data));
