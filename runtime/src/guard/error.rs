//! What can go wrong with the guard, in words that can be acted on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::exit_code::ExitCode;
use crate::journal::JournalError;

/// What went wrong with the guard. Nothing of ours is frozen when it is returned, unless it is
/// [`GuardError::NotThawed`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// FIFREEZE (EBUSY): somebody else has frozen it. It is not ours and is left as it is.
    #[error("{} is frozen already, by somebody else", mount_point.display())]
    FrozenByOther {
        /// Which.
        mount_point: PathBuf,
    },
    /// FIFREEZE (EOPNOTSUPP): its type cannot be frozen.
    #[error("{} ({fs_type}) cannot be frozen", mount_point.display())]
    NotSupported {
        /// Which.
        mount_point: PathBuf,
        /// Its type.
        fs_type: String,
    },
    /// FIFREEZE (EPERM, EACCES): CAP_SYS_ADMIN is missing.
    #[error("{} may not be frozen by this process", mount_point.display())]
    NotPermitted {
        /// Which.
        mount_point: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// FIFREEZE failed in another way: EIO, for one, if its last flush failed.
    #[error("{} could not be frozen", mount_point.display())]
    FreezeFailed {
        /// Which.
        mount_point: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The deadline passed in a freeze or a rehearsal. Everything was thawed.
    #[error("freezing {} took longer than {} ms", list(mount_points), window.as_millis())]
    FreezeTimedOut {
        /// Those that had not answered.
        mount_points: Vec<PathBuf>,
        /// What was allowed.
        window: Duration,
    },
    /// `syncfs` failed.
    #[error("{} could not be flushed", mount_point.display())]
    SyncFailed {
        /// Which.
        mount_point: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// `syncfs` has not returned in time. It goes on in the kernel; nothing waits for it.
    #[error("flushing {} took longer than {} ms", list(mount_points), budget.as_millis())]
    SyncTimedOut {
        /// Which.
        mount_points: Vec<PathBuf>,
        /// What was allowed.
        budget: Duration,
    },
    /// An earlier flush or freeze has not returned yet.
    #[error("an earlier flush or freeze of {} has not ended yet", list(mount_points))]
    Busy {
        /// Which.
        mount_points: Vec<PathBuf>,
    },
    /// The mount point cannot be opened.
    #[error("{} cannot be opened", mount_point.display())]
    Open {
        /// Which.
        mount_point: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Something else is mounted there than what was planned.
    #[error("the mount at {} is another one than planned (id {found}, planned {planned})", mount_point.display())]
    MountChanged {
        /// Which.
        mount_point: PathBuf,
        /// The id in the plan.
        planned: u64,
        /// The id that is there.
        found: u64,
    },
    /// The journal would be on a file system that is to be frozen.
    #[error("the journal in {} is on {}, which is to be frozen", run_dir.display(), mount_point.display())]
    JournalOnPlannedFileSystem {
        /// Where the journal is.
        run_dir: PathBuf,
        /// The planned file system.
        mount_point: PathBuf,
    },
    /// The journal cannot be written; so nothing is frozen.
    #[error("the journal cannot be written")]
    Journal(#[from] JournalError),
    /// The guard could not write the journal; so nothing is frozen.
    #[error("the guard cannot write the journal: {detail}")]
    GuardJournal {
        /// What it said.
        detail: String,
    },
    /// The program's `main` has not called [`crate::guard::enter`]: started again as a guard, it
    /// would do its own work a second time.
    #[error("this program cannot be its own guard: its main does not call guard::enter()")]
    EnterNotCalled,
    /// Guard or sentinel could not be started.
    #[error("the {process} could not be started")]
    Start {
        /// Which of them.
        process: Peer,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Guard or sentinel was started and did not say that it is armed.
    #[error("the {process} does not say that it is armed: {detail}")]
    NotArmed {
        /// Which of them.
        process: Peer,
        /// What it did instead.
        detail: String,
    },
    /// The sentinel cannot leave the agent's cgroup: one kill of that cgroup would end all that could
    /// thaw. So nothing is frozen.
    #[error(
        "the sentinel cannot leave this process's cgroup, and would be killed with it ({detail})"
    )]
    SharedCgroup {
        /// Why it cannot.
        detail: String,
    },
    /// The guard is gone or does not answer. Everything was thawed.
    #[error("the guard process was lost")]
    GuardLost,
    /// The sentinel is gone or does not answer. Everything was thawed.
    #[error("the sentinel process was lost")]
    SentinelLost,
    /// The guard said something that makes no sense.
    #[error("the guard process failed: {detail}")]
    Protocol {
        /// What it said.
        detail: String,
    },
    /// One or more file systems could not be thawed, or are not known to be.
    #[error("{} may still be frozen", list(mount_points))]
    NotThawed {
        /// Which.
        mount_points: Vec<PathBuf>,
    },
}

/// Which of the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The one that freezes and thaws.
    Guard,
    /// The one that watches the guard.
    Sentinel,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Peer::Guard => "guard process",
            Peer::Sentinel => "sentinel process",
        })
    }
}

