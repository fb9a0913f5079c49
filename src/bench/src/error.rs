//! Why a workload could not be run to its end.

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sizes contradict each other or the deployment.
    #[error("{0}")]
    Options(String),
    /// The broker refused what the workload needs, or was not reached.
    #[error("{0}")]
    Ground(String),
    /// An endpoint did not start, or its session ended for good.
    #[error("an endpoint failed: {0}")]
    Endpoint(String),
    /// Nothing happened for too long.
    #[error("no progress: {0}")]
    Stuck(String),
}

impl Error {
    /// Whether the same run may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Ground(_) | Self::Endpoint(_) | Self::Stuck(_) => true,
            Self::Options(_) => false,
        }
    }
}
