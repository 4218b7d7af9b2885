//! Metrics: what Prometheus reads after runs that went well and runs that did not, and the alerts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use stillpoint::exit_code::ExitCode;
use stillpoint_tests::command;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Stillpoint, workspace};

/// A lab whose stillpoint writes metrics.
struct Bench {
    lab: Lab,
    stillpoint: Stillpoint,
    file: PathBuf,
}

impl Bench {
    fn new() -> Result<Self> {
        let lab = Lab::new(&[FsSpec::new("data", FsType::Ext4, 64)], Duration::from_secs(120))?;
        let stillpoint = Stillpoint::new(&lab)?;
        let file = lab.scratch("textfile")?.join("stillpoint.prom");
        let bench = Self { lab, stillpoint, file };
        bench.configure("")?;
        Ok(bench)
    }

    fn configure(&self, more: &str) -> Result<()> {
        let metrics = format!("[metrics]\ntextfile = \"{}\"\n", self.file.display());
        let text = format!("{NO_SCRIPTS}\n{metrics}\n{more}");
        self.stillpoint.configure(&self.stillpoint.settings(&self.lab, &text))
    }

    fn value(&self, series: &str) -> Result<f64> {
        let text = fs::read_to_string(&self.file)?;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.with_context(|| format!("no {series} in\n{text}"))?.parse().context("not a number")
    }

    fn is(&self, series: &str, expected: f64) -> Result<()> {
        let value = self.value(series)?;
        ensure!((value - expected).abs() < 1e-9, "{series} is {value}, not {expected}");
        Ok(())
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[test]
fn prometheus_reads_what_came_of_each_run() -> Result<()> {
    let bench = Bench::new()?;
    // The first thing that ever happens is a failure: it is counted, and nothing claims a success.
    bench.stillpoint.snapshot("m", &["--require", "application"])?.exited_with(1)?;
    bench.is("stillpoint_run_failures_total{reason=\"precondition\"}", 1.0)?;
    bench.is("stillpoint_runs_total{result=\"failure\"}", 1.0)?;
    bench.is("stillpoint_last_success_timestamp_seconds", 0.0)?;
    bench.is("stillpoint_last_run_exit_code", 1.0)?;

    let began = now();
    let run = bench.stillpoint.snapshot("m", &[])?;
    let manifest = run.succeeded()?.manifest()?;
    bench.stillpoint.delete(manifest.group()?)?;
    bench.is("stillpoint_runs_total{result=\"success\"}", 1.0)?;
    bench.is("stillpoint_run_failures_total{reason=\"precondition\"}", 1.0)?;
    bench.is("stillpoint_level_reductions_total{reason=\"no-hook\"}", 1.0)?;
    bench.is("stillpoint_last_snapshot_level{level=\"file-system\"}", 1.0)?;
    bench.is("stillpoint_last_snapshot_level{level=\"application\"}", 0.0)?;
    bench.is("stillpoint_last_snapshot_timestamp_seconds{level=\"application\"}", 0.0)?;
    bench.is("stillpoint_maybe_frozen_file_systems", 0.0)?;
    let window = manifest.at("/timings/window_ns")?.as_f64().context("no window")? / 1e9;
    bench.is("stillpoint_last_snapshot_window_seconds", window)?;
    bench.is("stillpoint_last_snapshot_stall_seconds", window)?;
    for series in [
        "stillpoint_last_success_timestamp_seconds",
        "stillpoint_last_snapshot_timestamp_seconds{level=\"file-system\"}",
        "stillpoint_last_run_timestamp_seconds",
    ] {
        let at = bench.value(series)?;
        ensure!((began - 1.0..=now() + 1.0).contains(&at), "{series} is {at}");
    }

    // A later failure does not take away what is known of the last snapshot.
    bench.stillpoint.snapshot("m", &["--require", "application"])?.exited_with(1)?;
    bench.is("stillpoint_run_failures_total{reason=\"precondition\"}", 2.0)?;
    bench.is("stillpoint_last_snapshot_window_seconds", window)?;

    // The collector runs as somebody else; nothing else lies in its directory.
    ensure!(fs::metadata(&bench.file)?.permissions().mode() & 0o777 == 0o644);
    let directory = bench.file.parent().context("no directory")?;
    ensure!(fs::read_dir(directory)?.count() == 1, "something was left beside the file");
    let check = format!("promtool check metrics <{}", bench.file.display());
    let complaints = command::run("sh", ["-c", &check])?;
    ensure!(complaints.trim().is_empty(), "{complaints}");
    bench.lab.finish()
}

#[test]
fn a_file_that_cannot_be_written_costs_no_snapshot_and_is_told() -> Result<()> {
    let bench = Bench::new()?;
    fs::remove_dir_all(bench.file.parent().context("no directory")?)?;
    let run = bench.stillpoint.snapshot("m", &[])?;
    bench.stillpoint.delete(run.succeeded()?.manifest()?.group()?)?;
    ensure!(run.stderr.contains("stillpoint.prom"), "{}", run.description());

    bench.stillpoint.configure("[metrics]\ntextfile = \"/var/lib/stillpoint.txt\"\n")?;
    let run = bench.stillpoint.run(["snapshot"])?;
    run.exited_with(2)?;
    for part in ["stillpoint.toml:2:", "ends in .prom"] {
        ensure!(run.stderr.contains(part), "{part} is not in: {}", run.description());
    }
    bench.lab.finish()
}

#[test]
fn the_alerts_fire_when_they_should_and_else_are_silent() -> Result<()> {
    let directory = workspace().join("examples/alerts");
    let rules = directory.join("stillpoint.rules.yml");
    command::run("promtool", ["check".as_ref(), "rules".as_ref(), rules.as_os_str()])?;
    let tests = directory.join("stillpoint.rules.test.yml");
    command::run("promtool", ["test".as_ref(), "rules".as_ref(), tests.as_os_str()])?;
    // What a rule names is what we write: a name that is spelled wrongly never fires.
    let written = stillpoint::metrics::State::default().text();
    let page = fs::read_to_string(workspace().join("docs/metrics.md"))?;
    for code in ExitCode::ALL.into_iter().filter(|code| *code != ExitCode::Ok) {
        let said = format!("`{}` {}", code.name(), code as u8);
        ensure!(page.contains(&said), "{said} is not in docs/metrics.md");
    }
    let text = fs::read_to_string(&rules)?;
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: Vec<&str> = words.filter(|word| word.starts_with("stillpoint_")).collect();
    ensure!(named.len() >= 7, "{named:?}");
    for name in named {
        ensure!(page.contains(&format!("`{name}")), "{name} is not in docs/metrics.md");
        // Durations are there from the first snapshot on.
        let of_a_snapshot = name.starts_with("stillpoint_last_snapshot_");
        ensure!(of_a_snapshot || written.contains(name), "{name} is never written");
    }
    Ok(())
}
