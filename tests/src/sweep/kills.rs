//! Signals at random moments of a run, to its agent, its guard, its sentinel, or two of them.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::field::{Agent, Ending, Field, Ground, LIMIT, Recovery, WINDOW, ends};
use super::pulse::since;
use crate::random::Random;
use crate::sys::{pidfd_open, pidfd_send_signal};
use crate::writers::now_ns;

/// How long a run that was disturbed may go on: the agent waits for a stopped guard, and releases.
const RUN_LIMIT: Duration = Duration::from_secs(90);
/// How long a process that was sent a deadly signal may take to end: it may hang in a flush.
const DEATH_LIMIT: Duration = Duration::from_secs(60);
/// Rounds after which snapshots and logs are removed.
pub(super) const TIDY_EVERY: usize = 40;
/// Room for them on the lab's disks is bounded, and so is a worker's life.
const LONGEST: Duration = Duration::from_secs(3 * 3600);

/// Which process a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Victim {
    /// The agent.
    Agent,
    /// The guard.
    Guard,
    /// The sentinel.
    Sentinel,
    /// The agent, and the guard right after it.
    AgentAndGuard,
    /// The agent, and the sentinel right after it.
    AgentAndSentinel,
}

impl Victim {
    fn processes(self) -> &'static [Self] {
        match self {
            Self::Agent => &[Self::Agent],
            Self::Guard => &[Self::Guard],
            Self::Sentinel => &[Self::Sentinel],
            Self::AgentAndGuard => &[Self::Agent, Self::Guard],
            Self::AgentAndSentinel => &[Self::Agent, Self::Sentinel],
        }
    }

    fn pid(self, agent: &Agent) -> Result<Option<i32>> {
        match self {
            Self::Guard => agent.helper("stillpoint-guard"),
            Self::Sentinel => agent.helper("stillpoint-sentinel"),
            _ => Ok(Some(agent.pid())),
        }
    }

    fn is_agent(self) -> bool {
        !matches!(self, Self::Guard | Self::Sentinel)
    }
}

/// A signal, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shot {
    /// For whom.
    pub victim: Victim,
    /// Its number.
    pub signal: i32,
}

impl fmt::Display for Shot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signal = Signal::try_from(self.signal).map_or("?", Signal::as_str);
        let victim = match self.victim {
            Victim::Agent => "agent",
            Victim::Guard => "guard",
            Victim::Sentinel => "sentinel",
            Victim::AgentAndGuard => "agent and guard",
            Victim::AgentAndSentinel => "agent and sentinel",
        };
        write!(f, "{signal} {victim}")
    }
}

impl Shot {
    const fn new(victim: Victim, signal: Signal) -> Self {
        Self { victim, signal: signal as i32 }
    }

    /// It ends its victim, whatever that does.
    fn is_deadly(self) -> bool {
        let by_force = [Signal::SIGSEGV, Signal::SIGABRT, Signal::SIGBUS, Signal::SIGILL];
        let of_agent = self.victim.is_agent() && by_force.iter().any(|s| *s as i32 == self.signal);
        self.signal == Signal::SIGKILL as i32 || of_agent
    }

    /// It can end a process that is inside FITHAW.
    #[must_use]
    pub fn may_hit_a_thaw(self) -> bool {
        self.signal == Signal::SIGKILL as i32 && self.victim != Victim::Agent
    }

    fn stops(self) -> bool {
        self.signal == Signal::SIGSTOP as i32
    }
}

