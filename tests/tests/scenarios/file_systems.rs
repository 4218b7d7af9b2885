//! What file systems do.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ecs_emulator::Disk;
use nix::mount::{MsFlags, mount};
use stillpoint_tests::cloud_rig::{CloudRig, still_run};
use stillpoint_tests::command::run;
use stillpoint_tests::lab::{FsSpec, FsType, attach};
use stillpoint_tests::standing::{Standing, all_frozen, none_frozen, wait_until, wait_within};
use stillpoint_tests::stillpoint::{Run, settings};
use stillpoint_tests::stuck::WriteInFlight;

use crate::common::{
    CANNOT_THAW, PRECONDITION, SOON, Scripts, answers_after, answers_at_once, is_thawed,
    nothing_is_called_consistent,
};

fn somebody(flag: &str, mount: &Path) -> Result<()> {
    run("fsfreeze", [Path::new(flag), mount]).map(drop)
}

fn is_frozen(mount: &Path) -> Result<bool> {
    Ok(stillpoint::freeze::probe(mount)?.state == stillpoint::freeze::ProbeState::Frozen)
}

/// Azure and the plug-in: one freeze hangs in the kernel, and with it the agent, and everything that was
/// frozen already.
#[test]
fn scenario_04_freeze_stuck_in_the_kernel() -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(2);
    let rig = CloudRig::new(&["data", "log"], |_| ())?;
    let scripts = Scripts::waiting(&rig, "[deadlines]\nfreeze = \"2s\"\n")?;
    let (data, log) = (rig.lab.mount("data"), rig.lab.mount("log"));
    let run = Standing::start(&rig.stillpoint, "stuck", || Ok(scripts.is_there("began")))?;
    let guard = run.guard()?;
    let stuck = WriteInFlight::on(&data)?;
    fs::write(log.join("present"), "")?;
    scripts.touch("go")?;
    wait_until("the other one is frozen", || is_frozen(&log))?;
    let began = Instant::now();
    wait_within(WINDOW + SOON, "the other one is thawed at the deadline", || {
        Ok(!is_frozen(&log)?)
    })?;
    ensure!(began.elapsed() > WINDOW / 2, "thawed early: {:?}", began.elapsed());
    let run = run.end()?;
    run.exited_with(CANNOT_THAW)?;
    ensure!(run.error_text()?.contains(&data.display().to_string()), "{}", run.description());
    ensure!(began.elapsed() < WINDOW + Duration::from_secs(8), "it hung: {:?}", began.elapsed());
    ensure!(scripts.log() == "pre\npost-aborted\n", "{}", scripts.log());
    ensure!(guard.is_alive(), "nobody waits for the freeze that is still under way");
    nothing_is_called_consistent(&rig)?;

    drop(stuck);
    wait_within(2 * SOON, "the late freeze is undone", || Ok(!is_frozen(&data)?))?;
    is_thawed(&rig)?;
    still_run(&rig.lab)?;
    rig.finish()
}

