//! The units that are shipped, under the service manager that they are written for.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::vm::bench::{Bench, NOTHING_LEFT, Writer};
use crate::vm::guest::{Guest, PATIENCE};
use crate::vm::machine::Machine;

const DISK: &str = "/dev/disk/by-id/virtio-bp1vmdata1";
const MOUNT: &str = "/mnt/units";
/// Longer than anything here takes, shorter than the cloud's answer.
const NEVER: Duration = Duration::from_secs(120);
/// What ends a window by itself ends it long before the deadline.
const AT_ONCE: Duration = Duration::from_secs(15);

/// Not running, and not `activating`, which is what a oneshot that runs is.
const ENDED: &str =
    "systemctl show -P ActiveState stillpoint-snapshot | grep -qE '^(inactive|failed)$'";

/// The next run, by the unit.
const NEXT: &str = "systemctl reset-failed; systemctl start stillpoint-snapshot || \
    { journalctl -u stillpoint-snapshot -u stillpoint-sentinel -o cat | tail -n 40; false; }";

/// A file system, the sentinel's service, and a window that only somebody's death can end early.
fn open_window(guest: &Guest) -> Result<(Bench<'_>, Writer)> {
    guest.sh(&format!(
        "mkfs.ext4 -qF {DISK} && mkdir -p {MOUNT} && mount {DISK} {MOUNT} && systemctl daemon-reload &&\n\
         systemctl reset-failed && systemctl start stillpoint-sentinel"
    ))?;
    let bench = Bench::new(guest, &[MOUNT])?;
    bench.window_of(NEVER)?;
    let writer = Writer::start(guest, MOUNT)?;
    guest.sh("systemctl start --no-block stillpoint-snapshot")?;
    bench.until_in_window()?;
    ensure!(sentinel(guest, "StatusText")? == "watching a run", "the run does not use the service");
    Ok((bench, writer))
}

/// The window ends before the deadline; afterwards all is well, and the next run is.
fn ends_well(bench: &Bench<'_>, writer: Writer) -> Result<f64> {
    let guest = bench.guest();
    let began = Instant::now();
    let write = format!("timeout -s KILL 25 touch {MOUNT}/.probe");
    guest.until("thawed", &write, AT_ONCE)?;
    ensure!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
    guest.until("all gone", NOTHING_LEFT, PATIENCE)?;
    guest.until("ended", ENDED, PATIENCE)?;
    let longest = writer.longest(guest)?;
    // The cloud is still at the request that nobody waits for any more, and that counts.
    guest.sh("systemctl restart ecs-emulator")?;
    bench.cloud_fails(&[])?;
    guest.sh(NEXT)?;
    ensure!(sentinel(guest, "StatusText")? == "waiting for runs", "the service is not idle");
    bench.all_is_well(&["/", MOUNT])?;
    guest.sh(&format!("umount {MOUNT} && wipefs -qa {DISK}"))?;
    Ok(longest)
}

fn sentinel(guest: &Guest, property: &str) -> Result<String> {
    let value = guest.sh(&format!("systemctl show -P {property} stillpoint-sentinel"))?;
    Ok(value.trim().to_owned())
}

/// Timer and service, as they are installed.
pub(super) fn units(machine: &mut Machine) -> Result<String> {
    let guest = machine.guest()?;
    guest.sh(
        // The manual page is not installed in this machine.
        "systemd-analyze verify --man=no /etc/systemd/system/stillpoint-*.service \
         /etc/systemd/system/stillpoint-*.timer &&\n\
         systemctl enable -q --now stillpoint-sentinel stillpoint-recover stillpoint-snapshot.timer",
    )?;
    let bench = Bench::new(guest, &[])?;
    guest.sh("systemctl start stillpoint-snapshot")?;
    let disks = bench.disks_of_last_group()?;
    ensure!(disks.len() == 5, "{disks:?}");
    bench.all_is_well(&["/"])?;
    guest
        .sh("systemctl restart stillpoint-sentinel && systemctl stop stillpoint-snapshot.timer")?;
    Ok("verified, enabled, started; a snapshot of all disks with / by the unit".to_owned())
}