/// Who is shot at, and how often: most are SIGKILL, most hit the agent. Guard and sentinel block what
/// can be blocked, so other signals must leave their run as it is.
const SHOTS: &[(u64, Shot)] = &[
    (420, Shot::new(Victim::Agent, Signal::SIGKILL)),
    (60, Shot::new(Victim::Agent, Signal::SIGSEGV)),
    (60, Shot::new(Victim::Agent, Signal::SIGABRT)),
    (30, Shot::new(Victim::Agent, Signal::SIGBUS)),
    (60, Shot::new(Victim::Agent, Signal::SIGTERM)),
    (20, Shot::new(Victim::Agent, Signal::SIGINT)),
    (10, Shot::new(Victim::Agent, Signal::SIGSTOP)),
    (130, Shot::new(Victim::Guard, Signal::SIGKILL)),
    (5, Shot::new(Victim::Guard, Signal::SIGSTOP)),
    (15, Shot::new(Victim::Guard, Signal::SIGTERM)),
    (100, Shot::new(Victim::Sentinel, Signal::SIGKILL)),
    (5, Shot::new(Victim::Sentinel, Signal::SIGSTOP)),
    (15, Shot::new(Victim::Sentinel, Signal::SIGSEGV)),
    (40, Shot::new(Victim::AgentAndGuard, Signal::SIGKILL)),
    (30, Shot::new(Victim::AgentAndSentinel, Signal::SIGKILL)),
];

/// One round: what was done, when, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    /// Its number in its field.
    pub number: usize,
    /// What was sent, to whom.
    pub shot: Shot,
    /// When.
    pub moment: Moment,
    /// How long after the end of the victim's last thread each file system was written to.
    pub recovery_us: Vec<u64>,
    /// The same for the client of the database, after the agent's end.
    pub client_us: Option<u64>,
    /// The journal said that file systems may be frozen by us when the signal came.
    pub frozen: bool,
    /// When the agent had ended, and when nothing was left of the run, after its start.
    pub ended_us: (u64, u64),
    /// A btrfs was forced read-only, and the field was made anew. SIGKILL inside FITHAW does that: the
    /// kernel reads the superblock again, is interrupted, and takes that for damage. It is a limit
    /// that is told, not a violation, if the process that thaws was the one that was killed.
    pub read_only: Vec<String>,
    /// What must not be so.
    pub violations: Vec<String>,
}

/// What a delay counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// The start of the process.
    Start,
    /// The moment in which the journal says, for the first time, that file systems may be frozen.
    FirstFreeze,
}

/// When a signal is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Since when.
    pub from: From,
    /// How much later.
    pub delay_us: u64,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match self.from {
            From::Start => "start",
            From::FirstFreeze => "first freeze",
        };
        write!(f, "{} us after the {from}", self.delay_us)
    }
}

impl Moment {
    /// Waits for it; a run that ends before it has been waited for as well.
    fn wait(self, field: &Field, agent: &mut Agent) -> Result<()> {
        let mut from_ns = agent.started_ns;
        if self.from == From::FirstFreeze {
            while !field.journal_says_ours() && !agent.has_ended()? {
                std::thread::sleep(Duration::from_micros(200));
            }
            from_ns = now_ns();
        }
        std::thread::sleep(Duration::from_micros(self.delay_us).saturating_sub(since(from_ns)));
        Ok(())
    }
}

/// What came of one try.
enum Try {
    /// The signal was delivered.
    Hit(Round),
    /// The run had ended before, or had no such process at that moment.
    Missed,
}

/// A field in which runs are killed.
#[derive(Debug)]
pub struct Kills {
    ground: Ground,
    field: Field,
    random: Random,
    /// How long a run takes that is left alone, and when its guard is there.
    whole_ns: u64,
    armed_ns: (u64, u64),
    /// From the begin of the rehearsal to the end of the thaw.
    freezes_ns: u64,
    number: usize,
    tries: usize,
}

impl Kills {
    /// Makes the field and measures a few runs that are left alone.
    ///
    /// # Errors
    /// If the field cannot be made, or a run fails that nobody disturbs.
    pub fn new(ground: Ground, seed: u64) -> Result<Self> {
        let field = Field::new(ground, LONGEST)?;
        let random = Random::new(seed);
        let mut kills = Self {
            ground,
            field,
            random,
            whole_ns: 0,
            armed_ns: (0, 0),
            freezes_ns: 0,
            number: 0,
            tries: 0,
        };
        kills.measure()?;
        Ok(kills)
    }