impl GuardError {
    /// What the operator can do next, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::FrozenByOther { mount_point } => format!(
                "find who froze it (another backup tool, `fsfreeze -f`); if nobody did it on \
                 purpose: stillpoint thaw {}",
                mount_point.display()
            ),
            Self::NotSupported { mount_point, .. } => format!(
                "leave {} out of the snapshot, or accept it as not frozen (`accept-unfrozen`)",
                mount_point.display()
            ),
            Self::NotPermitted { .. } => "run as root, with CAP_SYS_ADMIN".to_owned(),
            Self::FreezeFailed { .. } | Self::SyncFailed { .. } => {
                "look at the kernel's log (`dmesg`) for errors of this file system".to_owned()
            }
            Self::FreezeTimedOut { .. } | Self::SyncTimedOut { .. } | Self::Busy { .. } => {
                "look for much dirty data (`grep Dirty /proc/meminfo`) or slow storage (`dmesg`), \
                 or allow more time"
                    .to_owned()
            }
            Self::SharedCgroup { .. } => "start the service that stays outside \
                 (`systemctl enable --now stillpoint-sentinel`), or mount the cgroup file system \
                 writable for this process"
                .to_owned(),
            Self::EnterNotCalled => {
                "call stillpoint::guard::enter() first thing in main".to_owned()
            }
            Self::MountChanged { .. } => "run it again: it plans anew".to_owned(),
            Self::JournalOnPlannedFileSystem { run_dir, .. } => {
                format!("mount a tmpfs at {}, or at /run", run_dir.display())
            }
            Self::Journal(error) => return error.hint(),
            Self::NotThawed { mount_points } => format!(
                "stillpoint status shows what is frozen; then: stillpoint thaw {}",
                mount_points.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" ")
            ),
            Self::Start { .. } | Self::NotArmed { .. } => {
                "look for what ended or hindered it: memory, open files and processes \
                 (`ulimit -a`, `dmesg`); then run again"
                    .to_owned()
            }
            Self::GuardLost | Self::SentinelLost => {
                "see who killed it (`dmesg` shows the out-of-memory killer), then run again"
                    .to_owned()
            }
            _ => return None,
        })
    }

    /// The exit code that this leads to.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::FrozenByOther { .. }
            | Self::NotPermitted { .. }
            | Self::JournalOnPlannedFileSystem { .. }
            | Self::Start { .. }
            | Self::SharedCgroup { .. }
            | Self::NotArmed { .. } => ExitCode::Precondition,
            Self::Journal(JournalError::RunInProgress { .. }) => ExitCode::InProgress,
            Self::Journal(_) | Self::GuardJournal { .. } => ExitCode::Precondition,
            Self::NotThawed { .. } => ExitCode::CannotThaw,
            _ => ExitCode::CannotFreeze,
        }
    }
}

fn list(mount_points: &[impl AsRef<Path>]) -> String {
    let names: Vec<_> =
        mount_points.iter().map(|path| path.as_ref().display().to_string()).collect();
    if names.is_empty() { "the file systems".to_owned() } else { names.join(", ") }
}
