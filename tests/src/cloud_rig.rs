//! The rig of the cloud: a lab whose disks are an emulated cloud's, and stillpoint with the provider
//! for it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ecs_emulator::{Logged, Scenario};

use crate::cloud::Cloud;
use crate::lab::{FsSpec, FsType, Lab};
use crate::leftovers;
use crate::mariadb::{MariaDb, Place};
use crate::stillpoint::{NO_SCRIPTS, Run, Stillpoint, settings};
use crate::writers::{History, Interval};

/// Everything that a snapshot in the cloud needs.
#[derive(Debug)]
pub struct CloudRig {
    /// The cloud.
    pub cloud: Cloud,
    /// stillpoint, in it.
    pub stillpoint: Stillpoint,
    /// The file systems.
    pub lab: Lab,
}

impl CloudRig {
    /// Small ext4 of these names, each on a disk of its own, in a cloud that `change` has changed.
    /// It lives at most for ten minutes.
    ///
    /// # Errors
    /// If a part cannot be made.
    pub fn new(names: &[&str], change: impl FnOnce(&mut Scenario)) -> Result<Self> {
        let specs: Vec<FsSpec> =
            names.iter().map(|name| FsSpec::new(*name, FsType::Ext4, 64)).collect();
        Self::of(&specs, change)
    }

    /// As [`CloudRig::new`], with these file systems.
    ///
    /// # Errors
    /// As [`CloudRig::new`].
    pub fn of(specs: &[FsSpec], change: impl FnOnce(&mut Scenario)) -> Result<Self> {
        let lab = Lab::new(specs, Duration::from_secs(600))?;
        let cloud = Cloud::with(&lab, change)?;
        let stillpoint = Stillpoint::in_cloud(&lab, &cloud)?;
        Ok(Self { cloud, stillpoint, lab })
    }

    /// A server with its data on ext4 and its binary log on XFS, and the hook for it.
    ///
    /// # Errors
    /// If a part cannot be made.
    pub fn with_server(change: impl FnOnce(&mut Scenario)) -> Result<(Self, MariaDb)> {
        let specs =
            [FsSpec::new("data", FsType::Ext4, 512), FsSpec::new("binlog", FsType::Xfs, 320)];
        let rig = Self::of(&specs, change)?;
        let place = Place { data: rig.lab.mount("data"), binlog: rig.lab.mount("binlog") };
        let server = MariaDb::install(&rig.lab, place)?;
        rig.stillpoint.install_mysql_hook(server.socket())?;
        Ok((rig, server))
    }

    /// Rewrites `stillpoint.toml`: this cloud, all file systems, no scripts, and `more`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn configure(&self, more: &str) -> Result<()> {
        self.stillpoint.configure(&settings(&self.lab, "alibaba", &format!("{NO_SCRIPTS}\n{more}")))
    }

    /// Takes a snapshot, with what goes wrong already set. Whatever comes of it, the file systems
    /// run afterwards, and what stillpoint asked the cloud is what the cloud knows.
    ///
    /// # Errors
    /// If a file system does not run, or the cloud was asked strange things.
    pub fn snapshot(&self, more: &[&str]) -> Result<Run> {
        let run = self.stillpoint.snapshot("cloud", more)?;
        still_run(&self.lab).with_context(|| run.description().to_owned())?;
        check_requests(&self.cloud.emulator.log())?;
        Ok(run)
    }

    /// Stops everything, and says if something could not be.
    ///
    /// # Errors
    /// If something is left.
    pub fn finish(self) -> Result<()> {
        drop(self.cloud);
        self.lab.finish()
    }
}

/// Every file system of the lab can be written.
///
/// # Errors
/// If one cannot.
pub fn still_run(lab: &Lab) -> Result<()> {
    for fs in lab.file_systems() {
        // A child of its own: if it is frozen, that one hangs, and not this test.
        let mut touch = lab.command("timeout");
        touch.args(["-s", "KILL", "5", "touch"]).arg(fs.mount.join("still-runs"));
        ensure!(touch.status()?.success(), "{} is not writable", fs.mount.display());
    }
    Ok(())
}

/// No request has a parameter that the API does not know, and no two have a nonce in common.
fn check_requests(log: &[Logged]) -> Result<()> {
    for logged in log {
        ensure!(logged.unknown_parameters.is_empty(), "unknown parameters: {logged:#?}");
        ensure!(logged.code.as_deref() != Some("SignatureNonceUsed"), "nonce: {logged:#?}");
    }
    Ok(())
}

/// The longest write that was under way, from its begin to its return: a freeze, as a user sees it.
///
/// # Errors
/// If nothing was written.
pub fn longest(history: &History) -> Result<Interval> {
    let all = history.commits.iter().flatten();
    let all = all.map(|commit| Interval { began_ns: commit.began_ns, ended_ns: commit.acked_ns });
    all.max_by_key(|interval| interval.duration()).context("nothing was written")
}

/// Watches what the machine shows of stillpoint's processes while they run: command lines and
/// environments.
#[derive(Debug)]
pub struct ProcessWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeSet<Vec<u8>>>>,
}

impl ProcessWatch {
    /// Watches all processes of a lab that run this program.
    #[must_use]
    pub fn start(lab: &Path, program: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, lab, program) = (Arc::clone(&stop), lab.to_owned(), program.to_owned());
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                for process in leftovers::processes_of(&lab, &program) {
                    for file in ["cmdline", "environ", "comm"] {
                        seen.extend(std::fs::read(process.join(file)));
                    }
                }
            }
            seen
        });
        Self { stop, thread: Some(thread) }
    }

    /// Everything that was seen.
    ///
    /// # Errors
    /// If there was nothing to see.
    pub fn stop(mut self) -> Result<BTreeSet<Vec<u8>>> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.take().context("it runs")?.join();
        let seen = seen.ok().context("the watch panicked")?;
        ensure!(!seen.is_empty(), "no process was seen");
        Ok(seen)
    }
}

impl Drop for ProcessWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// None of these secrets is in any file below `directories`.
///
/// # Errors
/// If one is, or a directory cannot be read.
pub fn no_secret_in_files(secrets: &[String], directories: &[PathBuf]) -> Result<()> {
    let mut waiting = directories.to_vec();
    while let Some(directory) = waiting.pop() {
        let entries = std::fs::read_dir(&directory);
        for entry in entries.with_context(|| directory.display().to_string())? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() {
                no_secret_in(secrets, &std::fs::read(entry.path())?, &entry.path().display())?;
            }
        }
    }
    Ok(())
}

/// None of these secrets is in `bytes`.
///
/// # Errors
/// If one is; `place` says where.
pub fn no_secret_in(secrets: &[String], bytes: &[u8], place: &dyn std::fmt::Display) -> Result<()> {
    for secret in secrets {
        if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
            bail!("a secret of {} characters is in {place}", secret.len());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::no_secret_in;

    #[test]
    fn a_secret_is_found_wherever_it_is() {
        let secrets = ["s3cret/+=".to_owned()];
        assert!(no_secret_in(&secrets, b"before s3cret/+= after", &"a text").is_err());
        assert!(no_secret_in(&secrets, b"s3cret/+", &"a text").is_ok());
    }
}
