//! How long each database is held under load: stillpoint with its hook, and the shell's way with the
//! database's own client, in turn, in one run.

use std::time::Duration;

use anyhow::{Result, ensure};
use stillpoint_tests::rig::CLIENTS;
use stillpoint_tests::servers::machine::wait_for_all;
use stillpoint_tests::servers::shell;
use stillpoint_tests::servers::{Kind, Machine};
use stillpoint_tests::stats::{Durations, millis};

use crate::report::Report;
use crate::{LONGEST, PAUSE, Rounds};

/// Every clone leaves the images in more pieces, so that a lab is not used for long.
const ROUNDS_OF_A_LAB: usize = 5;

const KINDS: [Kind; 4] = [Kind::MariaDb, Kind::PostgreSql, Kind::PostgreSqlBackup, Kind::Redis];

/// At most this share of the shell's hold.
const SHARE: f64 = 0.5;

#[derive(Debug, Default)]
struct Holds {
    ours: Vec<Duration>,
    shell: Vec<Duration>,
}

pub async fn measure(rounds: Rounds, report: &mut Report) -> Result<()> {
    for kind in KINDS {
        let mut holds = Holds::default();
        let mut left = rounds.many;
        while left > 0 {
            let many = left.min(ROUNDS_OF_A_LAB);
            one_lab(kind, many, &mut holds).await?;
            left -= many;
        }
        let set = |durations: Vec<Duration>| durations.into_iter().collect::<Durations>();
        let (ours, shell) = (set(holds.ours), set(holds.shell));
        let (section, case) = ("Holds under load", format!("{kind}, {CLIENTS} clients"));
        report.add(section, &case, "stillpoint", "hold less the clones", &ours);
        report.add(section, &case, "shell", "hold less the clones", &shell);
        for (what, ours, shell) in
            [("median", ours.median(), shell.median()), ("p99", ours.p99(), shell.p99())]
        {
            report.at_most(
                &format!("{kind}: {what} hold as a share of the shell's"),
                millis(ours) / millis(shell).max(1e-6),
                SHARE,
                "times",
            );
        }
    }
    Ok(())
}

async fn one_lab(kind: Kind, rounds: usize, holds: &mut Holds) -> Result<()> {
    let machine = tokio::task::block_in_place(|| Machine::new(&[kind], LONGEST))?;
    let writers = machine.start_writers(CLIENTS).await?;
    wait_for_all(&writers, 500).await?;
    // The first of each is a warm-up.
    for round in 0..=rounds {
        let mut times = [Duration::ZERO; 2];
        for turn in 0..2 {
            tokio::time::sleep(PAUSE).await;
            let which = (round + turn) % 2;
            times[which] = tokio::task::block_in_place(|| match which {
                0 => ours(&machine, kind),
                _ => by_shell(&machine, kind),
            })?;
        }
        if round > 0 {
            holds.ours.push(times[0]);
            holds.shell.push(times[1]);
        }
    }
    for writers in writers {
        writers.stop().await?;
    }
    machine.finish()
}

/// PostgreSQL is held by the freeze and by nothing else: nobody waits for the start or the end of a base
/// backup.
fn is_held_by_the_freeze(kind: Kind) -> bool {
    matches!(kind, Kind::PostgreSql | Kind::PostgreSqlBackup)
}

fn ours(machine: &Machine, kind: Kind) -> Result<Duration> {
    let run = machine.stillpoint.snapshot("bench", &[])?;
    let manifest = run.succeeded()?.manifest()?;
    ensure!(manifest.level()? == "application", "{}", run.description());
    let timing = |name: &str| manifest.number(name).map(Duration::from_nanos);
    let held = if is_held_by_the_freeze(kind) { "window" } else { "hold" };
    let held = timing(&format!("/timings/{held}_ns"))?;
    let less_the_clones = held.saturating_sub(timing("/timings/provider_ns")?);
    machine.stillpoint.delete(manifest.group()?)?;
    Ok(less_the_clones)
}

fn by_shell(machine: &Machine, kind: Kind) -> Result<Duration> {
    let times = shell::take(&machine.lab, machine.databases[0].shell_client())?;
    let held = if is_held_by_the_freeze(kind) { times.window } else { times.hold };
    Ok(held.saturating_sub(times.clone))
}
