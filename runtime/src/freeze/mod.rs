//! Freezing seen from outside a run: the probe that tells whether a file system is frozen, thaw by
//! hand, and recovery after a crash.
//!
//! These functions wait at most a few seconds, and none of them for a file system. They are not
//! asynchronous: an async caller runs them by `spawn_blocking`.

mod probe;
mod recover;
mod status;
mod thaw;

pub use probe::{Method, Probe, ProbeError, ProbeState, probe};
pub use recover::{RecoverError, RecoveredJournal, Recovery, recover};
pub use thaw::{FileSystemOutcome, ThawOutcome, thaw_ours, thaw_paths};

pub(crate) use probe::touch_stdin;
pub use status::{FrozenState, StatusLine, status};
