//! Whatever becomes of a test, its lab is thawed and removed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stillpoint_tests::command::run;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};

const MAKER: &str = "STILLPOINT_TEST_MAKER";

/// What the maker lives at most.
const LONG: Duration = Duration::from_secs(120);

/// Not a test of its own: the process that the others kill.
#[test]
fn maker() -> Result<()> {
    let Some(time) = std::env::var_os(MAKER) else { return Ok(()) };
    let time = Duration::from_secs(time.to_str().context("not a number")?.parse()?);
    let lab = Lab::new(&[FsSpec::new("a", FsType::Ext4, 64)], time)?;
    let writer = lab
        .command("sh")
        .args(["-c", "while :; do echo x >\"$1\"; done", "writer"])
        .arg(lab.mount("a").join("file"))
        .spawn()?;
    run("fsfreeze", [Path::new("-f"), &lab.mount("a")])?;
    println!("\nready {} {}", lab.directory().display(), writer.id());
    std::thread::sleep(LONG);
    Ok(())
}

struct Maker {
    process: Child,
    directory: PathBuf,
    writer: PathBuf,
}

fn start_maker(time: Duration) -> Result<Maker> {
    let mut process = Command::new(std::env::current_exe()?)
        .args(["--exact", "maker", "--nocapture"])
        .env(MAKER, time.as_secs().to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(process.stdout.take().context("no output")?);
    for line in output.lines() {
        if let Some(names) = line?.strip_prefix("ready ") {
            let (directory, writer) = names.split_once(' ').context("two words")?;
            let (directory, writer) = (directory.into(), Path::new("/proc").join(writer));
            return Ok(Maker { process, directory, writer });
        }
    }
    anyhow::bail!("the maker ended early: {}", process.wait()?)
}

fn gone_within(maker: &Maker, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while maker.directory.exists() || maker.writer.join("environ").exists() {
        ensure!(Instant::now() < deadline, "{} is still there", maker.directory.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    let directory = maker.directory.display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&directory), "still mounted");
    ensure!(!run("losetup", ["-l"])?.contains(&directory), "a loop device is left");
    Ok(())
}

#[test]
fn a_killed_test_leaves_nothing_frozen_mounted_attached_or_running() -> Result<()> {
    let mut maker = start_maker(LONG)?;
    ensure!(maker.directory.is_dir());
    maker.process.kill()?;
    maker.process.wait()?;
    gone_within(&maker, Duration::from_secs(20))
}

#[test]
fn a_test_that_hangs_is_ended_with_its_lab() -> Result<()> {
    let mut maker = start_maker(Duration::from_secs(3))?;
    gone_within(&maker, Duration::from_secs(20))?;
    ensure!(!maker.process.wait()?.success());
    // The watchdog says in its log that it had to step in.
    let log = PathBuf::from(format!("{}.log", maker.directory.display()));
    ensure!(std::fs::read_to_string(&log)?.contains("outlived"));
    Ok(std::fs::remove_file(&log)?)
}
