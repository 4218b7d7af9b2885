//! `stillpoint verify`, `restore` and `detach` with the provider `alibaba`, in an emulated cloud whose
//! disks are real block devices: what is attached is looked at and gone again, whatever goes wrong, and
//! nothing is ever done to an original.

#![expect(clippy::print_stdout, reason = "the verdicts are for whoever reads the tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ecs_emulator::{ConnectionFault, Fault, Role};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use stillpoint_tests::cloud_rig::{CloudRig, still_run};
use stillpoint_tests::command::run;
use stillpoint_tests::lab::{FsType, Lab};
use stillpoint_tests::leftovers::cgroups;
use stillpoint_tests::rig::{CLIENTS, PATIENCE};
use stillpoint_tests::stillpoint::Run;
use stillpoint_tests::writers::{Writers, create_tables};

const CLEAN: i32 = 0;
const NO_PERMISSION: i32 = 3;
const CREATE_FAILED: i32 = 4;
const GROUP_STATE: i32 = 5;
const GROUP_TIMED_OUT: i32 = 6;
const TAGS: i32 = 8;
const IN_PROGRESS: i32 = 16;
const DAMAGED: i32 = 18;

/// What there is of a lab's disks on the machine and in the cloud, to see that nothing is left.
struct Before {
    loops: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
}

impl Before {
    fn now(rig: &CloudRig) -> Result<Self> {
        Ok(Self { loops: loops(&rig.lab)?, cgroups: cgroups() })
    }

    /// Nothing is left: no disk in the cloud, no device, no cgroup; and no original was touched.
    fn is_all_there_is(&self, rig: &CloudRig) -> Result<()> {
        let copies = rig.cloud.copies();
        ensure!(copies.is_empty(), "disks are left in the cloud: {copies:#?}");
        no_original_was_touched(rig)?;
        still_run(&rig.lab)?;
        wait_until(|| {
            let loops: BTreeSet<_> = loops(&rig.lab)?;
            let more: Vec<_> = loops.difference(&self.loops).collect();
            let new = cgroups();
            let new: Vec<_> = new.difference(&self.cgroups).collect();
            ensure!(more.is_empty() && new.is_empty(), "left: {more:?} {new:?}");
            Ok(())
        })
    }
}

fn no_original_was_touched(rig: &CloudRig) -> Result<()> {
    for action in ["AttachDisk", "DetachDisk", "DeleteDisk"] {
        for call in rig.cloud.calls(action) {
            let disk = call.parameters.get("DiskId").context("no disk")?;
            ensure!(!disk.starts_with("d-lab"), "{action} of an original: {call:#?}");
        }
    }
    Ok(())
}

fn loops(lab: &Lab) -> Result<BTreeSet<String>> {
    let name = lab.directory().display().to_string();
    let loops = run("losetup", ["-l", "-n", "-O", "NAME,BACK-FILE"])?;
    Ok(loops.lines().filter(|it| it.contains(&name)).map(str::to_owned).collect())
}

/// Tries until it succeeds, or for as long as anybody would wait.
fn wait_until<T>(what: impl Fn() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match what() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            result => return result,
        }
    }
}

/// A rig with a snapshot of small file systems, each with a file; and the snapshot's id.
fn with_snapshot(names: &[&str]) -> Result<(CloudRig, String)> {
    let rig = CloudRig::new(names, |_| ())?;
    rig.configure("[provider.alibaba]\ncopies = \"30s\"\n")?;
    rig.cloud.keep_copies(&rig.lab);
    rig.cloud.plug_in();
    for name in names {
        fs::write(rig.lab.mount(name).join("content"), format!("of {name}"))?;
    }
    let group = taken(&rig)?;
    Ok((rig, group))
}

fn taken(rig: &CloudRig) -> Result<String> {
    let run = rig.snapshot(&[])?;
    Ok(run.succeeded()?.manifest()?.group()?.to_owned())
}

