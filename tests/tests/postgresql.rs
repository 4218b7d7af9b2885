//! Twenty snapshots of a busy PostgreSQL in each mode of its hook: each restores, each is proved, and
//! little is redone.

use std::time::Duration;

use anyhow::Result;
use stillpoint_tests::servers::machine::prove_many;
use stillpoint_tests::servers::{Kind, Machine};

const ROUNDS: usize = 20;
const LONGEST: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_snapshots_of_postgresql_are_all_restored_and_proved() -> Result<()> {
    let machine = Machine::new(&[Kind::PostgreSql], LONGEST)?;
    prove_many(&machine, ROUNDS).await?;
    machine.finish()
}

/// Started without its label: then the snapshot is one of one moment, as in the other mode.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_base_backups_of_postgresql_are_all_restored_and_proved() -> Result<()> {
    let machine = Machine::new(&[Kind::PostgreSqlBackup], LONGEST)?;
    prove_many(&machine, ROUNDS).await?;
    machine.finish()
}
