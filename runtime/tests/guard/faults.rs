//! Each process killed or stopped, alone and together, and a freeze that hangs: whatever happens,
//! every file system can be written to again, and nothing is left behind.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::Signal::{SIGCONT, SIGKILL, SIGSTOP};
use stillpoint::freeze::{RecoverError, ThawOutcome, recover, thaw_ours};
use stillpoint::journal::FreezeRecord;

use crate::agent::{Agent, Order, Setup};
use crate::cases::{SOON, case, writers};
use crate::lab::{
    Lab, WriteInFlight, Writer, describe_to, eventually, rcu, signal, somebody_freezes,
};

const WINDOW: Duration = Duration::from_millis(400);

pub fn all() -> Vec<Trial> {
    vec![
        case("the_deadline_thaws_and_the_caller_is_told", deadline),
        case("the_deadline_thaws_while_the_agent_is_stopped", deadline_with_stopped_agent),
        case("killing_the_agent_thaws", agent_killed),
        case("killing_the_agent_thaws_even_if_it_hangs_in_a_frozen_write", hanging_agent_killed),
        case("killing_the_agent_at_any_moment_leaves_nothing_frozen", agent_killed_at_any_moment),
        case("losing_the_guard_breaks_the_freeze_and_thaws", guard_killed),
        case("losing_the_guard_before_the_freeze_refuses_it", guard_killed_early),
        case("losing_the_sentinel_breaks_the_freeze_and_thaws", sentinel_killed),
        case("losing_the_sentinel_before_the_freeze_refuses_it", sentinel_killed_early),
        case("a_stopped_sentinel_refuses_the_freeze", sentinel_stopped),
        case("a_stopped_sentinel_breaks_the_freeze_and_thaws", sentinel_stopped_frozen),
        case("a_stopped_guard_breaks_the_freeze_and_thaws", guard_stopped_frozen),
        case("real_time_spinners_do_not_hold_up_the_deadline", starved),
        case("a_sentinel_that_cannot_leave_the_cgroup_refuses_the_freeze", no_cgroup_of_its_own),
        case("losing_agent_and_guard_at_once_leaves_it_to_the_sentinel", agent_and_guard_killed),
        case("killing_agent_and_guard_in_the_midst_of_a_thaw_loses_nothing", killed_in_thaw),
        case("losing_guard_and_sentinel_at_once_leaves_it_to_the_agent", both_killed),
        case("killing_the_agents_cgroup_leaves_it_to_the_sentinel", cgroup_killed),
        case("a_stopped_guard_cannot_keep_frozen_past_the_deadline", guard_stopped),
        case("a_stopped_guard_without_an_agent_is_let_go", guard_stopped_agent_killed),
        case("a_stopped_guard_does_not_keep_the_agent_from_thawing", guard_stopped_thaw),
        case("recovery_undoes_what_three_dead_processes_left", all_killed),
        case("thaw_ours_leaves_alone_what_the_journal_does_not_name", thaw_only_ours),
        case("recovery_refuses_while_the_guard_lives", recovery_while_alive),
        case("a_journal_from_before_a_reboot_is_history", journal_of_another_boot),
        case("a_flush_that_hangs_is_reported_in_time_and_holds_nothing_up", hanging_flush),
        case("a_freeze_that_hangs_ends_at_the_deadline", hanging_freeze),
        case("a_freeze_that_hangs_ends_if_the_guard_is_killed", hanging_freeze_guard_killed),
        case("a_freeze_held_up_by_a_write_is_undone_when_the_write_ends", held_up),
        case("a_held_up_freeze_is_undone_if_the_agent_is_killed", held_up_agent_killed),
        case("a_held_up_freeze_without_a_sentinel_is_called_not_thawed", held_up_sentinel_stopped),
        case("a_held_up_freeze_is_undone_if_the_guard_is_killed", held_up_guard_killed),
        case("a_freeze_that_hangs_ends_if_only_the_sentinel_is_left", hanging_freeze_sentinel_only),
        case("a_freeze_that_hangs_ends_if_the_agent_is_killed", hanging_freeze_agent_killed),
    ]
}

/// A laboratory with three frozen file systems, an agent that froze them, and blocked writers.
fn frozen(window: Duration) -> (Lab, Agent, Vec<Writer>) {
    let lab = Lab::with(&["ext4", "xfs", "btrfs"]);
    let window_ms = window.as_millis().try_into().unwrap();
    let mut agent = Agent::armed_with(Setup { window_ms, ..Setup::of(&lab) });
    agent.ok(Order::Rehearse);
    agent.ok(Order::Freeze);
    let writers = writers(&lab);
    writers.iter().for_each(Writer::assert_is_blocked);
    (lab, agent, writers)
}

