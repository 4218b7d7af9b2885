//! The plug-in in place of the original, through its binary: same parameters, same lines, same tags.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ecs_emulator::{Fault, GroupView, MemberView};
use stillpoint_tests::cloud::{Cloud, disk_of};
use stillpoint_tests::file_writers::FileWriters;
use stillpoint_tests::plugin::{PluginBench, PluginRun, ROLE, write_script};
use stillpoint_tests::plugin_manager::ManagerCall;

/// The command line of the vendor's manual ("Create application-consistent snapshots", January
/// 2025), as its sample has it for `RunCommand`.
const DOCUMENTED: &str = "acs-plugin-manager --exec --plugin app-snapshot-plugin --params=-RamRoleName=\"AppSnapshotRoleName\",-EnableFsFreeze=true,-TimeoutInSeconds=30,-PreScriptPath=\"/tmp/prescript.sh\",-PostScriptPath=\"/tmp/postscript.sh\",-ExcludeDiskId=\"\",-Name=\"LinuxApp1\"";

/// How long `/tmp/prescript.sh` may be somebody else's.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn it_stands_in_for_the_original() -> Result<()> {
    let bench = PluginBench::new(Duration::from_secs(600))?;
    the_documented_command_line_does_what_is_documented(&bench)?;
    without_scripts_and_hooks_the_file_systems_are_consistent(&bench)?;
    a_script_that_breaks_a_rule_is_not_run_and_the_rule_is_named(&bench)?;
    hooks_are_used_where_there_are_some_and_the_scripts_where_it_is_asked_for(&bench)?;
    without_a_freeze_nothing_is_called_consistent(&bench)?;
    a_writer_on_an_excluded_disk_never_waits(&bench)?;
    a_time_out_beyond_ours_is_cut_and_said(&bench)?;
    output_is_bounded_and_its_last_line_whole(&bench)?;
    the_log_is_never_on_a_frozen_file_system(&bench)?;
    bench.finish()
}

fn the_documented_command_line_does_what_is_documented(bench: &PluginBench) -> Result<()> {
    let cloud = Cloud::new(&bench.lab)?;
    cloud.keep_copies(&bench.lab);
    let data = bench.lab.mount("data");
    let touch = |name: &str| format!("touch {}", data.join(name).display());
    let _scripts = PublicScripts::write(&touch("marker-before"), &touch("marker-after"))?;

    let call = ManagerCall::read(&words_after_the_shell(bench, DOCUMENTED)?)?;
    ensure!(call.plugin == "app-snapshot-plugin");
    let plugin = bench.lab.scratch("original")?.join("app-snapshot-plugin");
    fs::copy(bench.stillpoint.binary(), &plugin)?;
    let run = PluginRun::of(
        in_a_namespace_of_its_own(bench, &plugin).args(&call.words).envs(cloud.environment()),
    )?;
    bench.everything_runs()?;

    let id = run.succeeded()?;
    let group = cloud.the_group()?;
    ensure!(group.id == id && group.name == "LinuxApp1", "{group:#?}");
    ensure!(disks(&group) == ["d-labbinlog", "d-labdata", "d-labother"], "{group:#?}");
    tagged(&group, "AppConsistent")?;
    run.says(&["Attached DiskId=d-labdata, Device=/dev/loop"])?;
    let copy = cloud.copy(&bench.lab, id, "data")?;
    let mount = bench.lab.mount_copy(&copy.device, copy.fs_type, "documented")?;
    ensure!(mount.join("marker-before").exists() && !mount.join("marker-after").exists());
    ensure!(data.join("marker-after").exists());
    stillpoint_tests::command::run("umount", [&mount])?;
    stillpoint_tests::command::run("losetup", [Path::new("-d"), &copy.device])?;
    no_secret(&cloud, &[&run.stdout])
}

/// `/tmp/prescript.sh` and `/tmp/postscript.sh`, which only one test at a time can have.
struct PublicScripts([PathBuf; 2]);

