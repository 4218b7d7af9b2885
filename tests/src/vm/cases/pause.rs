//! The machine does not run for a while, in the window.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::stillpoint::{NO_SCRIPTS, Run};
use crate::vm::bench::{Bench, Writer};
use crate::vm::machine::Machine;

/// Longer than the window may be.
const STANDSTILL: Duration = Duration::from_secs(15);
const DISK: &str = "/dev/disk/by-id/virtio-bp1vmdata1";

/// The clocks of the machine have gone on: what was frozen is past its deadline.
pub(super) fn stalled(machine: &mut Machine) -> Result<String> {
    let (run, longest) = in_window(machine, |machine| machine.stall(STANDSTILL))?;
    ensure!(run.code == Some(6), "{}", run.description());
    let level = run.json()?.get("level").cloned().unwrap_or_default();
    ensure!(level.is_null(), "{}", run.description());
    Ok(format!(
        "exit 6, no snapshot; the longest write took {longest:.1} s, all but moments of it the stall"
    ))
}

/// The clocks of the machine have stood still, too: to it, nothing has happened, and nothing else can
/// be asked of it than its promise by its own clock.
pub(super) fn paused(machine: &mut Machine) -> Result<String> {
    let (run, longest) = in_window(machine, |machine| machine.pause(STANDSTILL))?;
    let level = run.json()?.get("level").and_then(Value::as_str).map(str::to_owned);
    ensure!(level.as_deref() != Some("application"), "{}", run.description());
    ensure!(
        longest < 11.0,
        "by the machine's clock a write took {longest} s: {}",
        run.description()
    );
    let level = level.unwrap_or_else(|| "none".to_owned());
    Ok(format!(
        "exit {}, level {level}; the longest write took {longest:.1} s",
        run.code.unwrap_or(-1)
    ))
}

/// Deadlines are of a clock that nobody sets: neither ends the window, which the cloud does after 5 s,
/// and the level is what it would have been.
pub(super) fn clock_jumps(machine: &mut Machine) -> Result<String> {
    let jump = |machine: &mut Machine| {
        machine
            .sh("date -s '+1 day' >/dev/null && sleep 1 && date -s '-2 days' >/dev/null")
            .map(drop)
    };
    let (run, longest) = in_window(machine, jump)?;
    machine.sh("date -s '+1 day' >/dev/null")?;
    ensure!(run.code == Some(0), "{}", run.description());
    let document = run.json()?;
    let level = document.get("level").and_then(Value::as_str).unwrap_or("none");
    ensure!(level == "file-system", "{}", run.description());
    ensure!(longest < 11.0, "a write took {longest} s: {}", run.description());
    Ok(format!("exit 0, level {level}; the longest write took {longest:.1} s"))
}

fn in_window(
    machine: &mut Machine,
    standstill: impl FnOnce(&mut Machine) -> Result<()>,
) -> Result<(Run, f64)> {
    machine
        .sh(&format!("mkfs.ext4 -qF {DISK} && mkdir -p /mnt/pause && mount {DISK} /mnt/pause"))?;
    let guest = machine.guest()?;
    let bench = Bench::new(guest, &[])?;
    let window = format!("{NO_SCRIPTS}[deadlines]\nfreeze = \"10s\"\n");
    bench.configure(&["/mnt/pause"], &window)?;
    bench.window_of(Duration::from_secs(5))?;
    let writer = Writer::start(guest, "/mnt/pause")?;
    let begun = bench.begin_snapshot("")?;
    bench.until_in_window()?;
    standstill(machine)?;
    let guest = machine.guest()?;
    let run = Bench::end(begun)?;
    let longest = writer.longest(guest)?;
    Bench::new(guest, &["/mnt/pause"])?.all_is_well(&["/", "/mnt/pause"])?;
    guest.sh(&format!("umount /mnt/pause && wipefs -qa {DISK}"))?;
    Ok((run, longest))
}