fn assert_wrote(writers: &[Writer], limit: Duration) {
    let began = Instant::now();
    for writer in writers {
        assert!(writer.wrote_within(limit.saturating_sub(began.elapsed())), "still frozen");
    }
}

const LONG: Duration = Duration::from_secs(20);

fn deadline() {
    let (lab, mut agent, writers) = frozen(WINDOW);
    assert_wrote(&writers, WINDOW + SOON);
    assert_eq!(agent.ok(Order::WaitUntilBroken).broken.as_deref(), Some("DeadlinePassed"));
    let thaw = agent.ok(Order::Thaw);
    assert_eq!(thaw.broken.as_deref(), Some("DeadlinePassed"));
    assert_eq!(thaw.thawed_by_us, [true; 3]);
    // By the guard itself: the sentinel helps 100 ms later.
    let frozen_for = Duration::from_nanos(thaw.window_ns);
    assert!(frozen_for < WINDOW + Duration::from_millis(90), "{frozen_for:?}");
    agent.refused(Order::Freeze, "FreezeTimedOut");
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn deadline_with_stopped_agent() {
    let (lab, mut agent, writers) = frozen(WINDOW);
    signal(agent.pid(), SIGSTOP);
    assert_wrote(&writers, WINDOW + SOON);
    signal(agent.pid(), SIGCONT);
    assert_eq!(agent.ok(Order::Thaw).broken.as_deref(), Some("DeadlinePassed"));
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn agent_killed() {
    let (lab, agent, writers) = frozen(LONG);
    signal(agent.pid(), SIGKILL);
    assert_wrote(&writers, SOON);
    lab.assert_all_undone(SOON);
}

fn hanging_agent_killed() {
    let (lab, mut agent, writers) = frozen(LONG);
    // So that it is the guard that sees it: its pidfd and its socket say nothing yet.
    let sentinel = lab.process("stillpoint-sentinel");
    signal(sentinel, SIGSTOP);
    agent.ok(Order::WriteTo(lab.mount(0).join("by-the-agent")));
    eventually("the agent hangs in a write", || thread_in_d_state(agent.pid()));
    signal(agent.pid(), SIGKILL);
    assert_wrote(&writers, SOON);
    lab.assert_all_undone(SOON);
}

fn thread_in_d_state(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let mut stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.any(|stat| stat.rsplit(") ").next().unwrap().starts_with('D'))
}

fn agent_killed_at_any_moment() {
    let lab = Lab::with(&["ext4", "xfs", "ext4"]);
    let mut left: Vec<Duration> = Vec::new();
    for round in 0..40_u32 {
        let expedite_rcu = round % 2 == 0;
        let mut agent = Agent::start();
        agent.order(Order::Arm(Setup { expedite_rcu, ..Setup::of(&lab) }));
        if round % 4 != 0 {
            agent.answer();
            for order in [Order::Rehearse, Order::Freeze, Order::Thaw, Order::Freeze] {
                agent.order(order);
            }
        }
        // Spread over the course of a run, not synchronised with anything: that is the point.
        sleep(Duration::from_micros(u64::from(round) * 1009 % 17_000));
        signal(agent.pid(), SIGKILL);
        drop(agent);
        let began = Instant::now();
        lab.assert_all_undone(SOON);
        left.push(began.elapsed());
    }
}

fn guard_killed() {
    let (lab, mut agent, writers) = frozen(LONG);
    agent.order(Order::WaitUntilBroken);
    signal(lab.process("stillpoint-guard"), SIGKILL);
    assert_wrote(&writers, SOON);
    assert_eq!(agent.answer().broken.as_deref(), Some("GuardLost"));
    assert_eq!(agent.ok(Order::Thaw).broken.as_deref(), Some("GuardLost"));
    agent.refused(Order::Freeze, "GuardLost");
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn guard_killed_early() {
    let lab = Lab::with(&["ext4", "xfs"]);
    let mut agent = Agent::armed(&lab);
    signal(lab.process("stillpoint-guard"), SIGKILL);
    agent.refused(Order::Freeze, "GuardLost");
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn sentinel_killed() {
    let (lab, mut agent, writers) = frozen(LONG);
    signal(lab.process("stillpoint-sentinel"), SIGKILL);
    assert_wrote(&writers, SOON);
    assert_eq!(agent.ok(Order::WaitUntilBroken).broken.as_deref(), Some("SentinelLost"));
    let thaw = agent.ok(Order::Thaw);
    assert_eq!(thaw.broken.as_deref(), Some("SentinelLost"));
    assert_eq!(thaw.thawed_by_us, [true; 3]);
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn sentinel_killed_early() {
    let lab = Lab::with(&["ext4", "xfs"]);
    let mut agent = Agent::armed(&lab);
    signal(lab.process("stillpoint-sentinel"), SIGKILL);
    agent.refused(Order::Rehearse, "SentinelLost");
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn sentinel_stopped() {
    let lab = Lab::with(&["ext4"]);
    let mut agent = Agent::armed(&lab);
    signal(lab.process("stillpoint-sentinel"), SIGSTOP);
    sleep(Duration::from_millis(1100));
    agent.refused(Order::Freeze, "SentinelLost");
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn sentinel_stopped_frozen() {
    let (lab, mut agent, writers) = frozen(LONG);
    signal(lab.process("stillpoint-sentinel"), SIGSTOP);
    assert_wrote(&writers, SOON);
    assert_eq!(agent.ok(Order::Thaw).broken.as_deref(), Some("SentinelLost"));
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn guard_stopped_frozen() {
    let (lab, mut agent, writers) = frozen(LONG);
    signal(lab.process("stillpoint-guard"), SIGSTOP);
    assert_wrote(&writers, SOON);
    assert_eq!(agent.ok(Order::WaitUntilBroken).broken.as_deref(), Some("GuardLost"));
    assert_eq!(agent.ok(Order::Thaw).broken.as_deref(), Some("GuardLost"));
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

/// A process on every CPU that lets nobody of a lower priority run, the agent and this test among them:
/// only the guard's own times can tell. XFS, whose thaw needs no disk: those of ext4 and btrfs read or
/// write a superblock, and what serves a loop device here is a kernel thread that starves, too.
fn starved() {
    const SPIN: &str = "sleep 0.1; end=$((SECONDS + 2)); while ((SECONDS < end)); do :; done";
    let lab = Lab::with(&["xfs", "xfs"]);
    let mut agent = Agent::armed_with(Setup { window_ms: 400, ..Setup::of(&lab) });
    agent.ok(Order::Rehearse);
    let cpus = std::thread::available_parallelism().unwrap().get();
    let spin = |cpu: usize| {
        let mut command = Command::new("chrt");
        command.args(["-f", "50", "taskset", "-c", &cpu.to_string(), "bash", "-c", SPIN]);
        command.spawn().unwrap()
    };
    let spinners: Vec<_> = (0..cpus).map(spin).collect();
    agent.ok(Order::Freeze);
    spinners.into_iter().for_each(|mut spinner| assert!(spinner.wait().unwrap().success()));
    let thaw = agent.ok(Order::Thaw);
    assert_eq!(thaw.broken.as_deref(), Some("DeadlinePassed"));
    let took = Duration::from_nanos(thaw.window_ns);
    assert!(took <= WINDOW + SOON, "{took:?}");
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

/// The agent in a cgroup that it cannot leave, as in most containers.
fn no_cgroup_of_its_own() {
    const JOIN: &str = r#"echo $$ >"$0/cgroup.procs"; exec unshare -m sh -c "$SHUT_IN" "$@""#;
    const SHUT_IN: &str = r#"for at in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/self/mounts)
        do mount -o remount,bind,ro "$at"; done; exec "$0" "$@""#;
    let lab = Lab::with(&["ext4"]);
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let unified = table.lines().find(|line| line.contains(" cgroup2 ")).unwrap();
    let cgroup = Path::new(unified.split(' ').nth(1).unwrap())
        .join(format!("test-no-way-out-{}", std::process::id()));
    fs::create_dir(&cgroup).unwrap();
    let mut shut_in = Command::new("sh");
    shut_in
        .env("SHUT_IN", SHUT_IN)
        .args(["-c", JOIN])
        .arg(&cgroup)
        .arg(std::env::current_exe().unwrap());
    let mut agent = Agent::start_by(shut_in);
    eventually("it runs in its own mount namespace", || {
        let exe = format!("/proc/{}/exe", agent.pid());
        fs::read_link(exe).is_ok_and(|exe| exe == std::env::current_exe().unwrap())
    });
    // Where every mount has another number than in ours.
    let mut setup = Setup::of(&lab);
    for fs in &mut setup.file_systems {
        fs.mount_id = describe_to(agent.pid(), &fs.mount_point, "ext4", 0).mount_id;
    }
    let words = agent.refused(Order::Arm(setup), "SharedCgroup");
    assert!(words.contains("would be killed with it"), "{words}");
    drop(agent);
    lab.assert_all_undone(SOON);
    eventually("the cgroup is empty", || fs::remove_dir(&cgroup).is_ok());
}

fn agent_and_guard_killed() {
    let (lab, agent, writers) = frozen(LONG);
    let guard = lab.process("stillpoint-guard");
    // Stopped first: this kernel forces a btrfs read-only if the process that thaws it is killed
    // in the middle of that. Nobody can help it, which is why nothing of ours kills a guard.
    signal(guard, SIGSTOP);
    signal(agent.pid(), SIGKILL);
    signal(guard, SIGKILL);
    assert_wrote(&writers, SOON);
    lab.assert_all_undone(SOON);
}

fn killed_in_thaw() {
    let lab = Lab::with(&["ext4", "xfs", "ext4", "xfs"]);
    for round in 0..20 {
        let mut agent = Agent::armed(&lab);
        agent.ok(Order::Freeze);
        let guard = lab.process("stillpoint-guard");
        signal(agent.pid(), SIGKILL);
        sleep(Duration::from_micros(round * 50));
        // It may have gone by now.
        let _ = std::panic::catch_unwind(|| signal(guard, SIGKILL));
        drop(agent);
        lab.assert_all_undone(SOON);
    }
}

fn both_killed() {
    let (lab, mut agent, writers) = frozen(LONG);
    let (guard, sentinel) = (lab.process("stillpoint-guard"), lab.process("stillpoint-sentinel"));
    // Stopped first: see above.
    signal(guard, SIGSTOP);
    signal(sentinel, SIGKILL);
    signal(guard, SIGKILL);
    assert!(agent.ok(Order::WaitUntilBroken).broken.is_some());
    assert!(agent.ok(Order::Thaw).broken.is_some());
    assert_wrote(&writers, SOON);
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

/// A cgroup with the agent and all that it starts in it.
fn cgroup_of(agent: &Agent) -> PathBuf {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let unified = table.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let root = Path::new(unified.expect("a cgroup2 hierarchy").split(' ').nth(1).unwrap());
    let cgroup = root.join(format!("stillpoint-test-{}", agent.pid()));
    fs::create_dir(&cgroup).unwrap();
    fs::write(cgroup.join("cgroup.procs"), agent.pid().to_string()).unwrap();
    cgroup
}

fn cgroup_killed() {
    // No btrfs: the guard may be in the midst of a thaw when it is killed.
    let lab = Lab::with(&["ext4", "xfs", "ext4"]);
    let mut agent = Agent::start();
    let cgroup = cgroup_of(&agent);
    agent.ok(Order::Arm(Setup::of(&lab)));
    agent.ok(Order::Freeze);
    let writers = writers(&lab);
    writers.iter().for_each(Writer::assert_is_blocked);
    fs::write(cgroup.join("cgroup.kill"), "1").unwrap();
    assert_wrote(&writers, SOON);
    lab.assert_all_undone(SOON);
    drop(agent);
    eventually("the test's own cgroup is removed", || match fs::remove_dir(&cgroup) {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::NotFound,
    });
}

fn guard_stopped() {
    let (lab, mut agent, writers) = frozen(WINDOW);
    signal(lab.process("stillpoint-guard"), SIGSTOP);
    assert_wrote(&writers, WINDOW + SOON);
    assert!(agent.ok(Order::Thaw).broken.is_some());
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn guard_stopped_agent_killed() {
    let (lab, agent, writers) = frozen(LONG);
    signal(lab.process("stillpoint-guard"), SIGSTOP);
    signal(agent.pid(), SIGKILL);
    assert_wrote(&writers, SOON);
    lab.assert_all_undone(SOON);
}

fn guard_stopped_thaw() {
    let (lab, mut agent, writers) = frozen(LONG);
    signal(lab.process("stillpoint-guard"), SIGSTOP);
    let thaw = agent.ok(Order::Thaw);
    assert_eq!(thaw.broken.as_deref(), Some("GuardLost"));
    assert_wrote(&writers, SOON);
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

/// Kills all three at once, so that nobody is left to thaw.
fn kill_all_three(lab: &Lab, agent: &Agent) {
    let all = [lab.process("stillpoint-sentinel"), lab.process("stillpoint-guard"), agent.pid()];
    // Stopped first, or the ones that are left would do their work in between.
    all.iter().for_each(|pid| signal(*pid, SIGSTOP));
    all.iter().for_each(|pid| signal(*pid, SIGKILL));
}

fn all_killed() {
    let before = rcu();
    let (lab, agent, writers) = frozen(LONG);
    kill_all_three(&lab, &agent);
    drop(agent);
    eventually("they are gone", || lab.processes().is_empty());
    writers.iter().for_each(Writer::assert_is_blocked);
    let recovered = recover(&lab.run_dir()).unwrap().freeze.unwrap();
    assert!(recovered.file_systems.iter().all(|fs| fs.outcome == ThawOutcome::Thawed));
    assert_eq!(recovered.file_systems.len(), 3);
    assert!(!recovered.before_reboot);
    assert_eq!(rcu(), before);
    assert_wrote(&writers, SOON);
    lab.assert_all_undone(SOON);
    assert_eq!(recover(&lab.run_dir()).unwrap().freeze, None);
}

fn thaw_only_ours() {
    let (mut lab, agent, writers) = frozen(LONG);
    let image = lab.root().join("another.img");
    lab.add("ext4", &image, 0);
    somebody_freezes(lab.mount(3));
    kill_all_three(&lab, &agent);
    eventually("they are gone", || lab.processes().is_empty());
    let results = thaw_ours(&lab.run_dir()).unwrap();
    assert_eq!(results.len(), 3);
    assert!(results.iter().all(|fs| fs.outcome == ThawOutcome::Thawed), "{results:?}");
    assert_wrote(&writers, SOON);
    let theirs = Writer::start(lab.mount(3));
    theirs.assert_is_blocked();
    crate::lab::somebody_thaws(lab.mount(3));
    recover(&lab.run_dir()).unwrap();
    lab.assert_all_undone(SOON);
}

fn recovery_while_alive() {
    let (lab, mut agent, writers) = frozen(LONG);
    match recover(&lab.run_dir()) {
        Err(RecoverError::GuardAlive { pid, .. }) => {
            assert_eq!(pid, lab.process("stillpoint-guard"));
        }
        other => panic!("{other:?}"),
    }
    writers.iter().for_each(Writer::assert_is_blocked);
    assert_eq!(agent.ok(Order::Thaw).thawed_by_us, [true; 3]);
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn journal_of_another_boot() {
    let (lab, agent, _writers) = frozen(LONG);
    kill_all_three(&lab, &agent);
    eventually("they are gone", || lab.processes().is_empty());
    let path = FreezeRecord::path(&lab.run_dir());
    let mut record = FreezeRecord::load(&lab.run_dir()).unwrap().unwrap();
    let this_boot = std::mem::replace(&mut record.boot_id, "another".to_owned());
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    assert_eq!(thaw_ours(&lab.run_dir()).unwrap(), []);
    let recovered = recover(&lab.run_dir()).unwrap().freeze.unwrap();
    assert!(recovered.before_reboot && recovered.file_systems.is_empty());
    // Now for real, so that the laboratory can be left.
    record.boot_id = this_boot;
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    recover(&lab.run_dir()).unwrap();
    lab.assert_all_undone(SOON);
}

fn hanging_flush() {
    let lab = Lab::with_stacked(1, 0);
    let mut agent = Agent::armed(&lab);
    fs::write(lab.mount(1).join("dirty"), vec![1; 4 << 20]).unwrap();
    somebody_freezes(lab.mount(0));
    let began = Instant::now();
    let words = agent.refused(Order::SyncWithin { budget_ms: 200 }, "SyncTimedOut");
    assert!(began.elapsed() < Duration::from_millis(200) + SOON);
    assert!(words.contains(lab.mount(1).to_str().unwrap()), "{words}");
    agent.refused(Order::Rehearse, "Busy");
    crate::lab::somebody_thaws(lab.mount(0));
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

/// The file system underneath frozen first: the freeze of the one stacked on it hangs in D state,
/// and only a thaw of the one underneath lets it end.
fn freeze_that_hangs(window: Duration) -> (Lab, Agent) {
    let lab = Lab::with_stacked(0, 1);
    let window_ms = window.as_millis().try_into().unwrap();
    let mut agent = Agent::armed_with(Setup { window_ms, ..Setup::of(&lab) });
    fs::write(lab.mount(1).join("dirty"), vec![1; 4 << 20]).unwrap();
    agent.order(Order::Freeze);
    let guard = lab.process("stillpoint-guard");
    eventually("the freeze hangs", || thread_in_d_state(guard) && is_frozen(lab.mount(0)));
    (lab, agent)
}

fn is_frozen(mount_point: &Path) -> bool {
    use stillpoint::freeze::{ProbeState, probe};
    probe(mount_point).unwrap().state == ProbeState::Frozen
}

fn hanging_freeze() {
    // (That the guard does not need its sentinel for a deadline is tested above: a stopped one is a
    // reason of its own to break the freeze.)
    let (lab, mut agent) = freeze_that_hangs(WINDOW);
    let answer = agent.answer();
    let (variant, words) = answer.error.unwrap();
    assert_eq!(variant, "FreezeTimedOut");
    assert!(words.contains(lab.mount(1).to_str().unwrap()), "{words}");
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn hanging_freeze_guard_killed() {
    let (lab, mut agent) = freeze_that_hangs(LONG);
    signal(lab.process("stillpoint-guard"), SIGKILL);
    assert_eq!(agent.answer().error.unwrap().0, "GuardLost");
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

/// A freeze in flight that only the end of somebody's write can end. Until then new writers wait,
/// FITHAW says EINVAL, and nobody can help it; afterwards it is frozen, and must not stay so.
fn freeze_held_up(window: Duration) -> (Lab, Agent, WriteInFlight) {
    let lab = Lab::with(&["ext4", "xfs", "btrfs"]);
    let window_ms = window.as_millis().try_into().unwrap();
    let mut agent = Agent::armed_with(Setup { window_ms, ..Setup::of(&lab) });
    let write = WriteInFlight::on(lab.mount(1));
    agent.order(Order::Freeze);
    eventually("the freeze waits", || lab.file_systems.iter().all(|fs| is_frozen(&fs.mount_point)));
    (lab, agent, write)
}

fn held_up() {
    let (lab, mut agent, write) = freeze_held_up(WINDOW);
    for index in [0, 2] {
        assert!(Writer::start(lab.mount(index)).wrote_within(WINDOW + SOON));
    }
    let (variant, words) = agent.answer().error.unwrap();
    assert_eq!(variant, "NotThawed");
    assert!(words.contains(lab.mount(1).to_str().unwrap()), "{words}");
    drop(write);
    assert!(Writer::start(lab.mount(1)).wrote_within(SOON));
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

/// The loss of a peer is the reason; that somebody still waits is the news.
fn held_up_sentinel_stopped() {
    let (lab, mut agent, write) = freeze_held_up(LONG);
    signal(lab.process("stillpoint-sentinel"), SIGSTOP);
    for index in [0, 2] {
        assert!(Writer::start(lab.mount(index)).wrote_within(SOON));
    }
    let (variant, words) = agent.answer().error.unwrap();
    assert_eq!(variant, "NotThawed");
    assert!(words.contains(lab.mount(1).to_str().unwrap()), "{words}");
    drop(write);
    assert!(Writer::start(lab.mount(1)).wrote_within(SOON));
    agent.ok(Order::Disarm);
    lab.assert_all_undone(SOON);
}

fn held_up_agent_killed() {
    let (lab, agent, write) = freeze_held_up(LONG);
    signal(agent.pid(), SIGKILL);
    for index in [0, 2] {
        assert!(Writer::start(lab.mount(index)).wrote_within(SOON));
    }
    drop(write);
    lab.assert_all_undone(SOON);
}

fn held_up_guard_killed() {
    let (lab, agent, write) = freeze_held_up(LONG);
    // The agent must not help here: the guard is killed, and cannot end before the write does.
    signal(agent.pid(), SIGSTOP);
    signal(lab.process("stillpoint-guard"), SIGKILL);
    for index in [0, 2] {
        assert!(Writer::start(lab.mount(index)).wrote_within(SOON));
    }
    drop(write);
    assert!(Writer::start(lab.mount(1)).wrote_within(SOON));
    lab.assert_all_undone(SOON);
}

fn hanging_freeze_sentinel_only() {
    let (lab, agent) = freeze_that_hangs(LONG);
    let guard = lab.process("stillpoint-guard");
    signal(agent.pid(), SIGSTOP);
    signal(guard, SIGKILL);
    lab.assert_all_undone(SOON);
}

fn hanging_freeze_agent_killed() {
    let (lab, agent) = freeze_that_hangs(LONG);
    signal(agent.pid(), SIGKILL);
    lab.assert_all_undone(SOON);
}
