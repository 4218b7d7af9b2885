//! From before the first freeze to after the last thaw: stillpoint without hooks against
//! `fsfreeze -f`, then `-u`, one after another, as people write it in scripts.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use stillpoint_tests::command::run;
use stillpoint_tests::file_writers::FileWriters;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::stats::{Durations, millis};
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Stillpoint};
use stillpoint_tests::writers::{Interval, now_ns};

use crate::report::Report;
use crate::{LONGEST, PAUSE, Rounds};

const COUNTS: [usize; 3] = [1, 4, 16];

/// Dirty file data before a window, over all of its file systems.
const DIRTY_MIB: u64 = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Idle,
    /// A writer on each file system.
    Busy,
    /// A gigabyte of dirty data.
    Dirty,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Load::Idle => "idle",
            Load::Busy => "one writer each",
            Load::Dirty => "1 GiB dirty",
        }
    }
}

/// All rounds of one number of file systems under one load.
#[derive(Debug, Default)]
struct Case {
    ours: Vec<Duration>,
    ours_whole: Vec<Duration>,
    ours_stall: Vec<Duration>,
    theirs: Vec<Duration>,
    theirs_stall: Vec<Duration>,
}

pub fn measure(rounds: Rounds, report: &mut Report) -> Result<()> {
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
    for load in [Load::Idle, Load::Busy, Load::Dirty] {
        let mut cases: [Case; 3] = Default::default();
        let rounds = if load == Load::Dirty { rounds.few } else { rounds.many };
        for round in 0..rounds {
            for (case, count) in cases.iter_mut().zip(COUNTS) {
                // Who is first changes from round to round.
                for turn in 0..2 {
                    if (round + turn) % 2 == 0 {
                        ours(&lab, &stillpoint, count, load, case)?;
                    } else {
                        theirs(&lab, count, load, case)?;
                    }
                }
            }
        }
        for (case, count) in cases.into_iter().zip(COUNTS) {
            tell(count, load, case, report);
        }
    }
    lab.finish()
}

fn tell(count: usize, load: Load, case: Case, report: &mut Report) {
    let name = format!("{count} ext4, {}", load.name());
    let (section, ours, theirs) = ("Freeze windows", "stillpoint", "fsfreeze");
    let set = |durations: Vec<Duration>| durations.into_iter().collect::<Durations>();
    let (window, their_window) = (set(case.ours), set(case.theirs));
    report.add(section, &name, ours, "window less the provider's call", &window);
    report.add(section, &name, ours, "window with clones", &set(case.ours_whole));
    report.add(section, &name, theirs, "window, nothing copied", &their_window);
    if load == Load::Busy {
        report.add(section, &name, ours, "longest write, whole run", &set(case.ours_stall));
        report.add(section, &name, theirs, "longest write", &set(case.theirs_stall));
    }
    match (count, load) {
        (16, Load::Idle) => report.at_least(
            "fsfreeze's window, 16 idle file systems, as a multiple of ours",
            millis(their_window.median()) / millis(window.median()).max(1e-6),
            40.0,
            "times",
        ),
        (1, Load::Busy) => report.at_most(
            "window of one busy ext4, less the provider's call",
            millis(window.median()),
            5.0,
            "ms",
        ),
        _ => {}
    }
}

fn mounts(lab: &Lab, count: usize) -> Vec<PathBuf> {
    lab.file_systems().iter().take(count).map(|fs| fs.mount.clone()).collect()
}

fn ours(
    lab: &Lab,
    stillpoint: &Stillpoint,
    count: usize,
    load: Load,
    case: &mut Case,
) -> Result<()> {
    let list: Vec<String> =
        mounts(lab, count).iter().map(|mount| format!("\"{}\"", mount.display())).collect();
    stillpoint.configure(&format!("[snapshot]\nmounts = [{}]\n{NO_SCRIPTS}", list.join(", ")))?;
    let (manifest, stall) = under(load, &mounts(lab, count), || {
        stillpoint.snapshot("bench", &[])?.succeeded()?.manifest()
    })?;
    let whole = Duration::from_nanos(manifest.number("/timings/window_ns")?);
    let provider = Duration::from_nanos(manifest.number("/timings/provider_ns")?);
    case.ours.push(whole.saturating_sub(provider));
    case.ours_whole.push(whole);
    case.ours_stall.push(stall);
    stillpoint.delete(manifest.group()?)
}

fn theirs(lab: &Lab, count: usize, load: Load, case: &mut Case) -> Result<()> {
    let mounts = mounts(lab, count);
    let (window, stall) = under(load, &mounts, || {
        let began = Instant::now();
        for mount in &mounts {
            run("fsfreeze", [Path::new("-f"), mount])?;
        }
        for mount in mounts.iter().rev() {
            run("fsfreeze", [Path::new("-u"), mount])?;
        }
        Ok(began.elapsed())
    })?;
    case.theirs.push(window);
    case.theirs_stall.push(stall);
    Ok(())
}

/// Does it under the load; also the longest write that was under way meanwhile.
fn under<T>(
    load: Load,
    mounts: &[PathBuf],
    what: impl FnOnce() -> Result<T>,
) -> Result<(T, Duration)> {
    if load == Load::Dirty {
        make_dirty(mounts)?;
    }
    let writers = if load == Load::Busy { Some(FileWriters::start(mounts)?) } else { None };
    std::thread::sleep(PAUSE);
    let began_ns = now_ns();
    let done = what()?;
    let interval = Interval { began_ns, ended_ns: now_ns() };
    let stall = match writers {
        Some(writers) => writers.stop()?.durations_in(interval).max(),
        None => Duration::ZERO,
    };
    Ok((done, stall))
}

fn make_dirty(mounts: &[PathBuf]) -> Result<()> {
    let mebibyte = vec![0x5a_u8; 1 << 20];
    let share = DIRTY_MIB / mounts.len() as u64;
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
