//! A run that stands still, before the freeze or in its window, with its three processes: to be killed
//! and stopped from outside.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stillpoint::freeze::{ProbeState, probe};
use stillpoint::journal::{FreezeRecord, ProcessId};

use crate::lab::Lab;
use crate::stillpoint::{Run, Stillpoint};

/// How long anything may take that is expected to take moments, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until something is so.
///
/// # Errors
/// If it is not so after two minutes, or cannot be looked at.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_within(PATIENCE, what, &mut is_so)
}

/// As [`wait_until`], with a limit of its own.
///
/// # Errors
/// As [`wait_until`].
pub fn wait_within(
    limit: Duration,
    what: &str,
    mut is_so: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        ensure!(began.elapsed() < limit, "not so after {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// True if every file system of the lab is frozen, asked without touching them.
///
/// # Errors
/// If one cannot be asked.
pub fn all_frozen(lab: &Lab) -> Result<bool> {
    states(lab).map(|states| states.iter().all(|state| *state == ProbeState::Frozen))
}

/// True if none is.
///
/// # Errors
/// If one cannot be asked.
pub fn none_frozen(lab: &Lab) -> Result<bool> {
    states(lab).map(|states| states.iter().all(|state| *state == ProbeState::NotFrozen))
}

fn states(lab: &Lab) -> Result<Vec<ProbeState>> {
    let mounts = lab.file_systems().iter();
    mounts
        .map(|fs| Ok(probe(&fs.mount).with_context(|| fs.mount.display().to_string())?.state))
        .collect()
}

/// A run under way.
#[derive(Debug)]
pub struct Standing {
    agent: Child,
    record: Option<FreezeRecord>,
}

impl Standing {
    /// Starts a snapshot and waits until `stands` says that it stands where it should.
    ///
    /// # Errors
    /// If it ends before.
    pub fn start(
        stillpoint: &Stillpoint,
        name: &str,
        mut stands: impl FnMut() -> Result<bool>,
    ) -> Result<Self> {
        let mut agent = stillpoint.start_snapshot(name)?;
        let began = Instant::now();
        while !stands()? {
            if agent.try_wait()?.is_some() {
                bail!("it ended by itself: {}", Run::of(&agent.wait_with_output()?).description());
            }
            ensure!(began.elapsed() < PATIENCE, "the run never stood still");
            std::thread::sleep(Duration::from_millis(2));
        }
        let record = FreezeRecord::load(&run_dir(stillpoint))?;
        Ok(Self { agent, record })
    }

    /// Starts a snapshot and waits until everything is frozen.
    ///
    /// # Errors
    /// As [`Standing::start`].
    pub fn in_window(stillpoint: &Stillpoint, lab: &Lab, name: &str) -> Result<Self> {
        for fs in lab.file_systems() {
            // What the probe asks by.
            std::fs::write(fs.mount.join("present"), "before the freeze\n")?;
        }
        // Twice, with a pause between: a rehearsal is over in moments.
        Self::start(stillpoint, name, || {
            Ok(all_frozen(lab)? && {
                std::thread::sleep(Duration::from_millis(50));
                all_frozen(lab)?
            })
        })
    }

    /// The agent's process id.
    #[must_use]
    pub fn agent(&self) -> u32 {
        self.agent.id()
    }

    /// The guard, by the journal.
    ///
    /// # Errors
    /// If there was no journal yet.
    pub fn guard(&self) -> Result<ProcessId> {
        Ok(self.record.as_ref().context("nothing was armed")?.guard)
    }

    /// The sentinel, by the journal.
    ///
    /// # Errors
    /// If there was no journal yet.
    pub fn sentinel(&self) -> Result<ProcessId> {
        Ok(self.record.as_ref().context("nothing was armed")?.sentinel)
    }

    /// Kills the agent with SIGKILL and waits for its last thread; when that had gone.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill_agent(&mut self) -> Result<Instant> {
        self.agent.kill()?;
        self.agent.wait()?;
        Ok(Instant::now())
    }

    /// Kills all three at once, as far as that can be done: the agent is stopped meanwhile, so that it
    /// undoes nothing.
    ///
    /// # Errors
    /// If one cannot be killed.
    pub fn kill_all(&mut self) -> Result<()> {
        let (guard, sentinel) = (self.guard()?, self.sentinel()?);
        signal(self.agent(), Signal::SIGSTOP)?;
        signal(sentinel.pid, Signal::SIGSTOP)?;
        signal(guard.pid, Signal::SIGKILL)?;
        signal(sentinel.pid, Signal::SIGKILL)?;
        self.kill_agent()?;
        wait_until("guard and sentinel are gone", || Ok(!guard.is_alive() && !sentinel.is_alive()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If its output cannot be read.
    pub fn end(self) -> Result<Run> {
        Ok(Run::of(&self.agent.wait_with_output()?))
    }
}

/// Where the journal of an installation is.
#[must_use]
pub fn run_dir(stillpoint: &Stillpoint) -> std::path::PathBuf {
    stillpoint.root().join("run/stillpoint")
}

/// A signal to exactly one process, which this test has started, or which serves one that it has.
///
/// # Errors
/// If it is gone.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid.try_into()?), signal).with_context(|| format!("process {pid}"))
}
