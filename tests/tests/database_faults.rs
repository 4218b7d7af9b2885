//! Everything that happens to servers, in every phase, for every hook: the run ends in time with the
//! right code, what it says of the snapshot is true, the server can be written to at once when the
//! fault is over, and nothing is configured otherwise than before. The cells are generated from the
//! lists in `servers::faults`.

#![expect(clippy::print_stdout, reason = "a line for each cell, as it ends")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use stillpoint_tests::oracle::Violation;
use stillpoint_tests::servers::faults::{Expected, Fault, Happened, Phase, expected};
use stillpoint_tests::servers::machine::wait_for_all;
use stillpoint_tests::servers::pause::Pause;
use stillpoint_tests::servers::{Database, Kind, Machine, stand_in};
use stillpoint_tests::stillpoint::Run;
use stillpoint_tests::writers::History;

const LONGEST: Duration = Duration::from_secs(1200);

const DEADLINES: &str = "[deadlines]\nprepare = \"6s\"\nquiesce = \"4s\"\nfreeze = \"8s\"\n\
                         confirm = \"2s\"\nrelease = \"2s\"\n";

/// All deadlines, one after the other, and what lies between them.
const LONGEST_RUN: Duration = Duration::from_secs(25);

const CLIENTS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn faults_of_mariadb() -> Result<()> {
    all_cells(Kind::MariaDb).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn faults_of_postgresql() -> Result<()> {
    all_cells(Kind::PostgreSql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn faults_of_postgresql_in_a_base_backup() -> Result<()> {
    all_cells(Kind::PostgreSqlBackup).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn faults_of_redis() -> Result<()> {
    all_cells(Kind::Redis).await
}

/// Every cell is tried, whatever came of those before it.
async fn all_cells(kind: Kind) -> Result<()> {
    let mut machine = Machine::new(&[kind], LONGEST)?;
    machine.configure(DEADLINES)?;
    let only = std::env::var("STILLPOINT_TEST_CELL").unwrap_or_default();
    let (mut failed, mut passed) = (Vec::new(), 0);
    for fault in Fault::ALL {
        for phase in Phase::ALL {
            let name = format!("{kind}: {fault} in {phase:?}");
            if !fault.is_possible(kind, phase) || !name.contains(&only) {
                continue;
            }
            let began = Instant::now();
            match one_cell(&mut machine, fault, phase).await {
                Ok(outcome) => {
                    passed += 1;
                    println!("{name}: {outcome} ({:.1?})", began.elapsed());
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    println!("{name}: FAILED: {error}");
                    // All of it is above, where it happened; what is read first is the end.
                    failed.push(format!("{name}: {}", error.lines().next().unwrap_or_default()));
                    machine = Machine::new(&[kind], LONGEST)?;
                    machine.configure(DEADLINES)?;
                }
            }
        }
    }
    ensure!(
        failed.is_empty(),
        "{} of {} cells failed:\n{}",
        failed.len(),
        failed.len() + passed,
        failed.join("\n")
    );
    ensure!(passed > 0, "no cell was tried");
    machine.finish()
}

async fn one_cell(machine: &mut Machine, fault: Fault, phase: Phase) -> Result<String> {
    let kind = machine.databases[0].kind();
    machine.databases[0].write().await?;
    let before = machine.databases[0].state().await?;
    let writers = machine.start_writers(CLIENTS).await?;
    wait_for_all(&writers, 20).await?;
    let pause = Pause::at(&machine.lab, phase.place())?;
    let mut snapshot = pause.start(&machine.stillpoint, "cell")?;
    if !snapshot.reached()? {
        bail!("the run ended before {}: {}", phase.place(), snapshot.ended()?.description());
    }

    let Machine { databases, lab, stillpoint } = &mut *machine;
    let happened = Happened::now((fault, phase), databases[0].as_mut(), lab).await?;
    let began = Instant::now();
    snapshot.go()?;
    let run = tokio::task::block_in_place(|| snapshot.ended())?;
    let took = began.elapsed();
    ensure!(took < LONGEST_RUN, "the run took {took:?}: {}", run.description());
    happened.undo(databases[0].as_mut(), lab).await.context("undo")?;

    if undoes_itself(kind, fault) {
        is_as_it_was(databases[0].as_ref(), &before).await.context("after the run")?;
    }
    if has_problems(&run)? {
        // What the run could not undo it has said; with the fault gone, this undoes it.
        tokio::task::block_in_place(|| stillpoint.run(["recover"]))?.exited_with(0)?;
    }
    is_as_it_was(databases[0].as_ref(), &before).await.context("in the end")?;
    let mut histories = Vec::new();
    for writers in writers {
        // Those that did not lose their server go on.
        let _ = writers.wait_for(20, Duration::from_secs(5)).await;
        histories.push(writers.stop_anyhow(Duration::from_secs(5)).await?);
    }
    for fs in lab.file_systems() {
        let mut touch = lab.command("timeout");
        touch.args(["-s", "KILL", "5", "touch"]).arg(fs.mount.join("still-runs"));
        ensure!(touch.status()?.success(), "{} is not writable", fs.mount.display());
    }
    let mut outcome = judge(machine, &run, (kind, fault, phase), histories).await?;
    if has_problems(&run)? {
        outcome.push_str(", recovered");
    }
    Ok(format!("{outcome} after {took:.1?}"))
}

/// A hook whose permissions are gone cannot undo what it did to a Redis, where nothing ends with the
/// session: the pause ends by itself, 5 s after the hold budget, and the rest is left to `recover`.
fn undoes_itself(kind: Kind, fault: Fault) -> bool {
    kind.hook() != "redis" || fault != Fault::Privileges
}

/// It can be written to at once, and nothing is configured otherwise than before.
async fn is_as_it_was(database: &dyn Database, before: &BTreeMap<String, String>) -> Result<()> {
    database.write().await?;
    let after = database.state().await?;
    for (name, value) in before {
        let now = after.get(name);
        ensure!(now == Some(value), "{name} was {value:?}, and is {now:?}");
    }
    Ok(())
}

/// Whether the run says that something could not be proved or undone.
fn has_problems(run: &Run) -> Result<bool> {
    Ok(run.json()?["problems"].as_array().is_some_and(|problems| !problems.is_empty()))
}

/// What it came to, in words, if that is allowed and true.
async fn judge(
    machine: &Machine,
    run: &Run,
    (kind, fault, phase): (Kind, Fault, Phase),
    histories: Vec<History>,
) -> Result<String> {
    let expected = expected(kind, fault, phase);
    let Ok(manifest) = run.manifest() else {
        ensure!(
            matches!(expected, Expected::NoSnapshot | Expected::Truth),
            "{}",
            run.description()
        );
        run.exited_with(9)?;
        let hook = machine.databases[0].kind().hook();
        let error = run.error_text()?;
        ensure!(error.contains(hook), "{}", run.description());
        let hinted = error.contains("stillpoint recover");
        ensure!(hinted == has_problems(run)?, "what undoes it? {}", run.description());
        machine.stillpoint.has_no_group()?;
        return Ok("exit 9, no snapshot".to_owned());
    };
    // 10 if something is to be done, and then it is said what.
    run.exited_with(if has_problems(run)? { 10 } else { 0 })?;
    let level = manifest.level()?.to_owned();
    let reasons = manifest.reason_codes()?;
    if level == "application" {
        ensure!(
            matches!(expected, Expected::Application | Expected::Truth),
            "{}",
            run.description()
        );
        for (verdict, _) in machine.examine(&manifest, histories).await? {
            // Clients may have been lost with their server before they could commit after the thaw.
            let violations = verdict.violations.iter();
            let list: Vec<String> = violations
                .filter(|violation| !is_from_before(violation, fault, phase))
                .map(ToString::to_string)
                .collect();
            ensure!(list.is_empty(), "application, but: {list:?}: {}", run.description());
        }
    } else {
        ensure!(matches!(expected, Expected::Lowered | Expected::Truth), "{}", run.description());
        ensure!(!reasons.is_empty(), "no reason: {}", run.description());
        run.exited_with(10)?;
        machine.stillpoint.delete(manifest.group()?)?;
    }
    machine.stillpoint.has_no_group()?;
    Ok(format!("exit {:?}, {level} {reasons:?}", run.code.unwrap_or_default()))
}

/// MariaDB's own tables are not crash-safe with its binary log: a server that was killed may have logged
/// a row of Aria's or MyISAM's that it had not written, for each client the one that was under way. That
/// is so on the original, too, from before the snapshot.
fn is_from_before(violation: &Violation, fault: Fault, phase: Phase) -> bool {
    let killed = fault == Fault::Restarted && matches!(phase, Phase::Prepare | Phase::PreFreeze);
    match violation {
        Violation::BinlogAndData { in_binlog, in_tables } => {
            killed && in_binlog.abs_diff(*in_tables) <= CLIENTS as u64
        }
        _ => false,
    }
}

/// There are stand-ins that answer as old ones did; MariaDB's versions are in the unit tests of its hook.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_that_are_too_old_are_refused_by_name_before_anything_is_held() -> Result<()> {
    let machine = Machine::new(&[Kind::PostgreSql, Kind::Redis], LONGEST)?;
    machine.configure(DEADLINES)?;
    let stand_ins = [
        (stand_in::postgresql(&machine.lab)?, "postgresql", stand_in::OLD_POSTGRESQL),
        (stand_in::redis(&machine.lab)?, "redis", "older than Redis 6.0"),
    ];
    for (old, hook, version) in &stand_ins {
        machine.write_connections()?;
        let file = machine.stillpoint.config_file("connections.toml");
        let others: String = std::fs::read_to_string(file)?
            .split("[connections.")
            .filter(|table| !table.is_empty() && !table.starts_with(hook))
            .map(|table| format!("[connections.{table}"))
            .collect();
        let text = format!("{others}[connections.{hook}]\n{}", old.connection);
        machine.stillpoint.write_config("connections.toml", &text)?;
        let run = tokio::task::block_in_place(|| machine.stillpoint.snapshot("old", &[]))?;
        run.exited_with(9)?;
        let error = run.error_text()?;
        println!("{error}");
        ensure!(error.contains(hook) && error.contains(version), "{error}");
        machine.stillpoint.has_no_group()?;
        for database in &machine.databases {
            database.write().await?;
        }
    }
    machine.finish()
}
