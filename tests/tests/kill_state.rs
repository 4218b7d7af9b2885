//! The agent is killed with SIGKILL, with its guard and its sentinel, while a hook holds something that is
//! tied to no session. What the hook had kept before it took it is enough for the next start to give it
//! back. (With a sentinel that lives nobody has to wait for that: `sentinel`.)

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use stillpoint_tests::puppet::{HOLD, OPEN, Puppet, UNDO};
use stillpoint_tests::rig::Rig;
use stillpoint_tests::standing::Standing;
use stillpoint_tests::stillpoint::Run;

const RCU_EXPEDITED: &str = "/sys/kernel/rcu_expedited";

struct Bench {
    rig: Rig,
    puppet: Puppet,
}

#[test]
fn what_a_hook_of_a_killed_agent_holds_is_given_back_at_the_next_start() -> Result<()> {
    let bench = Bench::new()?;
    recover_finishes_it_once(&bench)?;
    the_next_snapshot_finishes_it(&bench)?;
    what_was_kept_in_prepare_survives_a_reboot(&bench)?;
    without_the_grant_it_is_said_and_kept(&bench)?;
    a_broken_grant_keeps_nobody_else_from_being_undone(&bench)?;
    state_is_on_disk_after_a_run_and_nowhere_else(&bench)?;
    bench.rig.finish()
}

fn recover_finishes_it_once(bench: &Bench) -> Result<()> {
    bench.die(&[OPEN], &[UNDO, HOLD])?;
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
    bench.die(&[OPEN, UNDO], &[HOLD])?;
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
    bench.die(&[OPEN, UNDO], &[HOLD])?;
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
    bench.die(&[OPEN, UNDO], &[HOLD])?;
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

/// A start cleans up before it reads what it is to do.
fn a_broken_grant_keeps_nobody_else_from_being_undone(bench: &Bench) -> Result<()> {
    bench.die(&[OPEN], &[UNDO, HOLD])?;
    let status = bench.rig.stillpoint.run(["status"])?;
    ensure!(status.stdout.contains("NOT FINISHED hook puppet"), "{}", status.description());
    bench.rig.stillpoint.write_config("hooks.d/broken.toml", "module = 7\n")?;
    let run = bench.rig.stillpoint.snapshot("with-a-broken-grant", &[])?;
    run.exited_with(2)?;
    ensure!(run.error_text()?.contains("broken.toml"), "{}", run.description());
    ensure!(bench.held()? == 0, "given back: {}", run.description());
    fs::remove_file(bench.rig.stillpoint.config_file("hooks.d/broken.toml"))?;
    let status = bench.rig.stillpoint.run(["status"])?;
    ensure!(!status.stdout.contains("NOT FINISHED"), "{}", status.description());
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
        let puppet = Puppet::install(&rig.stillpoint, &rig.server)?;
        Ok(Self { rig, puppet })
    }

    fn script(&self, prepare: &[&str], pre_freeze: &[&str]) -> Result<()> {
        let phases = [("prepare", prepare), ("pre-freeze", pre_freeze)];
        self.puppet.plays(&self.rig.stillpoint, &phases)
    }

    /// A run that is killed once it holds what it took, before anything is frozen; and its guard and
    /// sentinel with it, so that nobody is left who would undo it at once.
    fn die(&self, prepare: &[&str], pre_freeze: &[&str]) -> Result<()> {
        self.script(prepare, &[pre_freeze, &["sleep 600000"]].concat())?;
        let rcu_expedited = fs::read_to_string(RCU_EXPEDITED)?;
        let mut run = Standing::start(&self.rig.stillpoint, "killed", || Ok(self.held()? == 1))?;
        run.kill_all()?;
        // A case below takes the journal away, by which it would be put back.
        fs::write(RCU_EXPEDITED, rcu_expedited)?;
        ensure!(self.held()? == 1, "what it took outlives it");
        Ok(())
    }

    fn held(&self) -> Result<u32> {
        self.puppet.held(&self.rig.server)
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
