//! The target `jwt` for cargo fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ackord_fuzz::run("jwt", data));
