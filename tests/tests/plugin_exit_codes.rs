//! Each documented exit code, reached through the binary; afterwards every file system can be written
//! to and clients of the database commit (`PluginBench::run` looks).

#![expect(clippy::print_stdout, reason = "the last lines are for whoever reads the tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ecs_emulator::{Fault, GroupStatus, Outcome, Scenario};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stillpoint_tests::cloud::{Cloud, METADATA_VARIABLE, disk_of};
use stillpoint_tests::command::run;
use stillpoint_tests::plugin::{PluginBench, PluginRun, ROLE};

/// How long a run may take to come to a moment that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn every_documented_exit_code_is_reached_and_leaves_everything_running() -> Result<()> {
    let bench = PluginBench::new(Duration::from_secs(900))?;
    the_cloud_decides(&bench)?;
    conditions_that_are_not_met_are_1(&bench)?;
    wrong_parameters_are_2(&bench)?;
    nothing_to_snapshot_is_3(&bench)?;
    a_late_answer_is_6_and_thawed_on_time(&bench)?;
    scripts_that_fail_are_9_and_10(&bench)?;
    a_lost_guard_is_11(&bench)?;
    a_journal_that_nobody_can_read_is_12(&bench)?;
    a_second_run_is_16(&bench)?;
    a_run_that_is_stopped_is_255(&bench)?;
    bench.finish()
}

/// What goes wrong in the cloud, and words that the last line must have.
struct Case {
    code: i32,
    words: &'static [&'static str],
    change: fn(&mut Scenario),
}

/// The group is asked for, and the cloud answers with this error.
fn refused(code: &str) -> Fault {
    Fault::on("CreateSnapshotGroup").error(code)
}

/// One snapshot fails, and this is what the group's status says about it.
fn a_member_fails(group: GroupStatus) -> Outcome {
    Outcome::FailMember { disk: disk_of("data"), group }
}

fn the_cloud_decides(bench: &PluginBench) -> Result<()> {
    bench.write_scripts("exit 0", "exit 0")?;
    let cases = [
        Case {
            code: 1,
            words: &["InvalidSnapshotName.Malformed"],
            change: |s| s.faults.push(refused("InvalidSnapshotName.Malformed")),
        },
        Case {
            code: 3,
            words: &["Forbidden.RAM", "CreateSnapshotGroup"],
            change: |s| s.role.deny.push("ecs:CreateSnapshotGroup".to_owned()),
        },
        Case {
            code: 3,
            words: &["Forbidden.RAM", "DescribeDisks"],
            change: |s| s.role.deny.push("ecs:DescribeDisks".to_owned()),
        },
        Case {
            code: 4,
            words: &["IncorrectInstanceStatus"],
            change: |s| s.faults.push(refused("IncorrectInstanceStatus")),
        },
        Case { code: 5, words: &["failed"], change: |s| s.group.outcome = Outcome::Fail },
        Case { code: 5, words: &[], change: |s| s.group.outcome = Outcome::Vanish },
        Case {
            code: 7,
            words: &["d-labdata"],
            change: |s| s.group.outcome = a_member_fails(GroupStatus::Failed),
        },
        Case {
            code: 8,
            words: &["TagResources"],
            change: |s| s.role.deny.push("ecs:TagResources".to_owned()),
        },
        Case { code: 13, words: &["role"], change: |s| s.role.name = None },
        Case {
            code: 13,
            words: &["AppSnapshotRoleName"],
            change: |s| s.role.name = Some("AnotherRole".to_owned()),
        },
        Case {
            code: 14,
            words: &["QuotaExceed.Snapshot"],
            change: |s| s.limits.snapshots_per_disk = 0,
        },
        // A snapshot that failed in a group that does not say so.
        Case {
            code: 15,
            words: &["d-labdata"],
            change: |s| s.group.outcome = a_member_fails(GroupStatus::Accomplished),
        },
        Case {
            code: 15,
            words: &["DescribeSnapshots"],
            change: |s| s.role.deny.push("ecs:DescribeSnapshots".to_owned()),
        },
        Case {
            code: 16,
            words: &["CreatingSnapshot"],
            change: |s| s.disks[0].creating_snapshot = true,
        },
    ];
    for Case { code, words, change } in cases {
        let cloud = Cloud::with(&bench.lab, change)?;
        let run = bench.run(&cloud, &[])?;
        println!("{}", run.last_line());
        run.exited_with(code)?;
        for word in words {
            ensure!(run.last_line().contains(word), "nothing about {word}: {}", run.description());
        }
        let created = cloud.emulator.groups();
        // What is left must not be taken for a snapshot that can be relied on.
        let consistent = created.iter().flat_map(|group| &group.members).any(|member| {
            member.tags.iter().any(|tag| tag.key.ends_with("Consistent") && tag.value == "True")
        });
        ensure!(!consistent, "exit {code}, and tagged as consistent: {created:#?}");
    }
    bench.clear_scripts()
}

