//! The longest commit beside a run, with 500 MB dirty on the same file system: the paced flush and
//! its `syncfs`, against a `syncfs` that has it all to do. Three kinds of file, on ext4 and XFS.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use stillpoint_tests::file_writers::FileWriters;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::stats::Durations;
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Stillpoint};
use stillpoint_tests::writers::{Interval, now_ns};

use crate::report::Report;
use crate::{LONGEST, PAUSE, Rounds};

const DIRTY_MB: usize = 500;
const SECTION: &str = "Longest synced write beside a run, 500 MB dirty";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Its blocks are allocated; the writer has it open.
    Overwritten,
    /// Nothing is allocated yet; the writer has it open.
    New,
    /// The same, and nobody has it open any more.
    Closed,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Overwritten, Kind::New, Kind::Closed];

    fn name(self) -> &'static str {
        match self {
            Kind::Overwritten => "overwritten, open",
            Kind::New => "new, open",
            Kind::Closed => "new, closed",
        }
    }
}

/// How long the flush may take: as shipped, and so short that `syncfs` has it all.
const METHODS: [(&str, &str); 2] = [("paced flush", "10s"), ("syncfs alone", "1ms")];

pub fn measure(rounds: Rounds, report: &mut Report) -> Result<()> {
    for fs_type in [FsType::Ext4, FsType::Xfs] {
        let lab = Lab::new(&[FsSpec::new("dirty", fs_type, 1024)], LONGEST)?;
        let stillpoint = Stillpoint::new(&lab)?;
        for kind in Kind::ALL {
            let mut stalls = [Vec::new(), Vec::new()];
            for round in 0..rounds.few {
                for turn in 0..METHODS.len() {
                    // Who is first changes from round to round.
                    let method = (round + turn) % METHODS.len();
                    let stall = run_beside_commits(&lab, &stillpoint, kind, METHODS[method].1)?;
                    stalls[method].push(stall);
                }
            }
            let case = format!("{}, {}", fs_type.name(), kind.name());
            for ((name, _), stalls) in METHODS.into_iter().zip(stalls) {
                let stalls: Durations = stalls.into_iter().collect();
                report.add(SECTION, &case, name, "longest write", &stalls);
            }
        }
        lab.finish()?;
    }
    Ok(())
}

fn run_beside_commits(
    lab: &Lab,
    stillpoint: &Stillpoint,
    kind: Kind,
    flush: &str,
) -> Result<Duration> {
    let deadlines = format!("{NO_SCRIPTS}\n[deadlines]\nflush = \"{flush}\"\n");
    stillpoint.configure(&stillpoint.settings(lab, &deadlines))?;
    let mount = lab.mount("dirty");
    let open = make_dirty(&mount, kind)?;
    let writers = FileWriters::start_synced([&mount])?;
    std::thread::sleep(PAUSE);
    let began_ns = now_ns();
    let manifest = stillpoint.snapshot("bench", &[])?.succeeded()?.manifest()?;
    let interval = Interval { began_ns, ended_ns: now_ns() };
    let stall = writers.stop()?.durations_in(interval).max();
    drop(open);
    stillpoint.delete(manifest.group()?)?;
    Ok(stall)
}

fn make_dirty(mount: &Path, kind: Kind) -> Result<Option<File>> {
    let path = mount.join("data");
    let is_new = kind != Kind::Overwritten;
    if is_new && path.exists() {
        std::fs::remove_file(&path)?;
    }
    let open = || File::options().write(true).create(true).truncate(false).open(&path);
    let mut file = open().with_context(|| format!("cannot make {}", path.display()))?;
    if kind == Kind::Overwritten && file.metadata()?.len() == 0 {
        write(&mut file)?;
        file = open()?;
    }
    nix::unistd::syncfs(File::open(mount)?)?;
    write(&mut file)?;
    Ok((kind != Kind::Closed).then_some(file))
}

fn write(file: &mut File) -> Result<()> {
    let megabyte = vec![0x5a_u8; 1_000_000];
    for _ in 0..DIRTY_MB {
        file.write_all(&megabyte)?;
    }
    Ok(())
}
