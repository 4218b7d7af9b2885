//! Negative controls: a snapshot by hand with one step left out, which the oracle must catch, and
//! with none, which it must accept. An oracle that accepts everything proves nothing.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::by_hand::{ByHand, Steps, clones};
use crate::lab::{FsSpec, FsType, Lab};
use crate::mariadb::{MariaDb, Place};
use crate::oracle::{Violation, examine};
use crate::rig::{CLIENTS, PATIENCE};
use crate::servers::postgresql::{self, PostgreSql};
use crate::servers::{Kind, examine_postgresql};
use crate::stillpoint::Manifest;
use crate::writers::{Interval, Writers, create_tables, now_ns};

/// Commits before the snapshot, enough to be in the way of one that is not whole; and after it.
const COMMITS: (u64, u64) = (500, 100);

/// A lab's life; then its watchdog ends it.
const LONGEST: Duration = Duration::from_secs(300);

/// Which step is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// None: the oracle must accept it.
    Nothing,
    /// The lock; PostgreSQL, which has none, is not asked for its checkpoint.
    Lock,
    /// The freeze.
    Freeze,
    /// The second file system, which is copied later.
    SecondFileSystem,
}

impl Left {
    /// All, the whole snapshot first.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Lock, Self::Freeze, Self::SecondFileSystem];

    fn steps(self) -> Steps {
        match self {
            Self::Nothing => Steps::ALL,
            Self::Lock => Steps { lock: false, ..Steps::ALL },
            Self::Freeze => Steps { freeze: false, ..Steps::ALL },
            Self::SecondFileSystem => Steps { both: false, ..Steps::ALL },
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing left out",
            Self::Lock => "lock skipped",
            Self::Freeze => "freeze skipped",
            Self::SecondFileSystem => "second file system left out",
        })
    }
}

/// What the oracle found in one snapshot by hand.
#[derive(Clone, Debug)]
pub struct Control {
    /// Of which database.
    pub kind: Kind,
    /// What was left out of it.
    pub left: Left,
    /// What it found.
    pub violations: Vec<Violation>,
}

