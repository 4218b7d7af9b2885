//! Disks that hang or fail below a file system, for real: device mapper.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::stillpoint::{NO_SCRIPTS, Run};
use crate::vm::bench::Bench;
use crate::vm::guest::{Guest, PATIENCE};
use crate::vm::machine::{Machine, serial};

/// Of a freeze in these tests.
const DEADLINE: Duration = Duration::from_secs(6);
/// A processor that is emulated, and shared.
const SLACK: Duration = Duration::from_secs(3);
const DEADLINES: &str = "[deadlines]\nfreeze = \"6s\"\nsync = \"6s\"\nquiesce = \"60s\"\n";

/// `/bad` on a mapped device over data1, `/good` on data2, `/fine` an XFS on data3.
struct Disks<'g> {
    guest: &'g Guest,
}

impl<'g> Disks<'g> {
    fn make(guest: &'g Guest, fs_type: &str) -> Result<Self> {
        let [one, two, three] = ["data1", "data2", "data3"]
            .map(|disk| format!("/dev/disk/by-id/virtio-{}", serial(disk)));
        guest.sh(&format!(
            "set -e\nmodprobe dm-flakey\n\
             dmsetup create bad --table \"0 $(blockdev --getsz {one}) linear {one} 0\"\n\
             mkfs.{fs_type} -q /dev/mapper/bad; mkfs.ext4 -qF {two}; mkfs.xfs -qf {three}\n\
             mkdir -p /bad /good /fine\n\
             mount /dev/mapper/bad /bad; mount {two} /good; mount {three} /fine\n\
             echo data >/bad/file; sync -f /bad/file"
        ))?;
        Ok(Self { guest })
    }

    /// The scripts of the run: `pre` happens when everything has been rehearsed, before the freeze.
    fn scripts(&self, bench: &Bench<'_>, pre: &str) -> Result<()> {
        let more = format!("{DEADLINES}[scripts]\nenabled = true\n");
        bench.configure(&["/bad", "/good", "/fine"], &more)?;
        bench.write("/tmp/prescript.sh", &format!("#!/bin/sh\nset -e\n{pre}"), "700")?;
        bench.write("/tmp/postscript.sh", "#!/bin/sh\ntouch /run/post-was-run", "700")?;
        self.guest.sh("rm -f /run/post-was-run").map(drop)
    }

    fn remove(self) -> Result<()> {
        self.guest.sh(
            "umount /bad /good /fine; dmsetup remove bad; rm -f /tmp/prescript.sh /tmp/postscript.sh;\n\
             wipefs -qa /dev/disk/by-id/virtio-bp1vmdata?; rm -f /run/post-was-run",
        )?;
        Ok(())
    }
}

/// Dirties the file system, then nothing is done by its disk any more. `--nolockfs`: device mapper is
/// not to freeze it by itself.
const SUSPEND: &str = "dd if=/dev/zero of=/bad/dirt bs=64k count=64 status=none\n\
                       dmsetup suspend --nolockfs --noflush bad";

pub(super) fn freeze(machine: &mut Machine) -> Result<String> {
    let guest = machine.guest()?;
    let disks = Disks::make(guest, "ext4")?;
    let bench = Bench::new(guest, &[])?;
    disks.scripts(&bench, SUSPEND)?;
    let run = bench.snapshot("")?;
    ensure!(matches!(run.code, Some(11 | 12)), "{}", run.description());
    let took = step(&run, "freeze")?;
    ensure!(
        took >= DEADLINE - SLACK / 6 && took <= DEADLINE + SLACK,
        "it took {took:?}: {}",
        run.description()
    );
    ensure!(run.stdout.contains("/bad"), "the one that hangs is named: {}", run.description());
    // The agent is back while the kernel still hangs, and so are the others.
    guest.sh("timeout -s KILL 20 touch /good/x /fine/x && test -e /run/post-was-run")?;
    let hangs = guest.run("timeout -s KILL 3 touch /bad/x", Duration::from_secs(5))?;
    ensure!(hangs.code != Some(0), "it was to hang");
    let status = guest.run("stillpoint status", Duration::from_secs(30))?;
    ensure!(!status.timed_out, "status hangs, too");

    guest.sh("dmsetup resume bad")?;
    guest
        .until("thawed", "timeout -s KILL 5 touch /bad/x", Duration::from_secs(15))
        .context("the freeze that was late is not thawed")?;
    bench.all_is_well(&["/bad", "/good", "/fine"])?;
    let again = Bench::new(guest, &["/bad", "/good", "/fine"])?.snapshot("")?;
    again.succeeded().context("the next run")?;
    disks.remove()?;
    Ok(format!(
        "given up after {:.1} s of {DEADLINE:?}; thawed when the disk answered",
        took.as_secs_f64()
    ))
}

