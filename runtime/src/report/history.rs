//! The records of the latest runs, for root alone.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::config::read::{ConfigError, OPEN_TO_OTHERS, read_trusted};
use crate::consistency::Level;
use crate::durable;
use crate::freeze::is_running;
use crate::paths::Paths;

use super::RunRecord;

/// How many runs are kept.
const KEPT: usize = 300;
/// The longest record that is read, in bytes: thousands of mounts fit.
const LONGEST: u64 = 16 << 20;
/// The shortest beginning of a run's id that names it.
const SHORTEST_ID: usize = 4;

/// Where the records of runs are.
#[derive(Clone, Debug)]
pub struct History {
    disk: PathBuf,
    /// For runs that may have left the disk's file system frozen.
    memory: PathBuf,
}

/// One run, in one line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its file.
    path: PathBuf,
    /// The beginning of its id.
    pub short_id: String,
    /// When it began, as in the file's name.
    pub started: String,
}

/// What came of one run, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// The run: what `stillpoint report` takes.
    pub run: String,
    /// When it began, UTC.
    pub started: String,
    /// The operator's name for the snapshot.
    pub name: String,
    /// The exit status of the process; absent if the record cannot be read.
    pub exit_code: Option<u8>,
    /// The snapshot that it made; absent if it made none.
    pub snapshot: Option<String>,
    /// The level that it reached.
    pub level: Option<Level>,
    /// Why there is no snapshot.
    pub error: Option<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, started, name, .. } = self;
        write!(f, "{run}  {started}  {name}  ")?;
        match (&self.level, &self.error) {
            (Some(level), _) => {
                write!(f, "{level}  {}", self.snapshot.as_deref().unwrap_or_default())?
            }
            (None, Some(error)) => write!(f, "FAILED: {error}")?,
            (None, None) => f.write_str("no snapshot")?,
        }
        match self.exit_code {
            Some(0) | None => Ok(()),
            Some(code) => write!(f, " (exit {code})"),
        }
    }
}

/// Why a run's record cannot be kept or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// No run is kept.
    #[error("no run is kept here yet")]
    Empty,
    /// None is called that.
    #[error("no run or snapshot is called \"{}\"", which.escape_debug())]
    Unknown {
        /// What was asked for.
        which: String,
    },
    /// More than one is.
    #[error("\"{}\" is the beginning of {count} runs", which.escape_debug())]
    Ambiguous {
        /// What was asked for.
        which: String,
        /// Of how many runs.
        count: usize,
    },
    /// It is not root's alone, or cannot be read.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// It is not what this version writes.
    #[error("{} is no record of a run that this version can read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It cannot be written, or the directory not be read.
    #[error("{} cannot be {act}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// `read` or `written`.
        act: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl HistoryError {
    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Empty => Some("`stillpoint snapshot` makes a run; each leaves a record".into()),
            Self::Unknown { .. } => Some(format!(
                "`stillpoint report --list` shows the runs that are kept, the latest {KEPT}"
            )),
            Self::Ambiguous { .. } => Some("give more of its id".into()),
            Self::File(error) => error.hint(),
            Self::Unreadable { path, .. } => Some(format!(
                "another version wrote it: use that one, or remove {}",
                path.display()
            )),
            Self::Io { .. } => None,
        }
    }
}

impl History {
    /// Of one installation.
    #[must_use]
    pub fn of(paths: &Paths) -> Self {
        Self { disk: paths.runs(), memory: paths.runs_in_memory() }
    }