impl PublicScripts {
    fn write(pre: &str, post: &str) -> Result<Self> {
        let scripts = Self(["/tmp/prescript.sh", "/tmp/postscript.sh"].map(PathBuf::from));
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = fs::File::create_new(&scripts.0[0]) {
            if Instant::now() > deadline {
                // What is there is not ours to remove.
                std::mem::forget(scripts);
                return Err(error).context("/tmp/prescript.sh is somebody else's");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        write_script(&scripts.0[1], post)?;
        write_script(&scripts.0[0], pre)?;
        Ok(scripts)
    }
}

impl Drop for PublicScripts {
    fn drop(&mut self) {
        for script in &self.0 {
            let _ = fs::remove_file(script);
        }
    }
}

/// What the manager is called with when a shell has read the line: a stand-in for it writes that down.
fn words_after_the_shell(bench: &PluginBench, line: &str) -> Result<Vec<String>> {
    let directory = bench.lab.scratch("manager")?;
    let told = directory.join("told");
    let stand_in = format!("printf '%s\\n' \"$@\" >{}", told.display());
    write_script(&directory.join("acs-plugin-manager"), &stand_in)?;
    let path = format!("{}:/usr/bin:/bin", directory.display());
    let status = Command::new("/bin/sh").args(["-c", line]).env("PATH", path).status()?;
    ensure!(status.success());
    Ok(fs::read_to_string(told)?.lines().map(str::to_owned).collect())
}

/// `/run` and `/var/lib` are its own, so that the plug-in can be called without `-Root`.
fn in_a_namespace_of_its_own(bench: &PluginBench, program: &Path) -> Command {
    let mut command = bench.lab.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t tmpfs none /run && mount -t tmpfs none /var/lib && exec \"$0\" \"$@\"");
    command.arg(program).env_remove("PLUGIN_DIR");
    command
}

fn without_scripts_and_hooks_the_file_systems_are_consistent(bench: &PluginBench) -> Result<()> {
    let cloud = Cloud::new(&bench.lab)?;
    let run = bench.run(&cloud, &["-Description=the \"weekly\" one, before the update"])?;
    run.succeeded()?;
    let group = cloud.the_group()?;
    tagged(&group, "FsConsistent")?;
    ensure!(group.description == "the \"weekly\" one, before the update");
    run.says(&["warning", "FsConsistent:True", "neither", "is there"])?;
    Ok(())
}

fn a_script_that_breaks_a_rule_is_not_run_and_the_rule_is_named(bench: &PluginBench) -> Result<()> {
    type Breakage = fn(&Path) -> std::io::Result<()>;
    let breakages: [(&str, Breakage); 3] = [
        ("has mode 0755, not 0700", |script| {
            fs::set_permissions(script, fs::Permissions::from_mode(0o755))
        }),
        ("belongs to uid 65534, not to root", |script| {
            std::os::unix::fs::chown(script, Some(65534), None)
        }),
        ("is a symbolic link", |script| {
            let real = script.with_extension("real");
            fs::rename(script, &real)?;
            std::os::unix::fs::symlink(real, script)
        }),
    ];
    for (rule, breakage) in breakages {
        for name in ["prescript.sh", "postscript.sh"] {
            let cloud = Cloud::new(&bench.lab)?;
            let ran = format!("touch {}", bench.script_log().display());
            bench.write_scripts(&ran, &ran)?;
            breakage(&bench.script(name))?;
            let run = bench.run(&cloud, &[])?;
            run.succeeded()?;
            run.says(&["warning", "the scripts are not run", "FsConsistent:True", name, rule])?;
            tagged(&cloud.the_group()?, "FsConsistent")?;
            ensure!(!bench.script_log().exists(), "{name}, {rule}: a script ran");
            bench.clear_scripts()?;
        }
    }
    // One of the pair alone is none.
    bench.write_scripts("exit 0", "exit 0")?;
    let cloud = Cloud::new(&bench.lab)?;
    let run = bench.run(&cloud, &["-PostScriptPath="])?;
    run.succeeded()?;
    run.says(&["warning", "prescript.sh has no counterpart"])?;
    tagged(&cloud.the_group()?, "FsConsistent")?;
    bench.clear_scripts()
}

fn hooks_are_used_where_there_are_some_and_the_scripts_where_it_is_asked_for(
    bench: &PluginBench,
) -> Result<()> {
    bench.stillpoint.install_mysql_hook(bench.server.socket())?;
    let log = bench.script_log().display().to_string();
    bench.write_scripts(&format!("echo pre >>{log}"), &format!("echo post >>{log}"))?;
    for (choice, quiesced, scripts_ran) in [
        ("auto", &["mysql"][..], false),
        ("scripts", &["scripts"], true),
        ("both", &["mysql", "after scripts"], true),
    ] {
        let cloud = Cloud::new(&bench.lab)?;
        let run = bench.run(&cloud, &[&format!("-Hooks={choice}")])?;
        run.succeeded()?;
        tagged(&cloud.the_group()?, "AppConsistent")?;
        run.says(&[&["Quiesced before the freeze"], quiesced].concat())?;
        let ran = bench.script_logged() == "pre\npost\n";
        ensure!(ran == scripts_ran, "{choice}: {}", bench.script_logged());
        let _ = fs::remove_file(bench.script_log());
    }
    let cloud = Cloud::new(&bench.lab)?;
    bench.run(&cloud, &["-Hooks=auto"])?.says(&["warning", "the scripts are not run", "-Hooks"])?;
    let cloud = Cloud::new(&bench.lab)?;
    bench.run(&cloud, &["-Hooks=none"])?.succeeded()?;
    tagged(&cloud.the_group()?, "FsConsistent")?;
    fs::remove_dir_all(bench.stillpoint.config_file("hooks.d"))?;
    bench.clear_scripts()
}

fn without_a_freeze_nothing_is_called_consistent(bench: &PluginBench) -> Result<()> {
    bench.write_scripts("exit 0", "exit 0")?;
    let cloud = Cloud::new(&bench.lab)?;
    let run = bench.run(&cloud, &["-EnableFsFreeze=false"])?;
    run.succeeded()?;
    run.says(&["warning", "freeze-disabled"])?;
    for member in &cloud.the_group()?.members {
        for key in ["AppConsistent", "FsConsistent"] {
            let value = tag(member, key);
            ensure!(value != Some("True"), "{key} on {member:#?}");
        }
    }
    bench.clear_scripts()
}

fn a_writer_on_an_excluded_disk_never_waits(bench: &PluginBench) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(2);
    let slow = Fault::on("CreateSnapshotGroup").delay_before(WINDOW);
    let cloud = Cloud::with(&bench.lab, |scenario| scenario.faults.push(slow))?;
    let excluded = disk_of("other");
    let writers = FileWriters::start([bench.lab.mount("data"), bench.lab.mount("other")])?;
    // As it arrives from the manager: two ids, of which the first is excluded twice.
    let words = format!("-ExcludeDiskId={excluded} {excluded}");
    let run = bench.run(&cloud, &[&words])?;
    let history = writers.stop()?;
    run.succeeded()?;
    run.says(&[&format!("Excluded DiskId={excluded}")])?;
    let group = cloud.the_group()?;
    ensure!(disks(&group) == ["d-labbinlog", "d-labdata"], "{group:#?}");
    let longest = history.longest();
    let [frozen, free] = longest[..] else { anyhow::bail!("not two writers: {longest:?}") };
    ensure!(frozen >= WINDOW, "data was frozen for {WINDOW:?}, but no write took that long");
    ensure!(free < WINDOW / 4, "a write to the excluded disk took {free:?}");
    Ok(())
}

