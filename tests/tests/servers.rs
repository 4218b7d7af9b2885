//! What judges the copies of PostgreSQL and Redis sees what is wrong with them: a snapshot that was
//! taken without any hook is told from one that is what a hook would have made of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use stillpoint_tests::oracle::Violation;
use stillpoint_tests::rig::CLIENTS;
use stillpoint_tests::servers::machine::wait_for_all;
use stillpoint_tests::servers::{Kind, Machine};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_snapshot_without_hooks_lacks_is_seen() -> Result<()> {
    let kinds = [Kind::PostgreSql, Kind::RedisDumps];
    let machine = Machine::without_hooks(&kinds, Duration::from_secs(300))?;
    let writers = machine.start_writers(CLIENTS).await?;
    wait_for_all(&writers, 100).await?;
    let run = tokio::task::block_in_place(|| machine.stillpoint.snapshot("no-hook", &[]))?;
    wait_for_all(&writers, 100).await?;
    let mut histories = Vec::new();
    for writers in writers {
        histories.push(writers.stop().await?);
    }
    let manifest = run.succeeded()?.manifest()?;
    let verdicts = machine.examine(&manifest, histories).await?;

    // Frozen, so that nothing is lost; but nobody saved where the server stood.
    let postgresql = &verdicts[0].0;
    println!("{postgresql:?}");
    ensure!(postgresql.had_to_be_there > 0 && postgresql.could_not_be_there > 0);
    ensure!(postgresql.rows >= postgresql.had_to_be_there);
    ensure!(!postgresql.violations.is_empty());
    for violation in &postgresql.violations {
        let expected = matches!(violation, Violation::Position { .. } | Violation::Redo { .. });
        ensure!(expected, "{violation}");
    }
    // What was never dumped is gone.
    let redis = &verdicts[1].0;
    println!("{redis:?}");
    let lost = |violation: &Violation| matches!(violation, Violation::LostCommit { .. });
    ensure!(redis.violations.iter().any(lost), "{redis:?}");

    for database in &machine.databases {
        database.write().await?;
        ensure!(!database.state().await?.is_empty());
    }
    machine.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_are_stopped_killed_and_started_again() -> Result<()> {
    let kinds = [Kind::MariaDb, Kind::PostgreSql, Kind::Redis];
    let mut machine = Machine::without_hooks(&kinds, Duration::from_secs(300))?;
    let Machine { databases, lab, .. } = &mut machine;
    for database in databases {
        use nix::sys::signal::Signal;
        let before = database.state().await?;
        database.signal(Signal::SIGSTOP)?;
        ensure!(database.write().await.is_err(), "{} answers while it is stopped", database.kind());
        database.signal(Signal::SIGCONT)?;
        database.write().await?;
        database.kill()?;
        ensure!(database.write().await.is_err(), "{} answers after its end", database.kind());
        database.start(lab)?;
        database.write().await?;
        ensure!(database.state().await? == before, "{}: not as it was", database.kind());
    }
    machine.finish()
}
