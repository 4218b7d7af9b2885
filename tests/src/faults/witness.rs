//! The oracle: a process outside all cgroups of the program under test, started before it, that writes
//! to every file system and knows when each write began and returned. It also asks the probe, which
//! changes nothing, and the kernel's table of mounts.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use stillpoint::freeze::{ProbeState, probe};

use crate::writers::now_ns;

/// Between two writes to one file system, if it is alone.
const PAUSE: Duration = Duration::from_micros(500);
/// Writes that are remembered for each file system.
const MEMORY: usize = 100_000;
/// A writer that has not come back for this long, in ns, is blocked and not only slow.
const NO_WRITE: u64 = 1_000_000_000;
/// The file that is written to.
const FILE: &str = "witness";

/// What the oracle is asked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Question {
    /// Forget everything before now.
    Begin,
    /// Wait until every file system was written to after this moment, at most until `until_ns`.
    After {
        /// The moment, on `CLOCK_MONOTONIC`.
        since_ns: u64,
        /// When to give up.
        until_ns: u64,
    },
    /// Everything that is known, and what was written between these moments.
    All {
        /// The snapshot's request was sent.
        sent_ns: u64,
        /// Its point in time was fixed.
        fixed_ns: u64,
    },
}

/// What the oracle knows of one file system.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Testimony {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// When the first write returned that returned after the moment asked for; none if none did.
    pub wrote_at_ns: Option<u64>,
    /// The longest time that a write took, or has taken so far.
    pub longest_ns: u64,
    /// Writes that began and returned while the snapshot was being made: it was not frozen then.
    pub writes_inside: usize,
    /// The probe says that it is frozen.
    pub frozen: bool,
    /// The super options say that it is read-only.
    pub read_only: bool,
    /// It is mounted.
    pub mounted: bool,
    /// A write failed.
    pub error: Option<String>,
}

