//! How much is written at once, and how long the disk is left to others afterwards. Pure.

use std::time::Duration;

/// Steps begin here: on a fast disk, commits beside it wait for 2 to 9 ms.
const FIRST: u64 = 1 << 20;
/// Where even 1 MiB keeps the disk busy for too long.
const SMALLEST: u64 = 256 << 10;
/// Beyond this, commits begin to feel it: 4 MiB cost up to 30 ms in some measurements.
const LARGEST: u64 = 2 << 20;
/// The same for a flush that would not end in time: still far from all at once.
const LARGEST_IN_A_HURRY: u64 = 8 << 20;
/// A step that keeps the disk busy for longer is made smaller.
const LONG: Duration = Duration::from_millis(8);
/// A step that takes less is made larger.
const SHORT: Duration = Duration::from_millis(1);
const SHORTEST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// The size of the next step; changes with what the disk shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    step: u64,
    written: u64,
    busy: Duration,
}

/// What is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    /// Bytes that are still dirty, as far as is known.
    pub(super) bytes: u64,
    /// What is left of the flush's time.
    pub(super) time: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { step: FIRST, written: 0, busy: Duration::ZERO }
    }

    /// How many bytes are written at once, now.
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// A step of so many bytes took so long. Returns for how long the disk is left alone.
    pub(super) fn took(&mut self, bytes: u64, took: Duration, ahead: Ahead) -> Duration {
        self.written = self.written.saturating_add(bytes);
        self.busy = self.busy.saturating_add(took);
        let in_a_hurry = self.time_for(ahead.bytes) > ahead.time;
        let largest = if in_a_hurry { LARGEST_IN_A_HURRY } else { LARGEST };
        if took > LONG && !in_a_hurry {
            self.step /= 2;
        } else if took < SHORT || in_a_hurry {
            self.step *= 2;
        }
        self.step = self.step.clamp(SMALLEST, largest);
        if in_a_hurry { SHORTEST_PAUSE } else { (took / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE) }
    }

    /// How long so much takes at the speed seen so far, pauses included.
    fn time_for(&self, bytes: u64) -> Duration {
        let (Ok(busy), written) = (u64::try_from(self.busy.as_nanos()), self.written.max(1)) else {
            return Duration::MAX;
        };
        let nanos = u128::from(busy) * u128::from(bytes) / u128::from(written) * 5 / 4;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::{Ahead, FIRST, LARGEST, LARGEST_IN_A_HURRY, LONGEST_PAUSE, Pace, SMALLEST};
    use std::time::Duration;

    const MIB: u64 = 1 << 20;

    /// A disk of so many bytes a second, a clock that only it moves, and so much that is dirty.
    fn flush(bytes_per_second: u64, dirty: u64, budget: Duration) -> (Pace, Vec<u64>, Duration) {
        let mut pace = Pace::new();
        let (mut clock, mut left, mut steps) = (Duration::ZERO, dirty, Vec::new());
        while left > 0 && clock < budget {
            let bytes = pace.step().min(left);
            let took = Duration::from_nanos(bytes * 1_000_000_000 / bytes_per_second);
            left -= bytes;
            clock += took;
            clock +=
                pace.took(bytes, took, Ahead { bytes: left, time: budget.saturating_sub(clock) });
            steps.push(bytes);
        }
        (pace, steps, clock)
    }

    #[test]
    fn a_fast_disk_gets_larger_steps_up_to_a_bound() {
        let (pace, steps, _) = flush(4000 * MIB, 500 * MIB, Duration::from_secs(20));
        assert_eq!((steps[0], pace.step()), (FIRST, LARGEST));
        assert!(steps.iter().all(|step| *step <= LARGEST));
        assert_eq!(steps.iter().sum::<u64>(), 500 * MIB);
    }

    #[test]
    fn a_slow_disk_gets_smaller_steps_down_to_a_bound() {
        let (pace, steps, _) = flush(20 * MIB, 100 * MIB, Duration::from_secs(60));
        assert_eq!(pace.step(), SMALLEST);
        assert!(steps.iter().all(|step| *step >= SMALLEST || steps.last() == Some(step)));
    }

    #[test]
    fn a_disk_in_between_keeps_the_step() {
        let (pace, ..) = flush(300 * MIB, 100 * MIB, Duration::from_secs(20));
        assert_eq!(pace.step(), FIRST);
    }

    #[test]
    fn what_would_not_end_in_time_is_written_in_larger_steps_but_never_at_once() {
        let (pace, steps, _) = flush(100 * MIB, 2000 * MIB, Duration::from_secs(4));
        assert_eq!(pace.step(), LARGEST_IN_A_HURRY);
        assert!(steps.iter().all(|step| *step <= LARGEST_IN_A_HURRY));
    }

    #[test]
    fn it_hurries_only_as_long_as_it_must() {
        let mut pace = Pace::new();
        let late = Ahead { bytes: 1000 * MIB, time: Duration::from_secs(1) };
        for _ in 0..4 {
            pace.took(MIB, Duration::from_millis(10), late);
        }
        assert_eq!(pace.step(), LARGEST_IN_A_HURRY);
        pace.took(
            MIB,
            Duration::from_millis(5),
            Ahead { bytes: MIB, time: Duration::from_secs(1) },
        );
        assert_eq!(pace.step(), LARGEST);
    }

    #[test]
    fn others_have_the_disk_for_a_fifth_of_the_time() {
        let ahead = Ahead { bytes: 0, time: Duration::from_secs(1) };
        let pause = |ms| Pace::new().took(MIB, Duration::from_millis(ms), ahead);
        assert_eq!(pause(4), Duration::from_millis(1));
        assert_eq!(pause(10_000), LONGEST_PAUSE);
        assert!(pause(0) > Duration::ZERO);
    }

    #[test]
    fn nothing_overflows() {
        let mut pace = Pace::new();
        let ahead = Ahead { bytes: u64::MAX, time: Duration::ZERO };
        pace.took(0, Duration::MAX, ahead);
        pace.took(u64::MAX, Duration::MAX, ahead);
        assert!(pace.step() >= SMALLEST);
    }
}
