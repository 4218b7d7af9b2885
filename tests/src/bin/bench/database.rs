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

/// Rounds on one lab. Every clone leaves the images in more pieces, and the next clone slower, until
/// nothing else is measured: so a lab is not used for long.
const ROUNDS_OF_A_LAB: usize = 5;

pub async fn measure(rounds: Rounds, report: &mut Report) -> Result<()> {
    let mut measured = Measured::default();
    let mut left = rounds.many;
    while left > 0 {
        let many = left.min(ROUNDS_OF_A_LAB);
        one_lab(many, &mut measured, report).await?;
        left -= many;
    }
    tell(&measured, report);
    Ok(())
}

async fn one_lab(rounds: usize, measured: &mut Measured, report: &mut Report) -> Result<()> {
    let rig = tokio::task::block_in_place(|| Rig::new(LONGEST))?;
    rig.fresh_tables().await?;
    let writers = Writers::start(rig.server.options(), CLIENTS).await?;
    writers.wait_for(1000, PATIENCE).await?;
    let mut rounded = Rounded::default();
    // The first of each is a warm-up.
    for round in 0..=rounds {
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
    measured.add(&rounded, &writers.stop().await?);
    for fs in rig.lab.file_systems() {
        let extents = run("filefrag", [&fs.image])?;
        let extents = extents.trim().rsplit('/').next().unwrap_or_default();
        report.note(format!("MariaDB, after {rounds} rounds: {extents}"));
    }
    rig.finish()
}

/// What the clients and the manifests say, over all labs.
#[derive(Debug, Default)]
struct Measured {
    ours: Vec<Duration>,
    ours_hold: Vec<Duration>,
    ours_window: Vec<Duration>,
    ours_clone: Vec<Duration>,
    shell: Vec<Duration>,
    shell_hold: Vec<Duration>,
    shell_window: Vec<Duration>,
    control: Vec<Duration>,
}

impl Measured {
    fn add(&mut self, rounded: &Rounded, history: &History) {
        let worst = |intervals: &[Interval]| -> Vec<Duration> {
            intervals.iter().map(|interval| history.durations_in(*interval).max()).collect()
        };
        self.ours.extend(worst(&rounded.ours));
        self.shell.extend(worst(&rounded.shell));
        self.control.extend(worst(&rounded.control));
        self.ours_hold.extend(&rounded.ours_hold);
        self.ours_window.extend(&rounded.ours_window);
        self.ours_clone.extend(&rounded.ours_clone);
        self.shell_hold.extend(&rounded.shell_hold);
        self.shell_window.extend(&rounded.shell_window);
    }
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

fn tell(measured: &Measured, report: &mut Report) {
    let set = |durations: &[Duration]| durations.iter().copied().collect::<Durations>();
    let (section, case) = ("MariaDB", format!("{CLIENTS} clients commit"));
    let (ours, control) = (set(&measured.ours), set(&measured.control));
    let hold = set(&measured.ours_hold);
    for (method, what, durations) in [
        ("stillpoint", "hold less the clones", &hold),
        ("shell", "hold less the clones", &set(&measured.shell_hold)),
        ("stillpoint", "window less the clones", &set(&measured.ours_window)),
        ("shell", "window less the clones", &set(&measured.shell_window)),
        ("stillpoint", "the clones", &set(&measured.ours_clone)),
        ("stillpoint", "clients' worst commit, whole run", &ours),
        ("shell", "clients' worst commit", &set(&measured.shell)),
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
}
