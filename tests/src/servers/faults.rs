//! What can happen to a database while it is being snapshotted, and where: the lists from which the
//! fault suite is generated, and what a run may come to in each cell.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::signal::Signal;

use crate::lab::{FILLER, Lab};

use super::{Database, Held, Kind};

/// A phase of a hook's life, by what is held in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Before the hook has looked at its application.
    Prepare,
    /// The hook has looked, and is about to quiesce.
    PreFreeze,
    /// File systems are frozen.
    Window,
    /// They run again, and the hook has not proved anything yet.
    Confirm,
    /// All is proved, and nothing is released yet.
    PostThaw,
}

impl Phase {
    /// All, in their order.
    pub const ALL: [Self; 5] =
        [Self::Prepare, Self::PreFreeze, Self::Window, Self::Confirm, Self::PostThaw];

    /// Where the run waits for the fault.
    #[must_use]
    pub fn place(self) -> &'static str {
        match self {
            Self::Prepare => "agent.prepare.before",
            Self::PreFreeze => "agent.quiesce.before",
            Self::Window => "agent.freeze.after",
            Self::Confirm => "agent.thaw.after",
            Self::PostThaw => "agent.release.before",
        }
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL for all of the server's processes.
    Killed,
    /// The same, and it is there again before the run goes on.
    Restarted,
    /// The server ends the hook's sessions.
    Cut,
    /// SIGSTOP for all of its processes, to the end of the run.
    Stopped,
    /// The hook's account loses its privileges.
    Privileges,
    /// A transaction that has written is open.
    LongTransaction,
    /// A statement, a lock or a save is in the way.
    Blocked,
    /// The server's file systems are full.
    DiskFull,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Killed,
        Self::Restarted,
        Self::Cut,
        Self::Stopped,
        Self::Privileges,
        Self::LongTransaction,
        Self::Blocked,
        Self::DiskFull,
    ];

    /// A server cannot start, and nothing can be written, while its file systems are frozen; and who
    /// takes privileges away has to write, which MariaDB's lock and every freeze stop.
    #[must_use]
    pub fn is_possible(self, kind: Kind, phase: Phase) -> bool {
        let held = matches!(phase, Phase::Window | Phase::Confirm | Phase::PostThaw);
        match self {
            Self::Restarted | Self::DiskFull => phase != Phase::Window,
            Self::Privileges => match kind.hook() {
                "mysql" => !held,
                "postgresql" => phase != Phase::Window,
                _ => true,
            },
            _ => true,
        }
    }
}

/// What a run must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Exit code 9, and no group.
    NoSnapshot,
    /// A group of a lower level, with the reason.
    Lowered,
    /// The level `application`: the fault came too late, or does no harm.
    Application,
    /// Any of these, as long as it is true: what is called `application` is proved by its copy.
    Truth,
}

/// What a run must come to in this cell.
#[must_use]
pub fn expected(kind: Kind, fault: Fault, phase: Phase) -> Expected {
    use {Expected as E, Fault as F, Phase as P};
    let hook = kind.hook();
    let (mariadb, redis, postgresql) = (hook == "mysql", hook == "redis", hook == "postgresql");
    let backup = kind == Kind::PostgreSqlBackup;
    match (fault, phase) {
        (F::Killed | F::Stopped, P::Prepare | P::PreFreeze) => E::NoSnapshot,
        (F::Killed | F::Stopped | F::Restarted, P::Window | P::Confirm) => E::Lowered,
        // All is proved: what comes then is of no matter to the snapshot.
        (F::Killed | F::Stopped | F::Restarted | F::Cut | F::Privileges, P::PostThaw) => {
            E::Application
        }
        (F::LongTransaction | F::Blocked | F::DiskFull, P::PostThaw) => E::Application,
        // Nobody is connected yet.
        (F::Restarted | F::Cut, P::Prepare) => E::Application,
        // Nothing is held yet, and a new session does as well.
        (F::Cut, P::PreFreeze) => E::Application,
        // It is another server than the one that was looked at.
        (F::Restarted, P::PreFreeze) if postgresql => E::NoSnapshot,
        // A pause is tied to no session; a lock, and the proof of one server, are.
        (F::Cut, P::Window | P::Confirm) if redis => E::Application,
        (F::Cut, P::Window | P::Confirm) => E::Lowered,
        (F::Privileges, P::Prepare) => E::NoSnapshot,
        // PostgreSQL's second checkpoint is asked for only if there is much to redo.
        (F::Privileges, P::PreFreeze) if mariadb || redis || backup => E::NoSnapshot,
        (F::Privileges, P::Window | P::Confirm) if redis || backup => E::Lowered,
        (F::Privileges, P::Confirm) if postgresql => E::Application,
        (F::LongTransaction, P::Prepare | P::PreFreeze) if mariadb => E::NoSnapshot,
        (F::LongTransaction, _) => E::Application,
        (F::Blocked, P::Prepare | P::PreFreeze) if mariadb || redis => E::NoSnapshot,
        (F::Blocked, P::Window | P::Confirm) if mariadb => E::Application,
        _ => E::Truth,
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "server killed",
            Self::Restarted => "server restarted",
            Self::Cut => "connection cut",
            Self::Stopped => "server stopped",
            Self::Privileges => "privilege missing",
            Self::LongTransaction => "long transaction",
            Self::Blocked => "lock wait",
            Self::DiskFull => "disk full",
        })
    }
}

