//! Certificates, and files that are read again when they change.
//!
//! `files ─▶ read, bounded ─▶ build ─▶ current`: a new content that cannot be used leaves the old
//! one in force and is told once.
//!
//! Deliberately absent: sockets, connections, and when to look. Whoever owns [`Reloading`] calls
//! [`Reloading::refresh`].

mod expiry;
mod pem;
mod reloading;

pub use expiry::not_after;
pub use pem::{chain, private_key, server_config};
pub use reloading::{Refreshed, Reloading};
pub use tokio_rustls::{self, rustls};

/// Why a file is of no use. Says nothing of what is in a private key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Error {
    /// An error in these words.
    pub fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }

    /// Whether the same may succeed later without a change; a file that changes is looked at anyway.
    pub fn retryable(&self) -> bool {
        false
    }
}
