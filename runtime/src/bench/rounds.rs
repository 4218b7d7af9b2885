//! The rounds of a lab: every method in every round, in another order each time, so that what else
//! goes on on the machine befalls all of them alike.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{BenchDocument, Load, Measure, Method, Place, SCHEMA_VERSION, Set, ratios};
use super::lab::{self, Kind, Lab};
use super::machine::this_machine;
use super::measure::once;
use super::stats::Random;
use super::writers::Writers;
use super::{BenchError, Progress};
use crate::guard::LONGEST_WINDOW;
use crate::journal::RunLock;

/// Between two measurements: a superblock that was frozen a moment ago freezes faster.
const PAUSE: Duration = Duration::from_millis(150);
/// More than this, and a message with all their descriptors would be too long.
const MOST_FILE_SYSTEMS: usize = 64;
/// The file with dirty data on each.
const DIRTY: &str = "dirty";

/// What a lab is asked to measure.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Where images are made; they have no names there.
    pub directory: PathBuf,
    /// The installation's run directory: its lock is held, and nothing else of it is touched.
    pub run_dir: PathBuf,
    /// Type of the file systems.
    pub kind: Kind,
    /// How many are frozen at once, each number for itself; 1 to 64.
    pub counts: Vec<usize>,
    /// What goes on meanwhile.
    pub loads: Vec<Load>,
    /// How often each method freezes in each case.
    pub rounds: usize,
    /// Bytes of dirty data, over all file systems that are frozen, under [`Load::Dirty`].
    pub dirty_bytes: u64,
    /// What orders and draws are made from.
    pub seed: u64,
}

impl LabOptions {
    /// Bytes that the images may take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sizes().iter().sum()
    }

    fn sizes(&self) -> Vec<u64> {
        let dirty = if self.loads.contains(&Load::Dirty) { self.dirty_bytes } else { 0 };
        lab::sizes(self.kind, &self.counts, dirty)
    }

    fn check(&self) -> Result<(), BenchError> {
        let complain = |what: &str| Err(BenchError::Options(what.to_owned()));
        if self.rounds == 0 {
            return complain("no rounds are asked for");
        }
        if self.counts.is_empty() || self.loads.is_empty() {
            return complain("nothing is asked for: no number of file systems, or no load");
        }
        if self.counts.iter().any(|count| !(1..=MOST_FILE_SYSTEMS).contains(count)) {
            return complain("a lab has 1 to 64 file systems");
        }
        if self.loads.contains(&Load::AsItIs) {
            return complain("a lab makes its own load");
        }
        Ok(())
    }
}

/// What is frozen how often under which load.
type Cell = (Load, usize);
/// All values so far.
type Values = BTreeMap<(Load, Measure, usize, Method), Vec<u64>>;

/// Makes a lab, measures, and removes it.
///
/// It is called by a program's first thread, whose mounts are its own from then on, as are those of
/// all that it starts. If this process dies at any time, processes that it has started thaw what is
/// frozen, and everything is gone with them.
///
/// # Errors
/// If the lab cannot be made, a run is in progress, or a freeze goes wrong. Nothing is left then.
pub async fn lab(
    options: &LabOptions,
    progress: &dyn Progress,
) -> Result<BenchDocument, BenchError> {
    options.check()?;
    let started = jiff::Timestamp::now().to_string();
    let machine = this_machine();
    let run_id = format!("bench-{}", uuid::Uuid::new_v4());
    // Two at once would take each other's `rcu_expedited` for the machine's own, and a snapshot
    // beside this would be in its figures, and it in the snapshot's window.
    let _lock = RunLock::acquire_after_recovery(&options.run_dir, &run_id).await?;
    let mut notes = Vec::new();
    let methods = methods(&mut notes);
    progress.stage("making the lab");
    let mut lab = Lab::make(options.kind, &options.sizes(), &options.directory, &options.run_dir)?;
    if options.loads.contains(&Load::Dirty) {
        progress.stage("writing what will be overwritten");
        lay_out(&lab, options)?;
    }
    lab.count_extents();
    let mut random = Random::seeded(options.seed);
    let values = all_rounds(&lab, options, &methods, &mut random, progress).await?;
    let sets: Vec<Set> = values
        .into_iter()
        .map(|((load, measure, count, method), values)| {
            Set::new(measure, method, load, count, values)
        })
        .collect();
    if options.loads.contains(&Load::Dirty) {
        notes.push(format!(
            "Dirty data: {} MiB over the file systems of a case, overwritten before each freeze, \
             if the kernel lets so much wait for the disk.",
            options.dirty_bytes >> 20
        ));
    }
    Ok(BenchDocument {
        schema_version: SCHEMA_VERSION,
        stillpoint: env!("CARGO_PKG_VERSION").to_owned(),
        place: Place::Lab,
        started,
        seed: options.seed,
        rounds: options.rounds,
        machine,
        file_systems: lab.told(),
        ratios: ratios(&sets, &mut Random::seeded(options.seed)),
        sets,
        notes,
    })
}

