//! Through the plug-in manager's eyes: what it installs, how it calls it, and how it ends it. Its
//! time-out is a SIGKILL of the plug-in's process alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ecs_emulator::Fault;
use stillpoint::config::Deadlines;
use stillpoint::plugin::params::DEFAULT_SCRIPT_TIMEOUT;
use stillpoint_tests::cloud::Cloud;
use stillpoint_tests::leftovers;
use stillpoint_tests::plugin::{PluginBench, PluginRun, ROLE};
use stillpoint_tests::plugin_manager::{InstalledPlugin, split};

/// How long a run may take to come to a moment that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_manager_installs_it_runs_it_and_kills_it() -> Result<()> {
    let bench = PluginBench::new(Duration::from_secs(600))?;
    let plugin = install(&bench)?;
    the_package_is_as_the_manager_wants_it(&plugin)?;
    params_arrive_as_they_were_meant(&bench, &plugin)?;
    whenever_it_is_killed_everything_runs(&bench, &plugin)?;
    what_a_killed_run_paused_is_resumed_by_its_own_postscript(&bench, &plugin)?;
    bench.finish()
}

fn install(bench: &PluginBench) -> Result<InstalledPlugin> {
    let binary = fs::read(bench.stillpoint.binary())?;
    let package = xtask::plugin::package(&binary, "0.1.0")?;
    ensure!(package == xtask::plugin::package(&binary, "0.1.0")?, "not reproducible");
    let directory = bench.lab.scratch("assist")?;
    let file = directory.join("stillpoint-snapshot-plugin.zip");
    fs::write(&file, package)?;
    InstalledPlugin::install(&file, &directory)
}

fn the_package_is_as_the_manager_wants_it(plugin: &InstalledPlugin) -> Result<()> {
    ensure!(plugin.directory.ends_with("plugin/stillpoint-snapshot-plugin/0.1.0"));
    // It is not killed while it does what its defaults allow.
    let deadlines = Deadlines::default();
    let script = Duration::from_secs(DEFAULT_SCRIPT_TIMEOUT.unsigned_abs());
    let longest = deadlines.prepare
        + deadlines.flush
        + deadlines.sync
        + 2 * script
        + stillpoint::config::LONGEST_WINDOW
        + deadlines.confirm
        + 2 * deadlines.release
        + deadlines.settle;
    ensure!(Duration::from_secs(plugin.timeout_seconds) > longest, "{longest:?}");
    let help = Command::new(&plugin.program).arg("-h").output()?;
    ensure!(help.status.success());
    ensure!(String::from_utf8(help.stdout)?.contains("-RamRoleName string"));
    Ok(())
}

fn params_arrive_as_they_were_meant(bench: &PluginBench, plugin: &InstalledPlugin) -> Result<()> {
    let root = format!("-Root={}", bench.lab.root().display());
    let run = |params: &str| -> Result<(Cloud, PluginRun)> {
        let cloud = Cloud::new(&bench.lab)?;
        let words = split(&format!("{params},{root},{ROLE},-Hooks=none"), ",");
        let run = PluginRun::of(&mut command(bench, plugin, &cloud, &words))?;
        bench.everything_runs()?;
        Ok((cloud, run))
    };
    let (cloud, done) = run("-Name=quoted,-Description=\"before the 2nd update\"")?;
    done.succeeded()?;
    ensure!(cloud.the_group()?.description == "before the 2nd update");
    // Two disks, by a semicolon, and by a comma that becomes a space between quotes.
    for list in ["d-labother;d-labbinlog", "\"d-labother,d-labbinlog\""] {
        let (cloud, done) = run(&format!("-Name=two,-ExcludeDiskId={list}"))?;
        done.succeeded()?;
        ensure!(cloud.the_group()?.members.len() == 1, "{list}");
    }
    // Torn apart: the original went on without what follows.
    for (params, word) in [
        ("-Name=torn,-Description=before the update", "the"),
        ("-Name=torn,-ExcludeDiskId=d-labother,d-labbinlog", "d-labbinlog"),
    ] {
        let (cloud, refused) = run(params)?;
        refused.exited_with(2)?.says(&["error", word, "hint: ", "--params='"])?;
        ensure!(cloud.emulator.groups().is_empty());
    }
    Ok(())
}

