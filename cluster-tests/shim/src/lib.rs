//! An `LD_PRELOAD` library that makes a disk forget, fail, fill up or crawl, and a wall clock go
//! wrong, for a child process.
//!
//! Every change below `DISK_SHIM_ROOT` is preceded by a record in `DISK_SHIM_JOURNAL` that says how
//! to undo it; every completed sync says which records it made safe. After the process is killed
//! the harness undoes what no sync covers: that is a power cut (`cluster_tests::disk`).
//! The first line of the file `DISK_SHIM_FAULT` is a fault that holds while it is there:
//! `eio-write`, `eio-sync`, `enospc`, `slow-sync MS`.
//! With `DISK_SHIM_DEAF=1` syncs are neither done nor recorded: what a broker without `fdatasync`
//! would lose. The file `CLOCK_SHIM_FILE` says by how many milliseconds the wall clock is ahead.
//!
//! Invariants: a record is in the journal before its change is made; one lock orders both. Nothing
//! here calls a function that the shim itself replaces: all I/O is raw system calls.
//! Not modelled: memory-mapped writes (the broker has none) and the removal of directories.

mod calls;
mod clock;
mod journal;
mod sys;
