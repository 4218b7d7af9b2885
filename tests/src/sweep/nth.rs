//! The Nth system call of a run fails: once, or it and every later one of its kind, in whichever
//! process. N goes from 1 to the end, for the agent, the guard and the sentinel.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::calls::{self, FREEZE, Kind, THAW, kind_of};
use super::field::{Ending, Field, Ground, LIMIT, WINDOW};
use crate::random::Random;
use crate::sys_seccomp::{Call, Heard, Heed, Listener, start};
use crate::writers::now_ns;

/// How long a run with a fault may take: the longest of its deadlines, and what the agent grants a
/// guard beyond it.
const RUN_LIMIT: Duration = Duration::from_secs(40);
/// How long guard and sentinel go on being failed after the agent's end; then the trouble is over.
const TROUBLE_AFTER: Duration = Duration::from_millis(500);
/// No kind of call has more errors to fail with.
pub const ERRORS: usize = 4;
/// Calls of one kind that are all failed, while nothing is held.
const FIRST: usize = 5;
/// One in so many of the others.
const EVERY: usize = 100;
const TIDY_EVERY: usize = 25;
const LONGEST: Duration = Duration::from_secs(3 * 3600);

/// Whose calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `stillpoint snapshot`.
    Agent,
    /// Who freezes and thaws.
    Guard,
    /// Who watches the guard.
    Sentinel,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Guard, Self::Sentinel];

    /// By the name under which the thread's process was executed.
    #[must_use]
    pub fn of(tid: u32) -> Self {
        let line = fs::read(format!("/proc/{tid}/cmdline")).unwrap_or_default();
        match line.split(|byte| *byte == 0).next() {
            Some(b"stillpoint-guard") => Self::Guard,
            Some(b"stillpoint-sentinel") => Self::Sentinel,
            _ => Self::Agent,
        }
    }
}

/// Once, or from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// That call only.
    Once,
    /// That call and every later one of its kind, in every process.
    FromThenOn,
}

/// Which call fails, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Whose call.
    pub role: Role,
    /// Which one, from 1, of those that can fail.
    pub nth: usize,
    /// Once, or from then on.
    pub mode: Mode,
    /// Chooses among the errors of its kind.
    pub choice: usize,
}

impl Fault {
    /// Nobody is interrupted for ever: a call that goes on failing does so for another reason.
    fn error_of(self, kind: Kind) -> Option<i32> {
        let lasting = |errno: &&i32| self.mode == Mode::Once || **errno != nix::libc::EINTR;
        let errors: Vec<i32> = kind.errors.iter().filter(lasting).copied().collect();
        errors.get(self.choice % errors.len().max(1)).copied()
    }
}

/// What came of one fault.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which call was to fail.
    pub fault: Fault,
    /// What was failed; `None` if the run had fewer calls.
    pub failed: Option<(Kind, Errno)>,
    /// How many calls were failed in all.
    pub count: usize,
    /// In a word: `right`, `exit 11`, `SIGABRT`, `hangs`.
    pub end: String,
    /// What must not be so.
    pub violations: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { role, nth, mode, .. } = self.fault;
        write!(f, "{role:?} call {nth} {mode:?}: ")?;
        match self.failed {
            Some((kind, errno)) => write!(f, "{} fails with {errno:?}", kind.name)?,
            None => f.write_str("no such call")?,
        }
        write!(f, " ({} times): {}: {}", self.count, self.end, self.violations.join("; "))
    }
}

/// A call of a run in which nothing failed.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Whose.
    pub role: Role,
    /// Which one of its calls that can fail, from 1.
    pub nth: usize,
    /// Its kind.
    pub kind: Kind,
    /// The sentinel had been started: from here on something can be held.
    pub armed: bool,
}

/// So many mappings the dynamic loader makes before the program's first instruction (seen with strace): its
/// own, and those of libgcc, libm and libc.
const OF_THE_LOADER: usize = 16;

/// A lab in which system calls fail.
#[derive(Debug)]
pub struct Nth {
    field: Field,
    runs: usize,
}

