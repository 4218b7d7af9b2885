//! A bounded part of the fault matrix (every step and every fault at least once), and the matrix
//! itself put to the test: with a safeguard left out on purpose it must fail. All of it: `make faults`.

#![expect(clippy::print_stdout, reason = "the table and the seed are for whoever reads the tests")]

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The runner, on a tmpfs where there is one: nothing but the program under test waits for a disk.
fn faults(arguments: &[&str], json: &Path) -> Result<(Output, Value)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faults"));
    command.args(arguments).arg("--json").arg(json);
    if Path::new("/dev/shm").is_dir() {
        command.env("TMPDIR", "/dev/shm");
    }
    let output = command.output().context("cannot start the runner")?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    ensure!(
        matches!(output.status.code(), Some(0 | 1)),
        "the runner could not run: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = serde_json::from_slice(&std::fs::read(json)?)?;
    Ok((output, report))
}

fn number(report: &Value, key: &str) -> u64 {
    report.get(key).and_then(Value::as_u64).unwrap_or(u64::MAX)
}

#[test]
fn every_fault_at_every_step_leaves_nothing_frozen_and_nothing_untrue() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let json = directory.path().join("faults.json");
    let (output, report) = faults(&["--bounded", "--budget", "5"], &json)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{}", errors.lines().next().unwrap_or_default());
    ensure!(output.status.success(), "{errors}");
    ensure!(number(&report, "left_frozen") == 0, "left frozen: {errors}");
    ensure!(number(&report, "false_application") == 0, "false application: {errors}");
    // What ended before its place was reached has shown nothing.
    ensure!(number(&report, "not_reached") * 20 < number(&report, "run"), "{errors}");
    Ok(())
}

/// What is left out, the cells that must notice it, and what they must say.
const BROKEN: [(&str, &str, &str); 4] = [
    ("agent.confirm", "/hook-confirm-fail", "application, but the hook did not confirm"),
    (
        "guard.announce",
        "ext4x1/agent.snapshot.before/sigkill-agent+guard+sentinel,\
         xfsx1/agent.snapshot.before/sigkill-agent+guard+sentinel,\
         ext4x4/agent.snapshot.before/sigkill-agent+guard+sentinel",
        "frozen",
    ),
    ("guard.withdraw", "guard.thaw.before@2/sigkill-agent+guard+sentinel", "frozen"),
    ("guard.sweep", "xfsx1/agent.quiesce.after/writeinflightalone", "frozen"),
];

#[test]
fn the_matrix_notices_every_safeguard_that_is_left_out() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let json = directory.path().join("faults.json");
    for (what, filter, says) in BROKEN {
        for (arguments, expected) in
            [(vec!["--filter", filter], 0), (vec!["--filter", filter, "--broken", what], 1)]
        {
            let arguments = [&["--seed", "1"][..], &arguments].concat();
            let (output, report) = faults(&arguments, &json)?;
            let errors = String::from_utf8_lossy(&output.stderr);
            ensure!(number(&report, "run") > 0, "no such cell: {filter}");
            ensure!(output.status.code() == Some(expected), "{what}: {arguments:?}: {errors}");
            ensure!(expected == 0 || errors.contains(says), "{what}: not for {says:?}: {errors}");
        }
    }
    Ok(())
}
