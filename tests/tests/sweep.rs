//! The bounded part of what `make kills` and `make sweep` do at length. Each is a process of its own,
//! because it becomes the parent of whatever dead runs leave behind.

use std::process::Command;

use anyhow::{Result, ensure};

/// What is chosen unless `STILLPOINT_TEST_SEED` says otherwise: the same for everybody who runs this.
const SEED: &str = "20261120";

/// Runs `sweep ARGUMENTS` to its end; it prints its seed and its table.
fn sweep(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sweep"));
    if std::env::var_os(stillpoint_tests::random::SEED).is_none() {
        command.env(stillpoint_tests::random::SEED, SEED);
    }
    let status = command.args(arguments).status()?;
    ensure!(status.success(), "sweep {}: {status}", arguments.join(" "));
    Ok(())
}

#[test]
fn wherever_a_run_is_killed_nothing_stays_frozen_and_nothing_is_left() -> Result<()> {
    sweep(&["kills", "--count", "400", "--fields", "3", "--seconds", "50"])
}

#[test]
fn btrfs_never_ends_read_only_however_many_signals_fly() -> Result<()> {
    sweep(&["btrfs", "--thaws", "300", "--seconds", "25"])
}

#[test]
fn whichever_system_call_fails_nothing_stays_frozen_and_the_error_says_why() -> Result<()> {
    sweep(&["calls", "--each", "2", "--seconds", "100"])
}
