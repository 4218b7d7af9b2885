//! Freezing seen from outside a run: the probe that tells whether a file system is frozen, thaw by
//! hand, and recovery after a crash.
//!
//! These functions wait at most a few seconds, and none of them for a file system. They are not
//! asynchronous: an async caller runs them by `spawn_blocking`.

mod probe;
mod recover;
mod status;
mod thaw;

use std::path::Path;

pub use probe::{Method, Probe, ProbeError, ProbeState, probe};
pub use recover::{RecoverError, RecoveredJournal, Recovery, recover};
pub use thaw::{FileSystemOutcome, ThawOutcome, thaw_ours, thaw_paths};

pub(crate) use probe::ask_of_stdin;
pub use status::{FrozenState, StatusLine, status};

/// True if a write to `path`, which need not exist yet, is known not to wait for a thaw.
pub(crate) fn is_running(path: &Path) -> bool {
    let existing = path.ancestors().find(|ancestor| ancestor.is_dir());
    let probed = existing.and_then(|directory| probe(directory).ok());
    probed.is_some_and(|probe| probe.state == ProbeState::NotFrozen)
}