/// As the manager runs it, but for what keeps the lab to itself.
fn command(
    bench: &PluginBench,
    plugin: &InstalledPlugin,
    cloud: &Cloud,
    words: &[String],
) -> Command {
    let of_lab = bench.lab.command("true");
    let mut command = plugin.command(words);
    for (name, value) in of_lab.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.envs(cloud.environment()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Where a run can be when the manager's time is over.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Metadata,
    Prescript,
    Window,
    Postscript,
    Members,
}

fn whenever_it_is_killed_everything_runs(
    bench: &PluginBench,
    plugin: &InstalledPlugin,
) -> Result<()> {
    bench.stillpoint.install_mysql_hook(bench.server.socket())?;
    use Moment::{Members, Metadata, Postscript, Prescript, Window};
    for moment in [Metadata, Prescript, Window, Postscript, Members] {
        let cloud = slow_at(bench, moment)?;
        let began = scripts_for(bench, moment)?;
        let mut agent = start(bench, plugin, &cloud)?;
        wait_for(&mut agent, || match moment {
            Metadata => !cloud.calls("metadata:token").is_empty(),
            Prescript | Postscript => began.exists(),
            Window => !cloud.calls("CreateSnapshotGroup").is_empty(),
            Members => members_are_awaited(&cloud),
        })
        .with_context(|| format!("{moment:?}"))?;
        agent.kill()?;
        let status = agent.wait()?;
        ensure!(status.code().is_none(), "{moment:?}: it ended by itself");
        // The window would last 20 s, and this looks within seconds: the guard saw the death. How soon
        // is measured in `kill_agent`.
        bench.everything_runs().with_context(|| format!("{moment:?}"))?;
        nothing_stays(bench, plugin).with_context(|| format!("{moment:?}"))?;
        // The next run cleans up, and does its work.
        bench.clear_scripts()?;
        bench.write_scripts("exit 0", "exit 0")?;
        let cloud = Cloud::new(&bench.lab)?;
        let words = words(bench);
        let next = PluginRun::of(&mut command(bench, plugin, &cloud, &words))?;
        next.succeeded().with_context(|| format!("after {moment:?}"))?;
        bench.clear_scripts()?;
    }
    // Nothing of the dead is left to be finished.
    let recover = bench.stillpoint.run(["recover"])?;
    ensure!(
        recover.succeeded()?.stdout == "nothing was left behind\n",
        "{}",
        recover.description()
    );
    fs::remove_dir_all(bench.stillpoint.config_file("hooks.d"))?;
    Ok(())
}

/// A cloud in which there is time to be killed at this moment.
fn slow_at(bench: &PluginBench, moment: Moment) -> Result<Cloud> {
    let slow = |action: &str| Fault::on(action).delay_before(Duration::from_millis(900));
    let long = |action: &str| Fault::on(action).delay_before(Duration::from_secs(15));
    Cloud::with(&bench.lab, |scenario| match moment {
        Moment::Metadata => scenario.faults.push(slow("metadata:token")),
        Moment::Window => scenario.faults.push(long("CreateSnapshotGroup")),
        Moment::Members => {
            scenario.group.unavailable_ms = 60_000;
            scenario.group.progress_ms = 60_000;
        }
        Moment::Prescript | Moment::Postscript => {}
    })
}

/// Scripts that wait at this moment, and the file that says that they do.
fn scripts_for(bench: &PluginBench, moment: Moment) -> Result<PathBuf> {
    let began = bench.script("began");
    // The first time: the recovery of the sentinel runs the undo at once, and the next run waits for it.
    let waits = format!("[ -e {0} ] && exit 0; touch {0}; exec sleep 60", began.display());
    let at_once = "exit 0".to_owned();
    let (pre, post) = match moment {
        Moment::Prescript => (waits, at_once),
        Moment::Postscript => (at_once, waits),
        _ => (at_once.clone(), at_once),
    };
    bench.write_scripts(&pre, &post)?;
    Ok(began)
}

fn words(bench: &PluginBench) -> Vec<String> {
    let root = format!("-Root={}", bench.lab.root().display());
    let own = [ROLE, "-Name=managed", "-Hooks=both", "-TimeoutInSeconds=20"].map(str::to_owned);
    own.into_iter().chain([root]).chain(bench.script_words()).collect()
}

fn start(bench: &PluginBench, plugin: &InstalledPlugin, cloud: &Cloud) -> Result<Child> {
    Ok(command(bench, plugin, cloud, &words(bench)).spawn()?)
}

fn wait_for(agent: &mut Child, moment: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !moment() {
        ensure!(agent.try_wait()?.is_none(), "it ended before");
        ensure!(Instant::now() < deadline, "it does not come to that");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Nothing is held any more: more than the looks that fix the point in time have been taken.
fn members_are_awaited(cloud: &Cloud) -> bool {
    let looks =
        cloud.calls("DescribeSnapshotGroups").len() + cloud.calls("DescribeSnapshots").len();
    looks > 6
}

/// Guards and sentinels end by themselves, and what is ours runs, by the command that says so.
fn nothing_stays(bench: &PluginBench, plugin: &InstalledPlugin) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left = leftovers::processes_of(bench.lab.directory(), &plugin.program);
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "left: {left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn what_a_killed_run_paused_is_resumed_by_its_own_postscript(
    bench: &PluginBench,
    plugin: &InstalledPlugin,
) -> Result<()> {
    let log = bench.script_log().display().to_string();
    let began = bench.script("began");
    bench.write_scripts(
        &format!("echo paused >>{log}; touch {}; exec sleep 60", began.display()),
        &format!("echo resumed-$STILLPOINT_OUTCOME >>{log}"),
    )?;
    let cloud = Cloud::new(&bench.lab)?;
    let mut agent = start(bench, plugin, &cloud)?;
    wait_for(&mut agent, || began.exists())?;
    agent.kill()?;
    agent.wait()?;
    ensure!(bench.script_logged().starts_with("paused\n"));
    // The sentinel is at it, or has done it; `recover` waits for that. Nobody has told either where this
    // run's scripts are: the journal has.
    let recover = bench.stillpoint.run([Path::new("recover")])?;
    ensure!(recover.code == Some(0), "{}", recover.description());
    ensure!(bench.script_logged() == "paused\nresumed-aborted\n", "{}", bench.script_logged());
    bench.everything_runs()?;
    bench.clear_scripts()
}