fn verify(rig: &CloudRig, group: &str, more: &[&str]) -> Result<Run> {
    let run = rig.stillpoint.run_json(["verify", group].iter().chain(more))?;
    println!("{}", run.description());
    Ok(run)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_of_a_busy_server_is_verified_as_clean_and_says_so_itself() -> Result<()> {
    let (rig, server) = CloudRig::with_server(|_| ())?;
    rig.cloud.keep_copies(&rig.lab);
    rig.cloud.plug_in();
    create_tables(&mut server.connect().await?).await?;
    let writers = Writers::start(server.options(), CLIENTS).await?;
    writers.wait_for(100, PATIENCE).await?;
    let group = tokio::task::block_in_place(|| taken(&rig))?;
    let before = Before::now(&rig)?;
    let run = tokio::task::block_in_place(|| verify(&rig, &group, &[]))?;
    run.exited_with(CLEAN)?;
    // The originals went on meanwhile, and go on.
    writers.wait_for(100, PATIENCE).await?;
    writers.stop().await?;
    let verdict = run.json()?;
    ensure!(verdict["verdict"] == "clean" && list(&verdict["findings"]).is_empty(), "{verdict:#}");
    ensure!(list(&verdict["file_systems"]).len() == 2, "{verdict:#}");
    ensure!(list(&verdict["not_checked"]).is_empty(), "{verdict:#}");
    let database = &verdict["databases"][0];
    let position = list(&database["positions"]).iter().find(|it| it["name"] == "binlog-position");
    ensure!(position.context("no position")?["agrees"] == true, "{database:#}");
    ensure!(database["hook"].is_string(), "{database:#}");

    let shown = rig.stillpoint.run_json(["show", &group])?.succeeded()?.json()?;
    ensure!(shown["verified"]["verdict"] == "clean", "{shown:#}");
    let members = rig.cloud.the_group()?;
    ensure!(members.tag("Verified") == Some("clean"), "{members:#?}");
    ensure!(members.tag("AppConsistent") == Some("True"), "{members:#?}");
    ensure!(rig.cloud.calls("AttachDisk").len() == 2);
    before.is_all_there_is(&rig)?;

    // One that is stopped while a server runs on its copies, and one that is killed then.
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut child = start(&rig, &group, &["--query", "SELECT SLEEP(120)"])?;
        wait_until(|| a_server_runs(&before.cgroups))?;
        end(&mut child, signal)?;
        if signal == Signal::SIGKILL {
            ensure!(rig.cloud.copies().len() == 2, "nobody was there to remove them");
            let run = tokio::task::block_in_place(|| verify(&rig, &group, &[]))?;
            run.exited_with(CLEAN)?;
        }
        before.is_all_there_is(&rig)?;
    }
    rig.stillpoint.delete(&group)?;
    server.stop()?;
    rig.finish()
}

fn a_server_runs(cgroups_before: &BTreeSet<PathBuf>) -> Result<()> {
    for cgroup in cgroups().difference(cgroups_before) {
        let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        for pid in text.lines() {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.split('\0').next().is_some_and(|it| it.ends_with("mariadbd")) {
                return Ok(());
            }
        }
    }
    anyhow::bail!("no server was started")
}

fn start(rig: &CloudRig, group: &str, more: &[&str]) -> Result<Child> {
    let mut command = rig.stillpoint.command(["verify", group].iter().chain(more));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start stillpoint")
}

fn end(child: &mut Child, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
    child.wait()?;
    Ok(())
}

#[test]
fn what_is_torn_is_damaged_and_the_members_say_so() -> Result<()> {
    let (rig, group) = with_snapshot(&["data"])?;
    let before = Before::now(&rig)?;
    verify(&rig, &group, &[])?.exited_with(CLEAN)?;
    ensure!(rig.cloud.the_group()?.tag("Verified") == Some("clean"));
    // The superblock of what the snapshot holds, and its copies.
    let image = rig.lab.host().join(format!("{group}-data.img"));
    let zeros = format!("pwrite -S 0 0 {}", 48 << 20);
    run("xfs_io", [Path::new("-c"), Path::new(&zeros), &image])?;
    let run = verify(&rig, &group, &[])?;
    run.exited_with(DAMAGED)?;
    ensure!(run.json()?["verdict"] == "damaged");
    let members = rig.cloud.the_group()?;
    ensure!(members.tag("Verified") == Some("damaged"), "{members:#?}");
    before.is_all_there_is(&rig)?;
    rig.finish()
}

