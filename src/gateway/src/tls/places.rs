//! The handshakes that go on at a listener: so many, and who comes when all places are taken gets
//! the place of the one that has been silent for longest.
//!
//! A handshake takes its honest side a few round trips. So whoever opens connections and says
//! nothing pushes out its own: to have a good client pushed out it has to open a listener's places
//! anew within the time that the client's handshake takes (the rule of FreeBSD's SYN cache, Lemon,
//! 2002, one layer up).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The places of one listener.
#[derive(Debug)]
pub struct Places {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// The number of the last that came.
    last: u64,
    /// Those that go on, the oldest first, each with what tells it to go.
    by_age: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A place for as long as it is held.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    number: u64,
    pushed_out: oneshot::Receiver<()>,
}

impl Places {
    /// So many places, at least one.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), taken: Mutex::default() })
    }

    /// Takes a place; the oldest goes where all are taken.
    pub fn take(self: &Arc<Self>) -> Place {
        let (go, pushed_out) = oneshot::channel();
        let mut taken = self.taken.lock();
        taken.last += 1;
        let number = taken.last;
        if taken.by_age.len() >= self.max
            && let Some((_, oldest)) = taken.by_age.pop_first()
        {
            // One that has just ended by itself does not listen any more.
            let _ = oldest.send(());
        }
        taken.by_age.insert(number, go);
        Place { places: self.clone(), number, pushed_out }
    }
}

impl Place {
    /// Does something for as long as the place is its own; `None` when it was pushed out.
    pub async fn hold<R>(mut self, work: impl Future<Output = R>) -> Option<R> {
        tokio::select! {
            biased;
            done = work => Some(done),
            _pushed_out = &mut self.pushed_out => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn the_oldest_goes_and_the_newest_stays() {
        let places = Places::new(2);
        let (first, second, third) = (places.take(), places.take(), places.take());
        assert_eq!(first.hold(pending::<()>()).await, None);
        assert_eq!(third.hold(ready(3)).await, Some(3));
        // The third's is free again: a fourth pushes nobody out.
        let fourth = places.take();
        assert_eq!(second.hold(ready(2)).await, Some(2));
        assert_eq!(fourth.hold(ready(4)).await, Some(4));
        assert!(places.taken.lock().by_age.is_empty());
    }
}
