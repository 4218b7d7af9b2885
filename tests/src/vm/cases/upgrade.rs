//! A package manager replaces the binary while a run goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use ecs_emulator::Fault;

use crate::vm::bench::Bench;
use crate::vm::machine::Machine;

/// As dpkg does: another file, renamed over the old one. This one is no stillpoint, so that whoever
/// starts it by its path would be noticed.
const REPLACE: &str = "printf '#!/bin/sh\\nexit 99\\n' >/usr/local/bin/stillpoint.new && \
    chmod 755 /usr/local/bin/stillpoint.new && \
    ln -f /usr/local/bin/stillpoint /usr/local/bin/stillpoint.kept && \
    mv /usr/local/bin/stillpoint.new /usr/local/bin/stillpoint";
const PUT_BACK: &str = "mv /usr/local/bin/stillpoint.kept /usr/local/bin/stillpoint";
const DISK: &str = "/dev/disk/by-id/virtio-bp1vmdata1";

pub(super) fn in_mid_run(machine: &mut Machine) -> Result<String> {
    let guest = machine.guest()?;
    guest.sh(&format!("mkfs.ext4 -qF {DISK} && mkdir -p /mnt/up && mount {DISK} /mnt/up"))?;
    let slow = Duration::from_secs(5);
    // Before guard and sentinel are started, and after everything is frozen.
    for (action, when) in [("DescribeDisks", "prepare"), ("CreateSnapshotGroup", "window")] {
        let bench = Bench::new(guest, &["/mnt/up"])?;
        bench.cloud_fails(&[Fault::on(action).delay_before(slow)])?;
        let begun = bench.begin_snapshot("")?;
        let asked = format!("curl -sf http://127.0.0.1:8001/_control/log | grep -q {action}");
        guest.until(when, &asked, Duration::from_secs(60))?;
        guest.sh(REPLACE)?;
        let run = Bench::end(begun)?;
        guest.sh(PUT_BACK)?;
        let level = run.succeeded()?.manifest()?.level()?.to_owned();
        ensure!(level == "file-system", "{when}: {}", run.description());
        bench.all_is_well(&["/", "/mnt/up"])?;
    }
    guest.sh(&format!("umount /mnt/up && wipefs -qa {DISK}"))?;
    Ok("replaced in prepare and in the window; both runs reached file-system".to_owned())
}
