//! The process that freezes and thaws: the same binary executed again, without an async runtime,
//! memory locked, signals blocked. It owns the deadline, watches the agent, and thaws what is ours
//! whatever becomes of the agent. A sentinel in another cgroup does the same for the guard.

pub(crate) mod aftercare;
mod board;
mod call;
pub(crate) mod cgroup;
mod error;
pub(crate) mod harden;
mod link;
pub(crate) mod mounts;
mod notify;
mod process;
pub(crate) mod protocol;
pub(crate) mod rcu;
mod sentinel;
mod service;
pub(crate) mod spawn;
mod watched;
pub(crate) mod worker;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::FileSystem;
use crate::script::ScriptSettings;
use crate::time::monotonic_ns;
use link::Link;
use protocol::Request;
pub(crate) use protocol::TOUCH_NAME;

pub use error::{GuardError, Peer};
pub use service::{ServiceError, serve};

/// Nothing is ever frozen for longer than this.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(30);

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
    /// What the sentinel does for applications if the agent dies; none: only file systems are its
    /// business.
    pub aftercare: Option<Aftercare>,
}

/// What is known of the installation for whoever undoes what a dead agent left with applications:
/// the sentinel starts a process that runs [`crate::sequence::recover`] with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aftercare {
    /// Where grants, components and hooks' state are: [`crate::paths::Paths::under`].
    pub root: PathBuf,
    /// The legacy pair, where the journal does not name it.
    pub scripts: ScriptSettings,
    /// How long each hook's `finish` may take.
    pub finish: Duration,
    /// Where systemd keeps the credentials of the agent's unit: `CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
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
/// The window is cut to [`LONGEST_WINDOW`], and to half of `hung_task_timeout_secs` on a machine
/// that panics when a task hangs that long; [`ArmedGuard::window`] says what it is.
///
/// # Errors
/// If a file system cannot be opened or is not the planned one, a process cannot be started, or the
/// journal cannot be written or lies on a planned file system. Nothing has been frozen then, and no
/// process is left.
pub async fn arm(
    file_systems: &[FileSystem],
    options: GuardOptions,
) -> Result<ArmedGuard, GuardError> {
    if !spawn::has_entered() {
        return Err(GuardError::EnterNotCalled);
    }
    let window = options.window.min(LONGEST_WINDOW).min(half_of_hung_task_panic());
    Ok(ArmedGuard { link: Link::arm(file_systems, options, window).await? })
}

/// Half the time after which this kernel panics over a hung task; without end if it does not.
fn half_of_hung_task_panic() -> Duration {
    let read = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok()
    };
    match (read("hung_task_panic"), read("hung_task_timeout_secs")) {
        (Some(1..), Some(seconds @ 1..)) => Duration::from_secs(seconds) / 2,
        _ => Duration::MAX,
    }
}

/// Takes over if this process was started as a guard, a sentinel or a compiler of hooks: then it does
/// not return.
/// The first thing that `main` of any program that embeds the runtime calls.
pub fn enter() {
    spawn::enter();
}

/// Guard and sentinel are armed; nothing is frozen but for moments, by the rehearsal. Dropping it
/// ends both, and undoes what was done.
#[derive(Debug)]
#[must_use = "an armed guard is disarmed, or frozen with"]
pub struct ArmedGuard {
    link: Link,
}