/// The one peer rule: a sentinel that is lost ends the window, and the one that systemd starts in its
/// place finishes what that one had begun, with the descriptors that it gets back.
pub(super) fn sentinel_killed(machine: &mut Machine) -> Result<String> {
    let guest = machine.guest()?;
    let (bench, writer) = open_window(guest)?;
    let kept = sentinel(guest, "NFileDescriptorStore")?;
    ensure!(kept.parse::<u32>()? >= 3, "plan, board and mount are with the manager: {kept}");
    let before = sentinel(guest, "MainPID")?;
    guest.sh("systemctl kill -s KILL stillpoint-sentinel")?;
    let longest = ends_well(&bench, writer)?;
    let after = sentinel(guest, "MainPID")?;
    ensure!(after != before && after != "0", "it was not started again");
    ensure!(sentinel(guest, "NFileDescriptorStore")? == "0", "the manager still keeps descriptors");
    Ok(format!(
        "{kept} descriptors kept; a write waited {longest:.1} s of 30; restarted, store empty"
    ))
}

/// Agent and guard at once: nobody is left but the sentinel, in another unit.
pub(super) fn run_killed(machine: &mut Machine) -> Result<String> {
    let guest = machine.guest()?;
    let (bench, writer) = open_window(guest)?;
    guest.sh("systemctl kill -s KILL --kill-whom=all stillpoint-snapshot")?;
    let longest = ends_well(&bench, writer)?;
    Ok(format!("agent and guard killed; a write waited {longest:.1} s of 30"))
}

/// Everything of ours at once, and the sentinel is not started again: the third layer.
pub(super) fn all_killed(machine: &mut Machine) -> Result<String> {
    let guest = machine.guest()?;
    let (bench, writer) = open_window(guest)?;
    guest.sh(
        "mkdir -p /run/systemd/system/stillpoint-sentinel.service.d &&\n\
         printf '[Service]\\nRestart=no\\n' >/run/systemd/system/stillpoint-sentinel.service.d/no.conf &&\n\
         systemctl daemon-reload",
    )?;
    // One process sends both, so that there is no time between them.
    guest.sh("kill -KILL $(systemctl show -P MainPID stillpoint-sentinel) $(cat /sys/fs/cgroup/system.slice/stillpoint-snapshot.service/cgroup.procs)")?;
    let result = ends_without_service(guest, &bench, writer);
    guest.sh("rm -r /run/systemd/system/stillpoint-sentinel.service.d && systemctl daemon-reload && systemctl restart stillpoint-sentinel")?;
    let longest = result?;
    guest.sh(&format!("umount {MOUNT} && wipefs -qa {DISK}"))?;
    Ok(format!(
        "agent, guard and sentinel killed; ExecStopPost thawed: a write waited {longest:.1} s of 30"
    ))
}

fn ends_without_service(guest: &Guest, bench: &Bench<'_>, writer: Writer) -> Result<f64> {
    let write = format!("timeout -s KILL 25 touch {MOUNT}/.probe");
    guest.until("thawed", &write, AT_ONCE)?;
    guest.until("ended", ENDED, PATIENCE)?;
    let longest = writer.longest(guest)?;
    bench.all_is_well(&["/", MOUNT])?;
    Ok(longest)
}

pub(super) fn stopped(machine: &mut Machine) -> Result<String> {
    ended_by(machine, "systemctl stop stillpoint-snapshot")
}

pub(super) fn restarted(machine: &mut Machine) -> Result<String> {
    // The second run would wait in its window, too.
    ended_by(
        machine,
        "systemctl restart --no-block stillpoint-snapshot && sleep 1 && systemctl stop stillpoint-snapshot",
    )
}

fn ended_by(machine: &mut Machine, how: &str) -> Result<String> {
    let guest = machine.guest()?;
    let (bench, writer) = open_window(guest)?;
    guest.sh(how)?;
    let longest = ends_well(&bench, writer)?;
    Ok(format!("a write waited {longest:.1} s of 30"))
}
