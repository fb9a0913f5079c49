//! What an endpoint told, for tests to wait for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Everything told so far; clones share it.
pub struct Told<T>(Arc<(Mutex<Vec<T>>, Notify)>);

impl<T> Clone for Told<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self(Arc::new((Mutex::new(Vec::new()), Notify::new())))
    }
}

impl<T: Clone + std::fmt::Debug> Told<T> {
    pub fn add(&self, item: T) {
        self.0.0.lock().unwrap().push(item);
        self.0.1.notify_waiters();
    }

    pub fn all(&self) -> Vec<T> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits until what was told is so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&[T]) -> bool) {
        let waiting = async {
            loop {
                let changed = self.0.1.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if is_so(&self.0.0.lock().unwrap()) {
                    return;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "not {what}: {:?}", self.all());
    }

    pub async fn one(&self, what: &str, is_so: impl Fn(&T) -> bool) {
        self.until(what, |all| all.iter().any(&is_so)).await;
    }
}