    /// Three runs to their end; the middle one counts.
    fn measure(&mut self) -> Result<()> {
        let mut all = Vec::new();
        for round in 0..3 {
            let mut agent = self.field.start(&format!("measure-{round}"))?;
            let ending = agent.wait(RUN_LIMIT)?;
            ensure!(ending.status.success(), "undisturbed: {ending:?}");
            let manifest = ending.manifest().context("no manifest")?;
            let since_start = |ns: u64| ns.saturating_sub(agent.started_ns);
            let (began, ended) = span(&manifest, "arm", "thaw").context("no steps")?;
            let (rehearsed, thawed) = span(&manifest, "rehearse", "thaw").context("no thaw")?;
            let whole = since_start(ending.ended_ns);
            let armed = (since_start(began), since_start(ended));
            all.push((whole, armed, thawed.saturating_sub(rehearsed)));
        }
        all.sort_unstable();
        (self.whole_ns, self.armed_ns, self.freezes_ns) = all[1];
        eprintln!(
            "a run takes {} ms, its guard is there from {} to {} ms, freezes take {} us",
            self.whole_ns / 1_000_000,
            self.armed_ns.0 / 1_000_000,
            self.armed_ns.1 / 1_000_000,
            self.freezes_ns / 1000
        );
        Ok(())
    }

    /// One signal that was delivered.
    ///
    /// # Errors
    /// If the field cannot be used any more. What must not be so is in the round.
    pub fn round(&mut self) -> Result<Round> {
        if self.field.spoiled {
            self.field = Field::new(self.ground, LONGEST)?;
        }
        let shot = self.random.weighted(SHOTS).context("no shots")?;
        loop {
            self.tries += 1;
            if self.tries.is_multiple_of(TIDY_EVERY) {
                self.field.tidy()?;
            }
            let moment = self.moment(shot);
            let context = || format!("round {}, {shot} {moment}", self.number);
            match self.try_one(shot, moment).with_context(context)? {
                Try::Hit(round) => {
                    self.number += 1;
                    if !round.read_only.is_empty() {
                        self.field.spoiled = true;
                    }
                    return Ok(round);
                }
                Try::Missed => {}
            }
        }
    }

    /// For the agent, a third of them anywhere, from its first instruction to its last; a third of
    /// all while there is a guard; and a third around the freezes, which are a small part of a run.
    fn moment(&mut self, shot: Shot) -> Moment {
        let kind = self.random.between(0, 3);
        let (armed, disarmed) = self.armed_ns;
        let (from, low, high) = match kind {
            0 if shot.victim == Victim::Agent => (From::Start, 0, self.whole_ns),
            0 | 1 => (From::Start, armed, disarmed),
            _ => (From::FirstFreeze, 0, self.freezes_ns),
        };
        Moment { from, delay_us: self.random.between(low, high) / 1000 }
    }

    fn try_one(&self, shot: Shot, moment: Moment) -> Result<Try> {
        let mut round = Round {
            number: self.number,
            shot,
            moment,
            recovery_us: Vec::new(),
            client_us: None,
            frozen: false,
            ended_us: (0, 0),
            read_only: Vec::new(),
            violations: Vec::new(),
        };
        self.field.reset();
        let mut agent = self.field.start("killed")?;
        let hit = self.disturb(&mut agent, &mut round);
        round.read_only = self.field.read_only()?;
        match hit {
            Ok(true) => {}
            Ok(false) if round.violations.is_empty() => return Ok(Try::Missed),
            // A writer fails on a file system that has turned read-only.
            Err(_) if !round.read_only.is_empty() => {
                drop(agent);
                round.violations.extend(self.field.left_by_a_run()?);
            }
            other => drop(other?),
        }
        if !round.read_only.is_empty() && !shot.may_hit_a_thaw() {
            round.violations.extend(round.read_only.iter().cloned());
        }
        Ok(Try::Hit(round))
    }

