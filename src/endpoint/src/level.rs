//! The persistence levels that an application chooses from.

use std::path::PathBuf;

use crate::cpl::ClientPersistence;
use crate::spl::ServicePersistence;

/// The least capacity in memory, bytes.
pub const SPL1_BYTES_MIN: u64 = 4 * 1024;
/// The capacity in memory by default, bytes.
pub const SPL1_BYTES_DEFAULT: u64 = 16 * 1024;
/// The least capacity in a file, bytes.
pub const SPL2_BYTES_MIN: u64 = 8 * 1024;
/// The capacity in a file by default, bytes.
pub const SPL2_BYTES_DEFAULT: u64 = 1024 * 1024;

/// Where a service keeps its events until they are acknowledged.
pub enum ServiceLevel {
    /// SPL-1: in memory. What is not acknowledged is lost with the process.
    Memory {
        /// Capacity, at least [`SPL1_BYTES_MIN`].
        bytes: u64,
    },
    /// SPL-2: in a file that one process uses at a time.
    File {
        /// The file.
        path: PathBuf,
        /// Capacity, at least [`SPL2_BYTES_MIN`].
        bytes: u64,
    },
    /// SPL-2 in a store of the application.
    Custom {
        /// The store.
        store: Box<dyn ServicePersistence>,
        /// Capacity, at least [`SPL1_BYTES_MIN`].
        bytes: u64,
    },
}

impl ServiceLevel {
    /// SPL-1 with the default capacity.
    pub fn memory() -> Self {
        Self::Memory { bytes: SPL1_BYTES_DEFAULT }
    }

    /// SPL-2 with the default capacity.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File { path: path.into(), bytes: SPL2_BYTES_DEFAULT }
    }
}

/// Where a client keeps the last handled position of every subscription.
#[derive(Default)]
pub enum ClientLevel {
    /// CPL-1: in memory.
    #[default]
    Memory,
    /// CPL-2: in a file that one process uses at a time.
    File {
        /// The file.
        path: PathBuf,
    },
    /// CPL-2 in a store of the application.
    Custom(Box<dyn ClientPersistence>),
}

impl ClientLevel {
    /// CPL-2 in this file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File { path: path.into() }
    }
}
