//! Programs of hooks that do not want to end: on frozen file systems, into the window, and after
//! their agent has died.

#![expect(clippy::print_stdout, reason = "the counts are for whoever reads the tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stillpoint_tests::command::run;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::leftovers;
use stillpoint_tests::puppet;
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Stillpoint};

const PATIENCE: Duration = Duration::from_secs(20);

/// Two file systems; only `data` is in the snapshot. The hook is the puppet, and its program `perl`.
struct Bench {
    lab: Lab,
    stillpoint: Stillpoint,
    /// The grant that `hook grant --accept` wrote, up to its settings and from there on.
    grant: (String, String),
}

impl Bench {
    fn new() -> Result<Self> {
        let specs = [FsSpec::new("data", FsType::Ext4, 64), FsSpec::new("other", FsType::Ext4, 64)];
        let lab = Lab::new(&specs, Duration::from_secs(300))?;
        let stillpoint = Stillpoint::new(&lab)?;
        let deadlines = "[deadlines]\nquiesce = \"3s\"\n";
        stillpoint.configure(&format!(
            "[provider]\nkind = \"reflink\"\n\n[snapshot]\nmounts = [\"{}\"]\n\n{NO_SCRIPTS}\n{deadlines}",
            lab.mount("data").display(),
        ))?;
        stillpoint.write_config(
            "connections.toml",
            "[connections.main]\nengine = \"mysql\"\nsocket = \"/nowhere\"\nuser = \"root\"\n",
        )?;
        let grant = puppet::grant(&stillpoint)?;
        Ok(Self { lab, stillpoint, grant })
    }

    /// Grants the program `file`, and has the hook do this in a phase.
    fn script(&self, phase: &str, commands: &[&str], file: &Path) -> Result<()> {
        let writable = file.parent().filter(|parent| *parent != Path::new("/dev"));
        let variables = format!(
            "groups = []\nenvironment = {{ PROBE_FILE = \"{}\", PROBE_LAB = \"{}\" }}\nwritable = {:?}\n",
            file.display(),
            self.lab.directory().display(),
            writable.map(|path| path.display().to_string()).into_iter().collect::<Vec<_>>(),
        );
        self.write_grant(phase, commands, "groups = []\n", &variables)
    }

    /// Writes the grant, with one text in its sections replaced.
    fn write_grant(&self, phase: &str, commands: &[&str], from: &str, to: &str) -> Result<()> {
        let (head, tail) = &self.grant;
        ensure!(tail.contains(from), "no {from} in the template: {tail}");
        let settings = format!("paths = []\n{phase} = {commands:?}\n");
        let text = format!("{head}[settings]\n{settings}{}", tail.replacen(from, to, 1));
        self.stillpoint.write_config("hooks.d/puppet.toml", &text)
    }

    /// A file that everybody may write to.
    fn file(&self, on: &str) -> Result<PathBuf> {
        let path = self.lab.mount(on).join("probe");
        fs::write(&path, "")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        Ok(path)
    }

