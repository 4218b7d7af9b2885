//! A MariaDB under four committing clients: stillpoint with its hook, the shell's way, and nothing,
//! in turn.

use std::time::Duration;

use anyhow::Result;
use stillpoint_tests::by_hand::{ByHand, Steps};
use stillpoint_tests::command::run;
use stillpoint_tests::rig::{CLIENTS, PATIENCE, Rig};
use stillpoint_tests::stats::{Durations, millis};
use stillpoint_tests::writers::{History, Interval, Writers, now_ns};

use crate::report::Report;
use crate::{LONGEST, PAUSE, Rounds};

#[derive(Debug, Default)]
struct Rounded {
    ours: Vec<Interval>,
    ours_hold: Vec<Duration>,
    ours_window: Vec<Duration>,
    ours_clone: Vec<Duration>,
    shell: Vec<Interval>,
    shell_hold: Vec<Duration>,
    shell_window: Vec<Duration>,
    control: Vec<Interval>,
}

pub async fn measure(rounds: Rounds, report: &mut Report) -> Result<()> {
    let rig = tokio::task::block_in_place(|| Rig::new(LONGEST))?;
    rig.fresh_tables().await?;
    let writers = Writers::start(rig.server.options(), CLIENTS).await?;
    writers.wait_for(1000, PATIENCE).await?;
    let mut rounded = Rounded::default();
    // The first of each is a warm-up.
    for round in 0..=rounds.many {
        let mut one = Rounded::default();
        for turn in 0..3 {
            tokio::time::sleep(PAUSE).await;
            match (round + turn) % 3 {
                0 => ours(&rig, &mut one)?,
                1 => shell(&rig, &mut one).await?,
                _ => control(&rounded, &mut one).await,
            }
        }
        if round > 0 {
            rounded.append(one);
        }
    }
    let history = writers.stop().await?;
    tell(&rig, &rounded, &history, report)?;
    rig.finish()
}

impl Rounded {
    fn append(&mut self, mut one: Self) {
        self.ours.append(&mut one.ours);
        self.ours_hold.append(&mut one.ours_hold);
        self.ours_window.append(&mut one.ours_window);
        self.ours_clone.append(&mut one.ours_clone);
        self.shell.append(&mut one.shell);
        self.shell_hold.append(&mut one.shell_hold);
        self.shell_window.append(&mut one.shell_window);
        self.control.append(&mut one.control);
    }
}

fn ours(rig: &Rig, one: &mut Rounded) -> Result<()> {
    let began_ns = now_ns();
    let run = tokio::task::block_in_place(|| rig.stillpoint.snapshot("bench", &[]))?;
    one.ours.push(Interval { began_ns, ended_ns: now_ns() });
    let manifest = run.succeeded()?.manifest()?;
    let timing = |name: &str| manifest.number(name).map(Duration::from_nanos);
    let clone = timing("/timings/provider_ns")?;
    one.ours_hold.push(timing("/timings/hold_ns")?.saturating_sub(clone));
    one.ours_window.push(timing("/timings/window_ns")?.saturating_sub(clone));
    one.ours_clone.push(clone);
    tokio::task::block_in_place(|| rig.stillpoint.delete(manifest.group()?))
}

async fn shell(rig: &Rig, one: &mut Rounded) -> Result<()> {
    let began_ns = now_ns();
    let taken = ByHand::take(&rig.lab, &rig.server, Steps::ALL).await?;
    one.shell.push(Interval { began_ns, ended_ns: now_ns() });
    one.shell_hold.push(taken.claim.hold.duration().saturating_sub(taken.clone));
    one.shell_window.push(taken.window.saturating_sub(taken.clone));
    taken.discard()
}

/// Nothing, for as long as one of our runs takes.
async fn control(so_far: &Rounded, one: &mut Rounded) {
    let length =
        so_far.ours.last().map_or(Duration::from_millis(300), |interval| interval.duration());
    let began_ns = now_ns();
    tokio::time::sleep(length).await;
    one.control.push(Interval { began_ns, ended_ns: now_ns() });
}

fn tell(rig: &Rig, rounded: &Rounded, history: &History, report: &mut Report) -> Result<()> {
    let worst = |intervals: &[Interval]| -> Durations {
        intervals.iter().map(|interval| history.durations_in(*interval).max()).collect()
    };
    let set = |durations: &[Duration]| durations.iter().copied().collect::<Durations>();
    let (section, case) = ("MariaDB", format!("{CLIENTS} clients commit"));
    let (ours, shell, control) =
        (worst(&rounded.ours), worst(&rounded.shell), worst(&rounded.control));
    let hold = set(&rounded.ours_hold);
    for (method, what, durations) in [
        ("stillpoint", "hold less the clones", &hold),
        ("shell", "hold less the clones", &set(&rounded.shell_hold)),
        ("stillpoint", "window less the clones", &set(&rounded.ours_window)),
        ("shell", "window less the clones", &set(&rounded.shell_window)),
        ("stillpoint", "the clones", &set(&rounded.ours_clone)),
        ("stillpoint", "clients' worst commit, whole run", &ours),
        ("shell", "clients' worst commit", &shell),
        ("nothing", "clients' worst commit", &control),
    ] {
        report.add(section, &case, method, what, durations);
    }
    report.at_most("hold with MariaDB, less the provider's call", millis(hold.median()), 8.0, "ms");
    report.at_most(
        "clients' worst commit beyond an undisturbed control",
        millis(ours.median()) - millis(control.median()),
        20.0,
        "ms",
    );
    for fs in rig.lab.file_systems() {
        let extents = run("filefrag", [&fs.image])?;
        report.note(format!(
            "After all rounds: {}",
            extents.trim().rsplit('/').next().unwrap_or_default()
        ));
    }
    Ok(())
}
