//! MariaDB, PostgreSQL and Redis on one machine, on ext4, XFS and btrfs: twenty snapshots of all
//! three, each restored and all three proved; and one of them failing, which the others do not wait
//! for.

#![expect(clippy::print_stdout, reason = "what was measured is told")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use stillpoint_tests::rig::CLIENTS;
use stillpoint_tests::servers::machine::{prove_many, wait_for_all};
use stillpoint_tests::servers::pause::Pause;
use stillpoint_tests::servers::{Kind, Machine};
use stillpoint_tests::stillpoint::{Manifest, Run};

const ALL: [Kind; 3] = [Kind::MariaDb, Kind::PostgreSql, Kind::Redis];
const HOOKS: [&str; 3] = ["mysql", "postgresql", "redis"];
const ROUNDS: usize = 20;
const LONGEST: Duration = Duration::from_secs(900);

/// Deadlines of the runs in which something fails.
const DEADLINES: &str =
    "[deadlines]\nprepare = \"4s\"\nquiesce = \"4s\"\nconfirm = \"2s\"\nrelease = \"2s\"\n";

/// Those that nothing happened to commit again within this time of the run's end.
const SOON: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_snapshots_of_three_databases_are_all_restored_and_proved() -> Result<()> {
    let machine = Machine::new(&ALL, LONGEST)?;
    let manifest = prove_many(&machine, ROUNDS).await?;
    quiesced_at_the_same_time(&manifest)?;
    machine.finish()
}