fn conditions_that_are_not_met_are_1(bench: &PluginBench) -> Result<()> {
    let cloud = Cloud::new(&bench.lab)?;
    bench.run(&cloud, &["-Name=1st"])?.exited_with(1)?.says(&["must begin with a letter"])?;
    bench.run(&cloud, &["-Require=application"])?.exited_with(1)?.says(&["application"])?;
    ensure!(cloud.emulator.groups().is_empty());
    // Nobody answers at the metadata service's address.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = bench.command(&cloud, &[ROLE, "-Name=unreachable"]);
    let run = PluginRun::of(command.env(METADATA_VARIABLE, format!("http://{closed}")))?;
    run.exited_with(1)?;
    // A file system that somebody else has frozen is not ours to thaw.
    let other = bench.lab.mount("other");
    run_fsfreeze("-f", &other)?;
    let words = [ROLE, "-Name=frozen", "-Hooks=none"];
    let run = PluginRun::of(&mut bench.command(&cloud, &words));
    run_fsfreeze("-u", &other)?;
    run?.exited_with(1)?.says(&["frozen already"])?;
    bench.everything_runs()
}

fn run_fsfreeze(what: &str, mount: &Path) -> Result<()> {
    run("fsfreeze", [Path::new(what), mount]).map(drop)
}

fn wrong_parameters_are_2(bench: &PluginBench) -> Result<()> {
    let cloud = Cloud::new(&bench.lab)?;
    for (words, message) in [
        (&["-Nope=1"][..], "flag provided but not defined: -Nope"),
        (&["-TimeoutInSeconds"], "flag needs an argument: -TimeoutInSeconds"),
        (&["-TimeoutInSeconds=5s"], "invalid value"),
        (&["-TimeoutInSeconds=0"], "1 or more"),
        (&["-EnableFsFreeze=perhaps"], "invalid boolean value"),
        (&["-EnableFsFreeze", "false"], "-EnableFsFreeze=false"),
        (&["-Description=two", "words"], "--params="),
        (&["-RamRoleName="], "-RamRoleName is required"),
        (&["---Name=x"], "bad flag syntax: ---Name=x"),
        (&["-ExcludeDiskId=d-unknown"], "d-unknown"),
    ] {
        bench.run(&cloud, words)?.exited_with(2)?.says(&["error", message])?;
    }
    bench.stillpoint.configure("[snapshot]\nfreeeze = true\n")?;
    let refused = bench.run(&cloud, &[]);
    fs::remove_file(bench.stillpoint.config_file("stillpoint.toml"))?;
    refused?.exited_with(2)?.says(&["error", "stillpoint.toml:2:"])?;
    ensure!(cloud.emulator.groups().is_empty());
    Ok(())
}

fn nothing_to_snapshot_is_3(bench: &PluginBench) -> Result<()> {
    let all = ["data", "binlog", "other"].map(disk_of).join(";");
    let cloud = Cloud::new(&bench.lab)?;
    bench.run(&cloud, &[&format!("-ExcludeDiskId={all}")])?.exited_with(3)?;
    let cloud = Cloud::with(&bench.lab, |scenario| {
        for disk in &mut scenario.disks {
            disk.category = "cloud_efficiency".to_owned();
        }
    })?;
    bench.run(&cloud, &[])?.exited_with(3)?;
    ensure!(cloud.calls("CreateSnapshotGroup").is_empty());
    Ok(())
}

fn a_late_answer_is_6_and_thawed_on_time(bench: &PluginBench) -> Result<()> {
    bench.write_scripts("exit 0", "exit 0")?;
    let late = Fault::on("CreateSnapshotGroup").delay_after(Duration::from_secs(20));
    let cloud = Cloud::with(&bench.lab, |scenario| scenario.faults.push(late))?;
    let writers = stillpoint_tests::file_writers::FileWriters::start([bench.lab.mount("data")])?;
    let run = bench.run(&cloud, &["-TimeoutInSeconds=5"])?;
    let history = writers.stop()?;
    println!("{}", run.last_line());
    run.exited_with(6)?;
    let stall = history.longest().first().copied().unwrap_or_default();
    let limits = Duration::from_millis(4_750)..=Duration::from_millis(5_250);
    ensure!(limits.contains(&stall), "frozen for {stall:?}");
    // One request, or the same once more: never two groups.
    ensure!(cloud.emulator.groups().len() <= 1, "{:#?}", cloud.emulator.groups());
    bench.clear_scripts()
}