/// Each thing that can go wrong on the way there and back: what is said of it, and that nothing is left.
#[test]
fn whatever_goes_wrong_nothing_is_left_and_it_is_said() -> Result<()> {
    let (rig, group) = with_snapshot(&["data", "log"])?;
    let before = Before::now(&rig)?;
    let lost = ConnectionFault::CloseAfter;
    let refused = |action: &str, code: &str| Fault::on(action).error(code);
    let cases = [
        (
            "the second disk is not made",
            refused("CreateDisk", "QuotaExceed.Disk").call(2),
            CREATE_FAILED,
            "QuotaExceed.Disk",
        ),
        (
            "the second disk is not attached",
            refused("AttachDisk", "InstanceDiskLimitExceeded").call(2),
            CREATE_FAILED,
            "InstanceDiskLimitExceeded",
        ),
        ("ECS has a fault", Fault::on("CreateDisk").error("InternalError").call(2), CLEAN, ""),
        ("the answer is lost", Fault::on("AttachDisk").connection(lost).call(1), CLEAN, ""),
        (
            "the answer is lost on the way back",
            Fault::on("DetachDisk").connection(lost).call(1),
            CLEAN,
            "",
        ),
        (
            "the disk is deleted, nobody hears of it",
            Fault::on("DeleteDisk").connection(lost).call(1),
            CLEAN,
            "",
        ),
        (
            "it cannot be tagged",
            refused("TagResources", "NoPermission.Tag"),
            TAGS,
            "NoPermission.Tag",
        ),
    ];
    for (what, fault, code, word) in cases {
        println!("== {what}");
        rig.cloud.emulator.faults([fault]);
        let run = verify(&rig, &group, &[])?;
        run.exited_with(code).context(what)?;
        if !word.is_empty() {
            let text = run.error_text()?;
            ensure!(text.contains(word), "{what}: {text}");
        }
        rig.cloud.emulator.faults([]);
        before.is_all_there_is(&rig).context(what)?;
    }
    rig.finish()
}

/// A role that lost its right in the meantime: the verdict stands, what is left is told, and whoever
/// comes next with the right does it.
#[test]
fn what_cannot_be_given_back_is_told_and_the_verdict_is_kept() -> Result<()> {
    let (rig, group) = with_snapshot(&["data"])?;
    let before = Before::now(&rig)?;
    let forbidden = || [Fault::on("DetachDisk").error("Forbidden.RAM")];
    rig.cloud.emulator.faults(forbidden());
    let run = verify(&rig, &group, &[])?;
    run.exited_with(NO_PERMISSION)?;
    let text = run.error_text()?;
    for word in ["are left", "ecs:DetachDisk", "stillpoint detach"] {
        ensure!(text.contains(word), "no {word}: {text}");
    }
    ensure!(rig.cloud.copies().len() == 1);
    ensure!(rig.cloud.the_group()?.tag("Verified") == Some("clean"));
    rig.cloud.emulator.faults([]);
    rig.stillpoint.run_json(["detach", &group])?.succeeded()?;
    before.is_all_there_is(&rig)?;

    // The same where there is no verdict: both are said.
    rig.cloud.emulator.faults(forbidden());
    rig.cloud.emulator.on_attach(|_| None);
    rig.configure("[provider.alibaba]\ncopies = \"3s\"\n")?;
    let run = verify(&rig, &group, &[])?;
    run.exited_with(CREATE_FAILED)?;
    let text = run.error_text()?;
    ensure!(text.contains("no block device") && text.contains("are left"), "{text}");
    rig.cloud.emulator.faults([]);
    rig.stillpoint.delete(&group)?;
    before.is_all_there_is(&rig)?;
    rig.finish()
}

#[test]
fn a_device_that_never_comes_is_told_with_its_serial_number() -> Result<()> {
    let (rig, group) = with_snapshot(&["data"])?;
    rig.configure("[provider.alibaba]\ncopies = \"4s\"\n")?;
    let before = Before::now(&rig)?;
    rig.cloud.emulator.on_attach(|_| None);
    let run = verify(&rig, &group, &[])?;
    run.exited_with(CREATE_FAILED)?;
    let text = run.error_text()?;
    let created = rig.cloud.calls("AttachDisk");
    let disk = created.first().context("nothing was attached")?.parameters["DiskId"].clone();
    let serial = disk.trim_start_matches("d-");
    ensure!(text.contains(&disk) && text.contains(&format!("serial number {serial}")), "{text}");
    ensure!(text.contains("lsblk"), "no next step: {text}");
    before.is_all_there_is(&rig)?;

    // Nor one that ECS goes on making for ever.
    rig.cloud.emulator.change(|scenario| scenario.disk_looks.creating = 1_000);
    rig.configure("[provider.alibaba]\ncopies = \"2s\"\n")?;
    let run = verify(&rig, &group, &[])?;
    run.exited_with(GROUP_TIMED_OUT)?;
    let text = run.error_text()?;
    ensure!(text.contains("is Creating and not Available"), "{text}");
    // It could not be deleted in that state, and that is said too; the next one does it.
    ensure!(text.contains("are left") && text.contains("detach"), "{text}");
    rig.cloud.emulator.change(|scenario| scenario.disk_looks.creating = 1);
    ensure!(rig.cloud.copies().len() == 1);
    rig.finish()
}