/// Decides over each call of one run.
struct Decider {
    fault: Option<Fault>,
    roles: HashMap<u32, Role>,
    seen: BTreeMap<Role, usize>,
    /// What was called, where nothing is failed: the list from which the faults are made.
    calls: Vec<Counted>,
    armed: bool,
    failing: Option<(Kind, i32)>,
    failed: usize,
    /// From the agent's end on, a little later, everything works again.
    over: bool,
}

impl Decider {
    /// The error that this call fails with.
    fn decide(&mut self, call: &Call) -> Option<i32> {
        let role = *self.roles.entry(call.tid).or_insert_with(|| Role::of(call.tid));
        if call.number == nix::libc::SYS_execve {
            // After it, the thread may be another's.
            self.roles.remove(&call.tid);
        }
        let kind = kind_of(call.number, &call.arguments).filter(|kind| kind.can_fail(call))?;
        let seen = self.seen.entry(role).or_default();
        *seen += 1;
        if self.fault.is_none() {
            self.armed |= role == Role::Sentinel;
            self.calls.push(Counted { role, nth: *seen, kind, armed: self.armed });
        }
        let fault = self.fault.filter(|_| !self.over)?;
        if let Some((failing, errno)) = self.failing {
            let again = fault.mode == Mode::FromThenOn && failing == kind;
            self.failed += usize::from(again);
            return again.then_some(errno);
        }
        if fault.role != role || fault.nth != *seen {
            return None;
        }
        let errno = fault.error_of(kind)?;
        self.failing = Some((kind, errno));
        self.failed = 1;
        Some(errno)
    }
}

