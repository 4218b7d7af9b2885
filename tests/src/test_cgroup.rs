//! A cgroup that a test makes, puts processes into, kills as a whole, and removes.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::standing::wait_until;

/// A cgroup at the top of the unified hierarchy.
#[derive(Debug)]
pub struct TestCgroup(PathBuf);

impl TestCgroup {
    /// Makes one.
    ///
    /// # Errors
    /// If there is no cgroup2.
    pub fn make() -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let unified = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let top = unified.and_then(|line| line.split(' ').nth(1)).context("no cgroup2")?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(top).join(format!("test-{}-{serial}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Moves a process into it, with all its threads.
    ///
    /// # Errors
    /// If it is gone.
    pub fn add(&self, pid: u32) -> Result<()> {
        let procs = self.0.join("cgroup.procs");
        fs::write(procs, pid.to_string()).with_context(|| format!("process {pid}"))
    }

    /// Kills all that is in it, at once.
    ///
    /// # Errors
    /// If the kernel cannot.
    pub fn kill(&self) -> Result<()> {
        Ok(fs::write(self.0.join("cgroup.kill"), "1")?)
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let empty = || Ok(fs::read_to_string(self.0.join("cgroup.procs"))?.is_empty());
        let _ = wait_until("it is empty", empty);
        let _ = fs::remove_dir(&self.0);
    }
}
