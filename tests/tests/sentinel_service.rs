//! The sentinel as a service: runs use it if it answers; killed in mid-run it breaks the run, and started
//! again it goes on from what its manager kept.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ecs_emulator::Fault;
use nix::sys::signal::Signal;
use stillpoint_tests::cloud_rig::{CloudRig, still_run};
use stillpoint_tests::service_manager::{ServiceManager, socket_of};
use stillpoint_tests::standing::{Standing, none_frozen, run_dir, signal, wait_until, wait_within};

const THAWED: Duration = Duration::from_millis(250);

/// How long a run stands still in its window: it waits for the answer to know whether there is a group.
const STANDS: Duration = Duration::from_secs(6);

struct Bench {
    rig: CloudRig,
    manager: ServiceManager,
}

impl Bench {
    fn new() -> Result<Self> {
        let rig = CloudRig::new(&["data", "log"], |_| ())?;
        rig.configure("[deadlines]\nfreeze = \"20s\"\n")?;
        let manager = ServiceManager::start(&rig.lab, &rig.stillpoint)?;
        Ok(Self { rig, manager })
    }

    /// A run that stands still in its window, watched by the service.
    fn in_window(&self) -> Result<Standing> {
        self.cloud_is_slow(true);
        let run = Standing::in_window(&self.rig.stillpoint, &self.rig.lab, "service")?;
        ensure!(run.sentinel()?.pid == self.manager.pid()?, "the run has a sentinel of its own");
        // The plan, the board, and two mounts.
        ensure!(self.manager.kept().len() == 4, "kept: {:?}", self.manager.kept());
        Ok(run)
    }

    fn cloud_is_slow(&self, slow: bool) {
        let delay = Fault::on("CreateSnapshotGroup").delay_before(STANDS);
        self.rig.cloud.emulator.faults(slow.then_some(delay));
    }

    fn is_thawed(&self) -> Result<()> {
        wait_within(THAWED, "nothing is frozen", || none_frozen(&self.rig.lab))?;
        still_run(&self.rig.lab)?;
        wait_until("no journal is left", || {
            Ok(!run_dir(&self.rig.stillpoint).join("freeze.json").exists())
        })
    }

    fn keeps_nothing(&self) -> Result<()> {
        wait_until("the manager keeps nothing", || Ok(self.manager.kept().is_empty()))
    }
}

#[test]
fn runs_use_the_service_and_it_goes_on_where_it_was_killed() -> Result<()> {
    let mut bench = Bench::new()?;
    a_whole_run(&bench)?;
    agent_and_guard_are_killed(&bench)?;
    the_service_is_killed(&mut bench)?;
    all_three_are_killed(&mut bench)?;
    it_ends_when_no_run_needs_it(bench)
}

fn a_whole_run(bench: &Bench) -> Result<()> {
    bench.cloud_is_slow(false);
    for _ in 0..3 {
        let run = bench.rig.snapshot(&[])?;
        let manifest = run.succeeded()?.manifest()?;
        let warnings = manifest.at("/warnings")?.to_string();
        ensure!(!warnings.contains("sentinel"), "{warnings}");
    }
    ensure!(bench.manager.ever_kept() == 12, "{}", bench.manager.ever_kept());
    bench.keeps_nothing()?;
    // It has closed the mounts: they can be unmounted.
    let fds = fs::read_dir(format!("/proc/{}/fd", bench.manager.pid()?))?;
    let open = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    let held = |path: &std::path::PathBuf| path.starts_with(bench.rig.lab.directory().join("mnt"));
    ensure!(!open.into_iter().any(|path| held(&path)), "it holds a mount");
    Ok(())
}

fn agent_and_guard_are_killed(bench: &Bench) -> Result<()> {
    let mut run = bench.in_window()?;
    signal(run.agent(), Signal::SIGSTOP)?;
    signal(run.guard()?.pid, Signal::SIGKILL)?;
    run.kill_agent()?;
    bench.is_thawed()?;
    bench.keeps_nothing()
}

/// One peer rule: a run without its sentinel is given up, and the one that is started again does not
/// save it.
fn the_service_is_killed(bench: &mut Bench) -> Result<()> {
    let run = bench.in_window()?;
    bench.manager.kill()?;
    bench.is_thawed()?;
    bench.manager.start_again()?;
    let run = run.end()?;
    run.exited_with(11)?;
    ensure!(run.error_text()?.contains("sentinel"), "{}", run.description());
    bench.keeps_nothing()
}

/// Nobody is left but the manager: what it kept is enough.
fn all_three_are_killed(bench: &mut Bench) -> Result<()> {
    let mut run = bench.in_window()?;
    let guard = run.guard()?;
    signal(run.agent(), Signal::SIGSTOP)?;
    signal(bench.manager.pid()?, Signal::SIGSTOP)?;
    signal(guard.pid, Signal::SIGKILL)?;
    bench.manager.kill()?;
    run.kill_agent()?;
    wait_until("the guard is gone", || Ok(!guard.is_alive()))?;
    ensure!(!none_frozen(&bench.rig.lab)?, "nobody was left to thaw");
    // Not even by the journal's mount points: the store has the mounts themselves.
    bench.manager.start_again()?;
    bench.is_thawed()?;
    bench.keeps_nothing()
}

fn it_ends_when_no_run_needs_it(bench: Bench) -> Result<()> {
    let mut run = bench.in_window()?;
    let pid = bench.manager.pid()?;
    signal(pid, Signal::SIGTERM)?;
    std::thread::sleep(Duration::from_millis(100));
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(!status.contains("State:\tZ"), "it left a run that was frozen");
    run.kill_agent()?;
    bench.is_thawed()?;
    let Bench { rig, manager } = bench;
    manager.stop()?;
    ensure!(!socket_of(&rig.stillpoint).exists());
    rig.finish()
}

/// A service that does not answer costs a run a second, and nothing else.
#[test]
fn a_service_that_does_not_answer_is_left_alone() -> Result<()> {
    let rig = CloudRig::new(&["data"], |_| ())?;
    rig.snapshot(&[])?.succeeded()?;
    let silent = UnixListener::bind(socket_of(&rig.stillpoint))?;
    let began = Instant::now();
    let run = rig.snapshot(&[])?;
    let warnings = run.succeeded()?.manifest()?.at("/warnings")?.to_string();
    ensure!(warnings.contains("the sentinel service is not used"), "{warnings}");
    ensure!(began.elapsed() < Duration::from_secs(20));
    drop(silent);
    rig.finish()
}
