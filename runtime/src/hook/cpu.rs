//! How much processor time a guest uses. Every call into a guest is a future; each of its polls runs
//! on one thread from beginning to end, guest and host functions alike. So a poll has used no more than
//! the time that passed, and no more than its thread's own processor time since that was last looked at.
//!
//! The lesser of the two is counted, and the thread's clock, a system call, is looked at only around
//! polls that are not short: most of a hook's are a few microseconds, between one statement and the
//! next, and there the time that passed will do. A guest that computes is measured to microseconds, and
//! neither waiting for a database nor a busy machine costs a hook anything. One that computes without
//! end is looked at at every tick of the engine (2 ms), so it is stopped at most that much too late.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// A poll that took no longer was no computation: what passed is counted, even if it was not all the
/// guest's.
const SHORT: u64 = 50_000;

/// The processor time of one guest in one phase. Clones are the same meter.
#[derive(Clone, Debug)]
pub(crate) struct CpuMeter(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    /// Where the times below are counted from.
    zero: Instant,
    /// In the polls that have ended.
    spent_ns: AtomicU64,
    /// When the poll that runs now began.
    began_ns: AtomicU64,
    /// What the thread had used when it was last looked at,
    thread_ns: AtomicU64,
    /// and which thread that was.
    thread: AtomicUsize,
    /// How long the last poll took: a guest that computes goes on computing.
    last_ns: AtomicU64,
}

impl Default for CpuMeter {
    fn default() -> Self {
        Self(Arc::new(Counters {
            zero: Instant::now(),
            spent_ns: AtomicU64::new(0),
            began_ns: AtomicU64::new(0),
            thread_ns: AtomicU64::new(0),
            thread: AtomicUsize::new(0),
            last_ns: AtomicU64::new(u64::MAX),
        }))
    }
}

impl CpuMeter {
    /// A phase begins.
    pub(crate) fn restart(&self) {
        self.0.spent_ns.store(0, Ordering::Relaxed);
    }

    /// What the phase has used. To be asked from within the call: in a host function, or when the
    /// guest is looked at.
    pub(crate) fn spent(&self) -> Duration {
        let used = self.0.passed_ns().min(self.0.thread_has_used());
        Duration::from_nanos(self.0.spent_ns.load(Ordering::Relaxed) + used)
    }

    /// The call, metered.
    pub(crate) async fn metered<T>(self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        poll_fn(|context| {
            self.0.begin();
            let polled = call.as_mut().poll(context);
            self.0.end();
            polled
        })
        .await
    }
}

impl Counters {
    fn begin(&self) {
        if self.last_ns.load(Ordering::Relaxed) > SHORT {
            self.thread_ns.store(thread_ns(), Ordering::Relaxed);
            self.thread.store(this_thread(), Ordering::Relaxed);
        }
        self.began_ns.store(self.now_ns(), Ordering::Relaxed);
    }

    fn end(&self) {
        let passed = self.passed_ns();
        let used = if passed > SHORT { passed.min(self.thread_has_used()) } else { passed };
        self.spent_ns.fetch_add(used, Ordering::Relaxed);
        self.last_ns.store(passed, Ordering::Relaxed);
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Since the poll began.
    fn passed_ns(&self) -> u64 {
        self.now_ns().saturating_sub(self.began_ns.load(Ordering::Relaxed))
    }

    /// Since it was last looked at, at the beginning of this poll or before; of another thread nothing is
    /// known.
    fn thread_has_used(&self) -> u64 {
        if self.thread.load(Ordering::Relaxed) != this_thread() {
            return u64::MAX;
        }
        thread_ns().saturating_sub(self.thread_ns.load(Ordering::Relaxed))
    }
}

/// Tells this thread from the others that run: where it has its own variables.
fn this_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

fn thread_ns() -> u64 {
    let used = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    u64::try_from(used.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn burn(time: Duration) {
        let until = thread_ns() + u64::try_from(time.as_nanos()).unwrap();
        while thread_ns() < until {}
    }

    #[tokio::test]
    async fn computing_counts_and_waiting_does_not() {
        let meter = CpuMeter::default();
        let began = Instant::now();
        let call = async {
            burn(Duration::from_millis(20));
            tokio::time::sleep(Duration::from_millis(60)).await;
            burn(Duration::from_millis(20));
            meter.spent()
        };
        let spent = meter.clone().metered(call).await;
        assert!(spent >= Duration::from_millis(40), "{spent:?}");
        assert!(spent < began.elapsed() - Duration::from_millis(50), "{spent:?}");
        // What others did on the thread between two polls is not the guest's.
        burn(Duration::from_millis(30));
        meter.restart();
        let spent = meter.clone().metered(async { meter.spent() }).await;
        assert!(spent < Duration::from_millis(20), "{spent:?}");
    }

    /// Each of its polls is short or long in turn, and on either of two threads.
    #[test]
    fn a_guest_that_changes_threads_is_counted_in_full() {
        const ROUNDS: u32 = 10;
        const LONG: Duration = Duration::from_millis(2);
        let meter = CpuMeter::default();
        let mut polls = 0;
        let call = poll_fn(|_| {
            polls += 1;
            if polls % 2 == 0 {
                burn(LONG);
            }
            if polls == 2 * ROUNDS { Poll::Ready(()) } else { Poll::Pending }
        });
        let mut call = pin!(meter.clone().metered(call));
        // The other thread has used much less, as its clock says.
        burn(2 * LONG);
        let mut poll = || call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        for _ in 0..ROUNDS {
            assert!(!poll());
            std::thread::scope(|scope| scope.spawn(&mut poll).join().map(drop)).unwrap();
        }
        let counted = Duration::from_nanos(meter.0.spent_ns.load(Ordering::Relaxed));
        assert!(counted >= ROUNDS * LONG, "{counted:?}");
    }
}
