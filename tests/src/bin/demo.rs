//! `make demo`: a live database, a snapshot by stillpoint, a restore, and the proof. Exits with 0
//! only if everything was proved and nothing is left behind.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it tells a story")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use stillpoint_tests::leftovers;
use stillpoint_tests::oracle::Verdict;
use stillpoint_tests::rig::{CLIENTS, PATIENCE, Rig};
use stillpoint_tests::stats::millis;
use stillpoint_tests::stillpoint::Manifest;
use stillpoint_tests::writers::{History, Interval, TABLES, Writers, now_ns};
use tokio::signal::unix::{SignalKind, signal};

/// Far more than it takes; then the watchdog ends it.
const LONGEST: Duration = Duration::from_secs(300);

const NAME: &str = "demo";

/// As after any program that ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let cgroups = leftovers::cgroups();
    let mut lab_directory = None;
    let told = tokio::select! {
        told = tell(&mut lab_directory) => Some(told),
        () = interrupted() => None,
    };
    // Whatever happened, the lab is gone by now, or this says what is not.
    let left = lab_directory.map(|lab| leftovers::of_lab(&lab, &cgroups)).unwrap_or_default();
    match (told, left.as_slice()) {
        (Some(Ok(())), []) => {
            println!("\nleft behind: nothing (no mount, loop device, process or cgroup)");
            ExitCode::SUCCESS
        }
        (told, left) => {
            for thing in left {
                eprintln!("left behind: {thing}");
            }
            match told {
                Some(Ok(())) => ExitCode::FAILURE,
                Some(Err(error)) => {
                    eprintln!("\nthe demo failed: {error:#}");
                    ExitCode::FAILURE
                }
                None => {
                    eprintln!("\ninterrupted; everything of the demo is removed");
                    ExitCode::from(INTERRUPTED)
                }
            }
        }
    }
}

async fn interrupted() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
    std::future::poll_fn(|context| {
        let any = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// The story.
async fn tell(lab_directory: &mut Option<std::path::PathBuf>) -> Result<()> {
    println!("stillpoint: a snapshot of a live database, restored and proved\n");
    let rig = make_lab(lab_directory).await?;
    let (manifest, history, whole) = snapshot_under_load(&rig).await?;
    let verdict = restore(&rig, &manifest, &history).await?;
    let proved = prove(&manifest, verdict);
    show_times(&manifest, &history, whole)?;
    rig.finish()?;
    proved
}

async fn make_lab(lab_directory: &mut Option<std::path::PathBuf>) -> Result<Rig> {
    step(1, "a lab: two file systems in image files, on an XFS that can clone files");
    let rig = tokio::task::block_in_place(|| Rig::without_hook(LONGEST))?;
    *lab_directory = Some(rig.lab.directory().to_owned());
    for fs in rig.lab.file_systems() {
        println!("      {:<8} {:<5} {}", fs.name, fs.fs_type.name(), fs.device.display());
    }
    step(2, "a MariaDB of its own: data on one of them, binary log on the other");
    let version: Option<String> =
        rig.server.connect().await?.query_first("SELECT VERSION()").await?;
    println!("      {}", version.context("the server has no version")?);
    rig.fresh_tables().await?;
    step(3, "the hook: a WebAssembly component that may send the granted statements, no more");
    tokio::task::block_in_place(|| rig.stillpoint.install_mysql_hook(rig.server.socket()))?;
    println!(
        "      stillpoint hook sign --key lab.key mysql.wasm      (a key that this lab alone trusts)\n      stillpoint hook install mysql.wasm\n      stillpoint hook grant mysql --accept"
    );
    Ok(rig)
}

async fn snapshot_under_load(rig: &Rig) -> Result<(Manifest, History, Interval)> {
    step(4, &format!("the snapshot, while {CLIENTS} clients commit as fast as they can\n"));
    let writers = Writers::start(rig.server.options(), CLIENTS).await?;
    writers.wait_for(1000, PATIENCE).await?;
    let began_ns = now_ns();
    let status = tokio::task::block_in_place(|| {
        rig.stillpoint.command(["snapshot", "--name", NAME]).status()
    })?;
    let whole = Interval { began_ns, ended_ns: now_ns() };
    ensure!(status.success(), "stillpoint snapshot: {status}");
    writers.wait_for(500, PATIENCE).await?;
    let history = writers.stop().await?;
    let manifest = tokio::task::block_in_place(|| rig.stillpoint.listed_manifest(NAME))?;
    Ok((manifest, history, whole))
}

async fn restore(rig: &Rig, manifest: &Manifest, history: &History) -> Result<Verdict> {
    step(5, "the restore: copies are attached, mounted, and a second MariaDB starts on them");
    println!("      stillpoint restore {}", manifest.group()?);
    let verdict = rig.examine(manifest, history).await?;
    println!(
        "      {} rows; its log: {}",
        verdict.rows,
        if verdict.start_log.crash_recovery { "redo, no undo" } else { "no recovery" }
    );
    Ok(verdict)
}

fn prove(manifest: &Manifest, verdict: Verdict) -> Result<()> {
    step(6, "the proof");
    let level = manifest.level()?;
    ensure!(level == "application", "the level is {level}: {:?}", manifest.reason_codes()?);
    let verdict = verdict.into_result()?;
    ensure!(
        verdict.had_to_be_there > 0 && verdict.could_not_be_there > 0,
        "there were no commits before or after the hold: nothing is proved"
    );
    let end = &verdict.binlog_end;
    for line in [
        format!("level {level}: the hook proved that it held the lock until after the thaw"),
        format!(
            "{} commits were acknowledged before the hold: all are there",
            verdict.had_to_be_there
        ),
        format!("{} commits were begun after it: none is there", verdict.could_not_be_there),
        format!(
            "each client's rows are the beginning of what it wrote, over {} tables of three engines",
            TABLES.len()
        ),
        format!(
            "the two file systems agree: the binary log ends at {}:{}, where the hook said, and its {} rows are the {} in the tables",
            end.file, end.offset, verdict.rows, verdict.rows
        ),
        "nothing was rolled back, no transaction in doubt, every table closed".to_owned(),
        "no file system's journal had anything to bring back".to_owned(),
    ] {
        println!("      ok  {line}");
    }
    Ok(())
}

fn show_times(manifest: &Manifest, history: &History, whole: Interval) -> Result<()> {
    let nanoseconds = |pointer: &str| manifest.number(pointer).map(Duration::from_nanos);
    let disturbed = history.durations_in(whole);
    let first = history.commits.iter().flatten().map(|commit| commit.began_ns).min();
    // Beside it: the same clients, before stillpoint was started.
    let control = history.durations_in(Interval {
        began_ns: first.unwrap_or_default(),
        ended_ns: whole.began_ns.saturating_sub(1),
    });
    println!("\ntimes");
    println!("      file systems frozen   {:>8.2} ms", millis(nanoseconds("/timings/window_ns")?));
    println!(
        "      of it, the provider   {:>8.2} ms",
        millis(nanoseconds("/timings/provider_ns")?)
    );
    println!("      database locked       {:>8.2} ms", millis(nanoseconds("/timings/hold_ns")?));
    println!(
        "      clients' worst commit {:>8.2} ms while stillpoint ran; {:.2} ms before (n = {} and {})",
        millis(disturbed.max()),
        millis(control.max()),
        disturbed.count(),
        control.count()
    );
    Ok(())
}

fn step(number: usize, what: &str) {
    println!("[{number}/6] {what}");
}