    /// One run, and the signal: true if it was delivered.
    fn disturb(&self, agent: &mut Agent, round: &mut Round) -> Result<bool> {
        let (field, shot, moment) = (&self.field, round.shot, round.moment);
        moment.wait(field, agent)?;
        let mut targets = Vec::new();
        if !agent.has_ended()? {
            for process in shot.victim.processes() {
                // It may end while we look: then there is nothing to hit.
                targets.extend(process.pid(agent)?.and_then(|pid| pidfd_open(pid).ok()));
            }
        }
        round.frozen = field.journal_says_ours();
        let complete = targets.len() == shot.victim.processes().len();
        let hit =
            complete && targets.iter().all(|target| pidfd_send_signal(target, shot.signal).is_ok());
        let hit_ns = now_ns();
        if !hit {
            agent.wait(RUN_LIMIT)?;
            round.violations = field.left_by_a_run()?;
            return Ok(false);
        }
        if shot.is_deadly() {
            for target in &targets {
                ensure!(ends(target, DEATH_LIMIT)?, "the victim does not end");
            }
            let death_ns = now_ns();
            let recoveries = field.recovery(death_ns)?;
            round.note("writable", &recoveries);
            if shot.victim.is_agent()
                && let Some(recovery) = field.client_recovery(death_ns)?
            {
                round.client_us = recovery.after.map(micros);
                round.too_late("unlocked", &recovery);
            }
        } else if shot.stops() {
            // Whatever is frozen now is thawed when the window is over, not when the process goes on.
            std::thread::sleep(WINDOW + LIMIT);
            let recoveries = field.recovery(now_ns())?;
            round.note("writable", &recoveries);
            let _ = targets.iter().try_for_each(|t| pidfd_send_signal(t, Signal::SIGCONT as i32));
        }
        let ending = agent.wait(RUN_LIMIT)?;
        if shot.signal == Signal::SIGTERM as i32 && shot.victim == Victim::Agent {
            let recoveries = field.recovery(ending.ended_ns)?;
            round.note("writable", &recoveries);
        }
        if let Some(recovery) = field.client_recovery(ending.ended_ns)? {
            round.too_late("unlocked", &recovery);
        }
        round.violations.extend(field.left_by_a_run()?);
        if shot.victim == Victim::AgentAndSentinel {
            // Before the guard was told of it nobody that is left knows the sentinel's cgroup: the
            // next start removes it.
            self.next_start_removes_cgroups(&mut round.violations)?;
        }
        round.ended_us = (micros(agent.until(ending.ended_ns)), micros(agent.until(now_ns())));
        round.violations.extend(self.untrue(shot, hit_ns, round.frozen, &ending));
        let longest = field.longest_write();
        if longest > WINDOW + LIMIT {
            round.violations.push(format!("a write took {longest:?}"));
        }
        Ok(true)
    }

    /// Takes out of `left` the cgroups that a start removes.
    fn next_start_removes_cgroups(&self, left: &mut Vec<String>) -> Result<()> {
        if left.iter().any(|what| what.starts_with("cgroup ")) {
            self.field.stillpoint.run(["recover"])?.succeeded()?;
            left.retain(|what| {
                what.strip_prefix("cgroup ").is_none_or(|path| Path::new(path).exists())
            });
        }
        Ok(())
    }