impl Nth {
    /// Makes the lab: ext4 and XFS, with a database where wanted.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(ground: Ground) -> Result<Self> {
        let field = Field::new(ground, LONGEST)?;
        Ok(Self { field, runs: 0 })
    }

    /// The calls that can fail, of a run that is left alone.
    ///
    /// # Errors
    /// If that run fails.
    pub fn count(&mut self) -> Result<Vec<Counted>> {
        let (ending, decider) = self.run(None)?;
        let ending = ending.context("the undisturbed run hangs")?;
        anyhow::ensure!(ending.status.success(), "undisturbed: {ending:?}");
        let left = self.field.left_by_a_run()?;
        anyhow::ensure!(left.is_empty(), "left by an undisturbed run: {left:?}");
        Ok(decider.calls)
    }

    /// One run with one fault.
    ///
    /// # Errors
    /// If the lab cannot be used any more.
    pub fn fail(&mut self, fault: Fault) -> Result<Outcome> {
        self.runs += 1;
        if self.runs.is_multiple_of(TIDY_EVERY) {
            self.field.tidy()?;
        }
        self.field.reset();
        let (ending, decider) = self.run(Some(fault))?;
        let failed = decider.failing.map(|(kind, errno)| (kind, Errno::from_raw(errno)));
        let mut violations = self.field.left_by_a_run()?;
        if fault.mode == Mode::FromThenOn {
            // Who can open nothing cannot leave its cgroup; the next run removes it.
            violations.retain(|left| !left.starts_with("cgroup "));
            // Who can remove no file cannot remove the journal. The next start does.
            let unlinks = failed.is_some_and(|(kind, _)| kind.name == "unlink");
            violations.retain(|left| !(unlinks && left.starts_with("journal ")));
        }
        let no_thaw =
            failed.is_some_and(|(kind, _)| kind == THAW) && fault.mode == Mode::FromThenOn;
        let longest = self.field.longest_write();
        if longest > WINDOW + LIMIT && !no_thaw {
            violations.push(format!("a write took {longest:?}"));
        }
        for recovery in self.field.recovery(now_ns())? {
            if !recovery.in_time() {
                violations.push(format!("{} writable after {:?}", recovery.name, recovery.after));
            }
        }
        let end = match &ending {
            None => {
                violations.push("the run hangs".to_owned());
                "hangs".to_owned()
            }
            Some(ending) => {
                violations.extend(untrue(ending, failed.map(|(kind, _)| kind)));
                describe(ending)
            }
        };
        Ok(Outcome { fault, failed, count: decider.failed, end, violations })
    }

    /// One run; `None` instead of its end if it hangs (it is killed then).
    fn run(&mut self, fault: Option<Fault>) -> Result<(Option<Ending>, Decider)> {
        let output = self.field.lab.scratch("output")?;
        let (stdout, stderr) = (output.join("stdout"), output.join("stderr"));
        let mut command = self.field.stillpoint.command(["--json", "snapshot", "--name", "nth"]);
        command.stdout(fs::File::create(&stdout)?).stderr(fs::File::create(&stderr)?);
        command.stdin(Stdio::null());
        let (listener, starting) = start(command, &Heed::Only(calls::numbers()))?;
        let mut decider = Decider {
            fault,
            roles: HashMap::new(),
            seen: BTreeMap::new(),
            calls: Vec::new(),
            armed: false,
            failing: None,
            failed: 0,
            over: false,
        };
        while !starting.is_over() {
            attend(&listener, &mut decider)?;
        }
        let Ok(mut child) = starting.child() else {
            // Its own execve was failed: there is no run.
            let status = std::process::ExitStatus::from_raw(127 << 8);
            let text = "it could not be started".to_owned();
            let ending = Ending { status, ended_ns: now_ns(), stdout: String::new(), stderr: text };
            return Ok((Some(ending), decider));
        };
        let began = Instant::now();
        let mut ended: Option<(std::process::ExitStatus, u64)> = None;
        let mut thawed_by_hand = false;
        loop {
            let more = attend(&listener, &mut decider)?;
            if ended.is_none() {
                ended = child.try_wait()?.map(|status| (status, now_ns()));
            }
            let since_end = ended.map(|(_, at)| super::pulse::since(at));
            if since_end.is_some_and(|since| since > TROUBLE_AFTER) && !decider.over {
                thawed_by_hand = self.thaw_by_hand(&decider, thawed_by_hand)?;
                decider.over = true;
            }
            if !more {
                break;
            }
            if ended.is_none() && began.elapsed() > RUN_LIMIT {
                decider.over = true;
                child.kill()?;
                child.wait()?;
                // What it leaves is heard until it is gone.
                while attend(&listener, &mut decider)? && began.elapsed() < RUN_LIMIT * 2 {}
                return Ok((None, decider));
            }
        }
        let (status, ended_ns) = match ended {
            Some(ended) => ended,
            None => (child.wait()?, now_ns()),
        };
        let text = |path| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned());
        let ending = Ending { status, ended_ns, stdout: text(&stdout)?, stderr: text(&stderr)? };
        Ok((Some(ending), decider))
    }

    /// Where no process of the run can thaw, the operator can.
    fn thaw_by_hand(&self, decider: &Decider, done: bool) -> Result<bool> {
        let wanted = decider.failing.is_some_and(|(kind, _)| kind == THAW)
            && decider.fault.is_some_and(|fault| fault.mode == Mode::FromThenOn);
        if wanted && !done {
            self.field.stillpoint.run(["thaw"])?.succeeded()?;
        }
        Ok(wanted)
    }

    /// Takes the lab down.
    ///
    /// # Errors
    /// If something is left.
    pub fn finish(self) -> Result<()> {
        self.field.finish()
    }
}

/// Answers calls for a moment; false when nobody is left to call.
fn attend(listener: &Listener, decider: &mut Decider) -> Result<bool> {
    for _ in 0..64 {
        match listener.hear(Duration::from_millis(2))? {
            Heard::Call(call) => match decider.decide(&call) {
                Some(errno) => listener.fail(&call, errno)?,
                None => listener.go_on(&call)?,
            },
            Heard::Nothing => return Ok(true),
            Heard::End => return Ok(false),
        }
    }
    Ok(true)
}

