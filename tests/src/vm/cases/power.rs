//! The power fails, at any place of a run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::puppet::UNUSED;
use crate::vm::bench::Bench;
use crate::vm::guest::{Guest, PATIENCE};
use crate::vm::machine::Machine;

/// One after each step of the run, and those in which the guard has its hands on a file system. With
/// `VM_POWER_CUTS=all`, every place that the failpoints know.
const PLACES: [&str; 8] = [
    "agent.prepare.after",
    "agent.rehearse.after",
    "agent.quiesce.after",
    "guard.freeze.after",
    "agent.snapshot.after",
    "guard.thaw.before",
    "agent.release.before",
    "agent.settle.before",
];

/// The hook keeps in `prepare` what gives back what it takes in `pre-freeze`: a row, which no
/// session's end gives back.
const SCRIPT: &str = "[settings]\npaths = []\n\
    prepare = [\"open A main\", \"kv-set undo open U main;query U DELETE FROM puppet.holds\"]\n\
    pre-freeze = [\"query A INSERT INTO puppet.holds VALUES (1)\"]\n\
    post-thaw = [\"query A DELETE FROM puppet.holds\", \"kv-del undo\"]\n";
const HELD: &str = "mariadb -Ne 'SELECT COUNT(*) FROM puppet.holds'";
/// The unit has been started, and has ended.
const RECOVERED: &str = "systemctl is-active -q mariadb && \
    test $(systemctl show -P ExecMainExitTimestampMonotonic stillpoint-recover) != 0";
const DISKS: &str = "/dev/disk/by-id/virtio-bp1vmdata";
const MOUNTS: [&str; 3] = ["/", "/ext4", "/xfs"];
/// Longer than the cut takes to come.
const WINDOW: &str =
    "[deadlines]\nprepare = \"2m\"\nfreeze = \"30s\"\nconfirm = \"30s\"\nrelease = \"1m\"\n";

pub(super) fn cuts(machine: &mut Machine) -> Result<String> {
    install(machine.guest()?)?;
    let every = std::env::var("VM_POWER_CUTS").is_ok_and(|which| which == "all");
    let all = stillpoint::failpoint::ALL.iter().filter(|place| !place.starts_with("sentinel."));
    let places: Vec<&str> = if every { all.copied().collect() } else { PLACES.to_vec() };
    let mut given_back = 0;
    let mut not_reached = Vec::new();
    for place in &places {
        let cut = cut_at(machine, place).with_context(|| format!("power cut at {place}"))?;
        match cut {
            Some(held) => given_back += held,
            None => not_reached.push(*place),
        }
        // It takes minutes: somebody may be watching.
        eprintln!("      power cut at {place}: {}", cut.map_or("not reached", |_| "well"));
    }
    remove(machine.guest()?)?;
    let not_reached = match not_reached.as_slice() {
        [] => String::new(),
        some => format!("; not reached: {}", some.join(" ")),
    };
    Ok(format!(
        "{} cuts: every boot clean, {given_back} holds given back, each next run well{not_reached}",
        places.len()
    ))
}

/// The disks, the server, the hook, and recovery at boot.
fn install(guest: &Guest) -> Result<()> {
    guest.sh(&format!(
        "set -e\nmkfs.ext4 -qF {DISKS}1; mkfs.xfs -qf {DISKS}2; mkdir -p /ext4 /xfs\n\
         echo '{DISKS}1 /ext4 ext4 defaults 0 2' >>/etc/fstab\n\
         echo '{DISKS}2 /xfs xfs defaults 0 0' >>/etc/fstab\n\
         systemctl daemon-reload; mount /ext4; mount /xfs\n\
         systemctl enable -q --now mariadb stillpoint-sentinel\n\
         systemctl enable -q stillpoint-recover\n\
         mariadb -e 'CREATE DATABASE puppet; CREATE TABLE puppet.holds (id INT)'"
    ))?;
    let bench = Bench::new(guest, &[])?;
    bench.configure(&[], WINDOW)?;
    let connection = "[connections.main]\nengine = \"mysql\"\nsocket = \"/run/mysqld/mysqld.sock\"\nuser = \"root\"\n";
    let connections = format!("{connection}{UNUSED}");
    bench.write("/etc/stillpoint/connections.toml", &connections, "600")?;
    let install = "stillpoint hook install --allow-unsigned /usr/local/share/stillpoint/hooks/puppet.wasm \
                   && stillpoint hook grant puppet --accept";
    let installed = guest.run(install, Duration::from_secs(600))?;
    ensure!(installed.code == Some(0), "{installed:?}");
    let grant = guest.sh("cat /etc/stillpoint/hooks.d/puppet.toml")?;
    let (head, tail) = grant.split_once("[settings]\n").context("no [settings] in the grant")?;
    bench.write("/etc/stillpoint/hooks.d/puppet.toml", &format!("{head}{SCRIPT}{tail}"), "600")
}

