//! btrfs under signals: it reads its superblock again when it is thawed, and takes an interruption of
//! that for damage. Nobody of ours kills a process that thaws; this shows that nothing else, to the
//! agent or to guard and sentinel, gets there either.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::field::{Field, Ground};
use super::kills::TIDY_EVERY;
use crate::random::Random;
use crate::sys::{pidfd_open, pidfd_send_signal};

const RUN_LIMIT: Duration = Duration::from_secs(90);
const LONGEST: Duration = Duration::from_secs(3600);
/// Every signal that can be blocked, the real-time ones among them.
const BLOCKABLE: std::ops::RangeInclusive<i32> = 1..=64;
/// Signals that the agent survives.
const HARMLESS: [Signal; 5] =
    [Signal::SIGCHLD, Signal::SIGCONT, Signal::SIGWINCH, Signal::SIGURG, Signal::SIGPIPE];
/// One in so many signals to the agent is one that ends it.
const DEADLY: u64 = 600;

/// What came of some runs.
#[derive(Clone, Debug, Default)]
pub struct Gust {
    /// How many runs.
    pub runs: usize,
    /// How many of them ended before their time: their agent was killed.
    pub killed: usize,
    /// Signals that were delivered.
    pub signals: usize,
    /// Thaws of a btrfs: those of runs that ended by themselves by their manifest, and the rehearsal
    /// of those that were killed after it.
    pub thaws: usize,
    /// What must not be so.
    pub violations: Vec<String>,
}

impl Gust {
    /// Adds up.
    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.killed += other.killed;
        self.signals += other.signals;
        self.thaws += other.thaws;
        self.violations.extend(other.violations);
    }
}

impl fmt::Display for Gust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "btrfs: {} thaws in {} runs ({} killed) under {} signals; anything wrong: {}",
            self.thaws,
            self.runs,
            self.killed,
            self.signals,
            self.violations.len()
        )
    }
}

/// Four btrfs, and who sends signals.
#[derive(Debug)]
pub struct Storm {
    field: Field,
    random: Random,
    runs: usize,
}

impl Storm {
    /// Makes the lab.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(seed: u64) -> Result<Self> {
        let field = Field::new(Ground::Btrfs, LONGEST)?;
        Ok(Self { field, random: Random::new(seed), runs: 0 })
    }

    /// One run, with signals to all three processes until it ends.
    ///
    /// # Errors
    /// If the lab cannot be used any more.
    pub fn run(&mut self) -> Result<Gust> {
        self.runs += 1;
        if self.runs.is_multiple_of(TIDY_EVERY) {
            self.field.tidy()?;
        }
        let mut gust = Gust { runs: 1, ..Gust::default() };
        let mut agent = self.field.start("storm")?;
        // Before there is a guard, a signal ends the run and shows nothing.
        let helper = |name| -> Result<Option<_>> {
            Ok(agent.helper(name)?.and_then(|pid| pidfd_open(pid).ok()))
        };
        let mut helpers = Vec::new();
        let agent_fd = pidfd_open(agent.pid()).context("the agent has ended")?;
        let mut rehearsed = false;
        while !super::field::ends(&agent_fd, Duration::ZERO)? {
            rehearsed |= self.field.journal_says_ours();
            if helpers.len() < 2 {
                helpers = ["stillpoint-guard", "stillpoint-sentinel"]
                    .into_iter()
                    .filter_map(|name| helper(name).transpose())
                    .collect::<Result<_>>()?;
            }
            // A guard that has only just been executed does not block signals yet.
            if rehearsed {
                gust.signals += self.blow(&agent_fd, &helpers);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let ending = agent.wait(RUN_LIMIT)?;
        gust.killed = usize::from(ending.status.code().is_none());
        let file_systems = self.field.lab.file_systems().len();
        let manifest = ending.manifest();
        gust.thaws = match manifest {
            Some(_) => 2 * file_systems,
            None if rehearsed => file_systems,
            None => 0,
        };
        gust.violations.extend(self.field.read_only()?);
        gust.violations.extend(self.field.left_by_a_run()?);
        Ok(gust)
    }

    /// One signal to each; how many were delivered.
    fn blow(&mut self, agent: &std::os::fd::OwnedFd, helpers: &[std::os::fd::OwnedFd]) -> usize {
        let mut delivered = 0;
        for helper in helpers {
            let signal = self.any_blockable();
            delivered += usize::from(pidfd_send_signal(helper, signal).is_ok());
        }
        let signal = if self.random.number().is_multiple_of(DEADLY) {
            [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGTERM, Signal::SIGABRT]
                [usize::try_from(self.random.between(0, 4)).unwrap_or(0)]
        } else {
            HARMLESS[usize::try_from(self.random.between(0, 5)).unwrap_or(0)]
        };
        delivered + usize::from(pidfd_send_signal(agent, signal as i32).is_ok())
    }

    fn any_blockable(&mut self) -> i32 {
        loop {
            let choice = self.random.between(1, 65);
            let signal = i32::try_from(choice).unwrap_or(1);
            let unblockable = [Signal::SIGKILL as i32, Signal::SIGSTOP as i32].contains(&signal);
            // 32 and 33 are the C library's own.
            if BLOCKABLE.contains(&signal) && !unblockable && !(32..=33).contains(&signal) {
                return signal;
            }
        }
    }

    /// Takes the lab down.
    ///
    /// # Errors
    /// If something is left.
    pub fn finish(self) -> Result<()> {
        self.field.finish()
    }
}
