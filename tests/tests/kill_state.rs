//! The agent is killed with SIGKILL while a hook holds something that is tied to no session. What the
//! hook had kept before it took it is enough for the next start to give it back.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stillpoint_tests::rig::{PATIENCE, Rig};
use stillpoint_tests::stillpoint::{Run, component};

/// What gives it back.
const UNDO: &str = "kv-set undo open U main;query U DELETE FROM puppet.holds";
/// What takes it: a row, which outlives every session.
const HOLD: &str = "query A INSERT INTO puppet.holds VALUES (1)";

struct Bench {
    rig: Rig,
    /// The grant that `hook grant --accept` writes, up to its settings, and from there on.
    grant: (String, String),
}

#[test]
fn what_a_hook_of_a_killed_agent_holds_is_given_back_at_the_next_start() -> Result<()> {
    let bench = Bench::new()?;
    recover_finishes_it_once(&bench)?;
    the_next_snapshot_finishes_it(&bench)?;
    what_was_kept_in_prepare_survives_a_reboot(&bench)?;
    without_the_grant_it_is_said_and_kept(&bench)?;
    state_is_on_disk_after_a_run_and_nowhere_else(&bench)?;
    bench.rig.finish()
}

fn recover_finishes_it_once(bench: &Bench) -> Result<()> {
    bench.die(&["open A main"], &[UNDO, HOLD])?;
    ensure!(bench.in_memory().exists(), "what is kept while applications are held is on tmpfs");
    ensure!(!bench.on_disk().exists(), "and not on a disk");

    let recover = bench.rig.stillpoint.run(["recover"])?;
    recover.succeeded()?;
    ensure!(recover.stdout.contains("hook puppet was cut off"), "{}", recover.description());
    ensure!(bench.held()? == 0, "given back: {}", recover.description());
    ensure!(!bench.in_memory().exists() && bench.on_disk().exists(), "merged to disk");

    let again = bench.rig.stillpoint.run(["recover"])?;
    again.succeeded()?;
    ensure!(again.stdout == "nothing was left behind\n", "{}", again.description());
    Ok(())
}

fn the_next_snapshot_finishes_it(bench: &Bench) -> Result<()> {
    bench.die(&["open A main", UNDO], &[HOLD])?;
    bench.script(&[], &[])?;
    let run = bench.rig.stillpoint.snapshot("after-a-death", &[])?;
    let manifest = run.succeeded()?.manifest()?;
    let warnings = manifest.at("/warnings")?.to_string();
    ensure!(
        warnings.contains("an earlier run died") && warnings.contains("hook puppet"),
        "{warnings}"
    );
    ensure!(bench.held()? == 0, "given back: {}", run.description());
    bench.delete(&run)
}

/// A reboot takes `/run` with it, and the journal: what is left is what was on disk before anything
/// was held, and the hook itself, which looks at it when it runs again.
fn what_was_kept_in_prepare_survives_a_reboot(bench: &Bench) -> Result<()> {
    bench.die(&["open A main", UNDO], &[HOLD])?;
    for entry in fs::read_dir(bench.rig.lab.root().join("run/stillpoint"))? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    bench.script(&[], &[])?;
    let run = bench.rig.stillpoint.snapshot("after-a-reboot", &[])?;
    ensure!(bench.held()? == 0, "given back: {}", run.description());
    bench.delete(&run)
}

fn without_the_grant_it_is_said_and_kept(bench: &Bench) -> Result<()> {
    bench.die(&["open A main", UNDO], &[HOLD])?;
    let grant = bench.rig.stillpoint.config_file("hooks.d/puppet.toml");
    let away = grant.with_extension("away");
    fs::rename(&grant, &away)?;
    let recover = bench.rig.stillpoint.run(["recover"])?;
    recover.exited_with(10)?;
    ensure!(
        recover.stdout.contains("not done: ") && recover.stdout.contains("is gone"),
        "{}",
        recover.description()
    );
    ensure!(bench.held()? == 1, "nobody may give it back: {}", recover.description());

    fs::rename(&away, &grant)?;
    bench.rig.stillpoint.run(["recover"])?.succeeded()?;
    ensure!(bench.held()? == 0);
    Ok(())
}

