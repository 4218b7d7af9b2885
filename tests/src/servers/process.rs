//! A server's process, with those that it has started: signals reach all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a server may take to answer, also after a crash, and to shut down.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    log: PathBuf,
    /// What it had started when it was struck.
    orphans: Vec<Pid>,
}

impl ServerProcess {
    /// Starts it, with a new log of its own: what that says is about this start.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let file = fs::File::create(log)
            .with_context(|| format!("cannot make the log {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned(), orphans: Vec::new() })
    }

    /// The process that was started.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// All that it has written since its start.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string())
    }

    /// Waits until `answers` says so.
    ///
    /// # Errors
    /// If the server ends, or does not answer in time; with its log.
    pub fn wait_until(&mut self, mut answers: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !answers() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at its start ({status}):\n{}", self.log());
            }
            ensure!(Instant::now() < deadline, "the server does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sends it, and then each process that it has started, a signal: SIGSTOP for a server that
    /// hangs, SIGCONT for one that goes on.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to the server"))?;
        // One that is stopped starts no more.
        self.signal_children(signal)
    }

    /// Sends a signal to those that it has started, and not to itself.
    ///
    /// # Errors
    /// If one cannot be sent.
    pub fn signal_children(&self, signal: Signal) -> Result<()> {
        for process in children_of(self.pid()) {
            match kill(process, signal) {
                // It has ended meanwhile.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).context("cannot signal a child of the server"),
            }
        }
        Ok(())
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.end()
    }

    /// Asks it with a signal to shut down, and waits for its end.
    ///
    /// # Errors
    /// If it does not end in time; it is killed then.
    pub fn stop(mut self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).context("the server has ended already")?;
        let deadline = Instant::now() + LIMIT;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the server does not shut down:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// As [`ServerProcess::kill`], without waiting: whoever waits for a frozen file system dies when
    /// that is thawed.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn strike(&mut self) -> Result<()> {
        // Stopped ones start no others, and die all the same.
        let _ = kill(self.pid(), Signal::SIGSTOP);
        self.orphans = children_of(self.pid());
        self.child.kill()?;
        for process in &self.orphans {
            let _ = kill(*process, Signal::SIGKILL);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            if self.orphans.is_empty() {
                self.strike()?;
            }
            self.child.wait()?;
        }
        // Orphans are reaped by others: the next server on this data must not find them.
        let deadline = Instant::now() + LIMIT;
        while self.orphans.iter().any(|process| is_alive(*process)) {
            ensure!(Instant::now() < deadline, "a process of the server does not die");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// By `/proc`: the second field after the name, which may hold anything, is the parent.
fn children_of(parent: Pid) -> Vec<Pid> {
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map(|(_, rest)| rest.to_owned());
        let field = after_name.and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        field == Some(parent.as_raw())
    };
    let all = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_child).map(Pid::from_raw).collect()
}

/// Not gone, and not a zombie.
fn is_alive(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}
