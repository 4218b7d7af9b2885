//! A MariaDB under four committing clients, snapshotted in all ways in turn, idle otherwise and beside
//! a file with dirty data.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result};
use stillpoint_tests::peers::QemuGa;
use stillpoint_tests::rig::{CLIENTS, PATIENCE, Rig};
use stillpoint_tests::stats::{Durations, millis};
use stillpoint_tests::writers::{History, Writers};

use crate::order::Order;
use crate::report::Report;
use crate::ways::{Taken, Way, take};
use crate::{LONGEST, PAUSE, Rounds};

const SECTION: &str = "MariaDB";

/// Rounds on one lab. Every clone leaves the images in more pieces, and the next clone slower, until
/// nothing else is measured: so a lab is not used for long.
const ROUNDS_OF_A_LAB: usize = 5;

/// MiB for the database, beside the dirty file.
const ROOM_MIB: u64 = 1024;

/// All rounds of one way: what clients and manifests say, in the order of the rounds.
#[derive(Debug, Default)]
struct Case {
    worst: Vec<Duration>,
    from_lock: Vec<Duration>,
    hold: Vec<Duration>,
    window: Vec<Duration>,
    clone: Vec<Duration>,
    request_to_unlock: Vec<Duration>,
}

type Cases = [Case; 5];

pub async fn measure(rounds: Rounds, order: &mut Order, report: &mut Report) -> Result<()> {
    for (dirty_mib, many) in [(0, rounds.many), (rounds.dirty_beside_mib, rounds.few)] {
        let mut cases = Cases::default();
        let mut left = many;
        while left > 0 {
            let many = left.min(ROUNDS_OF_A_LAB);
            one_lab(many, dirty_mib, order, &mut cases, report).await?;
            left -= many;
        }
        tell(dirty_mib, &cases, report);
    }
    Ok(())
}

async fn one_lab(
    rounds: usize,
    dirty_mib: u64,
    order: &mut Order,
    cases: &mut Cases,
    report: &mut Report,
) -> Result<()> {
    let rig = tokio::task::block_in_place(|| Rig::with_room(LONGEST, ROOM_MIB + 2 * dirty_mib))?;
    rig.fresh_tables().await?;
    let dirt = Dirt::new(&rig, dirty_mib)?;
    let mut agent = QemuGa::start_with_mysql(&rig.lab, rig.server.socket())?;
    let part = load_name(dirty_mib);
    report.extents(&part, "start", &rig.lab)?;
    let writers = Writers::start(rig.server.options(), CLIENTS).await?;
    writers.wait_for(1000, PATIENCE).await?;
    let mut taken: [Vec<Taken>; 5] = Default::default();
    let mut length = Duration::from_millis(300);
    // The first of each is a warm-up.
    for round in 0..=rounds {
        for turn in order.of(Way::ALL.len()) {
            tokio::task::block_in_place(|| dirt.make())?;
            tokio::time::sleep(PAUSE).await;
            let way = Way::ALL[turn];
            let one = take(&rig, &mut agent, way, length).await;
            let one = one.with_context(|| way.name().to_owned())?;
            if way == Way::Ours {
                // Nothing is done for as long as one of our runs takes.
                length = one.whole.duration();
            }
            if round > 0 {
                taken[turn].push(one);
            }
        }
    }
    let history = writers.stop().await?;
    report.extents(&part, "end", &rig.lab)?;
    drop(agent);
    for (case, taken) in cases.iter_mut().zip(taken) {
        taken.iter().for_each(|one| case.add(one, &history));
    }
    drop(dirt);
    rig.finish()
}

impl Case {
    fn add(&mut self, one: &Taken, history: &History) {
        self.worst.push(history.durations_in(one.whole).max());
        self.from_lock.push(history.stalls_in(one.locked).max());
        self.hold.extend(one.hold);
        self.window.extend(one.window);
        self.clone.push(one.clone);
        self.request_to_unlock.push(one.locked.duration().saturating_sub(one.clone));
    }
}

/// A file beside the database that is written anew before each round: its blocks are allocated, and
/// all of its pages are dirty.
struct Dirt {
    file: File,
    mib: u64,
}

impl Dirt {
    fn new(rig: &Rig, mib: u64) -> Result<Self> {
        let path = rig.lab.mount("data").join("dirt");
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let dirt = Self { file, mib };
        dirt.make()?;
        dirt.file.sync_all()?;
        Ok(dirt)
    }

    fn make(&self) -> Result<()> {
        let mebibyte = vec![0x5a_u8; 1 << 20];
        for at in 0..self.mib {
            self.file.write_all_at(&mebibyte, at << 20)?;
        }
        Ok(())
    }
}

fn load_name(dirty_mib: u64) -> String {
    match dirty_mib {
        0 => format!("{CLIENTS} clients commit"),
        mib => format!("{CLIENTS} clients commit, {mib} MB dirty"),
    }
}

fn tell(dirty_mib: u64, cases: &Cases, report: &mut Report) {
    let set = |durations: &[Duration]| durations.iter().copied().collect::<Durations>();
    let name = load_name(dirty_mib);
    for (way, case) in Way::ALL.iter().zip(cases) {
        let Case { worst, from_lock, hold, window, clone, request_to_unlock } = case;
        for (what, durations) in [
            ("clients' worst commit, whole run", worst),
            ("clients' worst commit, from the lock request on", from_lock),
            ("hold less the clones", hold),
            ("window less the clones", window),
            ("lock request to unlock less the clones", request_to_unlock),
            ("the clones", clone),
        ] {
            let of_a_lock = !matches!(what, "clients' worst commit, whole run");
            if durations.is_empty() || (*way == Way::Control && of_a_lock) {
                continue;
            }
            report.add(SECTION, &name, way.name(), what, &set(durations));
        }
    }
    let [ours, _, shell, agent, control] = cases;
    let with_hook = "QEMU's guest agent with the MySQL hook";
    if dirty_mib > 0 {
        let what = format!("clients' worst commit, {dirty_mib} MB dirty, from the lock request on");
        report.ratio(&what, with_hook, &ours.from_lock, &agent.from_lock, Some(0.06));
        let what = format!("clients' worst commit, {dirty_mib} MB dirty, whole run");
        report.ratio(&what, with_hook, &ours.worst, &agent.worst, Some(0.2));
        report.ratio(&what, "shell", &ours.worst, &shell.worst, None);
        return;
    }
    let what = "hold less the provider's call";
    report.ratio(what, "shell", &ours.hold, &shell.hold, Some(0.1));
    let what = "clients' worst commit, whole run";
    report.ratio(what, with_hook, &ours.worst, &agent.worst, Some(0.25));
    report.ratio(what, "shell", &ours.worst, &shell.worst, None);
    let hold = millis(set(&ours.hold).median());
    report.at_most("hold with MariaDB, less the provider's call", hold, 8.0, "ms");
    report.at_most(
        "clients' worst commit beyond an undisturbed control",
        millis(set(&ours.worst).median()) - millis(set(&control.worst).median()),
        20.0,
        "ms",
    );
}
