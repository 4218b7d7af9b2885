//! The oracle accepts a snapshot that was taken with all steps, and catches each that is left out.

use std::time::Duration;

use anyhow::{Result, ensure};
use stillpoint_tests::by_hand::{ByHand, Steps};
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::mariadb::{MariaDb, Place};
use stillpoint_tests::oracle::{Verdict, Violation, examine};
use stillpoint_tests::writers::{Writers, create_tables};

struct Rig {
    lab: Lab,
    server: MariaDb,
}

impl Rig {
    fn new() -> Result<Self> {
        let specs =
            [FsSpec::new("data", FsType::Ext4, 512), FsSpec::new("binlog", FsType::Xfs, 320)];
        let lab = Lab::new(&specs, Duration::from_secs(300))?;
        let place = Place { data: lab.mount("data"), binlog: lab.mount("binlog") };
        let server = MariaDb::install(&lab, place)?;
        Ok(Self { lab, server })
    }

    async fn verdict(&self, steps: Steps) -> Result<Verdict> {
        create_tables(&mut self.server.connect().await?).await?;
        self.server.execute("RESET MASTER")?;
        let writers = Writers::start(self.server.options(), 4).await?;
        writers.wait_for(500, Duration::from_secs(60)).await?;
        let snapshot = ByHand::take(&self.lab, &self.server, steps).await?;
        writers.wait_for(100, Duration::from_secs(60)).await?;
        let history = writers.stop().await?;
        let verdict = examine(&self.lab, &snapshot.copies, &history, &snapshot.claim).await?;
        snapshot.discard()?;
        Ok(verdict)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oracle_accepts_what_is_right_and_catches_every_step_left_out() -> Result<()> {
    let rig = Rig::new()?;

    let right = rig.verdict(Steps::ALL).await?.into_result()?;
    ensure!(right.had_to_be_there >= 500 && right.could_not_be_there > 0);

    let unlocked = rig.verdict(Steps { lock: false, ..Steps::ALL }).await?.violations;
    println!("without the lock: {unlocked:#?}");
    ensure!(unlocked.iter().any(|v| matches!(v, Violation::BinlogEnd { .. })));

    let unfrozen = rig.verdict(Steps { freeze: false, ..Steps::ALL }).await?.violations;
    println!("without the freeze: {unfrozen:#?}");
    let replays = unfrozen.iter().filter(|v| matches!(v, Violation::JournalReplay(_))).count();
    ensure!(replays == 2, "{replays} of 2 file systems");

    let torn = rig.verdict(Steps { both: false, ..Steps::ALL }).await?.violations;
    println!("with the binary log's file system left out: {torn:#?}");
    ensure!(torn.iter().any(|v| matches!(v, Violation::BinlogEnd { .. })));
    ensure!(torn.iter().any(|v| matches!(v, Violation::BinlogAndData { .. })));

    rig.server.stop()?;
    rig.lab.finish()
}
