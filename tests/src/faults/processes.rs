//! The three processes of a run, found and signalled from outside.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::Value;

use crate::writers::now_ns;

/// How often to look.
const LOOK: Duration = Duration::from_micros(200);

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// `stillpoint snapshot`.
    Agent,
    /// The process that freezes.
    Guard,
    /// The process that watches the guard.
    Sentinel,
}

impl Who {
    /// As in the names of failpoints.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Who::Agent => "agent",
            Who::Guard => "guard",
            Who::Sentinel => "sentinel",
        }
    }

    /// Of a failpoint.
    #[must_use]
    pub fn of(place: &str) -> Self {
        match place.split('.').next() {
            Some("guard") => Who::Guard,
            Some("sentinel") => Who::Sentinel,
            _ => Who::Agent,
        }
    }
}

/// A process whose end is waited for, told from a later one of its number by when it was started.
#[derive(Debug)]
pub struct Process {
    /// Which.
    pub who: Who,
    /// Its number.
    pub pid: u32,
    started: u64,
}

impl Process {
    /// The process of this number, if it is there.
    #[must_use]
    pub fn new(who: Who, pid: u32) -> Option<Self> {
        Some(Self { who, pid, started: stat(pid)?.1 })
    }

    /// Sends it a signal, if it is there.
    pub fn signal(&self, signal: Signal) {
        if !self.is_gone() {
            let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
        }
    }

    /// All its threads have ended: no call of it is in the kernel any more. A first thread that has
    /// ended and others that have not look like a zombie with tasks.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match stat(self.pid) {
            Some((state, started)) if started == self.started => {
                let tasks =
                    || fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count);
                matches!(state, 'Z' | 'X') && tasks() <= 1
            }
            _ => true,
        }
    }

    /// When it was last seen, if it is gone within `limit`.
    #[must_use]
    pub fn gone_within(&self, limit: Duration) -> Option<u64> {
        let until = Instant::now() + limit;
        let mut seen = now_ns();
        while !self.is_gone() {
            if Instant::now() >= until {
                return None;
            }
            seen = now_ns();
            std::thread::sleep(LOOK);
        }
        Some(seen)
    }

    /// Stops it and waits until it is: a thread in the kernel finishes its call first.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(200) && !self.is_gone() {
            if state(self.pid) == 'T' {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// State and start time of a process.
fn stat(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(") ").next()?.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Waits until all of these are gone; when the last of them was there for the last time.
#[must_use]
pub fn all_gone(processes: &[&Process], limit: Duration) -> Option<u64> {
    let until = Instant::now() + limit;
    let mut last = 0;
    for process in processes {
        last = last.max(process.gone_within(until.saturating_duration_since(Instant::now()))?);
    }
    Some(last)
}

/// Guard and sentinel of an agent: as the journal names them, else among the agent's children.
#[must_use]
pub fn peers(agent: u32, run_dir: &Path) -> Vec<Process> {
    let journal = fs::read(run_dir.join("freeze.json")).unwrap_or_default();
    let journal: Value = serde_json::from_slice(&journal).unwrap_or(Value::Null);
    let ours = journal.pointer("/agent/pid").and_then(Value::as_u64) == Some(u64::from(agent));
    let of_journal = |who: Who| {
        let pid = journal.pointer(&format!("/{}/pid", who.name()))?.as_u64().filter(|_| ours)?;
        u32::try_from(pid).ok()
    };
    let of_children = |who: Who| {
        let name = format!("stillpoint-{}", who.name());
        children(agent).into_iter().find(|pid| argv0(*pid) == name)
    };
    [Who::Guard, Who::Sentinel]
        .into_iter()
        .filter_map(|who| Process::new(who, of_journal(who).or_else(|| of_children(who))?))
        .collect()
}

fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split(' ').filter_map(|p| p.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn argv0(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Processes of the program under test that belong to a lab: by what they have open, for guard and
/// sentinel have no environment. With their state, `D` among others.
#[must_use]
pub fn left(lab: &Path, program: &Path) -> Vec<(u32, String, char)> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
            && (has_open(*pid, lab) || marked(*pid, lab))
    })
    .map(|pid| (pid, argv0(pid), state(pid)))
    .collect()
}

/// A thread of it waits in the kernel, uninterruptibly.
#[must_use]
pub fn hangs(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.any(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('D')))
}

/// Guards of other programs on this machine are at work.
#[must_use]
pub fn others_run(lab: &Path) -> bool {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.any(|pid| argv0(pid) == "stillpoint-guard" && !has_open(pid, lab))
}

fn has_open(pid: u32, lab: &Path) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|path| path.starts_with(lab))
}

fn marked(pid: u32, lab: &Path) -> bool {
    let marker = format!("{}={}", crate::command::LAB_VARIABLE, lab.display());
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|all| all.split(|byte| *byte == 0).any(|word| word == marker.as_bytes()))
}

fn state(pid: u32) -> char {
    stat(pid).map_or('X', |(state, _)| state)
}
