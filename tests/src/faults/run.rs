//! One cell, from the start of a run to the last question to the oracle.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde::Serialize;

use super::bed::{Bed, DEAD_MAN, GUARD_DIES_AT, HOLD_BUDGET, Started, WINDOW, needs_a_dead_guard};
use super::cell::{Cell, Fault, Own, World};
use super::clients::{Clients, Database};
use super::processes::{self, Process, Who, all_gone};
use super::secret;
use super::witness::Question;
use super::world::{HANG, Meddling};
use crate::writers::now_ns;

/// A file system can be written to this soon after the last thread of what was killed is gone, and
/// this soon after a window has passed.
pub const PROMISE: Duration = Duration::from_millis(250);
/// How long anything may take that is expected to take moments.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of a cell.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// [`Cell::id`].
    pub cell: String,
    /// The place was reached, or there was none.
    pub reached: bool,
    /// Broken promises. Empty is good.
    pub problems: Vec<String>,
    /// What is known, documented, and not promised.
    pub notes: Vec<String>,
    /// File systems that were frozen when everybody was done.
    pub left_frozen: usize,
    /// Clients of the database were locked out.
    pub left_locked: usize,
    /// From the same moment to a client's commit that was begun after it, in ns.
    pub commits_ns: Vec<u64>,
    /// The run said `application`, and that was not so.
    pub false_application: bool,
    /// From the end of what was killed to the first write that returned, per file system, in ns.
    pub recoveries_ns: Vec<u64>,
    /// The longest write while it ran, in ns.
    pub longest_ns: u64,
    /// Exit code; none if a signal ended it.
    pub exit_code: Option<i32>,
    /// The level that it claimed.
    pub level: Option<String>,
    /// How long the cell took, in ms.
    pub took_ms: u64,
}

/// Runs one cell. An error is one of the harness; what the program did wrong is in the outcome.
///
/// # Errors
/// If the lab cannot be used.
pub fn run(bed: &mut Bed, cell: &Cell, number: usize) -> Result<Outcome> {
    let began = Instant::now();
    let mut trial = Trial::begin(bed, cell, number)?;
    trial.meet()?;
    trial.wait_for_the_end()?;
    trial.clean_up()?;
    let mut outcome = trial.judge()?;
    bed.reset(cell)?;
    bed.remove_groups()?;
    outcome.took_ms = u64::try_from(began.elapsed().as_millis())?;
    Ok(outcome)
}

pub(super) struct Trial<'a> {
    pub(super) bed: &'a mut Bed,
    pub(super) cell: &'a Cell,
    pub(super) started: Started,
    peers: Vec<Process>,
    agent: Process,
    meddling: Option<Meddling>,
    meddling_until: Option<Instant>,
    /// When the last of the victims was there for the last time.
    died_ns: Option<u64>,
    pub(super) outcome: Outcome,
    rcu: String,
    clients: Option<Clients>,
}

impl<'a> Trial<'a> {
    fn begin(bed: &'a mut Bed, cell: &'a Cell, number: usize) -> Result<Self> {
        let rcu = rcu();
        let clients = bed.database.as_ref().map(Database::begin).transpose()?;
        bed.witness.ask(Question::Begin)?;
        let early = match cell.fault {
            Fault::World(world) if cell.place.is_empty() => Some(Meddling::begin(world, &bed.lab)?),
            _ => None,
        };
        let started = bed.start(cell, number)?;
        let pid = started.agent.id();
        let agent = Process::new(Who::Agent, pid).context("it has ended at once")?;
        // What is frozen before the run stays so until it has met it.
        let ends = |m: &&Meddling| m.hangs() && cell.fault != Fault::World(World::FrozenBefore);
        let meddling_until = early.as_ref().filter(ends).map(|_| Instant::now() + HANG);
        let outcome = Outcome { cell: cell.id(), ..Outcome::default() };
        Ok(Self {
            bed,
            cell,
            started,
            peers: Vec::new(),
            agent,
            meddling: early,
            meddling_until,
            died_ns: None,
            outcome,
            rcu,
            clients,
        })
    }

