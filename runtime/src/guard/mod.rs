//! The process that freezes and thaws: the same binary executed again, without an async runtime,
//! memory locked, signals blocked. It owns the deadline, watches the agent, and thaws what is ours
//! whatever becomes of the agent. A sentinel in another cgroup does the same for the guard.

use std::path::PathBuf;
use std::time::Duration;

use crate::plan::FileSystem;

/// How a run is guarded.
#[derive(Clone, Debug)]
pub struct GuardOptions {
    /// This run.
    pub run_id: String,
    /// Where the journal is: [`crate::paths::Paths::run`].
    pub run_dir: PathBuf,
    /// Longest time from before the first FIFREEZE to the thaw, on `CLOCK_BOOTTIME`; at most 30 s.
    pub window: Duration,
    /// Raise `rcu_expedited` for the run where that can be done.
    pub expedite_rcu: bool,
    /// Repeat the rehearsal until the freeze, so that superblocks stay warm.
    pub keep_warm: bool,
}

/// One file system's way through freeze and thaw. Times are `CLOCK_MONOTONIC` ns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystemTimes {
    /// Index into the file systems given to [`arm`].
    pub index: usize,
    /// FIFREEZE called.
    pub freeze_began_ns: u64,
    /// FIFREEZE returned.
    pub frozen_ns: u64,
    /// FITHAW called; 0 before the thaw.
    pub thaw_began_ns: u64,
    /// FITHAW returned; 0 before the thaw.
    pub thawed_ns: u64,
}

/// What became of one file system at the thaw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThawedFileSystem {
    /// When.
    pub times: FileSystemTimes,
    /// Our FITHAW succeeded: nobody else had thawed it (EINVAL says somebody had).
    pub thawed_by_us: bool,
    /// FITHAW failed in another way, in words; it may still be frozen.
    pub error: Option<String>,
    /// The super options say `ro` now and did not before.
    pub turned_read_only: bool,
}

/// What a rehearsal, or a flush, took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepTimes {
    /// Begin, `CLOCK_MONOTONIC` ns.
    pub began_ns: u64,
    /// End.
    pub ended_ns: u64,
}

/// Starts guard and sentinel and waits until both say that they are armed.
///
/// # Errors
/// If a file system cannot be opened or is not the planned one, or a process cannot be started.
/// Nothing has been frozen then, and no process is left.
pub async fn arm(
    _file_systems: &[FileSystem],
    _options: GuardOptions,
) -> Result<ArmedGuard, GuardError> {
    unimplemented!()
}

/// Takes over if this process was started as a guard or a sentinel: then it does not return.
/// The first thing that `main` of any program that embeds the runtime calls.
pub fn enter() {}

/// Guard and sentinel are armed; nothing is frozen but for moments, by the rehearsal.
#[derive(Debug)]
#[must_use = "an armed guard is disarmed, or frozen with"]
pub struct ArmedGuard {}

impl ArmedGuard {
    /// `syncfs` of each file system, in parallel; gives up waiting after `budget`.
    pub async fn sync(&mut self, _budget: Duration) -> Result<StepTimes, GuardError> {
        unimplemented!()
    }

    /// Freezes and thaws all, wave by wave, in parallel within a wave; afterwards keeps the
    /// superblocks warm until [`ArmedGuard::freeze`] or [`ArmedGuard::disarm`].
    pub async fn rehearse(&mut self) -> Result<StepTimes, GuardError> {
        unimplemented!()
    }

    /// Freezes all, stacked first. On an error everything is thawed again before this returns, and
    /// the guard is still armed, to be disarmed.
    pub async fn freeze(self) -> Result<Freeze, (ArmedGuard, GuardError)> {
        unimplemented!()
    }

    /// Ends guard and sentinel, puts `rcu_expedited` back, removes the journal.
    pub async fn disarm(self) -> Result<(), GuardError> {
        unimplemented!()
    }
}

/// File systems are frozen. Dropping it thaws, too; [`Freeze::thaw`] is the way that tells.
#[derive(Debug)]
#[must_use = "file systems are frozen until this is thawed"]
pub struct Freeze {}

impl Freeze {
    /// Times so far, in the order of the file systems given to [`arm`].
    pub fn times(&self) -> &[FileSystemTimes] {
        unimplemented!()
    }

    /// Resolves if the freeze ended without being asked: the deadline passed, or guard or sentinel
    /// is lost. The caller then stops waiting for the provider and calls [`Freeze::thaw`].
    pub async fn broken(&mut self) -> Break {
        unimplemented!()
    }

    /// Thaws all in parallel and says what became of each.
    pub async fn thaw(self) -> Result<(ArmedGuard, Thaw), GuardError> {
        unimplemented!()
    }
}

/// What became of the file systems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thaw {
    /// One for each file system, in the order given to [`arm`].
    pub file_systems: Vec<ThawedFileSystem>,
    /// The freeze had ended already, without being asked.
    pub broken: Option<Break>,
}

/// Why a freeze ended without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// The deadline passed; the guard has thawed.
    DeadlinePassed,
    /// The guard is gone; agent and sentinel have thawed.
    GuardLost,
    /// The sentinel is gone; the guard has thawed.
    SentinelLost,
}

/// What went wrong with the guard. Nothing of ours is frozen when it is returned, unless it is
/// [`GuardError::NotThawed`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// FIFREEZE: somebody else has frozen it. It is not ours and is left as it is.
    #[error("{} is frozen already, by somebody else", mount_point.display())]
    FrozenByOther {
        /// Which.
        mount_point: PathBuf,
    },
    /// One or more file systems could not be thawed, or are not known to be.
    #[error("{} may still be frozen", mount_points.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    NotThawed {
        /// Which.
        mount_points: Vec<PathBuf>,
    },
}
