//! The target `request_head` for cargo fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ackord_fuzz::run("request_head", data));
