//! A long UPDATE stands in front of the lock: stillpoint gives up, and nobody waits long for it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable;
use stillpoint_tests::rig::{CLIENTS, PATIENCE, Rig};
use stillpoint_tests::stats::millis;
use stillpoint_tests::stillpoint::NO_SCRIPTS;
use stillpoint_tests::writers::{Interval, Writers, now_ns};

/// The whole of what quiescing may take, in the configuration of this test.
const QUIESCE: Duration = Duration::from_secs(6);

/// The hook's setting: how long the lock may wait, and so everybody behind it.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Nobody may wait longer than that by more than this.
const MARGIN: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_long_update_in_front_of_the_lock_stalls_nobody_for_long() -> Result<()> {
    let rig = Rig::new(Duration::from_secs(300))?;
    let settings = rig.stillpoint.settings(
        &rig.lab,
        &format!("{NO_SCRIPTS}\n[deadlines]\nquiesce = \"{}s\"", QUIESCE.as_secs()),
    );
    rig.stillpoint.configure(&settings)?;
    let grant = std::fs::read_to_string(rig.stillpoint.config_file("hooks.d/mysql.toml"))?;
    let lock_wait = format!("[settings]\nlock-wait-timeout-seconds = {}\n", LOCK_WAIT.as_secs());
    rig.stillpoint
        .write_config("hooks.d/mysql.toml", &grant.replacen("[settings]\n", &lock_wait, 1))?;
    rig.fresh_tables().await?;
    let mut slow = rig.server.connect().await?;
    slow.query_drop("CREATE TABLE lab.slow (id INT PRIMARY KEY, n INT) ENGINE=InnoDB").await?;
    slow.query_drop("INSERT INTO lab.slow VALUES (1, 0)").await?;

    let writers = Writers::start(rig.server.options(), CLIENTS).await?;
    writers.wait_for(100, PATIENCE).await?;
    let slow_id = slow.id();
    let update = tokio::spawn(async move {
        // Ended by KILL below; how it ends does not matter.
        let _ = slow.query_drop("UPDATE lab.slow SET n = n + 1 WHERE SLEEP(120) = 0").await;
    });
    tokio::time::sleep(Duration::from_millis(300)).await;

    let began = Instant::now();
    let began_ns = now_ns();
    let run = tokio::task::block_in_place(|| rig.stillpoint.snapshot("blocked", &[]))?;
    let whole = Interval { began_ns, ended_ns: now_ns() };
    println!("gave up after {:.1} s: {}", began.elapsed().as_secs_f64(), run.error_text()?);
    run.exited_with(9)?;
    // Quiescing, and what is done before and after it.
    ensure!(began.elapsed() < QUIESCE + Duration::from_secs(5), "took {:?}", began.elapsed());

    // The UPDATE is still running, and the others commit all the same.
    ensure!(!update.is_finished(), "the UPDATE was killed, or never ran");
    writers.wait_for(100, Duration::from_secs(5)).await?;
    rig.server.execute(&format!("KILL {slow_id}"))?;
    update.await?;
    let history = writers.stop().await?;
    let worst = history.durations_in(whole).max();
    println!("worst commit meanwhile: {:.0} ms", millis(worst));
    ensure!(worst <= LOCK_WAIT + MARGIN, "a commit took {worst:?}");
    ensure!(worst > LOCK_WAIT / 2, "nothing stood in front of the lock: {worst:?}");
    rig.finish()
}
