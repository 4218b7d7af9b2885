//! Legacy scripts, as their owners use them today: only the command has changed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stillpoint_tests::command::run;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::leftovers;
use stillpoint_tests::standing::wait_until;
use stillpoint_tests::stillpoint::{Run, Stillpoint};

/// Two file systems; only `data` is in the snapshot.
struct Bench {
    lab: Lab,
    stillpoint: Stillpoint,
    scripts: PathBuf,
    /// Cgroups that were there before.
    cgroups: BTreeSet<PathBuf>,
}

impl Bench {
    fn new() -> Result<Self> {
        let specs = [FsSpec::new("data", FsType::Ext4, 64), FsSpec::new("other", FsType::Ext4, 64)];
        let lab = Lab::new(&specs, Duration::from_secs(300))?;
        let stillpoint = Stillpoint::new(&lab)?;
        let scripts = lab.scratch("scripts")?;
        let bench = Self { lab, stillpoint, scripts, cgroups: leftovers::cgroups() };
        bench.configure("1800s")?;
        Ok(bench)
    }

    fn configure(&self, timeout: &str) -> Result<()> {
        self.stillpoint.configure(&format!(
            "[provider]\nkind = \"reflink\"\n\n[snapshot]\nmounts = [\"{}\"]\n\n\
             [scripts]\nenabled = true\npre = \"{}\"\npost = \"{}\"\ntimeout = \"{timeout}\"\n",
            self.lab.mount("data").display(),
            self.script("prescript.sh").display(),
            self.script("postscript.sh").display(),
        ))
    }

    fn script(&self, name: &str) -> PathBuf {
        self.scripts.join(name)
    }

