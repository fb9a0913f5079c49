//! The runtime that openraft runs in: tokio, whose timers of all groups fire together.
//!
//! Each group has a tick of 20 ms for its heartbeats and elections. Seventeen groups that tick each in
//! its own time wake a thread 850 times a second, which is nearly all that an idle node does; on a grid
//! they wake it 50 times. Each process has a grid of its own, so nodes do not campaign in step; those that
//! share a process, as in tests, draw their elections on one grid.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use openraft::{AsyncRuntime, Instant as _, OptionalSend};
use openraft_rt_tokio::{TokioInstant, TokioRuntime};

/// Between two lines of the grid: the tick that openraft makes of a heartbeat of 100 ms.
const GRID: Duration = Duration::from_millis(20);
/// What is due so soon is due now. openraft gathers what the log has written for a microsecond; a timer
/// of tokio takes a millisecond at least.
const SOON: Duration = Duration::from_micros(5);

/// Where the grid begins.
static ORIGIN: OnceLock<TokioInstant> = OnceLock::new();

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

/// When to wake for a deadline: on the next line, or at once.
fn on_grid(origin: TokioInstant, now: TokioInstant, deadline: TokioInstant) -> TokioInstant {
    if deadline <= now + SOON {
        // In the past: what is due now is rounded up to the next millisecond.
        return origin;
    }
    let beyond = (deadline - origin).as_nanos() % GRID.as_nanos();
    match u64::try_from(beyond) {
        Ok(beyond) if beyond > 0 => deadline + (GRID - Duration::from_nanos(beyond)),
        Ok(_) | Err(_) => deadline,
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let now = TokioInstant::now();
        TokioRuntime::sleep_until(on_grid(*ORIGIN.get_or_init(|| now), now, deadline))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_on_the_lines_or_at_once_and_never_early() {
        let origin = TokioInstant::now();
        let at = |us| origin + Duration::from_micros(us);
        let check = |now, deadline, wakes| {
            assert_eq!(on_grid(origin, at(now), at(deadline)), at(wakes), "{now} {deadline}");
        };
        check(0, 30_000, 40_000);
        check(0, 40_000, 40_000);
        check(40_000, 40_001, 0);
        check(40_000, 30_000, 0);
        // A tick that is due soon after a line has its turn on the next one, not twice on this one.
        check(40_010, 40_500, 60_000);
        // After years.
        let years = 100_000_000_000_000;
        check(years + 1, years + 20_000, years + 20_000);
        check(years + 1, years + 20_001, years + 40_000);
    }
}
