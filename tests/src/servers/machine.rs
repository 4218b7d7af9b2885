//! One machine with some databases, each with its hook; and the proof of a snapshot of all of them.

#![expect(clippy::print_stdout, reason = "what was proved is told while a test runs")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::{FsSpec, Lab};
use crate::rig::{CLIENTS, PATIENCE};
use crate::stats::millis;
use crate::stillpoint::{Manifest, NO_SCRIPTS, Run, Stillpoint, component};
use crate::writers::{History, Interval, Writers, now_ns};

use super::{Database, Kind, Verdict, databases};

/// Commits of each database between the start of the clients and the snapshot, and after it.
const COMMITS_AROUND: u64 = 100;

/// Databases on their file systems, and stillpoint with a hook for each.
#[derive(Debug)]
pub struct Machine {
    /// stillpoint, with the hooks installed and granted.
    pub stillpoint: Stillpoint,
    /// The databases, in the order in which they were asked for.
    pub databases: Vec<Box<dyn Database>>,
    /// Their file systems.
    pub lab: Lab,
}

/// A snapshot that was restored and examined.
#[derive(Debug)]
pub struct Proof {
    /// What stillpoint printed.
    pub run: Run,
    /// What it says that it did.
    pub manifest: Manifest,
    /// What each database's copy says, and what its clients know.
    pub databases: Vec<(Verdict, History)>,
    /// From before stillpoint's start to after its end.
    pub whole: Interval,
}

impl Machine {
    /// Makes file systems, servers and installation; it lives at most for `time`.
    ///
    /// # Errors
    /// If a part cannot be made.
    pub fn new(kinds: &[Kind], time: Duration) -> Result<Self> {
        let machine = Self::without_hooks(kinds, time)?;
        machine.write_connections()?;
        for kind in kinds {
            machine.install_hook(*kind)?;
        }
        Ok(machine)
    }

    /// As [`Machine::new`], without the hooks.
    ///
    /// # Errors
    /// If a part cannot be made.
    pub fn without_hooks(kinds: &[Kind], time: Duration) -> Result<Self> {
        let specs: Vec<FsSpec> = kinds.iter().flat_map(|kind| kind.file_systems()).collect();
        let lab = Lab::new(&specs, time)?;
        let databases = kinds
            .iter()
            .map(|kind| databases::install(*kind, &lab).with_context(|| format!("{kind}")))
            .collect::<Result<Vec<_>>>()?;
        let stillpoint = Stillpoint::new(&lab)?;
        Ok(Self { stillpoint, databases, lab })
    }