#[test]
fn a_role_for_snapshots_alone_is_told_what_is_missing() -> Result<()> {
    let (rig, group) = with_snapshot(&["data"])?;
    rig.cloud.emulator.change(|scenario| scenario.role = Role::of_the_manual());
    let before = Before::now(&rig)?;
    let run = verify(&rig, &group, &[])?;
    run.exited_with(NO_PERMISSION)?;
    for action in ["ecs:CreateDisk", "ecs:AttachDisk", "ecs:DetachDisk", "ecs:DeleteDisk"] {
        ensure!(run.error_text()?.contains(action), "{}", run.description());
    }
    before.is_all_there_is(&rig)?;
    rig.finish()
}

/// Killed in the middle of the attachment: the disks are there, tagged, and the next one removes them;
/// stopped there, it removes them itself.
#[test]
fn disks_of_a_killed_verification_are_removed_by_the_next() -> Result<()> {
    let (rig, group) = with_snapshot(&["data", "log"])?;
    // The first disk is listed long before the second.
    rig.cloud.emulator.change(|scenario| scenario.disk_looks.hidden = 3);
    let before = Before::now(&rig)?;
    let slow = Duration::from_secs(3);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for (action, call) in [("CreateDisk", 1), ("CreateDisk", 2), ("AttachDisk", 1)] {
            println!("== {signal} in {action} {call}");
            rig.cloud.emulator.clear_log();
            rig.cloud.emulator.faults([Fault::on(action).delay_after(slow).call(call)]);
            let mut child = start(&rig, &group, &[])?;
            wait_until(|| {
                ensure!(rig.cloud.calls(action).len() >= usize::try_from(call)?);
                Ok(())
            })?;
            // Whoever comes meanwhile leaves them alone.
            if signal == Signal::SIGTERM && action == "AttachDisk" {
                verify(&rig, &group, &[])?.exited_with(IN_PROGRESS)?;
            }
            end(&mut child, signal)?;
            rig.cloud.emulator.faults([]);
            if signal == Signal::SIGKILL {
                wait_until(|| {
                    let copies = rig.cloud.copies();
                    ensure!(!copies.is_empty(), "nothing is left of {action}");
                    Ok(())
                })?;
                verify(&rig, &group, &[])?.exited_with(CLEAN)?;
            }
            before.is_all_there_is(&rig).with_context(|| format!("{signal} in {action}"))?;
        }
    }
    rig.finish()
}

#[test]
fn a_restored_copy_is_ours_to_use_and_is_in_no_snapshot_until_it_is_detached() -> Result<()> {
    let (rig, group) = with_snapshot(&["data", "log"])?;
    let before = Before::now(&rig)?;
    let copies = rig.stillpoint.run_json(["restore", &group])?.succeeded()?.json()?;
    ensure!(list(&copies).len() == 2, "{copies:#}");
    let of_data = list(&copies).iter().find(|copy| copy["disk"] == "d-labdata");
    let node = PathBuf::from(of_data.context("no copy of data")?["node"].as_str().context("node")?);
    let place = rig.lab.mount_copy(&node, FsType::Ext4, "restored")?;
    ensure!(fs::read_to_string(place.join("content"))? == "of data");
    fs::write(place.join("work"), "of somebody")?;

    // The next snapshot is of the originals alone, and says so.
    let run = rig.snapshot(&[])?;
    let manifest = run.succeeded()?.manifest()?;
    ensure!(list(manifest.at("/disks")?).len() == 2, "{}", run.description());
    let warnings = manifest.at("/warnings")?.to_string();
    ensure!(warnings.contains("is a copy of a snapshot"), "{warnings}");
    rig.stillpoint.delete(manifest.group()?)?;

    // Somebody's work is not thrown away by mistake.
    for command in ["restore", "delete", "verify"] {
        let run = rig.stillpoint.run_json([command, &group])?;
        run.exited_with(GROUP_STATE)?;
        ensure!(run.error_text()?.contains("detach"), "{}", run.description());
    }
    let run = rig.stillpoint.run_json(["detach", &group])?;
    run.exited_with(GROUP_STATE)?;
    ensure!(run.error_text()?.contains("is in use"), "{}", run.description());
    ensure!(fs::read_to_string(place.join("work"))? == "of somebody");
    ensure!(rig.cloud.copies().len() == 2, "the other copy is gone");

    run_program("umount", &place)?;
    rig.stillpoint.run_json(["detach", &group])?.succeeded()?;
    before.is_all_there_is(&rig)?;
    rig.stillpoint.run_json(["detach", &group])?.succeeded()?;
    rig.stillpoint.delete(&group)?;
    rig.finish()
}

fn run_program(program: &str, argument: &Path) -> Result<()> {
    run(program, [argument]).map(drop)
}