/// Those that can be compared here.
fn methods(notes: &mut Vec<String>) -> Vec<Method> {
    let mut methods = vec![Method::Stillpoint, Method::NoRehearsal, Method::Cold, Method::Bare];
    if lab::is_installed("fsfreeze") {
        methods.push(Method::Fsfreeze);
    } else {
        notes.push(
            "fsfreeze is not installed (package util-linux), and so not compared.".to_owned(),
        );
    }
    methods
}

async fn all_rounds(
    lab: &Lab,
    options: &LabOptions,
    methods: &[Method],
    random: &mut Random,
    progress: &dyn Progress,
) -> Result<Values, BenchError> {
    let mut values = Values::new();
    let all = options.loads.len() * options.rounds * options.counts.len() * methods.len();
    let mut done = 0;
    for &load in &options.loads {
        for _ in 0..options.rounds {
            for &count in &options.counts {
                let mut order = methods.to_vec();
                random.shuffle(&mut order);
                for method in order {
                    progress.step(
                        done,
                        all,
                        &format!(
                            "{count} {}, {}, {}",
                            options.kind.name(),
                            load.name(),
                            method.name()
                        ),
                    );
                    one_round(lab, options, (load, count), method, &mut values).await?;
                    done += 1;
                }
            }
        }
    }
    progress.step(done, all, "done");
    Ok(values)
}

async fn one_round(
    lab: &Lab,
    options: &LabOptions,
    (load, count): Cell,
    method: Method,
    values: &mut Values,
) -> Result<(), BenchError> {
    lab.lifeline.beat()?;
    if load == Load::Dirty {
        make_dirty(lab, count, options.dirty_bytes)?;
    }
    let writers = match load {
        Load::Idle => None,
        _ => Some(Writers::start(points(lab, count))?),
    };
    tokio::time::sleep(PAUSE).await;
    let frozen = once(lab, count, method, LONGEST_WINDOW).await?;
    let mut add = |measure, value| {
        values.entry((load, measure, count, method)).or_default().push(value);
    };
    add(Measure::Window, frozen.window_ns);
    if let Some(writers) = writers {
        add(Measure::Stall, writers.longest(frozen.began_ns, frozen.ended_ns)?);
    }
    Ok(())
}

fn points(lab: &Lab, count: usize) -> Vec<PathBuf> {
    lab.file_systems[..count].iter().map(|fs| fs.mount_point.clone()).collect()
}

/// Files as large as any case will overwrite, on the disk: to allocate blocks is another thing than
/// to write.
fn lay_out(lab: &Lab, options: &LabOptions) -> Result<(), BenchError> {
    let mut counts = options.counts.clone();
    counts.sort_unstable();
    for count in counts {
        make_dirty(lab, count, options.dirty_bytes)?;
        for mount in &lab.mounts[..count] {
            nix::unistd::syncfs(mount)
                .map_err(std::io::Error::from)
                .map_err(BenchError::system("flush a file system of the lab"))?;
        }
        lab.lifeline.beat()?;
    }
    Ok(())
}

fn make_dirty(lab: &Lab, count: usize, bytes: u64) -> Result<(), BenchError> {
    let share = bytes / u64::try_from(count.max(1)).unwrap_or(1);
    for point in points(lab, count) {
        let path = point.join(DIRTY);
        write_over(&path, share).map_err(BenchError::system(format!(
            "write {} MiB to {}",
            share >> 20,
            path.display()
        )))?;
    }
    Ok(())
}

/// From its begin, and without making it any shorter or waiting for the disk.
fn write_over(path: &Path, bytes: u64) -> std::io::Result<()> {
    let mebibyte = vec![0x5a; 1 << 20];
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(mebibyte.len());
        file.write_all(&mebibyte[..now])?;
        left -= now as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> LabOptions {
        LabOptions {
            directory: "/var/tmp".into(),
            run_dir: "/run/stillpoint".into(),
            kind: Kind::Ext4,
            counts: vec![1, 4],
            loads: vec![Load::Idle],
            rounds: 3,
            dirty_bytes: 1 << 30,
            seed: 1,
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_made() {
        assert!(options().check().is_ok());
        for wrong in [
            LabOptions { rounds: 0, ..options() },
            LabOptions { counts: Vec::new(), ..options() },
            LabOptions { counts: vec![1, 0], ..options() },
            LabOptions { counts: vec![65], ..options() },
            LabOptions { loads: Vec::new(), ..options() },
            LabOptions { loads: vec![Load::AsItIs], ..options() },
        ] {
            assert!(matches!(wrong.check(), Err(BenchError::Options(_))), "{wrong:?}");
        }
    }

    #[test]
    fn room_for_dirty_data_is_asked_for_only_if_there_will_be_any() {
        let idle = options().bytes();
        let dirty = LabOptions { loads: vec![Load::Idle, Load::Dirty], ..options() }.bytes();
        assert!(idle < 1 << 30 && dirty > 1 << 30, "{idle} {dirty}");
    }
}