/// Nobody named another in `after`: each began before any other had ended.
fn quiesced_at_the_same_time(manifest: &Manifest) -> Result<()> {
    let spans = HOOKS.map(|hook| manifest.span_of("quiesce", hook));
    for one in &spans {
        for other in &spans {
            let (one, other) = (one.as_ref(), other.as_ref());
            if let (Ok(one), Ok(other)) = (one, other) {
                ensure!(one.began_ns < other.ended_ns, "one after the other: {spans:?}");
            }
        }
    }
    ensure!(spans.iter().all(Result::is_ok), "{spans:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_declared_order_is_kept_both_ways() -> Result<()> {
    let machine = Machine::new(&ALL, LONGEST)?;
    machine.change_grant("mysql", "after = []", "after = [\"postgresql\", \"redis\"]")?;
    machine.change_grant("redis", "after = []", "after = [\"postgresql\"]")?;
    let manifest = prove_many(&machine, 1).await?;
    let [mysql, postgresql, redis] =
        HOOKS.map(|hook| (manifest.span_of("quiesce", hook), manifest.span_of("release", hook)));
    let ((mysql, mysql_out), (postgresql, postgresql_out), (redis, redis_out)) =
        (mysql, postgresql, redis);
    ensure!(postgresql?.ended_ns <= redis.as_ref().map_or(0, |span| span.began_ns));
    ensure!(redis?.ended_ns <= mysql?.began_ns);
    ensure!(mysql_out?.ended_ns <= redis_out.as_ref().map_or(0, |span| span.began_ns));
    ensure!(redis_out?.ended_ns <= postgresql_out?.began_ns);
    machine.finish()
}

/// Where the run stands when one server is lost, and how it is lost.
const LOSSES: &[(&str, &str, Loss)] = &[
    ("agent.quiesce.before", "abort", Loss::Killed),
    ("agent.quiesce.before", "lower", Loss::Killed),
    ("agent.quiesce.before", "skip", Loss::Killed),
    ("agent.thaw.after", "abort", Loss::Killed),
];

const STOPPED: &[(&str, &str, Loss)] = &[
    ("agent.quiesce.before", "abort", Loss::Stopped),
    ("agent.thaw.after", "abort", Loss::Stopped),
    ("agent.release.before", "abort", Loss::Stopped),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Killed,
    Stopped,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_is_lost_is_not_waited_for_by_the_others() -> Result<()> {
    losses(LOSSES).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_stands_still_is_as_it_was_afterwards() -> Result<()> {
    losses(STOPPED).await
}

async fn losses(losses: &[(&str, &str, Loss)]) -> Result<()> {
    let mut machine = Machine::new(&ALL, LONGEST)?;
    machine.configure(DEADLINES)?;
    for (place, on_failure, loss) in losses {
        let context = || format!("redis {loss:?} at {place}, on-failure {on_failure}");
        let line = |word: &str| format!("on-failure = \"{word}\"");
        machine.change_grant("redis", &line("abort"), &line(on_failure))?;
        one_loss(&mut machine, place, on_failure, *loss).await.with_context(context)?;
        machine.change_grant("redis", &line(on_failure), &line("abort"))?;
    }
    machine.finish()
}

async fn one_loss(machine: &mut Machine, place: &str, on_failure: &str, loss: Loss) -> Result<()> {
    // Redis is the last of the three, and its own clients would be lost with it.
    let mut writers = machine.start_writers(CLIENTS).await?;
    wait_for_all(&writers, 50).await?;
    let redis_writers = writers.pop().context("three databases")?;
    drop(redis_writers);
    let before = states(machine).await?;
    let pause = Pause::at(&machine.lab, place)?;
    let mut snapshot = pause.start(&machine.stillpoint, "loss")?;
    if !snapshot.reached()? {
        bail!("the run ended before {place}: {}", snapshot.ended()?.description());
    }
    match loss {
        Loss::Killed => machine.databases[2].kill()?,
        Loss::Stopped => machine.databases[2].signal(Signal::SIGSTOP)?,
    }
    let began = Instant::now();
    snapshot.go()?;
    // Whatever the others wait for, it is not the one that is lost.
    let others = tokio::time::timeout(SOON * 4, wait_for_all(&writers, 50)).await;
    let others_after = began.elapsed();
    let run = snapshot.ended()?;
    println!(
        "redis {loss:?} at {place}, {on_failure}: exit {:?}, the others commit after {others_after:.1?}",
        run.code
    );
    others.context("the others do not commit")??;
    wait_for_all(&writers, 20).await.context("after the run")?;
    for writers in writers {
        writers.stop().await?;
    }
    match loss {
        Loss::Killed => machine.databases[2].start(&machine.lab)?,
        Loss::Stopped => machine.databases[2].signal(Signal::SIGCONT)?,
    }
    judge(machine, &run, place, on_failure)?;
    // The lost one holds them for as long as it is asked by a hook of its own wave at most.
    let patience = match (place, on_failure) {
        // Their locks wait for its deadline only while it is being quiesced.
        ("agent.quiesce.before", _) if loss == Loss::Stopped => Duration::from_secs(5),
        _ => SOON,
    };
    ensure!(others_after < patience, "the others waited {others_after:?}");
    for database in &machine.databases {
        database.write().await.with_context(|| format!("{} afterwards", database.kind()))?;
    }
    let after = states(machine).await?;
    ensure!(before == after, "settings have changed");
    Ok(())
}

async fn states(machine: &Machine) -> Result<Vec<std::collections::BTreeMap<String, String>>> {
    let mut states = Vec::new();
    for database in &machine.databases {
        states.push(database.state().await?);
    }
    Ok(states)
}

fn judge(machine: &Machine, run: &Run, place: &str, on_failure: &str) -> Result<()> {
    match (place, on_failure) {
        // An application that is there and fails is not one that is absent.
        ("agent.quiesce.before", "abort" | "skip") => {
            run.exited_with(9)?;
            ensure!(run.error_text()?.contains("redis"), "{}", run.description());
        }
        ("agent.release.before", _) => {
            // Its pause ends by itself. The first that has proved all stops the run here: whether it
            // was this one, the manifest says.
            ensure!(matches!(run.code, Some(0 | 10)), "{}", run.description());
            let manifest = run.manifest()?;
            let hooks = manifest.at("/hooks")?.as_array().context("no list of hooks")?;
            let proved = hooks.iter().all(|hook| hook["confirmed"] == true);
            ensure!((manifest.level()? == "application") == proved, "{}", run.description());
        }
        ("agent.quiesce.before", _) => {
            ensure!(run.manifest()?.level()? == "file-system", "{}", run.description());
            ensure!(run.manifest()?.reason_codes()?.contains(&"hook-failed".to_owned()));
        }
        _ => {
            ensure!(run.manifest()?.level()? != "application", "{}", run.description());
            ensure!(run.manifest()?.reason_codes()?.contains(&"not-confirmed".to_owned()));
        }
    }
    if let Ok(manifest) = run.manifest() {
        machine.stillpoint.delete(manifest.group()?)?;
    }
    machine.stillpoint.has_no_group()
}