    /// What a run said, or did not say, though it should have.
    fn untrue(&self, shot: Shot, hit_ns: u64, was_armed: bool, ending: &Ending) -> Vec<String> {
        let mut wrong = Vec::new();
        let deadly_for_agent = shot.is_deadly() && shot.victim.is_agent();
        if ending.stderr.contains("panicked at") {
            wrong.push(format!("a panic: {}", ending.stderr));
        }
        if deadly_for_agent {
            return wrong;
        }
        let Some(code) = ending.status.code() else {
            // Before it listens to signals it holds nothing, and ends as any program does.
            if ending.status.signal() != Some(shot.signal) || was_armed {
                wrong.push(format!("the agent died: {ending:?}"));
            }
            return wrong;
        };
        if code != 0 && ending.document().is_none() && ending.stderr.trim().is_empty() {
            wrong.push(format!("exit code {code} without a word"));
        }
        if shot.victim != Victim::Agent && !shot.is_deadly() && !shot.stops() && code != 0 {
            // Between its exec and its first lines it does not block them yet: nothing is armed then.
            let during = ending.document().and_then(|d| Some(d.pointer("/error/during")?.clone()));
            if during != Some("arm".into()) {
                wrong.push(format!("a signal that is blocked failed the run: {ending:?}"));
            }
        }
        let Some(manifest) = ending.manifest() else { return wrong };
        wrong.extend(false_claim(&manifest));
        let level = ending.level().unwrap_or_default();
        let Some(times) = Times::of(&manifest).filter(|_| level != "crash") else { return wrong };
        // A thaw that was under way in that moment may still end as it should.
        let in_window = times.frozen_ns..times.thaw_began_ns.saturating_sub(1_000_000);
        if shot.is_deadly() && shot.victim == Victim::Guard && in_window.contains(&hit_ns) {
            wrong.push(format!("{level}, but the guard was lost in the window"));
        }
        wrong
    }

    /// Takes the field down.
    ///
    /// # Errors
    /// If something is left.
    pub fn finish(self) -> Result<()> {
        self.field.finish()
    }
}

impl Round {
    fn note(&mut self, what: &str, recoveries: &[Recovery]) {
        for recovery in recoveries {
            self.recovery_us.extend(recovery.after.map(micros));
            self.too_late(what, recovery);
        }
    }

    fn too_late(&mut self, what: &str, recovery: &Recovery) {
        // The promise of 250 ms is about the agent's death. A guard or a sentinel that is lost ends the
        // window, and a freeze that is in flight then has to end first.
        let limit = if self.shot.victim.is_agent() { LIMIT } else { WINDOW + LIMIT };
        if recovery.after.is_none_or(|after| after > limit) {
            self.violations.push(format!("{} {what} after {:?}", recovery.name, recovery.after));
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A level that the times of the manifest do not allow.
#[must_use]
pub fn false_claim(manifest: &serde_json::Value) -> Option<String> {
    let level = manifest.get("level")?.as_str()?;
    let times = Times::of(manifest).filter(|_| level != "crash")?;
    let all_the_time = times.frozen_ns <= times.sent_ns && times.fixed_ns <= times.thaw_began_ns;
    (!all_the_time).then(|| format!("{level}, but not frozen all the time: {times:?}"))
}

/// From the begin of one step to the end of another, as the manifest has them.
fn span(manifest: &serde_json::Value, first: &str, last: &str) -> Option<(u64, u64)> {
    let steps = manifest.get("steps")?.as_array()?;
    let time = |name: &str, key: &str| {
        steps
            .iter()
            .find(|step| step.get("step").and_then(|s| s.as_str()) == Some(name))?
            .get(key)?
            .as_u64()
    };
    Some((time(first, "began_ns")?, time(last, "ended_ns")?))
}

/// The times by which a level is judged.
#[derive(Debug)]
struct Times {
    /// The last file system was frozen.
    frozen_ns: u64,
    /// The provider was asked.
    sent_ns: u64,
    /// The point in time was fixed.
    fixed_ns: u64,
    /// The first thaw began.
    thaw_began_ns: u64,
}

impl Times {
    fn of(manifest: &serde_json::Value) -> Option<Self> {
        let systems = manifest.get("file_systems")?.as_array()?;
        let times =
            |key: &str| systems.iter().map(|fs| fs.get(key)?.as_u64()).collect::<Option<Vec<_>>>();
        let (sent_ns, fixed_ns) = span(manifest, "snapshot", "snapshot")?;
        Some(Self {
            frozen_ns: times("frozen_ns")?.into_iter().max()?,
            sent_ns,
            fixed_ns,
            thaw_began_ns: times("thaw_began_ns")?.into_iter().min()?,
        })
    }
}
