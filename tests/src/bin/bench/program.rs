//! The program itself: how soon it talks to the database, how much memory it takes, how big it is.

use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use nix::sys::resource::{UsageWho, getrusage};
use stillpoint_tests::command::output_of;
use stillpoint_tests::rig::Rig;
use stillpoint_tests::stats::Durations;

use crate::report::Report;
use crate::{LONGEST, Rounds};

/// First argument of the process that measures another's memory.
pub const PEAK_MEMORY_OF: &str = "--peak-memory-of";

pub async fn measure(rounds: Rounds, report: &mut Report) -> Result<()> {
    let rig = tokio::task::block_in_place(|| Rig::new(LONGEST))?;
    rig.fresh_tables().await?;
    let mut first_statements = Vec::new();
    for _ in 0..rounds.many {
        first_statements.push(first_statement(&rig).await?);
    }
    report.add(
        "Start",
        "stillpoint snapshot",
        "stillpoint",
        "process start to the hook's first statement",
        &first_statements.into_iter().collect::<Durations>(),
    );
    report.value("peak memory of a run (resident, any one process)", peak_memory(&rig)?, "MiB");
    let bytes = std::fs::metadata(rig.stillpoint.binary())?.len();
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    report.value("size of the binary", bytes as f64 / f64::from(1 << 20), "MiB");
    rig.finish()
}

/// As the server's own log of statements has it: it stamps them with microseconds.
async fn first_statement(rig: &Rig) -> Result<Duration> {
    let mut connection = rig.server.connect().await?;
    let own = connection.id();
    for statement in [
        "SET GLOBAL log_output = 'TABLE'",
        "TRUNCATE mysql.general_log",
        "SET GLOBAL general_log = 1",
    ] {
        connection.query_drop(statement).await?;
    }
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let run = tokio::task::block_in_place(|| rig.stillpoint.snapshot("bench", &[]))?;
    connection.query_drop("SET GLOBAL general_log = 0").await?;
    let stamp: Option<f64> = connection
        .query_first(format!(
            "SELECT CAST(UNIX_TIMESTAMP(MIN(event_time)) AS DOUBLE) FROM mysql.general_log \
             WHERE command_type = 'Query' AND thread_id <> {own}"
        ))
        .await?;
    connection.disconnect().await?;
    let manifest = run.succeeded()?.manifest()?;
    tokio::task::block_in_place(|| rig.stillpoint.delete(manifest.group()?))?;
    let stamp = Duration::from_secs_f64(stamp.context("the hook sent no statement")?);
    Ok(stamp.saturating_sub(started))
}

/// Of the largest of its processes. In a process of its own, because the kernel keeps one greatest
/// value of all children that were ever waited for, and servers were among ours.
fn peak_memory(rig: &Rig) -> Result<f64> {
    let snapshot = rig.stillpoint.command(["--json", "snapshot", "--name", "bench"]);
    let mut measured = rig.lab.command(std::env::current_exe()?);
    measured.arg(PEAK_MEMORY_OF).arg(snapshot.get_program()).args(snapshot.get_args());
    let kibibytes: f64 = output_of(&mut measured)?.trim().parse()?;
    let manifest = rig.stillpoint.listed_manifest("bench")?;
    rig.stillpoint.delete(manifest.group()?)?;
    Ok(kibibytes / 1024.0)
}

/// The other side of [`peak_memory`]: runs a program and prints its peak memory in KiB.
pub fn print_peak_memory_of(mut program: impl Iterator<Item = OsString>) -> Result<()> {
    let mut command = Command::new(program.next().context("no program")?);
    output_of(command.args(program))?;
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss());
    Ok(())
}
