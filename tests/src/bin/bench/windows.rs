//! From before the first freeze to after the last thaw: stillpoint without hooks, its guard without
//! flush and rehearsal, `fsfreeze` in a script, QEMU's guest agent, and the bare system calls.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use stillpoint_tests::file_writers::FileWriters;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::peers::{QemuGa, ioctls, shell};
use stillpoint_tests::stats::{Durations, millis};
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Stillpoint};
use stillpoint_tests::writers::{Interval, now_ns};

use crate::guarded::{self, Steps};
use crate::order::Order;
use crate::report::{COUNTS, Report};
use crate::{LONGEST, PAUSE, Rounds};

const SECTION: &str = "Freeze windows";

/// The clones leave the images in more pieces each time, so that no lab is used for long.
const ROUNDS_OF_A_LAB: usize = 13;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Idle,
    /// A writer on each file system.
    Busy,
    /// A gigabyte of dirty data, over all of them.
    Dirty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Ours,
    /// Ours, without flush and rehearsal.
    Hasty,
    Fsfreeze,
    QemuGa,
    /// Bare system calls in parallel threads.
    Cold,
    /// The same, a moment after it was done once.
    Warm,
}

impl Way {
    const ALL: [Self; 6] =
        [Self::Ours, Self::Hasty, Self::Fsfreeze, Self::QemuGa, Self::Cold, Self::Warm];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "stillpoint",
            Self::Hasty => "stillpoint's guard without sync and rehearsal",
            Self::Fsfreeze => "fsfreeze, one after another",
            Self::QemuGa => "QEMU's guest agent",
            Self::Cold => "bare ioctls in parallel, cold",
            Self::Warm => "bare ioctls in parallel, warm",
        }
    }

    /// Which windows are compared, exactly.
    fn window(self) -> &'static str {
        match self {
            Self::Ours => "window less the clones",
            Self::QemuGa => "request to the thaw's answer",
            _ => "window, nothing copied",
        }
    }
}

/// All rounds of one way with one number of file systems under one load.
#[derive(Debug, Default)]
struct Case {
    windows: Vec<Duration>,
    /// With the clones; ours alone.
    whole: Vec<Duration>,
    stalls: Vec<Duration>,
}

type Cases = [[Case; 6]; 3];

struct Bench {
    lab: Lab,
    stillpoint: Stillpoint,
    agent: QemuGa,
    dirty_mib: u64,
}

pub async fn measure(rounds: Rounds, order: &mut Order, report: &mut Report) -> Result<()> {
    for load in [Load::Idle, Load::Busy, Load::Dirty] {
        let mut cases = Cases::default();
        let mut left = if load == Load::Dirty { rounds.few } else { rounds.each };
        while left > 0 {
            let many = left.min(ROUNDS_OF_A_LAB);
            one_lab(load, many, rounds, order, &mut cases, report).await?;
            left -= many;
        }
        for (cases, count) in cases.iter().zip(COUNTS) {
            tell(count, load, rounds.dirty_mib, cases, report);
        }
    }
    Ok(())
}

async fn one_lab(
    load: Load,
    many: usize,
    rounds: Rounds,
    order: &mut Order,
    cases: &mut Cases,
    report: &mut Report,
) -> Result<()> {
    let specs: Vec<FsSpec> = (0..16)
        .map(|index| {
            // Enough for its share of the dirty data.
            let mib = match index {
                0 => 1536,
                1..4 => 512,
                _ => 192,
            };
            FsSpec::new(format!("fs{index}"), FsType::Ext4, mib)
        })
        .collect();
    let lab = Lab::new(&specs, LONGEST)?;
    let stillpoint = Stillpoint::new(&lab)?;
    let agent = QemuGa::start(&lab)?;
    let mut bench = Bench { agent, stillpoint, lab, dirty_mib: rounds.dirty_mib };
    let name = format!("windows, {}", load_name(load, rounds.dirty_mib));
    report.extents(&name, "start", &bench.lab)?;
    for _ in 0..many {
        for (cases, count) in cases.iter_mut().zip(COUNTS) {
            for turn in order.of(Way::ALL.len()) {
                let way = Way::ALL[turn];
                if load == Load::Dirty && matches!(way, Way::Cold | Way::Warm) {
                    continue;
                }
                bench.one(way, count, load, &mut cases[turn]).await?;
            }
        }
    }
    report.extents(&name, "end", &bench.lab)?;
    drop(bench.agent);
    bench.lab.finish()
}

