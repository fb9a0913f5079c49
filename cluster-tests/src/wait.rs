//! Waiting for a condition with a deadline; the only way in which these tests wait.

use std::time::{Duration, Instant};

/// How long a condition may take before the test is failed. Generous: the machine may be busy,
/// and nothing waits this long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
pub const POLL: Duration = Duration::from_millis(5);

/// Polls `probe` until it gives a value.
///
/// # Panics
/// When [`PATIENCE`] is over; the message says what was awaited.
pub async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    until_for(PATIENCE, what, probe).await
}

/// As [`until`] with a deadline of its own.
///
/// # Panics
/// When `patience` is over.
pub async fn until_for<T>(
    patience: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain for {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Polls `holds` until it is true.
///
/// # Panics
/// When [`PATIENCE`] is over.
pub async fn until_true(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    until(what, async || holds().await.then_some(())).await;
}

/// Awaits a future for at most [`PATIENCE`].
///
/// # Panics
/// When the time is over.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}
