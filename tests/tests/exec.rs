//! The hook `exec` through the real binary: programs that quiesce, hang, fail, and are left alone by a
//! killed agent.

#![expect(clippy::print_stdout, reason = "the counts are for whoever reads the tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use stillpoint_tests::command::run;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::leftovers::processes_running;
use stillpoint_tests::rig::PATIENCE;
use stillpoint_tests::sqlplus::install_program;
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Run, Stillpoint, component, workspace};

const DEADLINES: &str =
    "[deadlines]\nprepare = \"6s\"\nquiesce = \"4s\"\nconfirm = \"3s\"\nrelease = \"4s\"\n";

#[test]
fn programs_quiesce_and_whatever_they_do_release_runs_in_the_end() -> Result<()> {
    let bench = Bench::new()?;
    the_level_is_the_operators_word(&bench)?;
    exit_codes_and_hangs_end_the_run_and_release(&bench)?;
    a_release_that_fails_is_tried_again_and_later_again(&bench)?;
    a_killed_agent_leaves_it_to_whoever_comes_next(&bench)?;
    words_that_are_not_granted_are_not_given(&bench)?;
    bench.lab.finish()
}

fn the_level_is_the_operators_word(bench: &Bench) -> Result<()> {
    for (claims, level) in [("file-system", "file-system"), ("application", "application")] {
        bench.reset(claims)?;
        let run = bench.stillpoint.snapshot("well", &[])?;
        let manifest = run.succeeded()?.manifest()?;
        ensure!(manifest.level()? == level, "{claims}: {}", run.description());
        let calls =
            ["prepare", "quiesce", "confirm", "release"].map(|word| format!("{word} orders"));
        ensure!(bench.calls()? == calls, "{:?}", bench.calls()?);
        ensure!(!bench.is_held());
        bench.stillpoint.delete(manifest.group()?)?;
    }
    Ok(())
}

fn exit_codes_and_hangs_end_the_run_and_release(bench: &Bench) -> Result<()> {
    let cases = [
        ("prepare before 1 1", 9, ""),
        ("prepare before 75 1", 9, "busy"),
        ("prepare before 69 1", 9, "not here"),
        ("prepare before hang 1", 9, "did not end in time"),
        ("quiesce before 1 1", 9, ""),
        ("quiesce after 75 1", 9, "busy"),
        ("quiesce before hang 1", 9, "did not end in time"),
        ("quiesce after hang 1", 9, "did not end in time"),
        ("confirm before 1 1", 10, ""),
        ("confirm before hang 1", 10, "did not end in time"),
        ("release before 1 1", 0, ""),
        ("release before hang 1", 0, ""),
        ("release after hang 1", 0, ""),
    ];
    for (told, code, words) in cases {
        bench.reset("application")?;
        bench.tell(told)?;
        let run = bench.stillpoint.snapshot("told", &[])?;
        run.exited_with(code).context(told)?;
        ensure!(run.description().contains(words), "{told}: {}", run.description());
        ensure!(!bench.is_held(), "{told}: still held: {}", run.description());
        let calls = bench.calls()?;
        let released = calls.iter().filter(|call| call.starts_with("release")).count();
        let begun = calls.iter().any(|call| call.starts_with("quiesce"));
        ensure!(!begun || released > 0, "{told}: {calls:?}");
        if code != 9 {
            let level = run.manifest()?.level()?.to_owned();
            let wanted = if code == 10 { "file-system" } else { "application" };
            ensure!(level == wanted, "{told}: {level}");
            bench.stillpoint.delete(run.manifest()?.group()?)?;
        }
        bench.nothing_is_left().context(told)?;
    }
    println!("{} ways to misbehave: released after each", cases.len());
    Ok(())
}

fn a_release_that_fails_is_tried_again_and_later_again(bench: &Bench) -> Result<()> {
    // Two attempts in `post-thaw`, two in `finish`, two by each `recover`.
    for (failures, code) in [(1, 0), (2, 10), (4, 10), (5, 10)] {
        bench.reset("application")?;
        bench.tell(&format!("release before 3 {failures}"))?;
        let run = bench.stillpoint.snapshot("release", &[])?;
        run.exited_with(code).with_context(|| format!("{failures} failures"))?;
        bench.stillpoint.delete(run.manifest()?.group()?)?;
        if failures >= 4 {
            ensure!(bench.is_held() && run.description().contains("stillpoint recover"));
            bench.stillpoint.run(["recover"])?.succeeded()?;
        }
        ensure!(!bench.is_held(), "{failures} failures: {}", run.description());
        bench.nothing_is_left()?;
    }
    Ok(())
}

