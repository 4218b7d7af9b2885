//! The laws: what holds in a run that nobody disturbs, and what others may do to it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use stillpoint::freeze::{Method, ProbeState, ThawOutcome, probe, thaw_paths};

use crate::agent::{Agent, Order, Setup};
use crate::faults;
use crate::lab::{Lab, Writer, eventually, output, somebody_freezes, somebody_thaws};
use crate::measure;

/// After whatever happens, writers go on within this time.
pub const SOON: Duration = Duration::from_millis(250);

pub fn all() -> Vec<Trial> {
    let mut trials = vec![
        case("a_frozen_file_system_blocks_writers_until_the_thaw", || {
            for types in [vec!["ext4"], vec!["ext4", "xfs", "btrfs", "ext4"], vec!["ext4"; 16]] {
                round_trip(&types);
            }
        }),
        case("a_rehearsal_leaves_nothing_frozen", rehearsal),
        case("a_freeze_follows_a_freeze", freeze_twice),
        case("what_somebody_else_froze_is_not_ours_and_stays_frozen", frozen_by_other),
        case("what_somebody_else_thaws_in_the_window_is_not_called_ours", thawed_by_other),
        case("a_type_that_cannot_be_frozen_is_refused_by_name", not_supported),
        case("another_mount_than_the_planned_one_is_refused", mount_changed),
        case("a_journal_on_a_planned_file_system_is_refused", journal_in_the_way),
        case("stacked_file_systems_freeze_from_the_top_down", stacked),
        case("a_mount_detached_in_the_window_is_thawed_all_the_same", unmounted),
        case("dropping_a_freeze_thaws", dropped),
        case("a_plan_without_file_systems_freezes_nothing", nothing_to_freeze),
        case("guard_and_sentinel_inherit_nothing_and_are_hard_to_kill", hardened),
        case("keeping_warm_does_not_hold_writers_up_for_long", kept_warm),
        case("the_probe_tells_frozen_from_not_frozen", probed),
        case("the_probe_answers_for_a_file_system_without_files", probed_without_files),
        case("a_thaw_by_path_thaws_whoever_froze", thawed_by_path),
        case("measure_arming", measure::arming).with_ignored_flag(true),
        case("measure_windows", measure::windows).with_ignored_flag(true),
    ];
    trials.extend(faults::all());
    trials
}

pub fn case(name: &str, body: fn()) -> Trial {
    Trial::test(name, move || {
        body();
        Ok::<(), Failed>(())
    })
}

