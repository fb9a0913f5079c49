//! The target `checkpoint_pieces` for cargo fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ackord_fuzz::run("checkpoint_pieces", data));