fn a_killed_agent_leaves_it_to_whoever_comes_next(bench: &Bench) -> Result<()> {
    let places = [
        "prepare before",
        "quiesce before",
        "quiesce after",
        "confirm before",
        "release before",
        "release after",
    ];
    for (round, place) in places.iter().enumerate() {
        bench.reset("application")?;
        bench.tell(&format!("{place} hang 1"))?;
        let mut agent = bench.stillpoint.start_snapshot("killed")?;
        let patience = Instant::now() + PATIENCE;
        while !bench.directory.join("hangs").exists() {
            if agent.try_wait()?.is_some() {
                bail!("it ended by itself: {}", Run::of(&agent.wait_with_output()?).description());
            }
            ensure!(Instant::now() < patience, "{place}: it never hung");
            std::thread::sleep(Duration::from_millis(2));
        }
        agent.kill()?;
        agent.wait()?;
        // By the operator, by the next run, or (once there is one) by the sentinel alone.
        match round % 3 {
            0 => drop(bench.stillpoint.run(["recover"])?.succeeded()?),
            1 => {
                let run = bench.stillpoint.snapshot("next", &[])?;
                bench.stillpoint.delete(run.succeeded()?.manifest()?.group()?)?;
            }
            _ => bench.wait_until_all_have_ended()?,
        }
        ensure!(!bench.is_held(), "{place}: still held");
        let calls = bench.calls()?;
        let begun = calls.iter().any(|call| call.starts_with("quiesce"));
        ensure!(
            !begun || calls.last().is_some_and(|call| call == "release orders"),
            "{place}: {calls:?}"
        );
        bench.nothing_is_left().context(*place)?;
    }
    Ok(())
}

fn words_that_are_not_granted_are_not_given(bench: &Bench) -> Result<()> {
    bench.reset("application")?;
    bench.grant("application", |text| {
        // In the settings, which come first, and not in the grant.
        text.replacen("[\"quiesce\", \"orders\"]", "[\"quiesce\", \"customers\"]", 1)
    })?;
    let run = bench.stillpoint.snapshot("denied", &[])?;
    run.exited_with(9)?;
    let text = run.error_text()?;
    ensure!(text.contains("[\"quiesce\", \"customers\"],"), "the line to add: {text}");
    ensure!(bench.calls()? == ["prepare orders"], "{:?}", bench.calls()?);
    bench.nothing_is_left()
}

/// One file system, and an application that is a directory: see `stand_in_application`.
struct Bench {
    lab: Lab,
    stillpoint: Stillpoint,
    module: String,
    program: PathBuf,
    directory: PathBuf,
}

impl Bench {
    fn new() -> Result<Self> {
        let lab = Lab::new(&[FsSpec::new("data", FsType::Ext4, 64)], Duration::from_secs(600))?;
        let stillpoint = Stillpoint::new(&lab)?;
        stillpoint.configure(&stillpoint.settings(&lab, &format!("{NO_SCRIPTS}\n{DEADLINES}")))?;
        let wasm = component("exec")?;
        stillpoint.sign_and_install(&wasm)?;
        let sum = run("sha256sum", [&wasm])?;
        let module = format!("sha256:{}", sum.split(' ').next().unwrap_or_default());
        let program = install_program("stand_in_application", &lab.scratch("programs")?)?;
        let directory = lab.scratch("application")?;
        let bench = Self { lab, stillpoint, module, program, directory };
        bench.reset("application")?;
        Ok(bench)
    }

    /// Nothing held, nothing told, nothing logged; the shipped grant, with the program of the tests.
    fn reset(&self, claims: &str) -> Result<()> {
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)?;
        }
        fs::create_dir_all(&self.directory)?;
        fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o777))?;
        self.grant(claims, |text| text)
    }

    fn grant(&self, claims: &str, change: impl FnOnce(String) -> String) -> Result<()> {
        let shipped = fs::read_to_string(workspace().join("hooks/exec/grant.toml"))?;
        let (settings, programs) = shipped.split_once("[[program]]").context("no program")?;
        let surroundings = format!(
            "environment = {{ STAND_IN_APPLICATION = \"{0}\" }}\nwritable = [\"{0}\"]\npath = ",
            self.directory.display()
        );
        let text = format!("{settings}[[program]]{}", programs.replace("path = ", &surroundings))
            .replace(&format!("sha256:{}", "0".repeat(64)), &self.module)
            .replace("claims = \"file-system\"", &format!("claims = \"{claims}\""))
            .replace("release-attempts = 3", "release-attempts = 2")
            .replace("seconds = 10", "seconds = 1")
            .replace("/usr/local/bin/orders-quiesce", &self.program.display().to_string());
        self.stillpoint.write_config("hooks.d/orders.toml", &change(text))
    }

    fn tell(&self, line: &str) -> Result<()> {
        let path = self.directory.join("told");
        fs::write(&path, line)?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?)
    }

    fn is_held(&self) -> bool {
        self.directory.join("held").exists()
    }

    /// With which words it was called.
    fn calls(&self) -> Result<Vec<String>> {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        Ok(log.lines().filter(|line| !line.ends_with(": done")).map(str::to_owned).collect())
    }

    fn wait_until_all_have_ended(&self) -> Result<()> {
        let patience = Instant::now() + PATIENCE;
        while !processes_running(self.stillpoint.binary()).is_empty() {
            ensure!(Instant::now() < patience, "guard, sentinel or recovery do not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn nothing_is_left(&self) -> Result<()> {
        self.stillpoint.run(["recover"])?.succeeded()?;
        let again = self.stillpoint.run(["recover"])?;
        ensure!(again.stdout == "nothing was left behind\n", "{}", again.description());
        Ok(())
    }
}
