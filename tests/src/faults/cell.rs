//! One cell of the matrix: a fault, the step at which it happens, and the file systems.

use std::fmt;

use nix::sys::signal::Signal;
use serde::Serialize;

use super::processes::Who;
use crate::lab::FsType;

/// The file systems of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Their type.
    pub fs_type: FsType,
    /// How many.
    pub count: usize,
    /// A MariaDB, with its data on ext4 and its binary log on XFS, and the hook for it.
    pub server: bool,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.server {
            return f.write_str("mariadb");
        }
        write!(f, "{}x{}", self.fs_type.name(), self.count)
    }
}

/// What the process that reaches a place does to itself: actions of failpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Own {
    /// SIGKILL for itself.
    Kill,
    /// SIGSTOP for itself.
    Stop,
    /// A segmentation fault.
    Segv,
    /// `abort(3)`.
    Abort,
    /// A panic of the thread.
    Panic,
    /// The end of the process.
    Exit,
    /// Waits for ever.
    Deadlock,
    /// Computes for ever.
    Spin,
    /// Uses memory until the kernel ends somebody in its cgroup.
    Oom,
    /// Sleeps for 400 ms.
    Late,
}

impl Own {
    /// All of them.
    pub const ALL: [Own; 10] = [
        Own::Kill,
        Own::Stop,
        Own::Segv,
        Own::Abort,
        Own::Panic,
        Own::Exit,
        Own::Deadlock,
        Own::Spin,
        Own::Oom,
        Own::Late,
    ];

    /// As `STILLPOINT_FAILPOINTS` has it.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Own::Kill => "kill",
            Own::Stop => "stop",
            Own::Segv => "segv",
            Own::Abort => "abort",
            Own::Panic => "panic",
            Own::Exit => "exit",
            Own::Deadlock => "deadlock",
            Own::Spin => "spin",
            Own::Oom => "oom",
            Own::Late => "late(400)",
        }
    }

    /// It does not go on by itself, and does not end.
    #[must_use]
    pub fn sticks(self) -> bool {
        matches!(self, Own::Stop | Own::Deadlock | Own::Spin)
    }

    /// The whole process ends, whichever thread it is.
    #[must_use]
    pub fn ends(self) -> bool {
        matches!(self, Own::Kill | Own::Segv | Own::Abort | Own::Exit)
    }
}

/// What somebody else does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// `fsfreeze -f` before the run.
    FrozenBefore,
    /// `fsfreeze -f` between rehearsal and freeze.
    FrozenByOther,
    /// `fsfreeze -u` in the window.
    ThawedByOther,
    /// `umount -l` in the window; mounted again afterwards.
    LazyUnmount,
    /// `mount -o remount,ro` in the window.
    RemountReadOnly,
    /// The hook's sessions are ended on the server.
    SessionsCut,
    /// A write that is in flight for 2.5 s: the rehearsal's FIFREEZE waits for it.
    WriteInFlightEarly,
    /// The same in the freeze itself.
    WriteInFlight,
    /// The same, and agent and sentinel are killed meanwhile: only the guard is left.
    WriteInFlightAlone,
    /// The file system under the images is frozen for 2.5 s: FIFREEZE hangs in its flush.
    OuterFrozen,
    /// 48 MiB of dirty data in each, and a writer that goes on.
    DirtyData,
    /// A thread for each that writes, truncates, makes and removes files.
    Writers,
    /// A thread for each that writes to pages of a mapped file: it waits in a page fault.
    MappedWriters,
    /// The journal's tmpfs is full.
    JournalFull,
    /// The disk of what hooks keep and of what is installed is full.
    StateFull,
    /// For 2.5 s, all of the run's cgroup has one part in a thousand of one processor.
    Starved,
    /// For 2.5 s, the run's cgroup is frozen, as a container's is that is paused.
    CgroupFrozen,
    /// As many descriptors as this.
    Descriptors(u32),
    /// As much address space as this, in MiB.
    AddressSpace(u32),
    /// The agent's cgroup may use this much memory, in MiB.
    Memory(u32),
}

/// How a hook of a component misbehaves, and in which phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookFault {
    /// As its settings name it.
    pub phase: &'static str,
    /// A command of the hook `puppet`.
    pub command: &'static str,
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of the process itself.
    Own(Own),
    /// From outside, while it pauses.
    Signal(Vec<Who>, Signal),
    /// `cgroup.kill` of the cgroup in which the run was started.
    CgroupKill,
    /// An error at the place, this many times; 0: always.
    Error(&'static str, u32),
    /// Somebody else.
    World(World),
    /// A hook.
    Hook(HookFault),
    /// The legacy scripts: a name, the pre-freeze script and the post-thaw script.
    Script(&'static str, &'static str, &'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Own(own) => f.write_str(own.action().split('(').next().unwrap_or_default()),
            Fault::Signal(whom, signal) => {
                let names: Vec<_> = whom.iter().map(|who| who.name()).collect();
                write!(f, "{}-{}", signal.as_str().to_lowercase(), names.join("+"))
            }
            Fault::CgroupKill => f.write_str("cgroup.kill"),
            Fault::Error(errno, 0) => write!(f, "{errno}-always"),
            Fault::Error(errno, times) => write!(f, "{errno}-{times}"),
            Fault::World(world) => {
                let text = format!("{world:?}");
                f.write_str(&text.replace(['(', ')'], "-").trim_end_matches('-').to_lowercase())
            }
            Fault::Hook(hook) => {
                let word = hook.command.split(' ').next().unwrap_or_default();
                write!(f, "hook-{}-{word}", hook.phase)
            }
            Fault::Script(name, _, _) => write!(f, "script-{name}"),
        }
    }
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// On which file systems.
    pub kind: Kind,
    /// A place of `failpoint::ALL`; empty if the fault needs none.
    pub place: &'static str,
    /// The how manieth time that the place is reached.
    pub nth: usize,
    /// What happens there.
    pub fault: Fault,
}

impl Cell {
    /// Its name, which is the same in every run.
    #[must_use]
    pub fn id(&self) -> String {
        let nth = if self.nth > 1 { format!("@{}", self.nth) } else { String::new() };
        let place = if self.place.is_empty() { "run" } else { self.place };
        format!("{}/{place}{nth}/{}", self.kind, self.fault)
    }

    /// The fault kills these from outside, or is the end of the process at the place.
    #[must_use]
    pub fn victims(&self) -> Vec<Who> {
        match &self.fault {
            Fault::Own(own) if own.ends() => vec![Who::of(self.place)],
            Fault::Signal(whom, Signal::SIGKILL) => whom.clone(),
            Fault::CgroupKill => vec![Who::Agent, Who::Guard],
            _ => Vec::new(),
        }
    }

    /// The place is reached while file systems are frozen, before the point in time is fixed.
    #[must_use]
    pub fn is_in_window(&self) -> bool {
        matches!(
            self.place,
            "agent.freeze.after"
                | "agent.snapshot.before"
                | "guard.freeze.before"
                | "guard.freeze.after"
        )
    }
}