impl Control {
    /// Whether the oracle was right: it accepts what is whole, and tells what is missing from the
    /// rest by what that leaves.
    #[must_use]
    pub fn is_right(&self) -> bool {
        let found = |is: fn(&Violation) -> bool| self.violations.iter().filter(|v| is(v)).count();
        let replays = found(|violation| matches!(violation, Violation::JournalReplay(_)));
        let ends = found(|violation| matches!(violation, Violation::BinlogEnd { .. }));
        match (self.left, self.kind) {
            (Left::Nothing, _) => self.violations.is_empty(),
            (Left::Freeze, _) => replays == 2,
            (Left::Lock, Kind::MariaDb) => ends == 1,
            (Left::Lock, _) => found(|violation| matches!(violation, Violation::Redo { .. })) == 1,
            (Left::SecondFileSystem, Kind::MariaDb) => {
                ends == 1 && found(|v| matches!(v, Violation::BinlogAndData { .. })) == 1
            }
            (Left::SecondFileSystem, _) => {
                found(|violation| matches!(violation, Violation::CommitFromLater { .. })) > 0
            }
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = match self.violations.as_slice() {
            [] => "nothing found".to_owned(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        };
        write!(f, "{}, {}: {found}", self.kind, self.left)
    }
}

/// A MariaDB of its own, and a snapshot of it by hand under load for each step that can be left out.
///
/// # Errors
/// If a part of the lab fails.
pub async fn mariadb_control(times: usize) -> Result<Vec<Control>> {
    let specs = [FsSpec::new("data", FsType::Ext4, 512), FsSpec::new("binlog", FsType::Xfs, 320)];
    let lab = Lab::new(&specs, LONGEST)?;
    let place = Place { data: lab.mount("data"), binlog: lab.mount("binlog") };
    let server = MariaDb::install(&lab, place)?;
    let mut controls = Vec::new();
    for left in every(times) {
        create_tables(&mut server.connect().await?).await?;
        server.execute("RESET MASTER")?;
        let writers = Writers::start(server.options(), CLIENTS).await?;
        writers.wait_for(COMMITS.0, PATIENCE).await?;
        let snapshot = ByHand::take(&lab, &server, left.steps()).await?;
        writers.wait_for(COMMITS.1, PATIENCE).await?;
        let history = writers.stop().await?;
        let verdict = examine(&lab, &snapshot.copies, &history, &snapshot.claim).await?;
        snapshot.discard()?;
        controls.push(Control { kind: Kind::MariaDb, left, violations: verdict.violations });
    }
    server.stop()?;
    lab.finish()?;
    Ok(controls)
}

/// As [`mariadb_control`], of a PostgreSQL.
///
/// # Errors
/// If a part of the lab fails.
pub async fn postgresql_control(times: usize) -> Result<Vec<Control>> {
    let kind = Kind::PostgreSql;
    let lab = Lab::new(&kind.file_systems(), LONGEST)?;
    let place = postgresql::Place { data: lab.mount("pgdata"), wal: lab.mount("pgwal") };
    let server = PostgreSql::install(&lab, place)?;
    let mut controls = Vec::new();
    for left in every(times) {
        server.create_tables()?;
        server.execute("CHECKPOINT")?;
        // More than may be redone.
        server.execute(
            "CREATE TABLE lab.filler AS SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 20000) n",
        )?;
        let writers = Writers::of(server.clients(CLIENTS).await?);
        writers.wait_for(COMMITS.0, PATIENCE).await?;
        let steps = left.steps();
        let claim = Claim::now(&server, steps)?;
        let began_ns = now_ns();
        let snapshot = clones(&lab, ["pgdata", "pgwal"], steps).await?;
        let manifest = claim.manifest(&server, kind, snapshot.frozen(began_ns))?;
        writers.wait_for(COMMITS.1, PATIENCE).await?;
        let history = writers.stop().await?;
        let copies = snapshot.copies()?;
        let verdict = examine_postgresql(kind, &lab, &copies, &history, &manifest).await?;
        snapshot.discard(&lab, &copies)?;
        controls.push(Control { kind, left, violations: verdict.violations });
    }
    server.stop()?;
    lab.finish()?;
    Ok(controls)
}

fn every(times: usize) -> impl Iterator<Item = Left> {
    std::iter::repeat_n(Left::ALL, times).flatten()
}

/// Where a PostgreSQL stands before it is copied, as the hook would have saved it.
struct Claim {
    saved: Vec<(&'static str, String)>,
}

impl Claim {
    fn now(server: &PostgreSql, steps: Steps) -> Result<Self> {
        if steps.lock {
            server.execute("CHECKPOINT")?;
        }
        let text = server.execute(
            "SELECT s.system_identifier || ' ' || c.timeline_id || ' ' || c.redo_lsn || ' ' || \
             c.checkpoint_lsn || ' ' || pg_current_wal_flush_lsn() \
             FROM pg_control_system() s, pg_control_checkpoint() c",
        )?;
        let names = ["system-identifier", "timeline", "redo-lsn", "checkpoint-lsn", "lsn"];
        let saved: Vec<_> =
            names.into_iter().zip(text.split_whitespace().map(str::to_owned)).collect();
        anyhow::ensure!(saved.len() == names.len(), "no position in {text:?}");
        Ok(Self { saved })
    }

    /// As a run's manifest would have it.
    fn manifest(self, server: &PostgreSql, kind: Kind, frozen: Interval) -> Result<Manifest> {
        let after = server.execute("SELECT pg_current_wal_flush_lsn()")?;
        let after = after.split_whitespace().next().context("no position")?.to_owned();
        let mut saved = self.saved;
        saved.push(("lsn-after", after));
        let metadata: Vec<_> = saved
            .into_iter()
            .map(|(key, value)| json!({ "key": key, "value": { "text": value } }))
            .collect();
        let step = |step: &str| json!({ "step": step, "began_ns": frozen.began_ns, "ended_ns": frozen.ended_ns });
        Ok(Manifest::of(json!({
            "steps": [step("freeze"), step("thaw")],
            "hooks": [{ "name": kind.hook(), "metadata": metadata }],
        })))
    }
}
