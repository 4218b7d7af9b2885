//! What the plug-in says: lines on standard output, the same lines and more in the log; neither is
//! written to while a file system may be frozen.

use std::io::{Stdout, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stillpoint::exit_code::ExitCode;
use stillpoint::manifest::{StepRecord, StepResult};
use stillpoint::output::human;
use stillpoint::plan::{Inventory, Plan, find_owner};
use stillpoint::plugin::lines::{self, Console, Severity};
use stillpoint::plugin::log_file::LogFile;
use stillpoint::sequence::{Event, Observer, Step};

use super::end::End;

/// Where the manager says that the plug-in's own directory is.
const PLUGIN_DIRECTORY: &str = "PLUGIN_DIR";

/// The log's name, in whichever directory.
const LOG: &str = "plugin.log";

#[derive(Debug)]
struct Inner {
    console: Option<Console<Stdout>>,
    log: LogFile,
    /// Where the log may be, best first; the last is on a tmpfs that is never frozen.
    candidates: Vec<PathBuf>,
    /// Where it is.
    place: Option<PathBuf>,
}

/// The voice of one run; clones speak with it.
#[derive(Clone, Debug)]
pub struct Voice(Arc<Mutex<Inner>>);

impl Voice {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            console: Some(Console::new(std::io::stdout())),
            log: LogFile::default(),
            candidates: Vec::new(),
            place: None,
        })))
    }

    pub fn log(&self) -> LogFile {
        self.inner().log.clone()
    }

    /// Where the log shall be: where the operator says; else beside the plug-in; else in `run`. It
    /// is opened when it is known what is frozen.
    pub fn log_at(&self, asked: Option<&Path>, run: &Path) {
        let beside = || {
            let directory = PathBuf::from(std::env::var_os(PLUGIN_DIRECTORY)?);
            directory.is_absolute().then(|| directory.join("log").join(LOG))
        };
        let wanted = asked.map(Path::to_owned).or_else(beside);
        let fallback = run.join("log").join(LOG);
        self.inner().candidates = wanted.into_iter().chain([fallback]).collect();
    }

    pub fn info(&self, message: String) {
        self.inner().say(Severity::Info, &message);
    }

    pub fn warn(&self, message: String) {
        self.inner().say(Severity::Warning, &message);
    }

    /// Says the end, and gives the exit code.
    pub fn finish(&self, end: End) -> ExitCode {
        let mut inner = self.inner();
        inner.log.resume();
        if let Some(console) = &mut inner.console {
            console.resume();
        }
        inner.open_log(|_| false);
        for (severity, message) in &end.lines {
            inner.say(*severity, message);
        }
        if let Some(document) = &end.document {
            let _ = writeln!(inner.log, "{document}");
        }
        let last_line = end.last_line(&now());
        let _ = inner.log.write_all(last_line.as_bytes());
        let place = inner.place.as_deref().unwrap_or(Path::new("no log: none could be opened"));
        let place = place.display().to_string();
        if let Some(console) = inner.console.take() {
            console.finish(&place, &last_line);
        }
        end.code
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn say(&mut self, severity: Severity, message: &str) {
        let time = now();
        let _ = self.log.write_all(lines::whole_line(severity, &time, message).as_bytes());
        if let Some(console) = &mut self.console {
            console.say(lines::line(severity, &time, message));
        }
    }

    /// Opens the log, once.
    fn open_log(&mut self, is_frozen: impl Fn(&Path) -> bool) {
        if self.place.is_some() {
            return;
        }
        let (place, refused) = self.log.open(&self.candidates, is_frozen);
        for error in refused {
            let because = human::causes(std::error::Error::source(&error));
            let _ = writeln!(self.log, "not the log: {error}\n{because}");
        }
        if let Some(place) = &place {
            self.say(Severity::Info, &format!("Details: {}", place.display()));
        }
        self.place = place;
    }

    fn planned(&mut self, plan: &Plan) {
        let inventory = Inventory::collect();
        // What cannot be judged is taken for frozen.
        self.open_log(|path| match &inventory {
            Ok(inventory) => find_owner(inventory, plan, path).map_or(true, |owner| owner.frozen),
            Err(_) => true,
        });
        for disk in &plan.disks {
            let line = format!("Attached DiskId={}, Device={}", disk.id, disk.node.display());
            self.say(Severity::Info, &line);
        }
        for fs in &plan.file_systems {
            let (mount, disks) = (fs.mount_point.display(), fs.disks.join(", "));
            self.say(Severity::Info, &format!("Freeze {mount} ({}) on {disks}", fs.fs_type));
        }
        for skipped in &plan.skipped {
            let (mount, reason) = (skipped.mount_point.display(), skipped.reason);
            let line = format!("Not frozen: {mount} ({}): {reason}", skipped.fs_type);
            if reason.lowers_the_level() {
                self.say(Severity::Warning, &line);
            } else {
                let _ = writeln!(self.log, "{line}");
            }
        }
    }

    fn began(&mut self, step: Step) {
        // Guards freeze for the first time after the one, and without file systems applications are
        // locked after the other.
        if matches!(step, Step::Arm | Step::Quiesce) {
            self.log.hold();
            if let Some(console) = &mut self.console {
                console.hold();
            }
        }
    }

    fn ended(&mut self, record: &StepRecord) {
        self.say(severity(record), &step_line(record));
        if record.step == Step::Release.to_string() && record.subject.is_none() {
            self.log.resume();
            if let Some(console) = &mut self.console {
                console.resume();
            }
        }
    }
}

impl Observer for Voice {
    fn event(&self, event: Event) {
        let mut inner = self.inner();
        match event {
            Event::Planned(plan) => inner.planned(&plan),
            Event::Began { step, subject: None } => inner.began(step),
            Event::Began { .. } => {}
            Event::Ended(record) => inner.ended(&record),
            Event::Warning(warning) => inner.say(Severity::Warning, &warning),
        }
    }
}

fn severity(record: &StepRecord) -> Severity {
    match record.result {
        StepResult::Failed | StepResult::UndoFailed => Severity::Error,
        StepResult::Done | StepResult::Undone | StepResult::Skipped => Severity::Info,
    }
}

/// `quiesce mysql: done in 1.23 ms`, and what there is to say about it.
fn step_line(record: &StepRecord) -> String {
    let subject = record.subject.as_ref().map(|subject| format!(" {subject}")).unwrap_or_default();
    let took = human::duration(record.ended_ns.saturating_sub(record.began_ns));
    let result = match record.result {
        StepResult::Done => "done in",
        StepResult::Undone => "undone in",
        StepResult::Failed => "FAILED after",
        StepResult::UndoFailed => "UNDO FAILED after",
        StepResult::Skipped => "left out after",
    };
    let detail = record.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{}{subject}: {result} {took}{detail}", record.step)
}

/// The local time, in the original's form.
fn now() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S%.9f").to_string()
}