/// The harness's end.
#[derive(Debug)]
pub struct Witness {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Witness {
    /// Starts it: `program` is one whose `main` calls [`serve`].
    ///
    /// # Errors
    /// If it does not begin to write.
    pub fn start(program: &Path, lab: &Path, mounts: &[PathBuf]) -> Result<Self> {
        let mut command = crate::command::of_lab(program, lab);
        command.arg("witness").args(mounts).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the oracle")?;
        let questions = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut witness = Self { child, questions, answers };
        witness.ask(Question::Begin)?;
        Ok(witness)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// If it is gone.
    pub fn ask(&mut self, question: Question) -> Result<Vec<Testimony>> {
        let pipe = self.questions.as_mut().context("it was stopped")?;
        writeln!(pipe, "{}", serde_json::to_string(&question)?)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the oracle said {line:?}"))
    }

    /// Ends it; its writers hold nothing open any more then.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(mut self) -> Result<()> {
        drop(self.questions.take());
        self.child.wait().context("the oracle")?;
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Log {
    writes: VecDeque<(u64, u64)>,
    began_ns: Option<u64>,
    error: Option<String>,
}

/// The oracle's own program: writes until its standard input ends.
///
/// # Errors
/// If a file cannot be made, or nobody listens.
pub fn serve(mounts: &[PathBuf]) -> Result<()> {
    enter_own_cgroup();
    let pause = PAUSE * u32::try_from(mounts.len()).unwrap_or(1);
    let mut logs = Vec::new();
    for mount in mounts {
        let path = mount.join(FILE);
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        let log = Arc::new(Mutex::new(Log::default()));
        logs.push(Arc::clone(&log));
        std::thread::spawn(move || write_on(&file, &log, pause));
    }
    let mut output = std::io::stdout();
    for line in std::io::stdin().lines() {
        let answer = answer(serde_json::from_str(&line?)?, mounts, &logs);
        writeln!(output, "{}", serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

/// Where there is cgroup2: whatever is done to the cgroup of the harness does not reach it.
fn enter_own_cgroup() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let unified = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let Some(root) = unified.and_then(|line| line.split(' ').nth(1)) else { return };
    let cgroup = Path::new(root).join("faults-oracle");
    let _ = fs::create_dir(&cgroup);
    let _ = fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string());
}

fn write_on(file: &File, log: &Mutex<Log>, pause: Duration) {
    let mut block = [0_u8; 4096];
    for number in 0_u64.. {
        block[..8].copy_from_slice(&number.to_le_bytes());
        let began = now_ns();
        lock(log).began_ns = Some(began);
        let result = file.write_at(&block, 0);
        let ended = now_ns();
        let mut log = lock(log);
        log.began_ns = None;
        match result {
            Ok(_) => log.writes.push_back((began, ended)),
            Err(error) => log.error = Some(error.to_string()),
        }
        if log.writes.len() > MEMORY {
            log.writes.pop_front();
        }
        drop(log);
        std::thread::sleep(pause);
    }
}

fn lock(log: &Mutex<Log>) -> std::sync::MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(question: Question, mounts: &[PathBuf], logs: &[Arc<Mutex<Log>>]) -> Vec<Testimony> {
    match question {
        Question::Begin => {
            for log in logs {
                let mut log = lock(log);
                log.writes.clear();
                log.error = None;
            }
            Vec::new()
        }
        Question::After { since_ns, until_ns } => {
            let wrote = |log: &Arc<Mutex<Log>>| first_after(&lock(log), since_ns);
            while now_ns() < until_ns && !logs.iter().all(|log| wrote(log).is_some()) {
                std::thread::sleep(Duration::from_micros(500));
            }
            let of = |(mount, log): (&PathBuf, &Arc<Mutex<Log>>)| Testimony {
                mount: mount.clone(),
                wrote_at_ns: wrote(log),
                ..Testimony::default()
            };
            mounts.iter().zip(logs).map(of).collect()
        }
        Question::All { sent_ns, fixed_ns } => {
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let of = |(mount, log): (&PathBuf, &Arc<Mutex<Log>>)| {
                let frozen = is_frozen(mount, log);
                let log = lock(log);
                let under_way = log.began_ns.map(|began| (began, now_ns()));
                let all = log.writes.iter().copied().chain(under_way);
                let inside = |(began, ended): &&(u64, u64)| *began > sent_ns && *ended < fixed_ns;
                let line = table.lines().find(|line| line.split(' ').nth(4) == mount.to_str());
                Testimony {
                    mount: mount.clone(),
                    wrote_at_ns: log.writes.back().map(|(_, ended)| *ended),
                    longest_ns: all
                        .map(|(began, ended)| ended.saturating_sub(began))
                        .max()
                        .unwrap_or(0),
                    writes_inside: log.writes.iter().filter(inside).count(),
                    frozen,
                    read_only: line.is_some_and(says_read_only),
                    mounted: line.is_some(),
                    error: log.error.clone(),
                }
            };
            mounts.iter().zip(logs).map(of).collect()
        }
    }
}

/// The probe says so, and no write returns. The probe alone could be wrong on a machine that is so busy
/// that our own writer is held up while it has the file's lock.
fn is_frozen(mount: &Path, log: &Mutex<Log>) -> bool {
    if !probe(mount).is_ok_and(|probe| probe.state == ProbeState::Frozen) {
        return false;
    }
    let asked = now_ns();
    while now_ns() < asked + NO_WRITE {
        if first_after(&lock(log), asked).is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

fn first_after(log: &Log, since_ns: u64) -> Option<u64> {
    let first = log.writes.partition_point(|(_, ended)| *ended < since_ns);
    log.writes.get(first).map(|(_, ended)| *ended)
}

/// The options of the superblock, after ` - `: those of the mount still say `rw` when a file system
/// was forced read-only.
fn says_read_only(line: &str) -> bool {
    let options = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(2));
    options.is_some_and(|options| options.split(',').any(|option| option == "ro"))
}

#[cfg(test)]
mod tests {
    use super::{Log, first_after, says_read_only};

    #[test]
    fn the_first_write_that_returned_after_a_moment_counts_whenever_it_began() {
        let log = Log { writes: [(1, 2), (3, 9), (10, 11)].into(), ..Log::default() };
        assert_eq!(first_after(&log, 5), Some(9));
        assert_eq!(first_after(&log, 12), None);
    }

    #[test]
    fn read_only_is_what_the_superblock_says() {
        assert!(says_read_only("1 2 7:1 / /m rw,relatime - btrfs /dev/loop1 ro,space_cache"));
        assert!(!says_read_only("1 2 7:1 / /m ro,relatime - ext4 /dev/loop1 rw,errors=ro"));
    }
}