fn describe(ending: &Ending) -> String {
    match (ending.status.code(), ending.status.signal()) {
        (Some(0), _) => "right".to_owned(),
        (Some(code), _) => format!("exit {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "?".to_owned(),
    }
}

/// What a run said, or did not say, though it should have.
fn untrue(ending: &Ending, failed: Option<Kind>) -> Vec<String> {
    let mut wrong = Vec::new();
    let document = ending.document();
    // Where a thread cannot have memory for its signal stack, Rust's own start of it panics.
    // And tokio panics where it cannot start a thread that blocks: known, see docs/sweep.md.
    let without_memory = [
        "failed to allocate an alternative stack",
        "failed to set up alternative stack guard page",
        "OS can't spawn worker thread",
    ];
    let of_std = failed.is_some_and(|kind| kind.errors.contains(&nix::libc::ENOMEM))
        && without_memory.iter().any(|words| ending.stderr.contains(words));
    if ending.stderr.contains("panicked at") && !of_std {
        wrong.push(format!("a panic: {}", ending.stderr));
    }
    // The words themselves can be what could not be written.
    let mute = failed.is_some_and(|kind| kind.name.starts_with("write"));
    if !ending.status.success() && document.is_none() && ending.stderr.trim().is_empty() && !mute {
        wrong.push(format!("{} without a word", describe(ending)));
    }
    if let Some(document) = &document
        && !ending.status.success()
    {
        let message = document.pointer("/error/message").and_then(|m| m.as_str());
        let problems = document.pointer("/problems").and_then(|p| p.as_array());
        if message.is_none_or(str::is_empty) && problems.is_none_or(Vec::is_empty) {
            wrong.push(format!("an error that says nothing: {document}"));
        }
    }
    if ending.status.success() && !mute {
        match ending.manifest() {
            None => wrong.push("exit code 0 without a manifest".to_owned()),
            Some(manifest) => wrong.extend(super::kills::false_claim(&manifest)),
        }
    }
    if failed == Some(FREEZE) && ending.status.success() {
        wrong.push("a freeze failed, and the run says nothing of it".to_owned());
    }
    wrong
}

/// What is to be failed, in an order that a seed gives, so that any part is a fair sample: every call
/// from the start of the sentinel on, in both modes. Before that, nothing is held, and a look at all
/// mounts, devices and processes makes the same few calls thousands of times: of each kind the first
/// are failed, and then one in [`EVERY`], unless `all` are wanted.
#[must_use]
pub fn faults(calls: &[Counted], all: bool, seed: u64) -> Vec<Fault> {
    let mut random = Random::new(seed);
    let mut faults = Vec::new();
    let mut of_kind: BTreeMap<(Role, Kind), usize> = BTreeMap::new();
    for call in calls {
        let before = of_kind.entry((call.role, call.kind)).or_default();
        *before += 1;
        // A loader without memory dies without a word, before there is anything of ours to say one.
        if call.role == Role::Agent && call.kind.name == "mmap" && *before <= OF_THE_LOADER {
            continue;
        }
        if !(all || call.armed || *before <= FIRST || before.is_multiple_of(EVERY)) {
            continue;
        }
        for mode in [Mode::Once, Mode::FromThenOn] {
            let choice = usize::try_from(random.between(0, 12)).unwrap_or_default();
            faults.push(Fault { role: call.role, nth: call.nth, mode, choice });
        }
    }
    for index in (1..faults.len()).rev() {
        let other = random.between(0, index as u64 + 1);
        faults.swap(index, usize::try_from(other).unwrap_or(index));
    }
    faults
}

/// At most so many of each kind of call, process and mode, the first of each in that order.
#[must_use]
pub fn some_of_each(mut faults: Vec<Fault>, calls: &[Counted], most: usize) -> Vec<Fault> {
    let kinds: HashMap<(Role, usize), Kind> =
        calls.iter().map(|call| ((call.role, call.nth), call.kind)).collect();
    let mut taken: BTreeMap<(Role, Kind, Mode), usize> = BTreeMap::new();
    faults.retain(|fault| {
        let Some(kind) = kinds.get(&(fault.role, fault.nth)) else { return false };
        let taken = taken.entry((fault.role, *kind, fault.mode)).or_default();
        *taken += 1;
        *taken <= most
    });
    faults
}
