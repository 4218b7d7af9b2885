//! What `rcu_expedited` and the rehearsal are worth, each alone, together, and neither: with a writer
//! on each file system, by stillpoint's own guard.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use stillpoint_tests::file_writers::FileWriters;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::stats::Durations;
use stillpoint_tests::writers::{Interval, now_ns};

use crate::guarded::{self, Steps};
use crate::order::Order;
use crate::report::{COUNTS, Report};
use crate::{LONGEST, PAUSE, Rounds};

/// MiB of one file system: more than the least that each type can be made of.
const SIZES: [(FsType, u64); 3] = [(FsType::Ext4, 64), (FsType::Xfs, 320), (FsType::Btrfs, 160)];

const WAYS: [(&str, Steps); 4] = [
    ("neither", Steps { expedite_rcu: false, sync: true, rehearse: false }),
    ("rehearsal", Steps { expedite_rcu: false, sync: true, rehearse: true }),
    ("rcu_expedited", Steps { expedite_rcu: true, sync: true, rehearse: false }),
    ("both", Steps { expedite_rcu: true, sync: true, rehearse: true }),
];

/// How long another run on this machine may take to put the switch back.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Case {
    windows: Vec<Duration>,
    stalls: Vec<Duration>,
}

pub async fn measure(rounds: Rounds, order: &mut Order, report: &mut Report) -> Result<()> {
    let before = guarded::rcu_expedited()?;
    let mut raised_by_others = 0;
    for (fs_type, mib) in SIZES {
        let specs: Vec<FsSpec> =
            (0..16).map(|index| FsSpec::new(format!("fs{index}"), fs_type, mib)).collect();
        let lab = Lab::new(&specs, LONGEST)?;
        let mut cases: [[Case; 4]; 3] = Default::default();
        for _ in 0..rounds.each {
            for (cases, count) in cases.iter_mut().zip(COUNTS) {
                for way in order.of(WAYS.len()) {
                    let (_, steps) = WAYS[way];
                    let by_others = one(&lab, count, steps, &mut cases[way]).await?;
                    raised_by_others += usize::from(by_others);
                }
            }
        }
        for (cases, count) in cases.into_iter().zip(COUNTS) {
            tell(fs_type, count, cases, report);
        }
        lab.finish()?;
    }
    if raised_by_others > 0 {
        report.note(format!(
            "rcu_expedited had been raised by somebody else {raised_by_others} times: those of \
             `neither` and `rehearsal` were faster for it"
        ));
    }
    left_as_found(before, report)
}

/// True if somebody else had raised the switch.
async fn one(lab: &Lab, count: usize, steps: Steps, case: &mut Case) -> Result<bool> {
    let mounts: Vec<PathBuf> =
        lab.file_systems().iter().take(count).map(|fs| fs.mount.clone()).collect();
    let writers = FileWriters::start(&mounts)?;
    tokio::time::sleep(PAUSE).await;
    let raised = guarded::rcu_expedited()? != 0;
    let began_ns = now_ns();
    let window = guarded::window(lab, &mounts, steps).await;
    let interval = Interval { began_ns, ended_ns: now_ns() };
    let history = writers.stop()?;
    case.windows.push(window?);
    case.stalls.push(history.durations_in(interval).max());
    Ok(raised)
}

fn tell(fs_type: FsType, count: usize, cases: [Case; 4], report: &mut Report) {
    let section = "rcu_expedited and the rehearsal, one writer on each file system";
    let name = format!("{count} {}", fs_type.name());
    for ((way, _), case) in WAYS.iter().zip(cases) {
        let set = |durations: Vec<Duration>| durations.into_iter().collect::<Durations>();
        report.add(section, &name, way, "window", &set(case.windows));
        report.add(section, &name, way, "longest write, rehearsal included", &set(case.stalls));
    }
}

fn left_as_found(before: u32, report: &mut Report) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while guarded::rcu_expedited()? != before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let off = f64::from(guarded::rcu_expedited()?.abs_diff(before));
    report.at_most("rcu_expedited afterwards, less what it was before", off, 0.0, "");
    Ok(())
}
