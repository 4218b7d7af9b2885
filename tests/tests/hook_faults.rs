//! A hook that fails in every way in every phase, with a real lock on a real server: afterwards
//! clients commit, file systems run, and what is said of the snapshot is true.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stillpoint_tests::puppet;
use stillpoint_tests::rig::{PATIENCE, Rig};
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Run};
use stillpoint_tests::writers::{Interval, Writers, now_ns};

/// Deadline of every phase in these tests.
const DEADLINE: Duration = Duration::from_secs(2);

/// Phases in their order, with what the run must come to if the hook fails there.
const PHASES: &[(&str, Expected)] = &[
    ("prepare", Expected::NoSnapshot),
    ("pre-freeze", Expected::NoSnapshot),
    ("confirm", Expected::Lowered),
    ("post-thaw", Expected::ToldAfterwards),
    ("finish", Expected::ToldAfterwards),
];

/// What the hook does there.
const FAULTS: &[&str] =
    &["fail application words", "trap", "loop", "eat", "query A SELECT SLEEP(30)"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Exit code 9, and no group.
    NoSnapshot,
    /// A group of a lower level, with the reason.
    Lowered,
    /// The snapshot stays; exit code 10, or 0 where the host could release by itself.
    ToldAfterwards,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hook_that_fails_anyhow_anywhere_leaves_nothing_locked_and_nothing_untrue() -> Result<()>
{
    let rig = Rig::without_hook(Duration::from_secs(900))?;
    let grant = install_puppet(&rig)?;
    for (phase, expected) in PHASES {
        for fault in FAULTS {
            let context = || format!("{fault} in {phase}");
            script(&rig, &grant, phase, fault)?;
            rig.fresh_tables().await?;
            let writers = Writers::start(rig.server.options(), 2).await?;
            writers.wait_for(10, PATIENCE).await?;
            let (began, began_ns) = (Instant::now(), now_ns());
            let run = tokio::task::block_in_place(|| rig.stillpoint.snapshot("faulty", &[]))?;
            let took = began.elapsed();
            let ended_ns = now_ns();
            writers.wait_for(20, Duration::from_secs(2)).await.with_context(context)?;
            let history = writers.stop().await?;
            let worst = history.durations_in(Interval { began_ns, ended_ns }).max();
            println!(
                "{}: exit {:?} after {took:.1?}, worst commit {worst:.1?}",
                context(),
                run.code
            );
            judge(&rig, &run, *expected).with_context(context)?;
            ensure!(took < 6 * DEADLINE, "{}: took {took:?}", context());
            ensure!(worst < 3 * DEADLINE, "{}: a commit took {worst:?}", context());
        }
    }
    rig.finish()
}

fn judge(rig: &Rig, run: &Run, expected: Expected) -> Result<()> {
    match expected {
        Expected::NoSnapshot => {
            run.exited_with(9)?;
            ensure!(run.error_text()?.contains("puppet"), "{}", run.description());
        }
        Expected::Lowered => {
            let manifest = run.manifest()?;
            ensure!(manifest.level()? != "application", "{}", run.description());
            let reasons = manifest.reason_codes()?;
            ensure!(reasons.contains(&"not-confirmed".to_owned()), "{reasons:?}");
        }
        Expected::ToldAfterwards => {
            ensure!(matches!(run.code, Some(0 | 10)), "{}", run.description());
            ensure!(run.manifest()?.level()? == "application", "{}", run.description());
            ensure!(
                run.code == Some(10)
                    || !run.manifest()?.at("/warnings")?.as_array().is_none_or(Vec::is_empty),
                "nothing was told: {}",
                run.description()
            );
        }
    }
    if let Ok(manifest) = run.manifest() {
        rig.stillpoint.delete(manifest.group()?)?;
    }
    let list = rig.stillpoint.run_json(["list"])?.json()?;
    ensure!(list.as_array().is_some_and(Vec::is_empty), "a group was left: {list}");
    for fs in rig.lab.file_systems() {
        let mut touch = rig.lab.command("timeout");
        touch.args(["-s", "KILL", "5", "touch"]).arg(fs.mount.join("still-runs"));
        ensure!(touch.status()?.success(), "{} is not writable", fs.mount.display());
    }
    Ok(())
}

/// The grant that `hook grant --accept` writes, up to its settings, and from there on.
fn install_puppet(rig: &Rig) -> Result<(String, String)> {
    let deadlines: String = ["prepare", "quiesce", "confirm", "release"]
        .iter()
        .map(|key| format!("{key} = \"{}s\"\n", DEADLINE.as_secs()))
        .collect();
    let more = format!("{NO_SCRIPTS}\n[deadlines]\n{deadlines}");
    rig.stillpoint.configure(&rig.stillpoint.settings(&rig.lab, &more))?;
    rig.stillpoint.connect_to(rig.server.socket())?;
    puppet::grant(&rig.stillpoint)
}

/// A hook that takes the lock in pre-freeze and gives it back in post-thaw, but for the fault.
fn script(rig: &Rig, grant: &(String, String), phase: &str, fault: &str) -> Result<()> {
    let right = [
        ("prepare", vec!["open A main"]),
        ("pre-freeze", vec!["query A FLUSH TABLES WITH READ LOCK"]),
        ("confirm", vec!["alive A"]),
        ("post-thaw", vec!["query A UNLOCK TABLES"]),
        ("finish", vec![]),
    ];
    let mut settings = String::from("paths = []\n");
    for (name, mut commands) in right {
        if name == phase {
            // In pre-freeze after the lock was taken, in post-thaw before it is given back.
            let at = if phase == "post-thaw" { 0 } else { commands.len() };
            commands.insert(at, fault);
        }
        settings.push_str(&format!("{name} = {commands:?}\n"));
    }
    let (head, tail) = grant;
    rig.stillpoint
        .write_config("hooks.d/puppet.toml", &format!("{head}[settings]\n{settings}{tail}"))
}