fn a_time_out_beyond_ours_is_cut_and_said(bench: &PluginBench) -> Result<()> {
    let cloud = Cloud::new(&bench.lab)?;
    let run = bench.run(&cloud, &["-TimeoutInSeconds=300"])?;
    run.succeeded()?;
    run.says(&["warning", "TimeoutInSeconds=300 is more than 30"])?;
    Ok(())
}

fn output_is_bounded_and_its_last_line_whole(bench: &PluginBench) -> Result<()> {
    let cloud = Cloud::new(&bench.lab)?;
    let unknown: String = (0..2_000).map(|number| format!("d-unknown{number:05};")).collect();
    let run = bench.run(&cloud, &[&format!("-ExcludeDiskId={unknown}")])?;
    run.exited_with(2)?;
    run.says(&["Excluded DiskId=d-unknown00000"])?.says(&["Excluded DiskId=d-unknown01999"])?;
    let shown = run.stdout.lines().filter(|line| line.contains("Excluded DiskId=")).count();
    run.says(&[&format!("… {} lines are left out here; all are in ", 2_000 - shown)])?;
    ensure!(run.last_line().contains("hint: "), "{}", run.description());
    // What a script writes, and a terminal would obey, is quoted and bounded, too.
    bench.write_scripts("yes '\u{1b}[2J\"' | head -c 900000 >&2; exit 1", "exit 0")?;
    let cloud = Cloud::new(&bench.lab)?;
    bench.run(&cloud, &[])?.exited_with(9)?;
    bench.clear_scripts()
}

