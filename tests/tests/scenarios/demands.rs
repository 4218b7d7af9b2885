//! What the cloud does, and what is asked of a run while it is under way.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ecs_emulator::{ConnectionFault, Fault};
use stillpoint_tests::cloud::disk_of;
use stillpoint_tests::cloud_rig::{CloudRig, longest, still_run};
use stillpoint_tests::command::run;
use stillpoint_tests::file_writers::FileWriters;
use stillpoint_tests::puppet::Puppet;
use stillpoint_tests::standing::{Standing, wait_until};
use stillpoint_tests::stillpoint::{NO_SCRIPTS, settings};

use crate::common::{
    CANNOT_FREEZE, GROUP_TIMED_OUT, IN_PROGRESS, SOON, Scripts, answers_after, answers_at_once,
    is_thawed, nothing_is_called_consistent,
};

/// Azure's throttled requests and the first EC2 tools: the answer is slow, late, lost, or refused.
#[test]
fn scenario_08_cloud_slow_late_lost_or_throttled() -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(3);
    let rig = CloudRig::new(&["data", "log"], |_| ())?;
    rig.configure("[deadlines]\nfreeze = \"3s\"\n")?;
    let create = || Fault::on("CreateSnapshotGroup").call(1);
    let cases = [
        ("slow", create().delay_before(Duration::from_millis(800)), 0),
        ("hangs", create().delay_before(Duration::from_secs(20)), GROUP_TIMED_OUT),
        ("late", create().delay_after(Duration::from_secs(20)), GROUP_TIMED_OUT),
        ("reset before", create().connection(ConnectionFault::ResetBefore), 0),
        ("answer lost", create().connection(ConnectionFault::ResetAfter), 0),
        ("throttled", create().error("Throttling.User"), 0),
    ];
    for (what, fault, code) in cases {
        let emulator = &rig.cloud.emulator;
        emulator.clear_groups();
        emulator.clear_log();
        emulator.faults([fault]);
        let writers = FileWriters::start(rig.lab.file_systems().iter().map(|fs| &fs.mount))?;
        let run = rig.snapshot(&[]).context(what)?;
        let stall = longest(&writers.stop()?)?.duration();
        run.exited_with(code).context(what)?;
        ensure!(stall <= WINDOW + SOON, "{what}: writes stood still for {stall:?}");
        let mut tokens: Vec<_> = rig
            .cloud
            .calls("CreateSnapshotGroup")
            .iter()
            .map(|call| call.parameters.get("ClientToken").cloned())
            .collect();
        tokens.dedup();
        ensure!(tokens.len() == 1, "{what}: {tokens:?}");
        let groups = rig.cloud.emulator.groups();
        ensure!(groups.len() == usize::from(code == 0), "{what}: {groups:#?}");
        if code != 0 {
            nothing_is_called_consistent(&rig)?;
        }
        is_thawed(&rig).context(what)?;
    }
    rig.finish()
}

/// The plug-in, Harvester and VMware: two requests at once, a plan that is not true any more, an excluded
/// disk that is frozen all the same.
#[test]
fn scenario_15_two_at_once_changed_mounts_and_excluded_disks() -> Result<()> {
    let (rig, server) = CloudRig::with_server(|_| ())?;
    std::fs::remove_file(rig.stillpoint.config_file("hooks.d/mysql.toml"))?;
    two_at_once(&rig)?;
    an_excluded_disk_is_not_frozen(&rig)?;
    let puppet = Puppet::install(&rig.stillpoint, &server)?;
    server.stop()?;
    a_mount_that_changed_is_not_frozen(&rig, &puppet)?;
    rig.finish()
}

fn two_at_once(rig: &CloudRig) -> Result<()> {
    let scripts = Scripts::waiting(rig, "")?;
    let first = Standing::start(&rig.stillpoint, "first", || Ok(scripts.is_there("began")))?;
    let second = rig.stillpoint.snapshot("second", &[])?;
    second.exited_with(IN_PROGRESS)?;
    ensure!(second.error_text()?.contains("is in progress"), "{}", second.description());
    rig.stillpoint.run(["recover"])?.exited_with(IN_PROGRESS)?;
    scripts.touch("go")?;
    first.end()?.succeeded()?;
    ensure!(scripts.log() == "pre\npost-captured\n", "{}", scripts.log());
    rig.configure("")
}

fn an_excluded_disk_is_not_frozen(rig: &CloudRig) -> Result<()> {
    answers_after(rig, Duration::from_millis(500));
    let writers = FileWriters::start([rig.lab.mount("binlog")])?;
    let run = rig.stillpoint.snapshot("excluding", &["--exclude-disk", &disk_of("binlog")])?;
    let stall = longest(&writers.stop()?)?.duration();
    let manifest = run.succeeded()?.manifest()?;
    ensure!(stall < Duration::from_millis(400), "writes on it stood still for {stall:?}");
    let frozen = manifest.at("/file_systems")?.to_string();
    ensure!(!frozen.contains("binlog") && frozen.contains("data"), "{frozen}");
    answers_at_once(rig);
    Ok(())
}

/// While a hook looks at its application, somebody mounts something else there.
fn a_mount_that_changed_is_not_frozen(rig: &CloudRig, puppet: &Puppet) -> Result<()> {
    rig.stillpoint.configure(&settings(&rig.lab, "alibaba", NO_SCRIPTS))?;
    puppet.plays(&rig.stillpoint, &[("prepare", &["sleep 3000"])])?;
    let journal = stillpoint_tests::standing::run_dir(&rig.stillpoint).join("run.json");
    let run_under_way = Standing::start(&rig.stillpoint, "changed", || Ok(journal.exists()))?;
    let (mount, device) = (rig.lab.mount("binlog"), &rig.lab.file_systems()[1].device);
    run("umount", [&mount])?;
    run("mount", [Path::new("-t"), Path::new("tmpfs"), Path::new("tmpfs"), &mount])?;
    let refused = run_under_way.end()?;
    ensure!(
        matches!(refused.code, Some(1 | CANNOT_FREEZE)) && refused.manifest().is_err(),
        "{}",
        refused.description()
    );
    ensure!(rig.cloud.emulator.groups().len() <= 2, "a group was made of another plan");
    run("umount", [&mount])?;
    run("mount", [device, &mount])?;
    wait_until("file systems run", || Ok(still_run(&rig.lab).is_ok()))
}
