//! The lab of the main job: a server with its data on ext4 and its binary log on XFS, stillpoint
//! with the hook for it, and a snapshot that is restored and proved.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{FsSpec, FsType, Lab};
use crate::mariadb::{MariaDb, Place};
use crate::oracle::{Verdict, examine};
use crate::stats::Durations;
use crate::stillpoint::{Manifest, Run, Stillpoint};
use crate::writers::{History, Interval, Writers, create_tables, now_ns};

/// Clients that commit while a snapshot is taken.
pub const CLIENTS: usize = 4;

/// MiB of the file system `data`.
const DATA_MIB: u64 = 512;

/// How long anything may take that is expected to take moments.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Commits between the start of the clients and the snapshot, and after it.
const COMMITS_AROUND: u64 = 100;

/// Everything that the main job needs.
#[derive(Debug)]
pub struct Rig {
    /// stillpoint, with the hook `mysql` installed and granted.
    pub stillpoint: Stillpoint,
    /// The server.
    pub server: MariaDb,
    /// The file systems `data` and `binlog`.
    pub lab: Lab,
}

/// A snapshot that was restored and examined.
#[derive(Debug)]
pub struct Proof {
    /// What stillpoint printed.
    pub run: Run,
    /// What it says that it did.
    pub manifest: Manifest,
    /// What the copy says.
    pub verdict: Verdict,
    /// What the clients know.
    pub history: History,
    /// From before stillpoint's start to after its end.
    pub whole: Interval,
}

impl Proof {
    /// How long the clients' commits took while stillpoint ran.
    #[must_use]
    pub fn commits(&self) -> Durations {
        self.history.durations_in(self.whole)
    }
}

impl Rig {
    /// Makes file systems, server and installation; it lives at most for `time`.
    ///
    /// # Errors
    /// If a part cannot be made.
    pub fn new(time: Duration) -> Result<Self> {
        Self::with_room(time, DATA_MIB)
    }

    /// As [`Rig::new`], with so many MiB for the data.
    ///
    /// # Errors
    /// If a part cannot be made.
    pub fn with_room(time: Duration, data_mib: u64) -> Result<Self> {
        let rig = Self::made(time, data_mib)?;
        rig.stillpoint.install_mysql_hook(rig.server.socket())?;
        Ok(rig)
    }

    /// As [`Rig::new`], without the hook.
    ///
    /// # Errors
    /// If a part cannot be made.
    pub fn without_hook(time: Duration) -> Result<Self> {
        Self::made(time, DATA_MIB)
    }

    fn made(time: Duration, data_mib: u64) -> Result<Self> {
        let specs =
            [FsSpec::new("data", FsType::Ext4, data_mib), FsSpec::new("binlog", FsType::Xfs, 320)];
        let lab = Lab::new(&specs, time)?;
        let place = Place { data: lab.mount("data"), binlog: lab.mount("binlog") };
        let server = MariaDb::install(&lab, place)?;
        let stillpoint = Stillpoint::new(&lab)?;
        Ok(Self { stillpoint, server, lab })
    }

    /// Empty tables and an empty binary log, so that a proof counts from nothing.
    ///
    /// # Errors
    /// If a statement fails.
    pub async fn fresh_tables(&self) -> Result<()> {
        create_tables(&mut self.server.connect().await?).await?;
        self.server.execute("RESET MASTER")?;
        Ok(())
    }

    /// Takes a snapshot under load with the hook, restores it, and examines the copy. The group is
    /// deleted afterwards.
    ///
    /// # Errors
    /// If a step fails; what is wrong with the copy is in the verdict.
    pub async fn prove(&self, name: &str) -> Result<Proof> {
        self.fresh_tables().await?;
        let writers = Writers::start(self.server.options(), CLIENTS).await?;
        writers.wait_for(COMMITS_AROUND, PATIENCE).await?;
        let began_ns = now_ns();
        let run = tokio::task::block_in_place(|| self.stillpoint.snapshot(name, &[]))?;
        let whole = Interval { began_ns, ended_ns: now_ns() };
        writers.wait_for(COMMITS_AROUND, PATIENCE).await?;
        let history = writers.stop().await?;
        let manifest = run.succeeded()?.manifest()?;
        let verdict = self.examine(&manifest, &history).await?;
        Ok(Proof { run, manifest, verdict, history, whole })
    }

    /// Restores a group, examines the copy, and removes both.
    ///
    /// # Errors
    /// If a step fails.
    pub async fn examine(&self, manifest: &Manifest, history: &History) -> Result<Verdict> {
        let group = manifest.group()?;
        let copies = self.stillpoint.restore(group)?.server(&self.lab)?;
        let verdict = examine(&self.lab, &copies, history, &manifest.claim()?)
            .await
            .with_context(|| format!("the copy of {group} cannot be examined"))?;
        self.stillpoint.detach(group)?;
        self.stillpoint.delete(group)?;
        Ok(verdict)
    }

    /// Stops the server and removes everything.
    ///
    /// # Errors
    /// If something is left.
    pub fn finish(self) -> Result<()> {
        self.server.stop()?;
        self.lab.finish()
    }
}