fn the_log_is_never_on_a_frozen_file_system(bench: &PluginBench) -> Result<()> {
    let free = bench.lab.scratch("plugin-directory")?;
    let fallback = bench.lab.root().join("run/stillpoint/log/plugin.log");
    for (directory, expected) in
        [(free.clone(), free.join("log/plugin.log")), (bench.lab.mount("data"), fallback.clone())]
    {
        let _ = fs::remove_file(&expected);
        let cloud = Cloud::new(&bench.lab)?;
        let mut command = bench.command(&cloud, &[ROLE, "-Name=logged", "-Hooks=none"]);
        let run = PluginRun::of(command.env("PLUGIN_DIR", &directory))?;
        run.succeeded()?;
        run.says(&["Details: ", &expected.display().to_string()])?;
        let log = fs::read_to_string(&expected)?;
        // All lines, and the manifest behind them.
        for line in run.stdout.lines().filter(|line| !line.contains("Details: ")) {
            ensure!(log.contains(line), "not in the log: {line}");
        }
        ensure!(log.contains("\"window_ns\""), "no manifest in the log");
        no_secret(&cloud, &[&log, &run.stdout])?;
    }
    ensure!(!bench.lab.mount("data").join("log").exists());
    // What the operator names is used, and refused where it would be frozen.
    for (place, used) in [(free.join("own.log"), true), (bench.lab.mount("data").join("l"), false)]
    {
        let cloud = Cloud::new(&bench.lab)?;
        let run = bench.run(&cloud, &[&format!("-LogFile={}", place.display())])?;
        run.succeeded()?;
        let expected = if used { &place } else { &fallback };
        run.says(&["Details: ", &expected.display().to_string()])?;
        ensure!(place.exists() == used);
    }
    Ok(())
}

/// Every member has the tag, and not the other one.
fn tagged(group: &GroupView, key: &str) -> Result<()> {
    let other = if key == "AppConsistent" { "FsConsistent" } else { "AppConsistent" };
    ensure!(!group.members.is_empty());
    for member in &group.members {
        ensure!(tag(member, key) == Some("True"), "no {key}:True: {member:#?}");
        ensure!(tag(member, other) != Some("True"), "{other}:True: {member:#?}");
    }
    Ok(())
}

fn tag<'a>(member: &'a MemberView, key: &str) -> Option<&'a str> {
    member.tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
}

fn disks(group: &GroupView) -> Vec<&str> {
    let mut disks: Vec<&str> = group.members.iter().map(|member| member.disk.as_str()).collect();
    disks.sort_unstable();
    disks
}

fn no_secret(cloud: &Cloud, texts: &[&str]) -> Result<()> {
    for secret in cloud.emulator.secrets() {
        ensure!(!texts.iter().any(|text| text.contains(&secret)), "a secret was printed");
    }
    Ok(())
}