impl ArmedGuard {
    /// What the operator should know: a sentinel without a cgroup of its own, memory that could not
    /// be locked, `rcu_expedited` that could not be raised.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.link.warnings
    }

    /// The window as it is in force.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.link.window()
    }

    /// `syncfs` of each file system, in parallel; gives up waiting after `budget`.
    ///
    /// # Errors
    /// [`GuardError::SyncTimedOut`] names those that have not returned. They go on in the kernel,
    /// and until they return, a rehearsal or a freeze says [`GuardError::Busy`].
    pub async fn sync(&mut self, budget: Duration) -> Result<StepTimes, GuardError> {
        let budget_ms = u64::try_from(budget.as_millis()).unwrap_or(u64::MAX);
        self.timed(Request::Sync { budget_ms }, budget).await
    }

    /// Freezes and thaws all, wave by wave, in parallel within a wave; afterwards keeps the
    /// superblocks warm until [`ArmedGuard::freeze`] or [`ArmedGuard::disarm`], or for 2 s.
    ///
    /// # Errors
    /// As [`ArmedGuard::freeze`].
    pub async fn rehearse(&mut self) -> Result<StepTimes, GuardError> {
        let window = self.link.window();
        self.timed(Request::Rehearse, window).await
    }

    async fn timed(&mut self, request: Request, limit: Duration) -> Result<StepTimes, GuardError> {
        let began_ns = monotonic_ns();
        self.link.ask(request, limit).await?;
        Ok(StepTimes { began_ns, ended_ns: monotonic_ns() })
    }

    /// Freezes all, stacked first. On an error everything is thawed again before this returns, and
    /// the guard is still armed, to be disarmed.
    ///
    /// # Errors
    /// The first refusal of the kernel, in its own variant; [`GuardError::FreezeTimedOut`];
    /// [`GuardError::GuardLost`] and [`GuardError::SentinelLost`]; [`GuardError::NotThawed`] if a
    /// freeze is still in flight that cannot be ended.
    pub async fn freeze(mut self) -> Result<Freeze, (ArmedGuard, GuardError)> {
        let window = self.link.window();
        match self.link.ask(Request::Freeze, window).await {
            Ok(()) => {
                let times = self.link.times();
                Ok(Freeze { link: self.link, times })
            }
            Err(error) => Err((self, error)),
        }
    }

    /// Ends guard and sentinel, puts `rcu_expedited` back, removes the journal.
    ///
    /// # Errors
    /// [`GuardError::NotThawed`] if a file system is still frozen or being frozen. The guard then
    /// stays, and thaws it as soon as the kernel lets it.
    pub async fn disarm(self) -> Result<(), GuardError> {
        self.link.disarm().await
    }
}

/// File systems are frozen. Dropping it thaws, too: the guard sees the conversation end, and does.
/// [`Freeze::thaw`] is the way that tells.
#[derive(Debug)]
#[must_use = "file systems are frozen until this is thawed"]
pub struct Freeze {
    link: Link,
    times: Vec<FileSystemTimes>,
}

impl Freeze {
    /// Times so far, in the order of the file systems given to [`arm`].
    #[must_use]
    pub fn times(&self) -> &[FileSystemTimes] {
        &self.times
    }

    /// Resolves if the freeze ended without being asked: the deadline passed, or guard or sentinel
    /// is lost. The caller then stops waiting for the provider and calls [`Freeze::thaw`].
    /// It may be dropped at any time, in a `select!`, and called again.
    pub async fn broken(&mut self) -> Break {
        self.link.broken().await.as_break()
    }

    /// Thaws all in parallel and says what became of each. If the guard is lost, the sentinel does
    /// it, or the agent itself; then [`Thaw::broken`] says so, and the guard that is given back is
    /// good only to be disarmed.
    ///
    /// # Errors
    /// [`GuardError::NotThawed`] names what may still be frozen. Guard and sentinel, as far as they
    /// are left, go on trying.
    pub async fn thaw(self) -> Result<(ArmedGuard, Thaw), GuardError> {
        let mut link = self.link;
        let turned_read_only = link.thaw().await?;
        let file_systems = link.thawed(&turned_read_only);
        let broken = link.aborted().map(board::Abort::as_break);
        Ok((ArmedGuard { link }, Thaw { file_systems, broken }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_whose_main_does_not_enter_is_not_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let options = GuardOptions {
            run_id: "r".into(),
            run_dir: dir.path().join("run"),
            window: Duration::from_secs(1),
            expedite_rcu: false,
            keep_warm: false,
            aftercare: None,
        };
        assert!(matches!(arm(&[], options).await, Err(GuardError::EnterNotCalled)));
        assert!(!dir.path().join("run").exists());
    }
}