/// VMware, QEMU: a loop file on a frozen parent deadlocks; a file system mounted twice is frozen twice; a
/// dead server hangs whoever opens its mount point.
#[test]
fn scenario_05_stacked_shared_and_dead_mounts() -> Result<()> {
    let specs = [FsSpec::new("outer", FsType::Xfs, 320), FsSpec::new("plain", FsType::Ext4, 64)];
    let rig = CloudRig::of(&specs, |_| ())?;
    let mounts = rig.lab.directory().join("mnt");
    let (outer, plain) = (rig.lab.mount("outer"), rig.lab.mount("plain"));
    let inner = outer.join("nested");
    let image = outer.join("inner.img");
    fs::File::create(&image)?.set_len(64 << 20)?;
    run("mkfs.ext4", [Path::new("-q"), &image])?;
    let device = attach(&image, false)?;
    for directory in ["bind", "second", "overlay", "dead"] {
        fs::create_dir(mounts.join(directory))?;
    }
    for directory in [&inner, &plain.join("low"), &plain.join("up"), &plain.join("work")] {
        fs::create_dir(directory)?;
    }
    run("mount", [&device, &inner])?;
    run("mount", [Path::new("--bind"), &plain.join("low"), &mounts.join("bind")])?;
    run("mount", [&rig.lab.file_systems()[1].device, &mounts.join("second")])?;
    let options = format!("lowerdir={0}/low,upperdir={0}/up,workdir={0}/work", plain.display());
    run(
        "mount",
        ["-t", "overlay", "overlay", "-o", &options, &mounts.join("overlay").display().to_string()],
    )?;
    let dead = DeadServer::mounted_at(&mounts.join("dead"))?;
    rig.cloud.emulator.change(|scenario| {
        scenario.disks.push(Disk::at("d-inner".to_owned(), device.display().to_string()));
    });
    let all = [&outer, &plain, &inner].map(|mount| format!("\"{}\"", mount.display())).join(", ");
    rig.stillpoint.configure(&format!(
        "[provider]\nkind = \"alibaba\"\n[snapshot]\nmounts = [{all}]\n[scripts]\nenabled = false\n"
    ))?;

    let began = Instant::now();
    let done = rig.snapshot(&[])?;
    let manifest = done.succeeded()?.manifest()?;
    ensure!(began.elapsed() < Duration::from_secs(30), "it hung: {:?}", began.elapsed());
    let frozen = manifest.at("/file_systems")?.as_array().context("no list")?.clone();
    ensure!(frozen.len() == 3, "each superblock once: {frozen:#?}");
    let time = |mount: &Path, key: &str| -> Result<u64> {
        let mount = mount.display().to_string();
        let fs = frozen.iter().find(|fs| fs["mount_point"] == mount.as_str());
        fs.and_then(|fs| fs[key].as_u64()).with_context(|| format!("{key} of {mount}: {frozen:#?}"))
    };
    ensure!(
        time(&inner, "frozen_ns")? <= time(&outer, "freeze_began_ns")?,
        "the parent was frozen first: {frozen:#?}"
    );
    drop(dead);
    rig.finish()
}

/// A file system of a user-space server that never answers, as a network's server that is gone.
struct DeadServer {
    server: Option<fs::File>,
    at: std::path::PathBuf,
}

impl DeadServer {
    fn mounted_at(at: &Path) -> Result<Self> {
        let server = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        mount(Some("dead"), at, Some("fuse"), MsFlags::empty(), Some(options.as_str()))?;
        Ok(Self { server: Some(server), at: at.to_owned() })
    }
}

