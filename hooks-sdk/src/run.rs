//! What this run is, and the clock it runs against.

use std::time::Duration;

pub use crate::bindings::stillpoint::hook::run::Info;

use crate::hook::Phase;
use crate::host::{Current, Host, nanoseconds};

/// Which run this is, and what the operator calls this hook.
#[must_use]
pub fn info() -> Info {
    Current::info()
}

/// The phase that the hook is in.
#[must_use]
pub fn phase() -> Phase {
    Current::phase()
}

/// What is left of the current phase, zero when it has passed. Whoever takes something must keep
/// enough of it to give that back: see [`remaining_but`].
#[must_use]
pub fn remaining() -> Duration {
    Duration::from_nanos(Current::remaining())
}

/// What is left of the current phase beside a reserve; zero when only the reserve is left.
#[must_use]
pub fn remaining_but(reserve: Duration) -> Duration {
    remaining().saturating_sub(reserve)
}

/// Whether the operator or the coordinator asked to stop: undo, and return.
#[must_use]
pub fn cancelled() -> bool {
    Current::cancelled()
}

/// Waits, at most to the end of the phase; ends early on cancellation.
pub fn sleep(duration: Duration) {
    Current::sleep(nanoseconds(duration));
}