pub(super) fn sync(machine: &mut Machine) -> Result<String> {
    let guest = machine.guest()?;
    let disks = Disks::make(guest, "ext4")?;
    let bench = Bench::new(guest, &[])?;
    bench.configure(&["/bad", "/good", "/fine"], &format!("{DEADLINES}{NO_SCRIPTS}"))?;
    guest.sh(SUSPEND)?;
    let run = bench.snapshot("")?;
    ensure!(run.code != Some(0), "{}", run.description());
    let took = step(&run, "sync")?;
    ensure!(took <= DEADLINE + SLACK, "it took {took:?}: {}", run.description());
    guest.sh("timeout -s KILL 20 touch /good/x /fine/x && dmsetup resume bad")?;
    guest.until("written", "timeout -s KILL 5 touch /bad/x", PATIENCE)?;
    bench.all_is_well(&["/bad", "/good", "/fine"])?;
    disks.remove()?;
    Ok(format!("exit {}, after {:.1} s", run.code.unwrap_or(-1), took.as_secs_f64()))
}

pub(super) fn failing_ext4(machine: &mut Machine) -> Result<String> {
    failing(machine.guest()?, "ext4")
}

pub(super) fn failing_xfs(machine: &mut Machine) -> Result<String> {
    failing(machine.guest()?, "xfs")
}

/// The disk refuses writes (flakey), then everything (error), from before the freeze on.
fn failing(guest: &Guest, fs_type: &str) -> Result<String> {
    let mut codes = Vec::new();
    for target in ["flakey $dev 0 0 3600 1 error_writes", "error"] {
        let disks = Disks::make(guest, fs_type)?;
        let bench = Bench::new(guest, &[])?;
        let dev = format!("/dev/disk/by-id/virtio-{}", serial("data1"));
        let fail = format!(
            "dev={dev}\ndd if=/dev/zero of=/bad/dirt bs=64k count=64 status=none\n\
             size=$(blockdev --getsz /dev/mapper/bad)\n\
             dmsetup suspend --nolockfs --noflush bad\n\
             dmsetup load bad --table \"0 $size {target}\"\ndmsetup resume bad"
        );
        disks.scripts(&bench, &fail)?;
        let run = bench.snapshot("")?;
        let description = run.description();
        ensure!(matches!(run.code, Some(1..=255)), "a snapshot of a failing disk: {description}");
        ensure!(run.json()?.get("level").is_none_or(Value::is_null), "{description}");
        ensure!(run.stdout.contains("/bad"), "the one that fails is named: {description}");
        guest.sh("timeout -s KILL 20 touch /good/x /fine/x && test -e /run/post-was-run")?;
        // Not writable any more, but not frozen either: whoever writes is told so at once.
        let write = guest.run("timeout -s KILL 20 touch /bad/x", PATIENCE)?;
        ensure!(!write.timed_out && write.code != Some(137), "{write:?}");
        guest.until("all gone", "! pgrep -f '^stillpoint(-guard)?( |$)'", PATIENCE)?;
        codes.push(format!(
            "{}: exit {}",
            target.split(' ').next().unwrap_or_default(),
            run.code.unwrap_or(-1)
        ));
        disks.remove()?;
    }
    Ok(codes.join(", "))
}

/// How long a step took, by the run's own account.
fn step(run: &Run, name: &str) -> Result<Duration> {
    let document = run.json()?;
    let steps = document.get("steps").and_then(Value::as_array).context("no steps")?;
    let step = steps.iter().find(|step| step.get("step").and_then(Value::as_str) == Some(name));
    let step = step.with_context(|| format!("no step {name}: {}", run.description()))?;
    let ns = |key: &str| step.get(key).and_then(Value::as_u64).context("no time");
    Ok(Duration::from_nanos(ns("ended_ns")?.saturating_sub(ns("began_ns")?)))
}
