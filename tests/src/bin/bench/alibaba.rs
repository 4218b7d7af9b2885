//! The provider `alibaba`: what the window costs beside the requests in it, and how soon after the
//! last freeze the request for the group is there. ECS is emulated, on loopback, and answers at once.

use std::time::Duration;

use anyhow::{Context, Result};
use stillpoint_tests::cloud_rig::CloudRig;
use stillpoint_tests::lab::{FsSpec, FsType};
use stillpoint_tests::stats::{Durations, millis};

use crate::report::Report;
use crate::{PAUSE, Rounds};

const FILE_SYSTEMS: usize = 4;

/// Each snapshot is cheap: enough of them for a p99 that is not the greatest value.
const TIMES: usize = 5;

pub fn measure(rounds: Rounds, report: &mut Report) -> Result<()> {
    let specs: Vec<FsSpec> = (0..FILE_SYSTEMS)
        .map(|index| FsSpec::new(format!("fs{index}"), FsType::Ext4, 192))
        .collect();
    let rig = CloudRig::of(&specs, |_| ())?;
    let (mut beside, mut whole, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds.many * TIMES {
        // A superblock that was frozen a moment ago freezes faster.
        std::thread::sleep(PAUSE);
        rig.cloud.emulator.clear_log();
        let manifest = rig.stillpoint.snapshot("bench", &[])?.succeeded()?.manifest()?;
        let window = Duration::from_nanos(manifest.number("/timings/window_ns")?);
        let provider = Duration::from_nanos(manifest.number("/timings/provider_ns")?);
        let calls = rig.cloud.calls("CreateSnapshotGroup");
        let received_ns = calls.first().context("no request")?.received_ns;
        let frozen_ns = manifest.span("freeze", "freeze")?.ended_ns;
        beside.push(window.saturating_sub(provider));
        whole.push(window);
        sent.push(Duration::from_nanos(received_ns.saturating_sub(frozen_ns)));
        rig.cloud.emulator.clear_groups();
    }
    tell(beside, whole, sent, report);
    rig.finish()
}

fn tell(beside: Vec<Duration>, whole: Vec<Duration>, sent: Vec<Duration>, report: &mut Report) {
    let (section, case) = ("Snapshot-consistent groups of an emulated ECS", "4 ext4, idle");
    let [beside, whole, sent] =
        [beside, whole, sent].map(|set| set.into_iter().collect::<Durations>());
    report.add(section, case, "stillpoint", "window less its requests", &beside);
    report.add(section, case, "stillpoint", "window", &whole);
    report.add(section, case, "stillpoint", "last freeze to the request's arrival", &sent);
    report.at_most(
        "window of 4 file systems, less its requests to ECS",
        millis(beside.median()),
        10.0,
        "ms",
    );
    report.at_most(
        "the request's arrival at ECS after the last freeze",
        millis(sent.median()),
        2.0,
        "ms",
    );
}