/// A fault that has happened, with what undoes it.
#[derive(Debug)]
pub struct Happened {
    fault: Fault,
    phase: Phase,
    held: Option<Held>,
    fillers: Vec<PathBuf>,
}

impl Happened {
    /// Has it happen.
    ///
    /// # Errors
    /// If it cannot be done.
    pub async fn now(
        (fault, phase): (Fault, Phase),
        database: &mut dyn Database,
        lab: &Lab,
    ) -> Result<Self> {
        let mut happened = Self { fault, phase, held: None, fillers: Vec::new() };
        match fault {
            // Nobody dies who waits for a frozen file system.
            Fault::Killed if phase == Phase::Window => database.strike()?,
            Fault::Killed => database.kill()?,
            Fault::Restarted => {
                database.kill()?;
                database.start(lab)?;
            }
            Fault::Cut => {
                database.cut_connections_of_hook().await?;
            }
            Fault::Stopped => database.signal(Signal::SIGSTOP)?,
            Fault::Privileges => database.set_privileges(false).await?,
            Fault::LongTransaction => happened.held = Some(database.hold_transaction().await?),
            Fault::Blocked => happened.held = Some(database.block().await?),
            Fault::DiskFull => {
                for fs in lab.file_systems() {
                    happened.fillers.push(fill(&fs.mount)?);
                }
            }
        }
        Ok(happened)
    }

    /// Undoes it; then the server is as it was.
    ///
    /// # Errors
    /// If that fails.
    pub async fn undo(mut self, database: &mut dyn Database, lab: &Lab) -> Result<()> {
        let held = self.held.take().is_some();
        for filler in self.fillers.drain(..) {
            std::fs::remove_file(filler)?;
        }
        match self.fault {
            Fault::Killed if self.phase == Phase::Window => {
                database.kill()?;
                database.start(lab)?;
            }
            Fault::Killed => database.start(lab)?,
            // It may have ended by itself, and one that waits for room looks again once a minute.
            Fault::DiskFull => {
                database.kill()?;
                database.start(lab)?;
            }
            Fault::Stopped => database.signal(Signal::SIGCONT)?,
            Fault::Privileges => database.set_privileges(true).await?,
            _ => {}
        }
        if held && self.fault == Fault::Blocked {
            database.unblock().await?;
        }
        Ok(())
    }
}

/// Takes all the room that there is, in a file of its own.
fn fill(mount: &Path) -> Result<PathBuf> {
    let path = mount.join(FILLER);
    let file = std::fs::File::create(&path).context("cannot make the filler")?;
    let mut length: i64 = 1 << 30;
    let mut offset = 0;
    while length >= 1 << 12 {
        match fallocate(&file, FallocateFlags::empty(), offset, length) {
            Ok(()) => offset += length,
            Err(_) => length /= 2,
        }
    }
    Ok(path)
}