    /// Keeps a record, and lets go of the oldest. To be called when nothing is held any more. After a
    /// run that failed the disk is asked first: on a file system that is still frozen, by us or by
    /// somebody else, a write would never end, and the record is kept in memory until the next reboot.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&self, record: &RunRecord) -> Result<PathBuf, HistoryError> {
        let to_disk = record.left_everything_running() || is_running(&self.disk);
        let directory = if to_disk { &self.disk } else { &self.memory };
        let path = directory.join(file_name(record));
        write(&path, record).map_err(|source| HistoryError::Io {
            path: path.clone(),
            act: "written",
            source,
        })?;
        if *directory == self.disk {
            self.forget_the_oldest();
        }
        Ok(path)
    }

    /// A record that cannot be removed is there for longer; it is tried again after the next run.
    fn forget_the_oldest(&self) {
        for old in self.list().unwrap_or_default().iter().skip(KEPT) {
            let _ = durable::remove_if_there(&old.path);
        }
    }

    /// The runs that are kept, latest first.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Line>, HistoryError> {
        let mut lines = Vec::new();
        for directory in [&self.disk, &self.memory] {
            let failed = |source| HistoryError::Io { path: directory.clone(), act: "read", source };
            let entries = match fs::read_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            for entry in entries {
                lines.extend(line_of(&entry.map_err(failed)?.path()));
            }
        }
        lines.sort_by(|a, b| (&b.started, &b.short_id).cmp(&(&a.started, &a.short_id)));
        Ok(lines)
    }

    /// The record of a line.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, line: &Line) -> Result<RunRecord, HistoryError> {
        let bytes = read_trusted(&line.path, OPEN_TO_OTHERS, LONGEST)?;
        serde_json::from_slice(&bytes)
            .map_err(|source| HistoryError::Unreadable { path: line.path.clone(), source })
    }

    /// What came of each run that is kept, latest first.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn summaries(&self) -> Result<Vec<Summary>, HistoryError> {
        Ok(self.list()?.iter().map(|line| self.summary(line)).collect())
    }

    fn summary(&self, line: &Line) -> Summary {
        let (run, started) = (line.short_id.clone(), line.started.clone());
        let mut summary = Summary {
            run,
            started,
            name: String::new(),
            exit_code: None,
            snapshot: None,
            level: None,
            error: None,
        };
        match self.read(line) {
            Err(unreadable) => summary.error = Some(unreadable.to_string()),
            Ok(record) => {
                summary.level = record.level();
                summary.exit_code = Some(record.exit_code);
                summary.name = record.name;
                summary.snapshot = record.manifest.map(|manifest| manifest.group);
                summary.error = record.error.map(|error| match error.during {
                    Some(step) => format!("{step}: {}", error.message),
                    None => error.message,
                });
            }
        }
        summary
    }

    /// The latest run.
    ///
    /// # Errors
    /// If there is none, or its record cannot be read.
    pub fn latest(&self) -> Result<RunRecord, HistoryError> {
        self.read(self.list()?.first().ok_or(HistoryError::Empty)?)
    }

    /// The run with this id, or the beginning of it, or the one that made this snapshot.
    ///
    /// # Errors
    /// If there is none, more than one, or its record cannot be read.
    pub fn find(&self, which: &str) -> Result<RunRecord, HistoryError> {
        let lines = self.list()?;
        let by_id: Vec<&Line> = lines.iter().filter(|line| line.is_called(which)).collect();
        match by_id[..] {
            [line] => return self.read(line),
            [] => {}
            _ => {
                return Err(HistoryError::Ambiguous {
                    which: which.to_owned(),
                    count: by_id.len(),
                });
            }
        }
        let made = |record: &RunRecord| {
            record.manifest.as_ref().is_some_and(|manifest| manifest.group == which)
        };
        lines
            .iter()
            .filter_map(|line| self.read(line).ok())
            .find(made)
            .ok_or_else(|| HistoryError::Unknown { which: which.to_owned() })
    }
}

impl Line {
    fn is_called(&self, which: &str) -> bool {
        which.len() >= SHORTEST_ID
            && (self.short_id.starts_with(which) || which.starts_with(&self.short_id))
    }
}

/// `20261120T110322Z-d9b53942.json`: in the order of time, and recognised by whoever has the id.
fn file_name(record: &RunRecord) -> String {
    let started: String =
        record.started.chars().take(19).filter(char::is_ascii_alphanumeric).collect();
    format!("{started}Z-{}.json", record.short_id())
}

fn line_of(path: &Path) -> Option<Line> {
    let (started, short_id) = path.file_name()?.to_str()?.strip_suffix(".json")?.split_once('-')?;
    let (started, short_id) = (started.to_owned(), short_id.to_owned());
    (!started.starts_with('.')).then(|| Line { path: path.to_owned(), short_id, started })
}

fn write(path: &Path, record: &RunRecord) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    durable::write_whole(&path.with_extension("partial"), path, &serde_json::to_vec(record)?)
}
