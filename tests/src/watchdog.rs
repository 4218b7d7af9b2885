//! The process that cleans a lab up, whatever becomes of the program that made it.

use std::io::{PipeWriter, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const SCRIPT: &str = include_str!("watchdog.sh");

/// An independent process in a session and, where there is cgroup2, a cgroup of its own. It thaws,
/// kills, unmounts, detaches and removes what is below the lab's directory as soon as this value is
/// dropped, its process dies, or the time is over. That is the only way in which a lab ends, so the
/// way that a killed test takes is the one that is tested every time.
#[derive(Debug)]
pub struct Watchdog {
    process: Child,
    /// Its standard input. Close-on-exec, so only this process holds it.
    lifeline: Option<PipeWriter>,
    log: PathBuf,
}

impl Watchdog {
    /// Starts it, before anything is mounted. It waits at most for `time`, then ends the lab, and
    /// this process with it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(lab: &Path, time: Duration) -> Result<Self> {
        let (end, lifeline) = pipe().context("cannot make a pipe")?;
        let log = PathBuf::from(format!("{}.log", lab.display()));
        let errors = std::fs::File::create(&log).context("cannot make the watchdog's log")?;
        let process = Command::new("setsid")
            .args(["sh", "-c", SCRIPT, "stillpoint-watchdog"])
            .arg(lab)
            .arg(time.as_secs().to_string())
            .arg(std::process::id().to_string())
            .arg(&log)
            .current_dir("/")
            .stdin(end)
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .context("cannot start the watchdog")?;
        Ok(Self { process, lifeline: Some(lifeline), log })
    }

    /// Has the lab cleaned up, and waits for it.
    ///
    /// # Errors
    /// If something is left; the text says what.
    pub fn finish(&mut self) -> Result<()> {
        if self.lifeline.take().is_none() {
            return Ok(());
        }
        let status = self.process.wait().context("cannot wait for the watchdog")?;
        if status.success() {
            return Ok(());
        }
        let text = std::fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string());
        bail!("clean-up failed ({status}); see {}\n{text}", self.log.display())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            if std::thread::panicking() {
                eprintln!("{error:#}");
            } else {
                panic!("{error:#}");
            }
        }
    }
}