    /// Waits at the place, and does there what the cell says.
    fn meet(&mut self) -> Result<()> {
        let mut meetings = std::mem::take(&mut self.started.meetings);
        if let Fault::Error(..) = self.cell.fault {
            self.outcome.reached = true;
            return Ok(());
        }
        if needs_a_dead_guard(self.cell.place) {
            let first = &mut meetings[0];
            ensure!(first.place == GUARD_DIES_AT);
            if first.wait(&mut self.started.agent, PATIENCE)?.is_none() {
                return Ok(());
            }
            self.look_for_peers();
            self.kill(&[Who::Guard])?;
            first.go()?;
            meetings.remove(0);
        }
        let Some(meeting) = meetings.first_mut() else {
            self.outcome.reached = true;
            return Ok(());
        };
        let Some(pid) = meeting.wait(&mut self.started.agent, PATIENCE)? else { return Ok(()) };
        self.outcome.reached = true;
        self.look_for_peers();
        self.at_the_place(pid)?;
        meeting.go()?;
        self.after_the_place()
    }

    fn look_for_peers(&mut self) {
        if self.peers.is_empty() {
            self.peers = processes::peers(self.agent.pid, &self.bed.run_dir());
            let all = std::iter::once(&self.agent).chain(&self.peers);
            let shown: Vec<_> = all.filter_map(|process| secret::shown_by(process.pid)).collect();
            shown.into_iter().for_each(|shown| self.problem(shown));
        }
    }

    /// What is done from outside, while the run is held.
    fn at_the_place(&mut self, reached_by: u32) -> Result<()> {
        let who = Who::of(self.cell.place);
        if who != Who::Agent && !self.peers.iter().any(|peer| peer.pid == reached_by) {
            self.peers.extend(Process::new(who, reached_by));
        }
        match &self.cell.fault {
            Fault::Signal(whom, Signal::SIGKILL) => self.kill(whom)?,
            Fault::Signal(whom, signal) => {
                self.all(whom).iter().for_each(|process| process.signal(*signal));
            }
            Fault::CgroupKill => {
                self.started.cgroup.as_ref().context("a cgroup")?.kill()?;
                let victims = self.all(&[Who::Agent, Who::Guard]);
                self.died_ns = all_gone(&victims, PATIENCE);
            }
            Fault::World(World::SessionsCut) => {
                if let (Some(database), Some(clients)) = (&self.bed.database, &self.clients) {
                    database.cut_sessions(clients)?;
                }
            }
            Fault::World(World::Starved | World::CgroupFrozen) => {
                self.started.cgroup.as_ref().context("a cgroup")?.hold_up(true)?;
                self.meddling_until = Some(Instant::now() + HANG);
            }
            Fault::World(world) => {
                let meddling = Meddling::begin(*world, &self.bed.lab)?;
                self.meddling_until = meddling.hangs().then(|| Instant::now() + HANG);
                self.meddling = Some(meddling);
            }
            _ => {}
        }
        Ok(())
    }

    /// What the process did to itself.
    fn after_the_place(&mut self) -> Result<()> {
        if self.cell.fault == Fault::World(World::WriteInFlightAlone) {
            return self.leave_the_guard_alone();
        }
        if let Fault::Own(own) = self.cell.fault
            && (own.ends() || own == Own::Oom || own == Own::Panic)
        {
            let victim = self.all(&[Who::of(self.cell.place)]);
            // A panic of one thread, and a guard that the out-of-memory killer spares, live on.
            let limit = if own.ends() { PATIENCE } else { WINDOW };
            self.died_ns = all_gone(&victim, limit);
        }
        Ok(())
    }

