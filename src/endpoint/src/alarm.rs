//! A timer whose deadline moves with nearly every event.
//!
//! Setting tokio's timer takes a lock of the runtime. So it is set only when something becomes due
//! earlier than it would ring; when that has moved away, it rings early, and whoever hears it finds nothing due.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// See the module.
pub(crate) struct Alarm {
    /// Absent until it is set the first time.
    timer: Option<Pin<Box<Sleep>>>,
    /// It will ring.
    armed: bool,
}

impl Alarm {
    pub(crate) const fn new() -> Self {
        Self { timer: None, armed: false }
    }

    /// It rings then, or earlier; unset, it may still ring.
    pub(crate) fn set(&mut self, at: Option<Instant>) {
        let Some(at) = at else { return };
        match &mut self.timer {
            None => self.timer = Some(Box::pin(sleep_until(at))),
            Some(timer) if self.armed && timer.deadline() <= at => {}
            Some(timer) => timer.as_mut().reset(at),
        }
        self.armed = true;
    }

    /// Waits until it rings. Safe to drop and call again.
    pub(crate) async fn rings(&mut self) {
        match &mut self.timer {
            Some(timer) if self.armed => timer.await,
            Some(_) | None => std::future::pending().await,
        }
        self.armed = false;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn it_rings_no_later_than_the_earliest_deadline_since_it_rang() {
        let (start, soon) = (Instant::now(), Duration::from_millis(20));
        let late = start + Duration::from_secs(3600);
        let mut alarm = Alarm::new();
        assert!(alarm.rings().now_or_never().is_none(), "never set");
        alarm.set(Some(late));
        alarm.set(None);
        alarm.set(Some(start + soon));
        alarm.set(Some(late));
        alarm.rings().await;
        assert!(start.elapsed() >= soon);
        assert!(alarm.rings().now_or_never().is_none(), "once");
        alarm.set(Some(late));
        assert!(alarm.rings().now_or_never().is_none(), "not for what was due before");
        alarm.set(Some(start));
        alarm.rings().await;
    }
}
