//! The runtime that openraft runs on: tokio, with random numbers that can be repeated, and a clock for each
//! replica that can be moved forward.

use std::cell::RefCell;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend, TokioInstant, TokioRuntime};
use rand_08::rngs::{StdRng, ThreadRng};
use rand_08::{RngCore, SeedableRng};

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// From now on openraft's random numbers on this thread are those of a seed. For simulations.
pub fn seed_this_thread(seed: u64) {
    SEEDED.set(Some(StdRng::seed_from_u64(seed)));
}

tokio::task_local! {
    /// The clock of the replica that a task works for; whatever the task spawns has the same.
    static CLOCK: Arc<Clock>;
}

/// How far the clock of one replica is ahead of the machine's.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    ahead_nanos: AtomicU64,
}

impl Clock {
    /// Moves the clock forward. Raft relies on no clock, so this costs at most an election.
    pub(crate) fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX >> 1);
        self.ahead_nanos.fetch_add(nanos, Ordering::AcqRel);
    }

    fn ahead(&self) -> Duration {
        Duration::from_nanos(self.ahead_nanos.load(Ordering::Acquire))
    }

    /// Does something with this as the clock.
    pub(crate) async fn rule<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        CLOCK.scope(Arc::clone(self), future).await
    }
}

/// How far the present task's clock is ahead.
fn ahead() -> Duration {
    CLOCK.try_with(|clock| clock.ahead()).unwrap_or_default()
}

/// A moment on the clock of the replica that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(TokioInstant);

impl openraft::Instant for Moment {
    fn now() -> Moment {
        Moment(TokioInstant::now() + ahead())
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0 + duration)
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, duration: Duration) -> Moment {
        Moment(self.0 - duration)
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, duration: Duration) {
        self.0 -= duration;
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Moment) -> Duration {
        self.0 - earlier.0
    }
}

impl Moment {
    /// When the machine's clock will show it.
    fn on_machine(self) -> TokioInstant {
        self.0 - ahead()
    }
}

/// tokio as openraft wants it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Runtime;

/// Random numbers: of the machine, unless the thread has a seed.
pub(crate) struct Random(ThreadRng);

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        SEEDED
            .with_borrow_mut(|seeded| seeded.as_mut().map(RngCore::next_u32))
            .unwrap_or_else(|| self.0.next_u32())
    }

    fn next_u64(&mut self) -> u64 {
        SEEDED
            .with_borrow_mut(|seeded| seeded.as_mut().map(RngCore::next_u64))
            .unwrap_or_else(|| self.0.next_u64())
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        let seeded = SEEDED.with_borrow_mut(|seeded| seeded.as_mut().map(|seeded| seeded.fill_bytes(bytes)));
        if seeded.is_none() {
            self.0.fill_bytes(bytes);
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_08::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = Moment;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, F: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, F>;
    type ThreadLocalRng = Random;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match CLOCK.try_with(Arc::clone) {
            Ok(clock) => TokioRuntime::spawn(CLOCK.scope(clock, future)),
            Err(_) => TokioRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Moment) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline.on_machine())
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Moment,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline.on_machine(), future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn thread_rng() -> Random {
        Random(rand_08::thread_rng())
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        TokioRuntime::oneshot()
    }
}

#[cfg(test)]
mod tests {
    use openraft::Instant as _;

    use super::*;

    #[tokio::test]
    async fn a_clock_runs_ahead_in_the_tasks_of_its_replica_only() {
        let clock = Arc::new(Clock::default());
        let before = Moment::now();
        clock.advance(Duration::from_secs(3600));
        let inside = clock.rule(async { Runtime::spawn(async { Moment::now() }).await.unwrap() });
        assert!(inside.await - before >= Duration::from_secs(3600));
        assert!(Moment::now() - before < Duration::from_secs(3600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_comes_when_the_replicas_clock_shows_it() {
        let clock = Arc::new(Clock::default());
        let started = TokioInstant::now();
        clock
            .rule(async {
                let deadline = Moment::now() + Duration::from_secs(10);
                clock.advance(Duration::from_secs(4));
                Runtime::sleep_until(deadline).await;
            })
            .await;
        assert_eq!(started.elapsed().as_secs(), 6);
    }
}
