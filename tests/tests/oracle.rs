//! The oracle accepts a snapshot that was taken with all steps, and catches each that is left out.

#![expect(clippy::print_stdout, reason = "what was caught, and by what")]

use anyhow::{Result, ensure};
use stillpoint_tests::proof::{Control, Left, mariadb_control, postgresql_control};

fn all_are_right(controls: &[Control]) -> Result<()> {
    for control in controls {
        println!("{control}");
        ensure!(control.is_right(), "{}: {:#?}", control.left, control.violations);
    }
    ensure!(controls.len() == Left::ALL.len(), "not all were tried");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oracle_accepts_what_is_right_and_catches_every_step_left_out() -> Result<()> {
    all_are_right(&mariadb_control(1).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_so_for_postgresql() -> Result<()> {
    all_are_right(&postgresql_control(1).await?)
}