fn state_is_on_disk_after_a_run_and_nowhere_else(bench: &Bench) -> Result<()> {
    bench.script(&[], &["kv-set last held"])?;
    let run = bench.rig.stillpoint.snapshot("keeps", &[])?;
    run.succeeded()?;
    ensure!(!bench.in_memory().exists(), "{}", run.description());
    let text = fs::read_to_string(bench.on_disk())?;
    ensure!(text.contains("\"last\""), "{text}");
    bench.delete(&run)?;

    bench.script(&["kv-get last"], &[])?;
    let run = bench.rig.stillpoint.snapshot("reads", &[])?;
    let steps = run.succeeded()?.manifest()?.at("/steps")?.to_string();
    ensure!(steps.contains("\"held\""), "what the last run kept: {steps}");
    bench.delete(&run)
}

impl Bench {
    fn new() -> Result<Self> {
        let rig = Rig::without_hook(Duration::from_secs(900))?;
        rig.server.execute("CREATE DATABASE puppet; CREATE TABLE puppet.holds (id INT)")?;
        rig.stillpoint.connect_to(rig.server.socket())?;
        rig.stillpoint.sign_and_install(&component("puppet")?)?;
        rig.stillpoint.run(["hook", "grant", "puppet", "--accept"])?.succeeded()?;
        let text = fs::read_to_string(rig.stillpoint.config_file("hooks.d/puppet.toml"))?;
        let (head, tail) = text.split_once("[settings]\n").context("no [settings] in the grant")?;
        let grant = (head.to_owned(), tail.to_owned());
        Ok(Self { rig, grant })
    }

    fn script(&self, prepare: &[&str], pre_freeze: &[&str]) -> Result<()> {
        let (head, tail) = &self.grant;
        let settings = format!("paths = []\nprepare = {prepare:?}\npre-freeze = {pre_freeze:?}\n");
        let text = format!("{head}[settings]\n{settings}{tail}");
        self.rig.stillpoint.write_config("hooks.d/puppet.toml", &text)
    }

    /// A run that is killed once it holds what it took, before anything is frozen.
    fn die(&self, prepare: &[&str], pre_freeze: &[&str]) -> Result<()> {
        self.script(prepare, &[pre_freeze, &["sleep 600000"]].concat())?;
        let mut agent = self.rig.stillpoint.start_snapshot("killed")?;
        let patience = Instant::now() + PATIENCE;
        while self.held()? == 0 {
            ensure!(
                agent.try_wait()?.is_none(),
                "it ended by itself: {:?}",
                agent.wait_with_output()?
            );
            ensure!(Instant::now() < patience, "the hook never took anything");
            std::thread::sleep(Duration::from_millis(5));
        }
        agent.kill()?;
        agent.wait()?;
        ensure!(self.held()? == 1, "what it took outlives it");
        Ok(())
    }

    /// Rows in the table, from outside.
    fn held(&self) -> Result<u32> {
        let text = self.rig.server.execute("SELECT CONCAT('rows=', COUNT(*)) FROM puppet.holds")?;
        let rows = text.split("rows=").last().unwrap_or_default();
        rows.trim().parse().with_context(|| format!("not a count: {text}"))
    }

    fn on_disk(&self) -> PathBuf {
        self.rig.lab.root().join("var/lib/stillpoint/state/puppet.kv")
    }

    fn in_memory(&self) -> PathBuf {
        self.rig.lab.root().join("run/stillpoint/kv/puppet.kv")
    }

    fn delete(&self, run: &Run) -> Result<()> {
        self.rig.stillpoint.delete(run.succeeded()?.manifest()?.group()?)
    }
}