    fn write(&self, pre: &str, post: &str) -> Result<()> {
        for (name, text) in [("prescript.sh", pre), ("postscript.sh", post)] {
            let path = self.script(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    /// A file that scripts write to, on no file system of the snapshot.
    fn log(&self) -> PathBuf {
        self.scripts.join("log")
    }

    fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Scripts from earlier, and what they wrote, are gone.
    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.scripts)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    fn snapshot(&self, more: &[&str]) -> Result<Run> {
        let run = self.stillpoint.snapshot("scripts", more)?;
        self.still_runs()?;
        Ok(run)
    }

    fn still_runs(&self) -> Result<()> {
        for fs in self.lab.file_systems() {
            // A child of its own: if it is frozen, that one hangs, and not this test.
            let mut touch = self.lab.command("timeout");
            touch.args(["-s", "KILL", "5", "touch"]).arg(fs.mount.join("still-runs"));
            let status = touch.status()?;
            ensure!(status.success(), "{} is not writable", fs.mount.display());
        }
        Ok(())
    }

    fn groups(&self) -> Result<usize> {
        let run = self.stillpoint.run_json(["list"])?;
        Ok(run.succeeded()?.json()?.as_array().context("not a list")?.len())
    }

    /// The names at the top of the copy of `data`, without what a file system has by itself.
    fn names_in_copy(&self, group: &str) -> Result<Vec<String>> {
        let copy = self.stillpoint.restore(group)?.of(&self.lab, "data")?;
        let mount = self.lab.mount_copy(&copy.device, copy.fs_type, "data")?;
        let mut names: Vec<String> = fs::read_dir(&mount)?
            .filter_map(Result::ok)
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("marker"))
            .collect();
        names.sort();
        run("umount", [&mount])?;
        self.stillpoint.detach(group)?;
        Ok(names)
    }
}

fn level_and_reasons(run: &Run) -> Result<(String, Vec<String>)> {
    let manifest = run.manifest()?;
    Ok((manifest.level()?.to_owned(), manifest.reason_codes()?))
}

#[test]
fn scripts_run_as_their_owners_expect() -> Result<()> {
    let bench = Bench::new()?;
    the_first_runs_before_the_point_in_time_and_the_second_after_it(&bench)?;
    without_scripts_the_file_systems_are_consistent_and_no_more(&bench)?;
    a_script_that_breaks_a_rule_is_not_run_and_is_named(&bench)?;
    what_is_required_is_reached_or_there_is_no_snapshot(&bench)?;
    a_first_script_that_fails_is_undone_by_the_second(&bench)?;
    a_first_script_that_is_too_slow_is_killed_and_undone(&bench)?;
    a_second_script_that_fails_is_told_and_the_snapshot_stays(&bench)?;
    a_background_writer_does_not_keep_the_file_system_frozen(&bench)?;
    a_script_that_hangs_in_the_kernel_is_told(&bench)?;
    the_next_run_removes_what_could_not_be_removed_then(&bench)?;
    an_agent_that_dies_between_the_scripts_is_undone_at_once(&bench)?;
    bench.lab.finish()
}

fn the_first_runs_before_the_point_in_time_and_the_second_after_it(bench: &Bench) -> Result<()> {
    bench.clear()?;
    let data = bench.lab.mount("data");
    bench.write(
        &format!("touch {}", data.join("marker-before").display()),
        &format!(
            "touch {}; echo $STILLPOINT_OUTCOME > {}",
            data.join("marker-after").display(),
            bench.log().display()
        ),
    )?;
    let run = bench.snapshot(&[])?;
    run.succeeded()?;
    ensure!(
        level_and_reasons(&run)? == ("application".to_owned(), Vec::new()),
        "{}",
        run.description()
    );
    ensure!(bench.logged() == "captured\n");
    let group = run.manifest()?.group()?.to_owned();
    ensure!(bench.names_in_copy(&group)? == ["marker-before"]);
    ensure!(data.join("marker-after").exists());
    bench.stillpoint.delete(&group)
}

fn without_scripts_the_file_systems_are_consistent_and_no_more(bench: &Bench) -> Result<()> {
    bench.clear()?;
    let run = bench.snapshot(&[])?;
    run.succeeded()?;
    ensure!(level_and_reasons(&run)? == ("file-system".to_owned(), vec!["no-hook".to_owned()]));
    bench.stillpoint.delete(run.manifest()?.group()?)
}

fn a_script_that_breaks_a_rule_is_not_run_and_is_named(bench: &Bench) -> Result<()> {
    type Breakage = fn(&Path) -> std::io::Result<()>;
    let breakages: [(&str, Breakage); 5] = [
        ("mode", |script| fs::set_permissions(script, fs::Permissions::from_mode(0o755))),
        ("uid", |script| std::os::unix::fs::chown(script, Some(65534), None)),
        ("link", |script| {
            let real = script.with_extension("real");
            fs::rename(script, &real)?;
            std::os::unix::fs::symlink(real, script)
        }),
        ("missing", |script| fs::remove_file(script)),
        ("CR LF", |script| fs::write(script, "#!/bin/sh\r\n")),
    ];
    for (word, breakage) in breakages {
        for name in ["prescript.sh", "postscript.sh"] {
            bench.clear()?;
            let log = format!("echo ran >> {}", bench.log().display());
            bench.write(&log, &log)?;
            breakage(&bench.script(name))?;
            let run = bench.snapshot(&[])?;
            run.succeeded()?;
            let expected = ("file-system".to_owned(), vec!["script-invalid".to_owned()]);
            ensure!(level_and_reasons(&run)? == expected, "{}", run.description());
            let manifest = run.manifest()?;
            let detail = manifest.text("/reasons/0/detail")?;
            ensure!(detail.contains(name) && detail.contains(word), "{name}, {word}: {detail}");
            ensure!(bench.logged().is_empty(), "{name}, {word}: a script ran");
            bench.stillpoint.delete(manifest.group()?)?;
        }
    }
    Ok(())
}

fn what_is_required_is_reached_or_there_is_no_snapshot(bench: &Bench) -> Result<()> {
    bench.clear()?;
    let before = bench.groups()?;
    let run = bench.snapshot(&["--require", "application"])?;
    run.exited_with(1)?;
    ensure!(run.error_text()?.contains("application"), "{}", run.description());
    bench.write("exit 0", "exit 0")?;
    fs::set_permissions(bench.script("prescript.sh"), fs::Permissions::from_mode(0o777))?;
    let run = bench.snapshot(&["--require", "application"])?;
    run.exited_with(1)?;
    ensure!(run.error_text()?.contains("prescript.sh"), "{}", run.description());
    ensure!(bench.groups()? == before);
    // Its twin.
    bench.write("exit 0", "exit 0")?;
    let run = bench.snapshot(&["--require", "application"])?;
    bench.stillpoint.delete(run.succeeded()?.manifest()?.group()?)
}

fn a_first_script_that_fails_is_undone_by_the_second(bench: &Bench) -> Result<()> {
    bench.clear()?;
    let before = bench.groups()?;
    let log = bench.log();
    bench.write(
        &format!("echo pre >> {}; echo no database >&2; exit 3", log.display()),
        &format!("echo post $STILLPOINT_OUTCOME >> {}", log.display()),
    )?;
    let run = bench.snapshot(&[])?;
    run.exited_with(9)?;
    let text = run.error_text()?;
    ensure!(text.contains("status 3") && text.contains("no database"), "{}", run.description());
    ensure!(bench.logged() == "pre\npost aborted\n", "{}", bench.logged());
    ensure!(bench.groups()? == before);
    Ok(())
}

fn a_first_script_that_is_too_slow_is_killed_and_undone(bench: &Bench) -> Result<()> {
    bench.clear()?;
    bench.configure("1s")?;
    let before = bench.groups()?;
    let log = bench.log();
    bench.write(
        "setsid sleep 4711 & sleep 4711",
        &format!("echo post $STILLPOINT_OUTCOME >> {}", log.display()),
    )?;
    let run = bench.snapshot(&[])?;
    run.exited_with(9)?;
    ensure!(run.error_text()?.contains("killed after"), "{}", run.description());
    ensure!(bench.logged() == "post aborted\n");
    ensure!(bench.groups()? == before);
    ensure!(!is_running("sleep\u{0}4711\u{0}")?, "a child survived");
    bench.configure("1800s")
}

fn a_second_script_that_fails_is_told_and_the_snapshot_stays(bench: &Bench) -> Result<()> {
    bench.clear()?;
    let before = bench.groups()?;
    bench.write("exit 0", "echo cannot resume >&2; exit 4")?;
    let run = bench.snapshot(&[])?;
    run.exited_with(10)?;
    ensure!(level_and_reasons(&run)?.0 == "application", "{}", run.description());
    ensure!(run.stdout.contains("cannot resume"), "{}", run.description());
    ensure!(bench.groups()? == before + 1);
    bench.stillpoint.delete(run.manifest()?.group()?)
}

fn a_background_writer_does_not_keep_the_file_system_frozen(bench: &Bench) -> Result<()> {
    bench.clear()?;
    let file = bench.lab.mount("data").join("background");
    bench.write(
        &format!("( while :; do echo 4712 > {}; done ) >/dev/null 2>&1 &", file.display()),
        "exit 0",
    )?;
    let run = bench.snapshot(&[])?;
    run.succeeded()?;
    ensure!(level_and_reasons(&run)?.0 == "application");
    // It was killed with the pre-freeze script's cgroup: nobody writes any more.
    let written = fs::metadata(&file)?.modified()?;
    std::thread::sleep(Duration::from_millis(50));
    ensure!(fs::metadata(&file)?.modified()? == written, "the background writer survived");
    bench.stillpoint.delete(run.manifest()?.group()?)
}

fn a_script_that_hangs_in_the_kernel_is_told(bench: &Bench) -> Result<()> {
    bench.clear()?;
    bench.configure("1s")?;
    let other = bench.lab.mount("other");
    bench.write(&format!("echo 4713 > {}", other.join("file").display()), "exit 0")?;
    // Frozen by somebody else, and not in the snapshot: the script's write does not return.
    run("fsfreeze", [Path::new("-f"), &other])?;
    let snapshot = bench.stillpoint.snapshot("scripts", &[]);
    run("fsfreeze", [Path::new("-u"), &other])?;
    let snapshot = snapshot?;
    snapshot.exited_with(9)?;
    let text = snapshot.error_text()?;
    ensure!(text.contains("cannot be killed yet") && text.contains("state D"), "{text}");
    bench.still_runs()?;
    bench.configure("1800s")
}

fn the_next_run_removes_what_could_not_be_removed_then(bench: &Bench) -> Result<()> {
    bench.write("exit 0", "exit 0")?;
    let run = bench.snapshot(&[])?;
    bench.stillpoint.delete(run.succeeded()?.manifest()?.group()?)?;
    let left: Vec<PathBuf> = leftovers::cgroups().difference(&bench.cgroups).cloned().collect();
    ensure!(left.iter().all(|path| !path.to_string_lossy().contains("script")), "{left:?}");
    Ok(())
}

fn an_agent_that_dies_between_the_scripts_is_undone_at_once(bench: &Bench) -> Result<()> {
    bench.clear()?;
    let log = bench.log().display().to_string();
    let (began, go) = (bench.script("began"), bench.script("never"));
    bench.write(
        &format!(
            "echo pre >>{log}; touch {}; while ! test -e {}; do sleep 0.05; done",
            began.display(),
            go.display()
        ),
        &format!("echo post-$STILLPOINT_OUTCOME >>{log}"),
    )?;
    let mut agent = bench.stillpoint.start_snapshot("killed")?;
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while !began.exists() {
        ensure!(std::time::Instant::now() < patience, "the first script did not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    agent.kill()?;
    agent.wait()?;
    bench.still_runs()?;
    wait_until("the second script is run by nobody's order", || {
        Ok(bench.logged() == "pre\npost-aborted\n")
    })?;

    let recover = bench.stillpoint.run(["recover"])?;
    recover.succeeded()?;
    ensure!(recover.stdout.contains("by its sentinel"), "{}", recover.description());
    ensure!(recover.stdout.contains("was run to resume"), "{}", recover.description());
    ensure!(bench.logged() == "pre\npost-aborted\n", "{}", bench.logged());
    let again = bench.stillpoint.run(["recover"])?;
    again.succeeded()?;
    ensure!(again.stdout == "nothing was left behind\n", "{}", again.description());
    ensure!(!is_running(&bench.script("prescript.sh").display().to_string())?);
    Ok(())
}

fn is_running(command_line: &str) -> Result<bool> {
    Ok(fs::read_dir("/proc")?
        .filter_map(Result::ok)
        .filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok())
        .any(|line| line == command_line))
}
