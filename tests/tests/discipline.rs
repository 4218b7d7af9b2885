//! While anything is frozen, no path is looked up, no file written, nothing forked or executed, no
//! name resolved and no memory asked for: by agent, guard and sentinel, with the log's pipe full, and
//! with the program, its state, its cache and its log on a file system that is frozen.

#![expect(clippy::print_stdout, reason = "what was heard is told")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::mariadb::{MariaDb, Place};
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Stillpoint};
use stillpoint_tests::sweep::discipline::{heed, reason};

/// What a pipe holds unless it was made larger.
const FULL: usize = 64 << 10;

#[test]
fn while_anything_is_frozen_nothing_is_asked_that_could_wait_for_it() -> Result<()> {
    let specs = [FsSpec::new("a", FsType::Ext4, 320), FsSpec::new("b", FsType::Xfs, 320)];
    let lab = Lab::new(&specs, Duration::from_secs(300))?;
    nothing_is_asked(&lab, &lab.mount("a"), |_| Ok(()))?;
    lab.finish()
}

#[test]
fn nor_while_a_hook_holds_a_database_that_is_frozen_too() -> Result<()> {
    let specs = [FsSpec::new("data", FsType::Ext4, 640), FsSpec::new("binlog", FsType::Xfs, 320)];
    let lab = Lab::new(&specs, Duration::from_secs(300))?;
    let place = Place { data: lab.mount("data"), binlog: lab.mount("binlog") };
    let server = MariaDb::install(&lab, place)?;
    nothing_is_asked(&lab, &lab.mount("data"), |stillpoint| {
        stillpoint.install_mysql_hook(server.socket())
    })?;
    server.stop()?;
    lab.finish()
}

/// A run with all that it has, but for /run and /etc, on `frozen`.
fn nothing_is_asked(
    lab: &Lab,
    frozen: &Path,
    prepare: impl FnOnce(&Stillpoint) -> Result<()>,
) -> Result<()> {
    let stillpoint = Stillpoint::new(lab)?;
    stillpoint.configure(&stillpoint.settings(lab, NO_SCRIPTS))?;
    let frozen = frozen.join("installation");
    fs::create_dir_all(frozen.join("var/log"))?;
    symlink(frozen.join("var"), lab.root().join("var"))?;
    prepare(&stillpoint)?;
    let program = frozen.join("stillpoint");
    fs::copy(stillpoint.binary(), &program).context("cannot copy the program")?;

    let (mut log, mut log_end) = std::io::pipe()?;
    log_end.write_all(&vec![b'.'; FULL])?;
    let output = lab.scratch("output")?.join("stdout");
    let mut command = lab.command(&program);
    command.arg("--root").arg(lab.root()).args(["--json", "snapshot", "--name", "discipline"]);
    command.env("STILLPOINT_LOG", "trace").current_dir(&frozen);
    command.stdin(Stdio::null()).stdout(fs::File::create(&output)?).stderr(log_end);
    let heard = heed(command)?;

    // Whoever reads the log comes late; what did not fit was dropped.
    let mut logged = Vec::new();
    log.read_to_end(&mut logged)?;
    ensure!(logged.len() >= FULL, "the pipe was not full");
    let document = fs::read_to_string(&output)?;
    ensure!(heard.status.success(), "{}: {document}", heard.status);
    ensure!(heard.windows >= 2, "a rehearsal and a window, not {}", heard.windows);
    let calls: usize = heard.allowed.values().sum();
    println!("{} windows, {calls} calls in them, of {} kinds", heard.windows, heard.allowed.len());
    for (number, times) in &heard.allowed {
        println!("call {number}, {times} times: {}", reason(*number));
    }
    for (offence, times) in &heard.offences {
        println!("not allowed: {} times {offence:?}", times);
    }
    ensure!(calls > 0 && heard.offences.is_empty(), "{} offences", heard.offences.len());
    Ok(())
}