fn remove(guest: &Guest) -> Result<()> {
    guest.sh(&format!(
        "umount /ext4 /xfs; sed -i '/ext4 ext4/d; /xfs xfs/d' /etc/fstab; wipefs -qa {DISKS}1 {DISKS}2\n\
         systemctl disable -q --now mariadb stillpoint-recover; rm -rf /etc/stillpoint; true"
    ))
    .map(drop)
}

/// Runs until this place, cuts the power there, and boots. How many holds there were to be given
/// back; nothing if the run ended before it came to that place.
fn cut_at(machine: &mut Machine, place: &str) -> Result<Option<u32>> {
    let guest = machine.guest()?;
    Bench::new(guest, &[])?.configure(&[], WINDOW)?;
    let (at, go) = (format!("/run/places/{place}.at"), format!("/run/places/{place}.go"));
    guest.sh(&format!("rm -rf /run/places; mkdir /run/places; mkfifo {at} {go}"))?;
    // Writers, so that there is something to be lost.
    for mount in MOUNTS {
        guest.begin(&format!("while echo x >>{mount}/written; do :; done"), PATIENCE * 4)?;
    }
    let _run = guest.begin(
        &format!("STILLPOINT_FAILPOINTS='{place}=pause(/run/places)' stillpoint snapshot --name cut; echo ended >{at}"),
        PATIENCE * 4,
    )?;
    let reached = guest.sh(&format!("cat {at}"))?;
    if reached.trim() == "ended" {
        return Ok(None);
    }
    // What a run leaves on a tmpfs is gone with the power. Where it is not, it must be known for what
    // it is: it is put back after the boot.
    let journal = guest.sh(
        "cd /run/stillpoint; for file in *.json; do echo \"$file\"; cat \"$file\"; echo; done",
    )?;
    machine.lose_power()?;
    let held = booted_well(machine.guest()?).with_context(|| journal.clone())?;
    stale_journal_is_history(machine.guest()?, &journal)?;
    next_run_is_well(machine.guest()?)?;
    Ok(Some(held))
}

/// After the boot: no file system has an error, the recovery unit has done its work.
fn booted_well(guest: &Guest) -> Result<u32> {
    guest.until("recovered", RECOVERED, PATIENCE)?;
    let recovered = guest.sh("systemctl show -P Result stillpoint-recover")?;
    ensure!(
        recovered.trim() == "success",
        "{}",
        guest.sh("systemctl status stillpoint-recover; true")?
    );
    let errors = guest.sh(
        "dmesg | grep -E 'EXT4-fs (error|warning)|XFS .*([Cc]orrupt|Metadata)|I/O error'; true",
    )?;
    ensure!(errors.is_empty(), "{errors}");
    let held: u32 = guest.sh(HELD)?.trim().parse().context("rows")?;
    // Journals are replayed by mounting; what is left after that must be whole.
    guest.sh(&format!(
        "set -e\numount /ext4 /xfs; e2fsck -fn {DISKS}1; xfs_repair -n {DISKS}2; mount /ext4; mount /xfs"
    ))?;
    Ok(held)
}

/// A journal of an earlier boot thaws nothing, and is removed by the unit.
fn stale_journal_is_history(guest: &Guest, journal: &str) -> Result<()> {
    let mut lines = journal.lines();
    while let Some(file) =
        lines.next().filter(|name| name.ends_with(".json") && !name.contains('*'))
    {
        let text = lines.next().unwrap_or_default();
        Bench::on(guest).write(&format!("/run/stillpoint/{file}"), text, "600")?;
    }
    guest
        .sh("systemctl restart stillpoint-recover && ! ls /run/stillpoint/*.json")
        .context("the journal of an earlier boot")?;
    Ok(())
}

fn next_run_is_well(guest: &Guest) -> Result<()> {
    let bench = Bench::new(guest, &[])?;
    bench.configure(&[], WINDOW)?;
    let run = bench.snapshot("")?;
    ensure!(run.succeeded()?.manifest()?.level()? == "application", "{}", run.description());
    ensure!(
        guest.sh(HELD)?.trim() == "0",
        "what the hook held is not given back: {}",
        run.description()
    );
    bench.all_is_well(&MOUNTS)?;
    guest.sh("rm -f /written /ext4/written /xfs/written").map(drop)
}
