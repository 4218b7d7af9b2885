//! Why there is no plan.

use std::io;
use std::path::PathBuf;

use super::mounts::MountInfoError;
use crate::exit_code::ExitCode;

/// Why there is no plan, or why it does not hold any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// `/proc/self/mountinfo` is not as the kernel writes it.
    #[error("cannot understand the mount table")]
    MountInfo(#[from] MountInfoError),
    /// Something under `/proc` or `/sys` cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The provider lists no disk.
    #[error("the provider lists no disk of this instance")]
    NoDisks,
    /// All disks of the provider are excluded.
    #[error("every disk that was selected is excluded ({})", excluded.join(", "))]
    AllExcluded {
        /// The exclusions.
        excluded: Vec<String>,
    },
    /// A selected or excluded disk is none of the provider's.
    #[error("{setting}: \"{asked}\" is none of the provider's disks ({})", list(known))]
    UnknownDisk {
        /// The setting that names it.
        setting: &'static str,
        /// The name.
        asked: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A selected path is not a mount point.
    #[error(
        "{} is not a mount point{}; mounted on the provider's disks: {}",
        asked.display(), on(nearest.as_ref()), list(known)
    )]
    NotAMountPoint {
        /// The path.
        asked: PathBuf,
        /// The mount point of the file system that it is on.
        nearest: Option<PathBuf>,
        /// What there is.
        known: Vec<String>,
    },
    /// A selected mount is on no disk of the provider.
    #[error(
        "{} lies on {}, which the provider cannot snapshot; mounted on the provider's disks: {}",
        mount_point.display(), lies_on, list(known)
    )]
    OnNoDisk {
        /// The mount.
        mount_point: PathBuf,
        /// What it lies on.
        lies_on: String,
        /// What there is.
        known: Vec<String>,
    },
    /// File systems and devices lie on each other in a ring: there is no order to freeze them in.
    #[error("storage lies on itself: {}", chain.join(" on "))]
    Cycle {
        /// The ring; the last is the first.
        chain: Vec<String>,
    },
    /// Something that must be written in the window is on a file system that would be frozen.
    #[error(
        "{} ({what}) is on {}, which would be frozen",
        path.display(), mount_point.display()
    )]
    Protected {
        /// What must stay writable.
        path: PathBuf,
        /// Why.
        what: String,
        /// The mount that would be frozen.
        mount_point: PathBuf,
    },
    /// The path of a question is not absolute, or its links lead nowhere.
    #[error("cannot tell which file system {} is on: {why}", path.display())]
    NoOwner {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The machine is not any more as it was when the plan was made.
    #[error("mounts or disks have changed since the plan was made: {what}")]
    Changed {
        /// What is different.
        what: String,
    },
}

impl PlanError {
    /// The exit code that this leads to.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            PlanError::MountInfo(_) | PlanError::Read { .. } => ExitCode::Unknown,
            PlanError::NoDisks | PlanError::AllExcluded { .. } | PlanError::OnNoDisk { .. } => {
                ExitCode::NoUsableDisk
            }
            PlanError::UnknownDisk { .. } | PlanError::NotAMountPoint { .. } => {
                ExitCode::Parameters
            }
            PlanError::Cycle { .. }
            | PlanError::Protected { .. }
            | PlanError::NoOwner { .. }
            | PlanError::Changed { .. } => ExitCode::Precondition,
        }
    }

    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            PlanError::MountInfo(_) => "please report it with the line: it is a bug of stillpoint",
            PlanError::Read { .. } => "is /proc or /sys mounted, and is this run as root?",
            PlanError::NoDisks => {
                "attach a disk that the provider can snapshot, or choose another provider"
            }
            PlanError::AllExcluded { .. } => "exclude fewer disks, or select others",
            PlanError::UnknownDisk { .. } => {
                "use an id or a device node of the list; `stillpoint plan` without a selection \
                 shows all of them"
            }
            PlanError::NotAMountPoint { .. } => {
                "name the mount point itself, as `findmnt` shows it"
            }
            PlanError::OnNoDisk { .. } => {
                "select another mount, or a provider that serves this disk"
            }
            PlanError::Cycle { .. } => {
                "detach one loop device of the ring: it cannot be frozen safely, nor restored"
            }
            PlanError::Protected { .. } => {
                "move it to another file system (a tmpfs, say), or leave that disk out of the \
                 snapshot"
            }
            PlanError::NoOwner { .. } => "give an absolute path that exists",
            PlanError::Changed { .. } => {
                "nothing was frozen; run again when mounts and disks are at rest"
            }
        };
        Some(hint.to_owned())
    }
}

fn list(known: &[String]) -> String {
    if known.is_empty() { "there are none".to_owned() } else { known.join(", ") }
}

fn on(nearest: Option<&PathBuf>) -> String {
    nearest.map(|path| format!(" (it is on {})", path.display())).unwrap_or_default()
}
