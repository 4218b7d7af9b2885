//! The tests, by name, in the order in which they are run. Each leaves the machine as it found it; one
//! that fails costs the machine, and the next one gets another.

mod pause;
mod power;
mod root;
mod stuck;
mod systemd;
mod upgrade;
mod volumes;

use anyhow::Result;

use super::machine::Machine;

/// A test in a machine.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What must be true, in a sentence.
    pub law: &'static str,
    /// Runs it; gives what was seen, in a line.
    pub run: fn(&mut Machine) -> Result<String>,
}

/// All of them.
pub const ALL: &[Case] = &[
    Case {
        name: "serials",
        law: "cloud disks are recognised by serial number, whatever ECS calls their nodes",
        run: volumes::serials,
    },
    Case {
        name: "root-frozen",
        law: "with / frozen the run ends well, its output is complete, journald goes on",
        run: root::frozen,
    },
    Case {
        name: "root-frozen-mariadb",
        law: "with / and MariaDB on it, the hook holds, confirms and releases: level application",
        run: root::with_mariadb,
    },
    Case {
        name: "lvm-md-partitions",
        law: "a volume, a mirror, a partition: the group has every disk below, and no other",
        run: volumes::stacked,
    },
    Case {
        name: "lvm-partly-excluded",
        law: "a volume of which one disk is left out is not frozen, and the level says so",
        run: volumes::partly_excluded,
    },
    Case {
        name: "freeze-stuck",
        law: "a freeze that hangs on a suspended disk: on time given up, the others run, it is thawed \
              as soon as the kernel returns",
        run: stuck::freeze,
    },
    Case {
        name: "sync-stuck",
        law: "a flush that hangs on a suspended disk ends the run before anything is held",
        run: stuck::sync,
    },
    Case {
        name: "eio-ext4",
        law: "a disk that fails under the freeze of an ext4: no snapshot, nothing frozen",
        run: stuck::failing_ext4,
    },
    Case {
        name: "eio-xfs",
        law: "a disk that fails under the freeze of an XFS: no snapshot, nothing frozen",
        run: stuck::failing_xfs,
    },
    Case {
        name: "upgrade",
        law: "the binary is replaced in prepare and in the window: the run ends well",
        run: upgrade::in_mid_run,
    },
    Case {
        name: "hypervisor-stalls",
        law: "the hypervisor is stopped for 15 s in a window of 10 s: thawed at once, no level claimed",
        run: pause::stalled,
    },
    Case {
        name: "vcpu-paused",
        law: "the processor is paused for 15 s in the window: the machine's own clock holds",
        run: pause::paused,
    },
    Case {
        name: "clock-jumps",
        law: "the wall clock jumps a day ahead and two back in the window: no deadline is early or late",
        run: pause::clock_jumps,
    },
    Case {
        name: "units",
        law: "the shipped units are accepted by systemd, and the service takes a snapshot with /",
        run: systemd::units,
    },
    Case {
        name: "sentinel-killed",
        law: "SIGKILL for the sentinel in the window: it ends; the next sentinel has the descriptors",
        run: systemd::sentinel_killed,
    },
    Case {
        name: "run-killed",
        law: "SIGKILL for agent and guard, the whole unit, in the window: the sentinel thaws",
        run: systemd::run_killed,
    },
    Case {
        name: "all-killed",
        law: "SIGKILL for agent, guard and sentinel at once: ExecStopPost thaws",
        run: systemd::all_killed,
    },
    Case {
        name: "unit-stopped",
        law: "systemctl stop in the window: thawed, released, ended",
        run: systemd::stopped,
    },
    Case {
        name: "unit-restarted",
        law: "systemctl restart in the window: the first run is undone before the second begins",
        run: systemd::restarted,
    },
    Case {
        name: "power-cuts",
        law: "the power fails at any place of a run: every boot is clean, what a hook held is given \
              back, a journal of another boot is history, the next run is well",
        run: power::cuts,
    },
];
