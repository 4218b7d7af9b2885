//! What a reader who knows nothing of stillpoint wants to know first: was there a snapshot, why not,
//! does everything run again, and what is to be done.

use crate::consistency::Level;
use crate::output::human::duration;

use super::RunRecord;
use super::lanes::{hold, window};

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Lower,
    Bad,
}

impl Tone {
    /// The class of the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Lower => "lower",
            Tone::Bad => "bad",
        }
    }

    /// The sign beside the words: colour alone says nothing in print, or to many readers.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Tone::Good => "✓",
            Tone::Lower => "!",
            Tone::Bad => "✕",
        }
    }
}

/// What came of it, in three answers.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) tone: Tone,
    pub(super) headline: String,
    pub(super) what: Vec<String>,
    /// Everything runs again, as far as is known.
    pub(super) runs_again: bool,
    pub(super) machine: Vec<String>,
    pub(super) next: Vec<String>,
}

/// What came of a run.
pub(super) fn verdict(record: &RunRecord) -> Verdict {
    let (tone, headline) = headline(record);
    Verdict {
        tone,
        headline,
        what: what(record),
        runs_again: runs_again(record),
        machine: machine(record),
        next: next(record),
    }
}

fn headline(record: &RunRecord) -> (Tone, String) {
    let during = record.error.as_ref().and_then(|error| error.during.as_deref());
    if !record.maybe_frozen.is_empty() {
        return (Tone::Bad, "File systems may still be frozen".to_owned());
    }
    match (&record.manifest, during) {
        (None, Some(step)) => (Tone::Bad, format!("No snapshot: {step} failed")),
        (None, None) => (Tone::Bad, "No snapshot: the run could not begin".to_owned()),
        (Some(_), _) if record.exit_code != 0 => {
            (Tone::Bad, "A snapshot was made, but not all went well after it".to_owned())
        }
        (Some(manifest), _) => match manifest.level {
            Level::Application => (Tone::Good, "An application-consistent snapshot".to_owned()),
            Level::FileSystem => {
                (Tone::Lower, "A snapshot, but only file-system-consistent".to_owned())
            }
            Level::Crash => (Tone::Lower, "A snapshot, but only as after a power cut".to_owned()),
        },
    }
}

fn what(record: &RunRecord) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(error) = &record.error {
        let doing = error.during.as_deref().and_then(doing);
        lines.extend(doing.map(|doing| format!("The run failed while {doing}:")));
        lines.push(error.message.clone());
        lines.extend(error.causes.iter().map(|cause| format!("because: {cause}")));
    }
    if let Some(manifest) = &record.manifest {
        lines.push(match manifest.level {
            Level::Application => "Restored, databases find every acknowledged commit, and nothing to roll back.".into(),
            Level::FileSystem => "Restored, file systems are clean, but databases recover as after a crash: applications were not held all the time.".into(),
            Level::Crash => "Restored, file systems and databases recover as after a power cut.".into(),
        });
        lines.extend(manifest.reasons.iter().map(|reason| format!("Why not higher: {reason}")));
    }
    lines.extend(record.problems.iter().cloned());
    lines
}

fn runs_again(record: &RunRecord) -> bool {
    record.maybe_frozen.is_empty()
        && record.not_released.is_empty()
        && record.file_systems().iter().all(|fs| fs.writable_after)
}

fn machine(record: &RunRecord) -> Vec<String> {
    let mut lines = vec![format!("{}.", capital(&record.state))];
    lines.push(match (window(record), hold(record)) {
        (Some(window), Some(hold)) => format!(
            "File systems were frozen for {}, applications held for {}.",
            duration(window.length()),
            duration(hold.length())
        ),
        (Some(window), None) => {
            format!("File systems were frozen for {}.", duration(window.length()))
        }
        (None, Some(hold)) => format!(
            "Applications were held for {}; no file system was frozen for the snapshot.",
            duration(hold.length())
        ),
        (None, None) => "No application was held, and nothing was frozen for the snapshot.".into(),
    });
    lines
}

fn next(record: &RunRecord) -> Vec<String> {
    if let Some(hint) = record.error.as_ref().and_then(|error| error.hint.as_ref()) {
        let mut lines = vec![capital(hint)];
        lines.extend(again(record));
        return lines;
    }
    if !runs_again(record) {
        return vec!["Run `stillpoint status`, then `stillpoint recover`.".to_owned()];
    }
    match &record.manifest {
        None => vec!["Correct the cause above, then run it again: `stillpoint plan` says what a run would do, and touches nothing.".to_owned()],
        Some(manifest) if manifest.level < Level::Application => vec![
            "Take away the reason, and the next run reaches more: `stillpoint plan` says what a run can reach.".to_owned(),
            format!("To restore this one: `stillpoint restore {}`.", manifest.group),
        ],
        Some(manifest) => vec![format!("Nothing. To restore it: `stillpoint restore {}`.", manifest.group)],
    }
}

/// The command of this run; `None` where a shell would read its name as more than a word.
fn again(record: &RunRecord) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let plain = !record.name.starts_with('-') && record.name.chars().all(is_plain);
    (plain && runs_again(record))
        .then(|| format!("Then, again: `stillpoint snapshot --name {}`.", record.name))
}

/// A step, for whoever has never heard of it.
pub(super) fn doing(step: &str) -> Option<&'static str> {
    Some(match step {
        "plan" => "working out what is to be frozen, with nothing touched yet",
        "prepare" => "looking at the applications and the disks, with nothing held yet",
        "flush" => "writing out in small steps what is in memory, with nothing held yet",
        "arm" => "starting the processes that thaw whatever happens, with nothing held yet",
        "sync" => "writing out the rest of what is in memory, with nothing held yet",
        "rehearse" => "freezing and thawing everything once, before any application is held",
        "quiesce" => "asking applications to hold still",
        "freeze" => "freezing the file systems",
        "snapshot" => "asking the provider for the snapshot",
        "thaw" => "thawing the file systems",
        "confirm" => "having the hooks prove that they had held all the time",
        "release" => "letting the applications go on",
        "settle" => "waiting for the snapshot to be complete, with nothing held any more",
        _ => return None,
    })
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
