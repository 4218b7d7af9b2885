//! The agent dies in mid-run, and nobody calls anything afterwards: its sentinel has thawed, and has had
//! released what no session gives back: a hook's row in a table, and what a script paused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ecs_emulator::Fault;
use nix::sys::signal::Signal;
use stillpoint_tests::cloud_rig::{CloudRig, still_run};
use stillpoint_tests::mariadb::MariaDb;
use stillpoint_tests::puppet::{HOLD, OPEN, Puppet, UNDO};
use stillpoint_tests::standing::{Standing, none_frozen, run_dir, signal, wait_until, wait_within};
use stillpoint_tests::test_cgroup::TestCgroup;

/// From the end of the agent's last thread to the last thaw.
const THAWED: Duration = Duration::from_millis(250);

/// Where a run stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    PreFreeze,
    Window,
}

/// A server in a cloud that can take its time, and the hook that takes a row.
struct Bench {
    rig: CloudRig,
    server: MariaDb,
    puppet: Puppet,
}

impl Bench {
    fn new() -> Result<Self> {
        let (rig, server) = CloudRig::with_server(|_| ())?;
        fs::remove_file(rig.stillpoint.config_file("hooks.d/mysql.toml"))?;
        let puppet = Puppet::install(&rig.stillpoint, &server)?;
        Ok(Self { rig, server, puppet })
    }

    fn held(&self) -> Result<u32> {
        self.puppet.held(&self.server)
    }

    /// A run that holds the row and stands still there.
    fn standing(&self, moment: Moment) -> Result<Standing> {
        self.rig.cloud.emulator.faults(
            [Fault::on("CreateSnapshotGroup").delay_before(Duration::from_secs(60))]
                .into_iter()
                .filter(|_| moment == Moment::Window),
        );
        let holds: &[&str] = match moment {
            Moment::PreFreeze => &[UNDO, HOLD, "sleep 600000"],
            Moment::Window => &[UNDO, HOLD],
        };
        self.puppet.plays(&self.rig.stillpoint, &[("prepare", &[OPEN]), ("pre-freeze", holds)])?;
        let stillpoint = &self.rig.stillpoint;
        match moment {
            Moment::PreFreeze => Standing::start(stillpoint, "dies", || Ok(self.held()? == 1)),
            Moment::Window => Standing::in_window(stillpoint, &self.rig.lab, "dies"),
        }
    }

    /// Everything runs and nothing is held, though nobody has called anything.
    fn is_undone_by_itself(&self) -> Result<()> {
        wait_within(THAWED, "nothing is frozen", || none_frozen(&self.rig.lab))?;
        wait_until("the row is given back", || Ok(self.held()? == 0))?;
        still_run(&self.rig.lab)?;
        wait_until("nothing is left in the journal", || {
            let left =
                ["freeze.json", "run.json"].map(|name| run_dir(&self.rig.stillpoint).join(name));
            Ok(left.iter().all(|path| !path.exists()))
        })
    }

    /// The next start tells what was done, once.
    fn is_told_once(&self) -> Result<()> {
        let stillpoint = &self.rig.stillpoint;
        wait_until("it is written down", || {
            Ok(run_dir(stillpoint).join("recovered.json").exists())
        })?;
        let told = stillpoint.run(["recover"])?;
        told.succeeded()?;
        ensure!(
            told.stdout.contains("hook puppet was cut off")
                && told.stdout.contains("by its sentinel"),
            "{}",
            told.description()
        );
        let again = stillpoint.run(["recover"])?;
        ensure!(again.stdout == "nothing was left behind\n", "{}", again.description());
        Ok(())
    }
}

#[test]
fn what_a_killed_agent_held_is_given_back_without_anybody_calling_anything() -> Result<()> {
    let bench = Bench::new()?;
    for moment in [Moment::PreFreeze, Moment::Window] {
        for with_guard in [false, true] {
            let mut run = bench.standing(moment)?;
            if with_guard {
                // Stopped, so that it does not undo by itself what the loss of the guard breaks.
                signal(run.agent(), Signal::SIGSTOP)?;
                signal(run.guard()?.pid, Signal::SIGKILL)?;
            }
            run.kill_agent()?;
            bench.is_undone_by_itself().with_context(|| format!("{moment:?} {with_guard}"))?;
            bench.is_told_once()?;
        }
    }
    the_whole_cgroup_is_killed(&bench)?;
    without_a_sentinel_it_waits_for_recover(&bench)?;
    a_start_waits_for_the_recovery(&bench)?;
    a_start_goes_on_where_a_sentinel_was_killed(&bench)?;
    bench.server.stop()?;
    bench.rig.finish()
}

/// As a manager does, or a kernel that is out of memory: agent and guard, and all that they started.
fn the_whole_cgroup_is_killed(bench: &Bench) -> Result<()> {
    let cgroup = TestCgroup::make()?;
    let mut run = bench.standing(Moment::Window)?;
    for pid in [run.agent(), run.guard()?.pid] {
        cgroup.add(pid)?;
    }
    cgroup.kill()?;
    run.kill_agent()?;
    bench.is_undone_by_itself()?;
    bench.is_told_once()
}