    /// Its freeze hangs in the kernel, and nobody else of us is left.
    fn leave_the_guard_alone(&mut self) -> Result<()> {
        let guard = self.all(&[Who::Guard]).first().map(|guard| guard.pid).context("a guard")?;
        let until = Instant::now() + WINDOW / 2;
        while !processes::hangs(guard) && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.kill(&[Who::Agent, Who::Sentinel])?;
        // What is measured begins when the write lets go: until then nobody can thaw.
        while self.meddling_until.is_some() {
            self.end_meddling_in_time();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.died_ns = Some(now_ns());
        Ok(())
    }

    /// From outside, as far as they are there. A guard is stopped first: whoever kills it inside
    /// FITHAW turns a btrfs read-only, which nobody can help.
    fn kill(&mut self, whom: &[Who]) -> Result<()> {
        let victims = self.all(whom);
        victims.iter().filter(|_| whom.contains(&Who::Guard)).for_each(|victim| victim.stop());
        victims.iter().for_each(|victim| victim.signal(Signal::SIGKILL));
        self.died_ns = all_gone(&victims, PATIENCE);
        ensure!(self.died_ns.is_some(), "what was killed does not end");
        Ok(())
    }

    fn all(&self, whom: &[Who]) -> Vec<&Process> {
        let all = std::iter::once(&self.agent).chain(&self.peers);
        all.filter(|process| whom.contains(&process.who)).collect()
    }

    /// The run ends by itself, or is stuck as it was meant to be: then its window passes first.
    fn wait_for_the_end(&mut self) -> Result<()> {
        let sticks = self.sticks();
        let limit = if sticks { WINDOW + 3 * PROMISE } else { PATIENCE };
        let until = Instant::now() + limit;
        while self.started.agent.try_wait()?.is_none() && Instant::now() < until {
            self.end_meddling_in_time();
            std::thread::sleep(Duration::from_millis(1));
        }
        while self.meddling_until.is_some() {
            self.end_meddling_in_time();
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.died_ns.is_some() && !self.everybody_killed() {
            self.measure_recovery()?;
        }
        if self.started.agent.try_wait()?.is_some() {
            return Ok(());
        }
        // Still there: stopped, in a deadlock, at work for nothing. What it froze must run by now.
        self.nothing_is_frozen("the window has passed, the agent is stuck")?;
        self.server_ends_the_lock()?;
        if !sticks {
            self.problem("the agent does not end");
        }
        self.agent.signal(Signal::SIGCONT);
        if matches!(self.cell.fault, Fault::Own(Own::Stop) | Fault::Signal(_, Signal::SIGSTOP)) {
            self.continue_all();
            let until = Instant::now() + PATIENCE;
            while self.started.agent.try_wait()?.is_none() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if self.started.agent.try_wait()?.is_none() {
            self.agent.signal(Signal::SIGKILL);
            self.died_ns = all_gone(&[&self.agent], PATIENCE);
            self.measure_recovery()?;
        }
        Ok(())
    }

    /// The agent lives, and so does its session with the lock: the server ends it after a while.
    fn server_ends_the_lock(&mut self) -> Result<()> {
        let (Some(database), Some(clients)) = (&self.bed.database, &self.clients) else {
            return Ok(());
        };
        if !database.go_on_within(clients, HOLD_BUDGET + DEAD_MAN + Duration::from_secs(2))? {
            self.outcome.left_locked += 1;
            self.problem("the agent is stuck, and the server does not end its lock");
        }
        Ok(())
    }

    fn sticks(&self) -> bool {
        match &self.cell.fault {
            Fault::Own(own) => own.sticks() || *own == Own::Oom || *own == Own::Panic,
            Fault::Signal(_, signal) => *signal == Signal::SIGSTOP,
            _ => false,
        }
    }

    fn continue_all(&self) {
        self.all(&[Who::Guard, Who::Sentinel]).iter().for_each(|p| p.signal(Signal::SIGCONT));
    }

    pub(super) fn everybody_killed(&self) -> bool {
        let all = self.all(&[Who::Agent, Who::Guard, Who::Sentinel]);
        all.len() == 3 && all.iter().all(|process| process.is_gone()) && {
            let guard = needs_a_dead_guard(self.cell.place);
            self.cell.victims().len() + usize::from(guard) >= 2
        }
    }

    fn end_meddling_in_time(&mut self) {
        if self.meddling_until.is_some_and(|until| Instant::now() >= until) {
            self.meddling_until = None;
            self.meddling = None;
            if matches!(self.cell.fault, Fault::World(World::Starved | World::CgroupFrozen)) {
                let _ = self.started.cgroup.as_ref().map(|cgroup| cgroup.hold_up(false));
            }
        }
    }

    /// With the guard dead and the sentinel stuck, the agent is the third to try, after the others' time.
    fn promise(&self) -> Duration {
        if needs_a_dead_guard(self.cell.place) { 2 * PROMISE } else { PROMISE }
    }

    fn measure_recovery(&mut self) -> Result<()> {
        let Some(since_ns) = self.died_ns else { return Ok(()) };
        let until_ns = now_ns() + 5_000_000_000;
        for fs in self.bed.witness.ask(Question::After { since_ns, until_ns })? {
            match fs.wrote_at_ns {
                Some(at) => {
                    let recovery = at.saturating_sub(since_ns);
                    self.outcome.recoveries_ns.push(recovery);
                    if Duration::from_nanos(recovery) > self.promise() {
                        let ms = recovery / 1_000_000;
                        self.problem(format!(
                            "{}: written to {ms} ms after the end",
                            fs.mount.display()
                        ));
                    }
                }
                None if self.read_only_is_nobodys_fault() => {}
                None => self.problem(format!("{}: not written to for 5 s", fs.mount.display())),
            }
        }
        Ok(())
    }

    /// Ends what was stuck on purpose, cleans up as an operator does, and looks at what is left.
    fn clean_up(&mut self) -> Result<()> {
        self.meddling = None;
        self.continue_all();
        // What was made to be stuck has to be ended by somebody; the others then end by themselves.
        if self.sticks() {
            let stuck = self.all(&[Who::of(self.cell.place)]);
            for process in stuck.iter().filter(|process| process.who != Who::Agent) {
                if process.gone_within(Duration::from_millis(500)).is_none() {
                    process.stop();
                    process.signal(Signal::SIGKILL);
                }
            }
        }
        let mut problems = Vec::new();
        for process in self.all(&[Who::Guard, Who::Sentinel]) {
            if process.gone_within(Duration::from_secs(5)).is_none() {
                problems.push(format!("the {} does not end", process.who.name()));
                process.stop();
                process.signal(Signal::SIGKILL);
            }
        }
        problems.into_iter().for_each(|problem| self.problem(problem));
        let ended = self.agent_ended_by_itself()?;
        if !ended || self.journal_is_left() {
            self.recover()?;
        }
        self.clients_go_on()?;
        self.nothing_is_left()
    }

    /// A lock that outlives who took it keeps them from committing.
    fn clients_go_on(&mut self) -> Result<()> {
        let (Some(database), Some(clients)) = (&self.bed.database, self.clients.take()) else {
            return Ok(());
        };
        let since = self.died_ns.filter(|_| !self.everybody_killed());
        match database.end(clients, since)? {
            None => {
                self.outcome.left_locked += 1;
                self.problem("clients of the database are locked out");
            }
            Some(commits) => {
                let late = commits.iter().copied().filter(|commit| *commit > self.promise()).max();
                if let Some(late) = late.filter(|_| self.agent_is_a_victim()) {
                    self.problem(format!("a client committed {late:.1?} after the end"));
                }
                let all = commits.iter().filter_map(|commit| u64::try_from(commit.as_nanos()).ok());
                self.outcome.commits_ns.extend(all);
            }
        }
        Ok(())
    }

    /// A lock ends with its session, and that with the agent; with the agent alive it is the hook's.
    fn agent_is_a_victim(&self) -> bool {
        self.cell.victims().contains(&Who::Agent)
    }

    fn agent_ended_by_itself(&mut self) -> Result<bool> {
        Ok(self.started.agent.try_wait()?.is_some_and(|status| status.code().is_some()))
    }

    fn journal_is_left(&self) -> bool {
        self.bed.run_dir().join("freeze.json").exists()
    }

    /// What an operator, or the next boot, does after a crash.
    fn recover(&mut self) -> Result<()> {
        let asked_ns = now_ns();
        let run = self.bed.stillpoint.run(["recover"])?;
        if run.code != Some(0) {
            self.problem(format!("recover: {}", run.description()));
        }
        if self.everybody_killed() {
            let until_ns = now_ns() + 2_000_000_000;
            let question = Question::After { since_ns: asked_ns, until_ns };
            let after = self.bed.witness.ask(question)?;
            if after.iter().any(|fs| fs.wrote_at_ns.is_none()) && !self.read_only_is_nobodys_fault()
            {
                self.problem("frozen after the recovery");
            }
        }
        Ok(())
    }

    fn nothing_is_left(&mut self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let processes = processes::left(self.bed.lab.directory(), self.bed.stillpoint.binary());
            // Another program's run may have raised it meanwhile, or have put it back.
            let rcu_is_back = rcu() <= self.rcu || processes::others_run(self.bed.lab.directory());
            let hangs = self.whoever_hangs();
            if processes.is_empty() && hangs.is_none() && rcu_is_back && !self.journal_is_left() {
                break;
            }
            if Instant::now() > until {
                if !processes.is_empty() {
                    self.problem(format!("left: processes {processes:?}"));
                }
                if let Some(who) = hangs {
                    self.problem(format!("left: {who} waits in the kernel"));
                }
                if self.journal_is_left() {
                    self.problem("left: the journal of the freeze");
                }
                if !rcu_is_back {
                    self.problem(format!("left: rcu_expedited {}", rcu().trim()));
                }
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let sentinel = self.all(&[Who::Sentinel]).first().map(|sentinel| sentinel.pid);
        if let Some(pid) = sentinel {
            let name = format!("stillpoint-sentinel-{pid}");
            let left = crate::leftovers::cgroups().into_iter().find(|path| path.ends_with(&name));
            // Whoever ends a sentinel that is stuck, after its agent, ends the last one who could.
            let by_us = self.sticks() && Who::of(self.cell.place) == Who::Sentinel;
            if let Some(path) = left {
                let removed = std::fs::remove_dir(&path).is_ok();
                if !by_us || !removed {
                    self.problem("left: the sentinel's cgroup");
                }
            }
        }
        Ok(())
    }

    /// Writers that wait in the kernel, where nobody is frozen any more.
    fn whoever_hangs(&self) -> Option<String> {
        let server = self.bed.database.as_ref().map(|database| database.server().pid().as_raw());
        let server = server.and_then(|pid| u32::try_from(pid).ok());
        let all = [("the oracle", Some(self.bed.witness.pid())), ("the database", server)];
        let hangs = |(_, pid): &(&str, Option<u32>)| pid.is_some_and(processes::hangs);
        all.into_iter().find(hangs).map(|(name, _)| name.to_owned())
    }

    pub(super) fn nothing_is_frozen(&mut self, when: &str) -> Result<()> {
        let all = self.bed.witness.ask(Question::All { sent_ns: u64::MAX, fixed_ns: 0 })?;
        let frozen: Vec<_> = all.iter().filter(|fs| fs.frozen).collect();
        self.outcome.left_frozen += frozen.len();
        let names: Vec<_> = frozen.iter().map(|fs| fs.mount.display().to_string()).collect();
        if !names.is_empty() {
            self.problem(format!("frozen when {when}: {}", names.join(", ")));
        }
        Ok(())
    }

    pub(super) fn problem(&mut self, problem: impl Into<String>) {
        self.outcome.problems.push(problem.into());
    }
}

fn rcu() -> String {
    std::fs::read_to_string("/sys/kernel/rcu_expedited").unwrap_or_default()
}
