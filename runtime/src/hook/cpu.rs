//! How much processor time a guest uses. Every call into a guest is a future; each of its polls runs
//! on one thread from beginning to end, guest and host functions alike, so the time is that thread's
//! own processor time: exact to microseconds, and neither waiting for a database nor a busy machine
//! costs a hook anything. A guest that computes without end is looked at at every tick of the engine
//! (2 ms), so it is stopped at most that much too late.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The processor time of one guest in one phase. Clones are the same meter.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuMeter(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    /// In the polls that have ended.
    spent_ns: AtomicU64,
    /// What the thread had used when the poll that runs now began.
    began_ns: AtomicU64,
}

impl CpuMeter {
    /// A phase begins.
    pub(crate) fn restart(&self) {
        self.0.spent_ns.store(0, Ordering::Relaxed);
    }

    /// What the phase has used. To be asked from within the call: in a host function, or when the
    /// guest is looked at.
    pub(crate) fn spent(&self) -> Duration {
        let running = thread_ns().saturating_sub(self.0.began_ns.load(Ordering::Relaxed));
        Duration::from_nanos(self.0.spent_ns.load(Ordering::Relaxed) + running)
    }

    /// The call, metered.
    pub(crate) async fn metered<T>(self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        poll_fn(|context| {
            let began_ns = thread_ns();
            self.0.began_ns.store(began_ns, Ordering::Relaxed);
            let polled = call.as_mut().poll(context);
            let used_ns = thread_ns().saturating_sub(began_ns);
            self.0.spent_ns.fetch_add(used_ns, Ordering::Relaxed);
            polled
        })
        .await
    }
}

fn thread_ns() -> u64 {
    let used = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    u64::try_from(used.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

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
        meter.restart();
        let spent = meter.clone().metered(async { meter.spent() }).await;
        assert!(spent < Duration::from_millis(20), "{spent:?}");
    }
}
