//! Twenty snapshots of a busy Redis in each of its ways to keep data: each restores, each is proved.

use std::time::Duration;

use anyhow::Result;
use stillpoint_tests::servers::machine::prove_many;
use stillpoint_tests::servers::{Kind, Machine};

const ROUNDS: usize = 20;
const LONGEST: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_snapshots_of_redis_with_an_append_only_file_are_all_restored_and_proved()
-> Result<()> {
    let machine = Machine::new(&[Kind::Redis], LONGEST)?;
    prove_many(&machine, ROUNDS).await?;
    machine.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn snapshots_of_redis_that_syncs_before_each_answer_are_all_restored_and_proved() -> Result<()>
{
    let machine = Machine::new(&[Kind::RedisAlways], LONGEST)?;
    prove_many(&machine, ROUNDS / 4).await?;
    machine.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_snapshots_of_redis_with_dumps_alone_are_all_restored_and_proved() -> Result<()> {
    let machine = Machine::new(&[Kind::RedisDumps], LONGEST)?;
    prove_many(&machine, ROUNDS).await?;
    machine.finish()
}