fn round_trip(types: &[&str]) {
    let lab = Lab::with(types);
    let mut agent = Agent::armed(&lab);
    agent.ok(Order::Sync);
    agent.ok(Order::Rehearse);
    agent.ok(Order::Freeze);
    let writers = writers(&lab);
    writers.iter().for_each(Writer::assert_is_blocked);
    let thaw = agent.ok(Order::Thaw);
    assert!(writers.iter().all(|writer| writer.wrote_within(SOON)));
    assert_eq!(thaw.thawed_by_us, vec![true; types.len()]);
    assert_eq!(thaw.turned_read_only, vec![false; types.len()]);
    assert_eq!(thaw.broken, None);
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

pub fn writers(lab: &Lab) -> Vec<Writer> {
    lab.file_systems.iter().map(|fs| Writer::start(&fs.mount_point)).collect()
}

fn rehearsal() {
    let lab = Lab::with(&["ext4", "xfs", "btrfs"]);
    let mut agent = Agent::armed(&lab);
    agent.ok(Order::Rehearse);
    assert!(writers(&lab).iter().all(|writer| writer.wrote_within(SOON)));
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn freeze_twice() {
    let lab = Lab::with(&["ext4", "xfs"]);
    let mut agent = Agent::armed(&lab);
    for _ in 0..2 {
        agent.ok(Order::Freeze);
        assert_eq!(agent.ok(Order::Thaw).thawed_by_us, [true, true]);
    }
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn frozen_by_other() {
    for order in [Order::Rehearse, Order::Freeze] {
        let lab = Lab::with(&["ext4", "ext4", "xfs"]);
        let mut agent = Agent::armed(&lab);
        somebody_freezes(lab.mount(1));
        let words = agent.refused(order, "FrozenByOther");
        assert!(words.contains(lab.mount(1).to_str().unwrap()), "{words}");
        for index in [0, 2] {
            assert!(Writer::start(lab.mount(index)).wrote_within(SOON));
        }
        agent.ok(Order::Disarm);
        let writer = Writer::start(lab.mount(1));
        writer.assert_is_blocked();
        somebody_thaws(lab.mount(1));
        assert!(writer.wrote_within(SOON));
        lab.assert_all_undone(SOON);
    }
}

fn thawed_by_other() {
    let lab = Lab::with(&["ext4", "btrfs"]);
    let mut agent = Agent::armed(&lab);
    agent.ok(Order::Freeze);
    somebody_thaws(lab.mount(1));
    assert_eq!(agent.ok(Order::Thaw).thawed_by_us, [true, false]);
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn not_supported() {
    let mut lab = Lab::with(&["ext4"]);
    let mount = lab.root().join("tmpfs");
    fs::create_dir(&mount).unwrap();
    output(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&mount));
    lab.file_systems.push(crate::lab::describe(&mount, "tmpfs", 0));
    let mut agent = Agent::armed(&lab);
    let words = agent.refused(Order::Rehearse, "NotSupported");
    assert!(words.contains("tmpfs"), "{words}");
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn mount_changed() {
    let lab = Lab::with(&["ext4"]);
    output(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(lab.mount(0)));
    Agent::start().refused(Order::Arm(Setup::of(&lab)), "MountChanged");
    lab.assert_all_undone(SOON);
}

fn journal_in_the_way() {
    let lab = Lab::with(&["btrfs"]);
    // A subvolume has a device number of its own, and is the same file system all the same.
    let run_dir = lab.mount(0).join("subvolume");
    output(Command::new("btrfs").args(["subvolume", "create"]).arg(&run_dir));
    let setup = Setup { run_dir, ..Setup::of(&lab) };
    Agent::start().refused(Order::Arm(setup), "JournalOnPlannedFileSystem");
    lab.assert_all_undone(SOON);
}

fn stacked() {
    let lab = Lab::with_stacked(1, 0);
    let mut agent = Agent::armed(&lab);
    fs::write(lab.mount(1).join("dirty"), vec![1; 4 << 20]).unwrap();
    agent.ok(Order::Rehearse);
    fs::write(lab.mount(1).join("dirty"), vec![2; 4 << 20]).unwrap();
    let frozen = agent.ok(Order::Freeze);
    assert!(frozen.began_ns[1] < frozen.began_ns[0], "the stacked one first");
    assert_eq!(agent.ok(Order::Thaw).thawed_by_us, [true, true]);
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn unmounted() {
    let lab = Lab::with(&["ext4", "xfs"]);
    let mut agent = Agent::armed(&lab);
    agent.ok(Order::Freeze);
    let device = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = device.lines().find(|line| line.contains(lab.mount(0).to_str().unwrap())).unwrap();
    let device = line.split(" - ").nth(1).unwrap().split(' ').nth(1).unwrap().to_owned();
    output(Command::new("umount").arg("-l").arg(lab.mount(0)));
    assert_eq!(agent.ok(Order::Thaw).thawed_by_us, [true, true]);
    agent.ok(Order::Disarm);
    output(Command::new("mount").arg(device).arg(lab.mount(0)));
    lab.assert_all_undone(SOON);
}

fn dropped() {
    let lab = Lab::with(&["ext4", "xfs"]);
    let mut agent = Agent::armed(&lab);
    agent.ok(Order::Freeze);
    agent.ok(Order::DropEverything);
    lab.assert_all_undone(SOON);
}

fn nothing_to_freeze() {
    let lab = Lab::with(&[]);
    let mut agent = Agent::armed(&lab);
    for order in [Order::Sync, Order::Rehearse, Order::Freeze, Order::Thaw, Order::Disarm] {
        agent.ok(order);
    }
    lab.assert_all_undone(SOON);
}

fn hardened() {
    let lab = Lab::with(&["ext4"]);
    let _leak = fs::File::open("/etc/hostname").unwrap();
    let mut agent = Agent::start();
    let warnings = agent.ok(Order::Arm(Setup::of(&lab))).warnings.join("; ");
    let of = |pid: u32, what: &str| fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap();
    let field = |pid: u32, name: &str| -> String {
        let status = of(pid, "status");
        status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned()
    };
    for name in ["stillpoint-guard", "stillpoint-sentinel"] {
        let pid = lab.process(name);
        // CAP_SYS_RESOURCE (24): without it the kernel refuses, as in most containers.
        let capabilities = u64::from_str_radix(&field(pid, "CapEff:"), 16).unwrap();
        let may_be_kept = capabilities & (1 << 24) != 0;
        let kept = of(pid, "oom_score_adj").trim() == "-1000";
        assert_eq!(kept, may_be_kept, "{name}: {warnings}");
        assert_eq!(field(pid, "SigBlk:"), "fffffffe7ffbfeff".to_owned(), "{name}");
        assert_ne!(field(pid, "VmLck:"), "0 kB");
        let stat = of(pid, "stat");
        let session = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().to_owned();
        assert_eq!(session, pid.to_string(), "{name} has a session of its own");
        assert_eq!(of(pid, "environ"), "");
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        for target in fds.filter_map(|fd| fs::read_link(fd.path()).ok()) {
            let known =
                ["/dev/null", "socket:", "anon_inode:", "/memfd:stillpoint", "/proc/", "pidfd:"];
            let target = target.to_string_lossy().into_owned();
            let expected = known.iter().any(|k| target.starts_with(k));
            assert!(expected || Path::new(&target) == lab.mount(0), "{name} holds {target}");
        }
    }
    let (guard, sentinel) = (lab.process("stillpoint-guard"), lab.process("stillpoint-sentinel"));
    assert_ne!(of(guard, "cgroup"), of(sentinel, "cgroup"));
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn kept_warm() {
    let lab = Lab::with(&["ext4", "xfs"]);
    let mut agent = Agent::armed_with(Setup { expedite_rcu: false, ..Setup::of(&lab) });
    agent.ok(Order::Rehearse);
    let began = std::time::Instant::now();
    let mut writes = 0;
    while began.elapsed() < Duration::from_millis(300) {
        assert!(Writer::start(lab.mount(writes % 2)).wrote_within(SOON));
        writes += 1;
    }
    assert!(writes > 30, "{writes} writes in 300 ms");
    agent.ok(Order::Freeze);
    assert_eq!(agent.ok(Order::Thaw).thawed_by_us, [true, true]);
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn probed() {
    let lab = Lab::with(&["ext4", "xfs", "btrfs"]);
    for fs in &lab.file_systems {
        let ask = || probe(&fs.mount_point).unwrap();
        let file = fs.mount_point.join("present");
        let before = fs::metadata(&file).unwrap();
        assert_eq!(ask().method, Method::ZeroLengthWrite, "{}", fs.fs_type);
        assert_eq!(ask().state, ProbeState::NotFrozen, "{}", fs.fs_type);
        somebody_freezes(&fs.mount_point);
        assert_eq!(ask().state, ProbeState::Frozen, "{}", fs.fs_type);
        somebody_thaws(&fs.mount_point);
        assert_eq!(ask().state, ProbeState::NotFrozen, "{}", fs.fs_type);
        let after = fs::metadata(&file).unwrap();
        assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    }
}

fn probed_without_files() {
    let lab = Lab::with(&["ext4", "xfs", "btrfs"]);
    for fs in &lab.file_systems {
        fs::remove_file(fs.mount_point.join("present")).unwrap();
        let ask = || probe(&fs.mount_point).unwrap();
        assert_eq!(ask().method, Method::Touch, "{}", fs.fs_type);
        assert_eq!(ask().state, ProbeState::NotFrozen, "{}", fs.fs_type);
        somebody_freezes(&fs.mount_point);
        assert_eq!(ask().state, ProbeState::Frozen, "{}", fs.fs_type);
        somebody_thaws(&fs.mount_point);
        assert_eq!(ask().state, ProbeState::NotFrozen, "{}", fs.fs_type);
    }
}

fn thawed_by_path() {
    let lab = Lab::with(&["ext4", "xfs"]);
    somebody_freezes(lab.mount(0));
    let paths = [lab.mount(0).to_owned(), lab.mount(1).to_owned(), lab.root().join("missing")];
    let results = thaw_paths(&paths);
    assert_eq!(results[0].outcome, ThawOutcome::Thawed);
    assert_eq!(results[0].superblock, Some(lab.file_systems[0].superblock));
    assert_eq!(results[1].outcome, ThawOutcome::WasNotFrozen);
    assert!(matches!(results[2].outcome, ThawOutcome::Failed { .. }), "{:?}", results[2]);
    eventually("it can be written to", || Writer::start(lab.mount(0)).wrote_within(SOON));
}