    /// `stillpoint.toml` with the lab's disks, no scripts, and `more`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn configure(&self, more: &str) -> Result<()> {
        let text = self.stillpoint.settings(&self.lab, &format!("{NO_SCRIPTS}\n{more}"));
        self.stillpoint.configure(&text)
    }

    /// `connections.toml`: a connection for each database, by the name of its hook.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_connections(&self) -> Result<()> {
        let tables = self.databases.iter().map(|database| {
            format!("[connections.{}]\n{}\n", database.kind().hook(), database.connection())
        });
        self.stillpoint.write_config("connections.toml", &tables.collect::<String>())
    }

    fn install_hook(&self, kind: Kind) -> Result<()> {
        let hook = kind.hook();
        self.stillpoint.sign_and_install(&component(hook)?)?;
        let connection = format!("main={hook}");
        self.stillpoint
            .run(["hook", "grant", hook, "--accept", "--connection", &connection])?
            .succeeded()?;
        self.change_grant(hook, "[settings]\n", &format!("[settings]\n{}", kind.settings()))
    }

    /// Replaces a text in a hook's grant, once.
    ///
    /// # Errors
    /// If it is not there.
    pub fn change_grant(&self, hook: &str, text: &str, by: &str) -> Result<()> {
        let name = format!("hooks.d/{hook}.toml");
        let grant = std::fs::read_to_string(self.stillpoint.config_file(&name))?;
        ensure!(grant.contains(text), "no {text:?} in the grant of {hook}:\n{grant}");
        self.stillpoint.write_config(&name, &grant.replacen(text, by, 1))
    }

    /// The database whose hook has this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn database(&self, hook: &str) -> Result<&dyn Database> {
        let found = self.databases.iter().find(|database| database.kind().hook() == hook);
        Ok(found.with_context(|| format!("no database for {hook}"))?.as_ref())
    }

    /// Clients at work on every database, on new tables.
    ///
    /// # Errors
    /// If one cannot connect.
    pub async fn start_writers(&self, clients: usize) -> Result<Vec<Writers>> {
        let mut all = Vec::new();
        for database in &self.databases {
            database.fresh().await.with_context(|| format!("{}", database.kind()))?;
            all.push(Writers::of(database.clients(clients).await?));
        }
        Ok(all)
    }

    /// Takes a snapshot under load, restores it, and examines each copy. The group is deleted
    /// afterwards.
    ///
    /// # Errors
    /// If a step fails; what is wrong with a copy is in its verdict.
    pub async fn prove(&self, name: &str) -> Result<Proof> {
        let writers = self.start_writers(CLIENTS).await?;
        wait_for_all(&writers, COMMITS_AROUND).await?;
        let began_ns = now_ns();
        let run = tokio::task::block_in_place(|| self.stillpoint.snapshot(name, &[]))?;
        let whole = Interval { began_ns, ended_ns: now_ns() };
        wait_for_all(&writers, COMMITS_AROUND).await?;
        let mut histories = Vec::new();
        for writers in writers {
            histories.push(writers.stop().await?);
        }
        let manifest = run.succeeded()?.manifest()?;
        let databases = self.examine(&manifest, histories).await?;
        Ok(Proof { run, manifest, databases, whole })
    }

    /// Restores a group, examines the copy of each database, and removes both.
    ///
    /// # Errors
    /// If a step fails.
    pub async fn examine(
        &self,
        manifest: &Manifest,
        histories: Vec<History>,
    ) -> Result<Vec<(Verdict, History)>> {
        let group = manifest.group()?;
        let copies = self.stillpoint.restore(group)?;
        let mut verdicts = Vec::new();
        for (database, history) in self.databases.iter().zip(histories) {
            let verdict = database
                .examine(&self.lab, &copies, &history, manifest)
                .await
                .with_context(|| format!("the copy of {} cannot be examined", database.kind()))?;
            verdicts.push((verdict, history));
        }
        self.stillpoint.detach(group)?;
        self.stillpoint.delete(group)?;
        Ok(verdicts)
    }

    /// Ends the servers and removes everything.
    ///
    /// # Errors
    /// If something is left.
    pub fn finish(mut self) -> Result<()> {
        for database in &mut self.databases {
            database.kill()?;
        }
        self.lab.finish()
    }
}

/// Waits until each has committed `count` more times.
///
/// # Errors
/// If that takes too long, or a client has failed.
pub async fn wait_for_all(writers: &[Writers], count: u64) -> Result<()> {
    for writers in writers {
        writers.wait_for(count, PATIENCE).await?;
    }
    Ok(())
}

/// That many snapshots of all databases, one after the other: each is restored and proved, each
/// manifest says `application`. Returns the last one.
///
/// # Errors
/// If one is not what its run says.
pub async fn prove_many(machine: &Machine, rounds: usize) -> Result<Manifest> {
    let mut last = None;
    for round in 1..=rounds {
        let context = || format!("round {round}");
        let proof = machine.prove(&format!("round-{round}")).await.with_context(context)?;
        let run = &proof.run;
        ensure!(proof.manifest.level()? == "application", "round {round}: {}", run.description());
        ensure!(proof.manifest.reason_codes()?.is_empty(), "round {round}: {}", run.description());
        for (verdict, history) in proof.databases {
            let verdict = verdict.into_result().with_context(context)?;
            println!(
                "round {round}: {}: worst commit {:.1} ms, {} rows, {} had to be there, {} could not; {}",
                verdict.kind,
                millis(history.durations_in(proof.whole).max()),
                verdict.rows,
                verdict.had_to_be_there,
                verdict.could_not_be_there,
                verdict.note,
            );
        }
        last = Some(proof.manifest);
    }
    last.context("no rounds")
}