    /// Processes of the hook's programs that are alive, with their states.
    fn processes(&self) -> Vec<(i32, char)> {
        let marker = format!("PROBE_LAB={}", self.lab.directory().display());
        let all = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        all.filter_map(|entry| {
            let environment = fs::read(entry.path().join("environ")).ok()?;
            environment.split(|&byte| byte == 0).find(|word| *word == marker.as_bytes())?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
            Some((entry.file_name().to_str()?.parse().ok()?, state))
        })
        .collect()
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let began = Instant::now();
        while !is_so(self) {
            ensure!(began.elapsed() < PATIENCE, "{what}: {:?}", self.processes());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let of_program = |path: &PathBuf| path.to_string_lossy().contains("stillpoint-program-");
        leftovers::cgroups().into_iter().filter(of_program).collect()
    }

    fn still_runs(&self) -> Result<()> {
        for fs in self.lab.file_systems() {
            let mut touch = self.lab.command("timeout");
            touch.args(["-s", "KILL", "5", "touch"]).arg(fs.mount.join("still-runs"));
            ensure!(touch.status()?.success(), "{} is not writable", fs.mount.display());
        }
        Ok(())
    }
}

#[test]
fn programs_end_whatever_they_do() -> Result<()> {
    let bench = Bench::new()?;
    one_that_forks_and_ignores_signals_and_writes_to_a_frozen_file_system_and_floods(&bench)?;
    one_that_leaves_a_writer_behind_does_not_reach_into_the_window(&bench)?;
    one_whose_agent_is_killed_ends_with_it(&bench)?;
    one_whose_agent_is_killed_early_is_ended_by_recover(&bench)?;
    one_that_is_not_granted_stops_the_run_with_the_line_to_add(&bench)?;
    one_that_cannot_be_trusted_stops_the_run_before_anything_is_touched(&bench)?;
    bench.lab.finish()
}

fn one_that_forks_and_ignores_signals_and_writes_to_a_frozen_file_system_and_floods(
    bench: &Bench,
) -> Result<()> {
    bench.script("pre-freeze", &["run perl -e @ hold"], &bench.file("other")?)?;
    // Frozen by somebody else: the program's writes do not return.
    let other = bench.lab.mount("other");
    run("fsfreeze", [Path::new("-f"), &other])?;
    let began = Instant::now();
    let snapshot = bench.stillpoint.snapshot("held", &[]);
    let took = began.elapsed();
    let blocked = bench.processes();
    run("fsfreeze", [Path::new("-u"), &other])?;
    let snapshot = snapshot?;
    snapshot.exited_with(9)?;
    ensure!(snapshot.error_text()?.contains("killed after it wrote"), "{}", snapshot.description());
    ensure!(took < Duration::from_secs(15), "the run waited for what cannot be killed: {took:?}");
    ensure!(!blocked.is_empty(), "nothing was blocked: this test tests nothing");
    ensure!(blocked.iter().all(|(_, state)| *state == 'D'), "something else lives: {blocked:?}");
    bench.wait_for("processes live on after deadline and thaw", |it| it.processes().is_empty())?;
    println!("{} processes were blocked until the thaw; 0 are left", blocked.len());
    bench.still_runs()?;
    // Their cgroups are empty, and go with the next run or recovery.
    bench.stillpoint.run(["recover"])?.succeeded()?;
    ensure!(bench.cgroups().is_empty(), "{:?}", bench.cgroups());
    Ok(())
}

fn one_that_leaves_a_writer_behind_does_not_reach_into_the_window(bench: &Bench) -> Result<()> {
    let file = bench.file("data")?;
    bench.script("pre-freeze", &["run perl -e @ leave"], &file)?;
    let snapshot = bench.stillpoint.snapshot("left", &[])?;
    snapshot.succeeded()?;
    let manifest = snapshot.manifest()?;
    ensure!(manifest.level()? == "application", "{}", snapshot.description());
    ensure!(fs::metadata(&file)?.len() > 0, "the background writer wrote nothing");
    ensure!(bench.processes().is_empty(), "{:?}", bench.processes());
    ensure!(bench.cgroups().is_empty(), "{:?}", bench.cgroups());
    bench.stillpoint.delete(manifest.group()?)
}

/// In `pre-freeze` the guard is armed: it ends what the agent's programs have left.
fn one_whose_agent_is_killed_ends_with_it(bench: &Bench) -> Result<()> {
    bench.script("pre-freeze", &["run perl -e @ hold"], Path::new("/dev/null"))?;
    let mut agent = bench.stillpoint.start_snapshot("killed")?;
    bench.wait_for("the program did not start", |it| it.processes().len() >= 8)?;
    agent.kill()?;
    agent.wait()?;
    bench.wait_for("processes outlived their agent", |it| it.processes().is_empty())?;
    bench.still_runs()?;
    bench.wait_for("cgroups stay behind", |it| it.cgroups().is_empty())
}

/// In `prepare` there is no guard yet: the program dies with its agent, what it started does not.
fn one_whose_agent_is_killed_early_is_ended_by_recover(bench: &Bench) -> Result<()> {
    bench.script("prepare", &["run perl -e @ hold"], Path::new("/dev/null"))?;
    let mut agent = bench.stillpoint.start_snapshot("killed")?;
    bench.wait_for("the program did not start", |it| it.processes().len() >= 8)?;
    agent.kill()?;
    agent.wait()?;
    bench.wait_for("the program outlived its agent", |it| it.processes().len() <= 7)?;
    ensure!(!bench.processes().is_empty(), "nothing was left: this test tests nothing");
    bench.still_runs()?;

    let recover = bench.stillpoint.run(["recover"])?;
    recover.succeeded()?;
    let said = "processes of its hooks' programs were ended";
    ensure!(recover.stdout.contains(said), "{}", recover.description());
    ensure!(bench.processes().is_empty(), "{:?}", bench.processes());
    ensure!(bench.cgroups().is_empty(), "{:?}", bench.cgroups());
    let again = bench.stillpoint.run(["recover"])?;
    ensure!(again.stdout == "nothing was left behind\n", "{}", again.description());
    Ok(())
}

fn one_that_is_not_granted_stops_the_run_with_the_line_to_add(bench: &Bench) -> Result<()> {
    bench.script("pre-freeze", &["run perl -e unlink(1)"], Path::new("/dev/null"))?;
    let run = bench.stillpoint.snapshot("denied", &[])?;
    run.exited_with(9)?;
    let text = run.error_text()?;
    ensure!(text.contains("is not granted"), "{text}");
    ensure!(text.contains("add to `arguments` of [[program]] command = \"perl\" in "), "{text}");
    ensure!(text.contains("[\"-e\", \"unlink(1)\"],"), "{text}");
    bench.still_runs()
}

fn one_that_cannot_be_trusted_stops_the_run_before_anything_is_touched(
    bench: &Bench,
) -> Result<()> {
    let program = bench.lab.scratch("programs")?.join("perl");
    run("install", [Path::new("-m"), Path::new("4755"), Path::new("/usr/bin/perl"), &program])?;
    let granted = "path = \"/usr/bin/perl\"\n";
    let set_id = format!("path = \"{}\"\n", program.display());
    for (to, words) in [
        (set_id.as_str(), "has mode 4755: programs that change their user"),
        ("path = \"/usr/bin/bash\"\n", "is a shell, and no shell is run for a hook"),
        ("path = \"perl\"\n", "is not a plain absolute path"),
        ("path = \"/usr/bin/perl\"\nuser = \"\"\n", "duplicate key"),
        (
            "path = \"/usr/bin/perl\"\ndigest = \"sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"\n",
            "which is not the granted one",
        ),
    ] {
        bench.write_grant("pre-freeze", &["run perl -e @ status"], granted, to)?;
        let run = bench.stillpoint.snapshot("untrusted", &[])?;
        run.exited_with(2)?;
        let text = run.error_text()?;
        ensure!(text.contains("hooks.d/puppet.toml:"), "{text}");
        ensure!(text.contains(words), "{words}: {text}");
    }
    Ok(())
}