fn scripts_that_fail_are_9_and_10(bench: &PluginBench) -> Result<()> {
    let log = bench.script_log().display().to_string();
    bench.write_scripts("echo no database >&2; exit 3", &format!("echo undone >>{log}"))?;
    let cloud = Cloud::new(&bench.lab)?;
    let run = bench.run(&cloud, &[])?;
    run.exited_with(9)?.says(&["exit 9", "status 3", "no database", "no snapshot made"])?;
    ensure!(bench.script_logged() == "undone\n" && cloud.emulator.groups().is_empty());
    bench.write_scripts("exec sleep 60", &format!("echo undone again >>{log}"))?;
    let run = bench.run(&cloud, &["-ScriptTimeoutInSeconds=1"])?;
    run.exited_with(9)?.says(&["exit 9", "killed after 1.0 s"])?;
    ensure!(bench.script_logged() == "undone\nundone again\n");

    bench.write_scripts("exit 0", "echo cannot resume >&2; exit 4")?;
    let run = bench.run(&cloud, &[])?;
    run.exited_with(10)?.says(&["error", "cannot resume"])?;
    let group = cloud.the_group()?;
    ensure!(run.last_line().starts_with(&format!("[snapshotgroup=\"{}\"]", group.id)));
    bench.clear_scripts()
}

/// A run with this word more that stands in the window until it is killed or the window is over.
fn in_the_window(bench: &PluginBench, cloud: &Cloud) -> Result<Child> {
    let mut agent = start(bench, cloud, &["-Hooks=none", "-TimeoutInSeconds=20"])?;
    wait_for(&mut agent, || !cloud.calls("CreateSnapshotGroup").is_empty())?;
    Ok(agent)
}

fn slow_cloud(bench: &PluginBench) -> Result<Cloud> {
    let slow = Fault::on("CreateSnapshotGroup").delay_before(Duration::from_secs(15));
    Cloud::with(&bench.lab, |scenario| scenario.faults.push(slow))
}

fn start(bench: &PluginBench, cloud: &Cloud, more: &[&str]) -> Result<Child> {
    let words = [&[ROLE, "-Name=started"], more].concat();
    let mut command = bench.command(cloud, &words);
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
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

fn end_of(bench: &PluginBench, cloud: &Cloud, agent: Child) -> Result<PluginRun> {
    let run = PluginRun::read(&bench.command(cloud, &[]), &agent.wait_with_output()?)?;
    println!("{}", run.last_line());
    bench.everything_runs()?;
    Ok(run)
}

fn a_lost_guard_is_11(bench: &PluginBench) -> Result<()> {
    let cloud = slow_cloud(bench)?;
    let agent = in_the_window(bench, &cloud)?;
    let journal = fs::read_to_string(run_directory(bench).join("freeze.json"))?;
    let journal: serde_json::Value = serde_json::from_str(&journal)?;
    let guard = journal.pointer("/guard/pid").and_then(serde_json::Value::as_i64);
    let guard = i32::try_from(guard.context("no guard in the journal")?)?;
    kill(Pid::from_raw(guard), Signal::SIGKILL)?;
    let run = end_of(bench, &cloud, agent)?;
    run.exited_with(11)?.says(&["guard process was lost", "file systems running"])?;
    Ok(())
}

fn run_directory(bench: &PluginBench) -> PathBuf {
    bench.lab.root().join("run/stillpoint")
}

fn a_journal_that_nobody_can_read_is_12(bench: &PluginBench) -> Result<()> {
    let cloud = Cloud::new(&bench.lab)?;
    let journal = run_directory(bench).join("freeze.json");
    fs::write(&journal, "{ half a journ")?;
    let run = bench.run(&cloud, &[])?;
    fs::remove_file(&journal)?;
    run.exited_with(12)?.says(&["exit 12", "journal", "hint: "])?;
    ensure!(cloud.emulator.groups().is_empty());
    Ok(())
}

fn a_second_run_is_16(bench: &PluginBench) -> Result<()> {
    let cloud = slow_cloud(bench)?;
    let mut first = in_the_window(bench, &cloud)?;
    let words = [ROLE, "-Name=second", "-Hooks=none"];
    let second = PluginRun::of(&mut bench.command(&cloud, &words));
    kill(Pid::from_raw(i32::try_from(first.id())?), Signal::SIGTERM)?;
    first.wait()?;
    second?.exited_with(16)?.says(&["exit 16", "is in progress", "hint: "])?;
    bench.everything_runs()
}

fn a_run_that_is_stopped_is_255(bench: &PluginBench) -> Result<()> {
    let cloud = slow_cloud(bench)?;
    let agent = in_the_window(bench, &cloud)?;
    kill(Pid::from_raw(i32::try_from(agent.id())?), Signal::SIGTERM)?;
    let run = end_of(bench, &cloud, agent)?;
    run.exited_with(255)?.says(&["stopped by request", "file systems running"])?;
    Ok(())
}