impl Bench {
    async fn one(&mut self, way: Way, count: usize, load: Load, case: &mut Case) -> Result<()> {
        let mounts: Vec<PathBuf> =
            self.lab.file_systems().iter().take(count).map(|fs| fs.mount.clone()).collect();
        if way == Way::Ours {
            let list: Vec<String> =
                mounts.iter().map(|mount| format!("\"{}\"", mount.display())).collect();
            let mounts = list.join(", ");
            let text = format!("[snapshot]\nmounts = [{mounts}]\n{NO_SCRIPTS}");
            self.stillpoint.configure(&text)?;
        }
        if load == Load::Dirty {
            make_dirty(&mounts, self.dirty_mib)?;
        }
        let writers = if load == Load::Busy { Some(FileWriters::start(&mounts)?) } else { None };
        tokio::time::sleep(PAUSE).await;
        if way == Way::Warm {
            ioctls::window(&mounts)?;
        }
        let began_ns = now_ns();
        let done = self.window(way, &mounts, case).await;
        let interval = Interval { began_ns, ended_ns: now_ns() };
        if let Some(writers) = writers {
            case.stalls.push(writers.stop()?.durations_in(interval).max());
        }
        match done? {
            Some(group) => self.stillpoint.delete(&group),
            None => Ok(()),
        }
    }

    /// The group that there is then.
    async fn window(
        &mut self,
        way: Way,
        mounts: &[PathBuf],
        case: &mut Case,
    ) -> Result<Option<String>> {
        let hasty = Steps { expedite_rcu: true, sync: false, rehearse: false };
        let window = match way {
            Way::Ours => return self.ours(case).map(Some),
            Way::Hasty => guarded::window(&self.lab, mounts, hasty).await?,
            Way::Fsfreeze => shell::window(mounts)?,
            Way::QemuGa => self.agent.window(mounts)?,
            Way::Cold | Way::Warm => ioctls::window(mounts)?,
        };
        case.windows.push(window);
        Ok(None)
    }

    fn ours(&self, case: &mut Case) -> Result<String> {
        let manifest = self.stillpoint.snapshot("bench", &[])?.succeeded()?.manifest()?;
        let whole = Duration::from_nanos(manifest.number("/timings/window_ns")?);
        let provider = Duration::from_nanos(manifest.number("/timings/provider_ns")?);
        case.windows.push(whole.saturating_sub(provider));
        case.whole.push(whole);
        Ok(manifest.group()?.to_owned())
    }
}

fn load_name(load: Load, dirty_mib: u64) -> String {
    match load {
        Load::Idle => "idle".into(),
        Load::Busy => "one writer each".into(),
        Load::Dirty => format!("{dirty_mib} MiB dirty"),
    }
}

fn tell(count: usize, load: Load, dirty_mib: u64, cases: &[Case; 6], report: &mut Report) {
    let set = |durations: &[Duration]| durations.iter().copied().collect::<Durations>();
    let name = format!("{count} ext4, {}", load_name(load, dirty_mib));
    for (way, case) in Way::ALL.iter().zip(cases) {
        if case.windows.is_empty() {
            continue;
        }
        report.add(SECTION, &name, way.name(), way.window(), &set(&case.windows));
        if *way == Way::Ours {
            report.add(SECTION, &name, way.name(), "window with the clones", &set(&case.whole));
        }
        if load == Load::Busy {
            let what = match way {
                Way::Ours => "longest write, whole run, clones included",
                _ => "longest write",
            };
            report.add(SECTION, &name, way.name(), what, &set(&case.stalls));
        }
    }
    let [ours, _, fsfreeze, agent, _, warm] = cases;
    match (count, load) {
        (16, Load::Idle) => {
            let what = "window, 16 idle file systems";
            report.ratio(what, "fsfreeze", &ours.windows, &fsfreeze.windows, Some(0.02));
            report.ratio(what, "QEMU's guest agent", &ours.windows, &agent.windows, Some(0.03));
            report.ratio(what, "bare ioctls, warm", &ours.windows, &warm.windows, None);
        }
        (16, Load::Busy) => {
            let what = "writers' worst stall, 16 busy file systems";
            report.ratio(what, "fsfreeze", &ours.stalls, &fsfreeze.stalls, Some(0.05));
            report.ratio(what, "QEMU's guest agent", &ours.stalls, &agent.stalls, Some(0.05));
        }
        (1, Load::Busy) => report.at_most(
            "window of one busy ext4, less the provider's call",
            millis(set(&ours.windows).median()),
            5.0,
            "ms",
        ),
        _ => {}
    }
}

fn make_dirty(mounts: &[PathBuf], mib: u64) -> Result<()> {
    let mebibyte = vec![0x5a_u8; 1 << 20];
    let share = mib / mounts.len() as u64;
    for mount in mounts {
        let path = mount.join("dirty");
        let mut file = std::fs::File::create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        for _ in 0..share {
            file.write_all(&mebibyte)?;
        }
    }
    Ok(())
}
