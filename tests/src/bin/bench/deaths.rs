//! From the SIGKILL of the agent, in its window, to the return of a write on each file system.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stillpoint_tests::cloud_rig::CloudRig;
use stillpoint_tests::file_writers::FileWriters;
use stillpoint_tests::lab::{FsSpec, FsType};
use stillpoint_tests::standing::{none_frozen, wait_until};
use stillpoint_tests::stats::{Durations, millis};
use stillpoint_tests::writers::now_ns;

use crate::report::{COUNTS, Report};
use crate::{PAUSE, Rounds};

/// How long the emulated cloud takes over a group: far longer than a death.
const LONG: Duration = Duration::from_secs(3);

/// How long a run may take until it has frozen.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn measure(rounds: Rounds, report: &mut Report) -> Result<()> {
    for count in COUNTS {
        let recovered = of_many(count, rounds.many)?;
        let case = format!("{count} ext4, one writer each");
        let what = "SIGKILL to the last writer's return";
        report.add("The agent's death in its window", &case, "stillpoint", what, &recovered);
        let name = format!("SIGKILL of the agent to the last of {count} file systems writable");
        report.at_most(&name, millis(recovered.max()), 250.0, "ms");
    }
    Ok(())
}

fn of_many(count: usize, rounds: usize) -> Result<Durations> {
    let specs: Vec<FsSpec> =
        (0..count).map(|index| FsSpec::new(format!("fs{index}"), FsType::Ext4, 64)).collect();
    let rig = CloudRig::of(&specs, |_| ())?;
    let (frozen, is_frozen) = mpsc::channel();
    rig.cloud.emulator.on_create(move |_| {
        // Nobody listens any more at the end.
        let _ = frozen.send(());
        std::thread::sleep(LONG);
    });
    let mut all = Vec::new();
    for _ in 0..rounds {
        all.push(one(&rig, &is_frozen)?);
        rig.cloud.emulator.clear_groups();
    }
    rig.finish()?;
    Ok(all.into_iter().collect())
}

fn one(rig: &CloudRig, is_frozen: &mpsc::Receiver<()>) -> Result<Duration> {
    for fs in rig.lab.file_systems() {
        // What is asked whether it is frozen.
        std::fs::write(fs.mount.join("present"), "before the freeze\n")?;
    }
    let writers = FileWriters::start(rig.lab.file_systems().iter().map(|fs| &fs.mount))?;
    let mut agent = rig.stillpoint.start_snapshot("bench")?;
    let told = is_frozen.recv_timeout(PATIENCE);
    // By now each writer is in the write that waits.
    std::thread::sleep(PAUSE);
    let killed_ns = now_ns();
    agent.kill()?;
    agent.wait()?;
    told.context("the run did not reach its window")?;
    wait_until("everything is thawed", || none_frozen(&rig.lab))?;
    let history = writers.stop()?;
    let mut last = 0;
    for writes in &history.commits {
        let waited = writes
            .iter()
            .find(|write| write.began_ns < killed_ns && write.acked_ns > killed_ns)
            .context("a writer was not held up: was it frozen?")?;
        last = last.max(waited.acked_ns);
    }
    ensure!(last > killed_ns, "no writer");
    Ok(Duration::from_nanos(last - killed_ns))
}