impl Drop for DeadServer {
    fn drop(&mut self) {
        // Whoever waits for an answer gets an error now.
        drop(self.server.take());
        let _ = nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Azure and QEMU thaw what others froze; VMware takes it for its own.
#[test]
fn scenario_06_frozen_or_thawed_by_another_tool() -> Result<()> {
    let rig = CloudRig::new(&["data", "log"], |_| ())?;
    let (data, log) = (rig.lab.mount("data"), rig.lab.mount("log"));
    for mount in [&data, &log] {
        fs::write(mount.join("present"), "")?;
    }
    somebody("-f", &data)?;
    let refused = rig.stillpoint.snapshot("theirs", &[])?;
    refused.exited_with(PRECONDITION)?;
    ensure!(refused.error_text()?.contains("by somebody else"), "{}", refused.description());
    ensure!(is_frozen(&data)?, "theirs was thawed by us");
    ensure!(!is_frozen(&log)?);
    somebody("-u", &data)?;

    answers_after(&rig, Duration::from_secs(5));
    let run = Standing::in_window(&rig.stillpoint, &rig.lab, "thawed")?;
    somebody("-u", &data)?;
    let run = run.end()?;
    let lowered = run.manifest().is_ok_and(|manifest| {
        manifest.level().is_ok_and(|level| level == "crash")
            && manifest.reason_codes().is_ok_and(|codes| codes.contains(&"thawed-by-other".into()))
    });
    ensure!(lowered, "{}", run.description());
    // Tags are told of each disk by itself: that of `log` was frozen by us from begin to end.
    for group in rig.cloud.emulator.groups() {
        for member in &group.members {
            let says = |tag| member.tag(tag) == Some("True");
            ensure!(!says("AppConsistent"), "{group:#?}");
            ensure!(says("FsConsistent") == (member.disk == "d-lablog"), "{group:#?}");
            ensure!(member.tag("stillpoint-level") == Some("crash"), "{group:#?}");
        }
    }
    is_thawed(&rig)?;
    rig.finish()
}

/// The cloud vendor's own sample leaves the first ones frozen when a later one fails.
#[test]
fn scenario_07_a_later_freeze_fails() -> Result<()> {
    let rig = CloudRig::new(&["data", "log", "more"], |_| ())?;
    let scripts = Scripts::waiting(&rig, "")?;
    let log = rig.lab.mount("log");
    fs::write(log.join("present"), "")?;
    let run = Standing::start(&rig.stillpoint, "fails", || Ok(scripts.is_there("began")))?;
    somebody("-f", &log)?;
    scripts.touch("go")?;
    let run = run.end()?;
    run.exited_with(PRECONDITION)?;
    ensure!(run.error_text()?.contains(&log.display().to_string()), "{}", run.description());
    ensure!(scripts.log() == "pre\npost-aborted\n", "{}", scripts.log());
    ensure!(is_frozen(&log)?, "theirs was thawed by us");
    somebody("-u", &log)?;
    still_run(&rig.lab)?;
    ensure!(rig.cloud.emulator.groups().is_empty(), "{:#?}", rig.cloud.emulator.groups());
    is_thawed(&rig)?;
    rig.finish()
}

/// The agent's own files lie on what it freezes, and nobody reads what it writes.
#[test]
fn scenario_13_own_files_on_a_frozen_file_system_and_a_full_pipe() -> Result<()> {
    let specs = [FsSpec::new("data", FsType::Ext4, 1024), FsSpec::new("log", FsType::Ext4, 64)];
    let rig = CloudRig::of(&specs, |_| ())?;
    let data = rig.lab.mount("data");
    for directory in ["var", "etc"] {
        let (own, there) = (rig.lab.root().join(directory), data.join(directory));
        fs::create_dir_all(&own)?;
        run("cp", [Path::new("-a"), &own, &there])?;
        run("mount", [Path::new("--bind"), &there, &own])?;
    }
    let binary = data.join("stillpoint");
    fs::copy(rig.stillpoint.binary(), &binary)?;
    rig.stillpoint.configure(&settings(&rig.lab, "alibaba", "[scripts]\nenabled = false\n"))?;

    // Nobody reads either stream until everything is over; 4 KiB are full at once.
    let (reader, writer) = small_full_pipe()?;
    let mut command = rig.stillpoint.command(["-vv", "snapshot", "--name", "on-its-own"]);
    let mut own = rig.lab.command(&binary);
    own.args(command.get_args()).envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    command = own;
    answers_after(&rig, Duration::from_millis(300));
    command.current_dir(&data).stdin(Stdio::null());
    command.stdout(writer.try_clone()?).stderr(writer.try_clone()?);
    let mut agent = command.spawn()?;
    drop((command, writer));
    fs::write(rig.lab.mount("log").join("present"), "")?;
    wait_until("it is frozen", || all_frozen(&rig.lab))?;
    wait_within(Duration::from_secs(5), "it is thawed, though nobody reads", || {
        none_frozen(&rig.lab)
    })?;
    wait_until("the group is there", || Ok(!rig.cloud.emulator.groups().is_empty()))?;
    let drained = std::thread::spawn(move || std::io::copy(&mut &reader, &mut std::io::sink()));
    let status = agent.wait()?;
    ensure!(status.success(), "{status}");
    drained.join().ok().context("the reader panicked")??;
    let group = rig.cloud.the_group()?;
    ensure!(group.tag("FsConsistent") == Some("True"), "{group:#?}");
    answers_at_once(&rig);
    let _listed: Run = rig.stillpoint.run(["list"])?;
    rig.finish()
}

/// A pipe of one page with nothing left in it.
fn small_full_pipe() -> Result<(fs::File, fs::File)> {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    let (reader, writer) = std::io::pipe()?;
    let (reader, mut writer) =
        (fs::File::from(OwnedFd::from(reader)), fs::File::from(OwnedFd::from(writer)));
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096))?;
    writer.write_all(&[b'.'; 4096])?;
    Ok((reader, writer))
}