fn without_a_sentinel_it_waits_for_recover(bench: &Bench) -> Result<()> {
    let mut run = bench.standing(Moment::PreFreeze)?;
    run.kill_all()?;
    ensure!(bench.held()? == 1, "nobody is left to give it back");
    let recover = bench.rig.stillpoint.run(["recover"])?;
    recover.succeeded()?;
    ensure!(bench.held()? == 0, "{}", recover.description());
    Ok(())
}

/// A hook that takes its time to finish: a start in the meantime waits, and then has a clean machine.
fn a_start_waits_for_the_recovery(bench: &Bench) -> Result<()> {
    let slow = "kv-set undo sleep 2000;open U main;query U DELETE FROM puppet.holds";
    let stillpoint = &bench.rig.stillpoint;
    let phases = [("prepare", &[OPEN][..]), ("pre-freeze", &[slow, HOLD, "sleep 600000"])];
    bench.puppet.plays(stillpoint, &phases)?;
    let mut run = Standing::start(stillpoint, "dies", || Ok(bench.held()? == 1))?;
    run.kill_agent()?;
    wait_until("the recovery has the lock", || {
        Ok(fs::read_to_string(run_dir(stillpoint).join("lock"))?.contains("recovery-of-"))
    })?;
    let next = stillpoint.run(["recover"])?;
    next.succeeded()?;
    ensure!(next.stdout.contains("by its sentinel"), "it waited: {}", next.description());
    ensure!(bench.held()? == 0, "{}", next.description());
    Ok(())
}

/// The sentinel, and the recovery that it has started, are killed, too: the next start does it.
fn a_start_goes_on_where_a_sentinel_was_killed(bench: &Bench) -> Result<()> {
    let stuck = "kv-set undo sleep 600000;open U main;query U DELETE FROM puppet.holds";
    let stillpoint = &bench.rig.stillpoint;
    let phases = [("prepare", &[OPEN][..]), ("pre-freeze", &[stuck, HOLD, "sleep 600000"])];
    bench.puppet.plays(stillpoint, &phases)?;
    let mut run = Standing::start(stillpoint, "dies", || Ok(bench.held()? == 1))?;
    run.kill_agent()?;
    let lock = run_dir(stillpoint).join("lock");
    let mut recovery = 0;
    wait_until("the recovery has the lock", || {
        let holder: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&lock)?).unwrap_or_default();
        recovery = holder["pid"].as_u64().unwrap_or(0).try_into()?;
        Ok(holder["run_id"].as_str().is_some_and(|id| id.starts_with("recovery-of-")))
    })?;
    signal(run.sentinel()?.pid, Signal::SIGKILL)?;
    signal(recovery, Signal::SIGKILL)?;
    ensure!(bench.held()? == 1);
    // What undoes it is in the hook's state; this start does not hang on it for longer than `finish`.
    let config = "[deadlines]\nrelease = \"1s\"\n";
    bench.rig.configure(config)?;
    let next = stillpoint.run(["recover"])?;
    next.exited_with(10)?;
    ensure!(next.stdout.contains("not done: "), "{}", next.description());
    bench.server.execute("DELETE FROM puppet.holds")?;
    fs::remove_file(run_dir(stillpoint).join("run.json"))?;
    bench.rig.configure("")
}

#[test]
fn what_a_script_of_a_killed_agent_paused_is_resumed_without_anybody_calling_anything() -> Result<()>
{
    let rig = CloudRig::new(&["data", "log"], |_| ())?;
    let scripts = rig.lab.scratch("scripts")?;
    let log = scripts.join("log");
    for (name, word) in [("pre.sh", "paused"), ("post.sh", "resumed-$STILLPOINT_OUTCOME")] {
        fs::write(scripts.join(name), format!("#!/bin/sh\necho {word} >>{}\n", log.display()))?;
        fs::set_permissions(scripts.join(name), fs::Permissions::from_mode(0o700))?;
    }
    let more = format!(
        "[scripts]\nenabled = true\npre = \"{}\"\npost = \"{}\"\n",
        scripts.join("pre.sh").display(),
        scripts.join("post.sh").display()
    );
    rig.stillpoint
        .configure(&stillpoint_tests::stillpoint::settings(&rig.lab, "alibaba", &more))?;
    rig.cloud
        .emulator
        .faults([Fault::on("CreateSnapshotGroup").delay_before(Duration::from_secs(60))]);
    let mut run = Standing::in_window(&rig.stillpoint, &rig.lab, "dies")?;
    ensure!(fs::read_to_string(&log)? == "paused\n");
    run.kill_agent()?;
    wait_within(THAWED, "nothing is frozen", || none_frozen(&rig.lab))?;
    wait_until("the second script has run", || {
        Ok(fs::read_to_string(&log)? == "paused\nresumed-aborted\n")
    })?;
    still_run(&rig.lab)?;
    rig.finish()
}
