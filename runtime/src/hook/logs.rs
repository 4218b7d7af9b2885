//! What hooks log. Kept in a bounded ring in memory, because nothing may be written to a disk while
//! file systems are frozen; handed on when the caller says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::Phase;
use super::text::clean;

const LONGEST_LINE: usize = 4000;

/// Lines that are kept of one hook, however short: an empty one takes memory, too.
const MOST_LINES: usize = 2000;

/// One line that a hook logged; cleaned of control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The hook.
    pub hook: String,
    /// Its version.
    pub version: String,
    /// In which phase.
    pub phase: Phase,
    /// How much it matters.
    pub level: LogLevel,
    /// The text, with the fields behind it as `name=value`.
    pub message: String,
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For the hook's author.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// What happens.
    Info,
    /// What the operator should look at.
    Warn,
    /// What went wrong.
    Error,
}

/// What [`HookLogs::drain`] gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainedLog {
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// Bytes of older lines that were dropped since the last time, because the ring was full.
    pub dropped_bytes: u64,
}

/// The log of all hooks of one run. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct HookLogs(Arc<Mutex<Rings>>);

#[derive(Debug, Default)]
struct Rings {
    lines: VecDeque<LogLine>,
    kept: BTreeMap<String, Kept>,
    dropped_bytes: u64,
}

/// How much of one hook's log is kept.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    lines: usize,
    bytes: usize,
}

impl HookLogs {
    /// Takes out everything that is there. Writes nothing anywhere.
    #[must_use]
    pub fn drain(&self) -> DrainedLog {
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rings = std::mem::take(&mut *rings);
        DrainedLog { lines: rings.lines.into(), dropped_bytes: rings.dropped_bytes }
    }

    /// Hands everything that is there to `tracing`, and returns how many bytes had been dropped.
    /// Not to be called while file systems are frozen.
    pub fn forward(&self) -> u64 {
        let drained = self.drain();
        for LogLine { hook, version, phase, level, message } in &drained.lines {
            match level {
                LogLevel::Trace => tracing::trace!(hook, version, %phase, "{message}"),
                LogLevel::Debug => tracing::debug!(hook, version, %phase, "{message}"),
                LogLevel::Info => tracing::info!(hook, version, %phase, "{message}"),
                LogLevel::Warn => tracing::warn!(hook, version, %phase, "{message}"),
                LogLevel::Error => tracing::error!(hook, version, %phase, "{message}"),
            }
        }
        if drained.dropped_bytes > 0 {
            tracing::warn!(bytes = drained.dropped_bytes, "hooks logged more than is kept");
        }
        drained.dropped_bytes
    }

    /// Adds a line; drops that hook's oldest ones if it now has more than `most` bytes, or more lines
    /// than anybody reads.
    pub(crate) fn push(&self, mut line: LogLine, fields: &[(String, String)], most: usize) {
        for (name, value) in fields {
            line.message.push_str(&format!(" {name}={value}"));
        }
        line.message = clean(&line.message, LONGEST_LINE);
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hook = line.hook.clone();
        let kept = rings.kept.entry(hook.clone()).or_default();
        kept.lines += 1;
        kept.bytes += line.message.len();
        rings.lines.push_back(line);
        let too_much = |kept: &Kept| kept.bytes > most || kept.lines > MOST_LINES;
        while rings.kept.get(&hook).is_some_and(too_much) {
            rings.drop_oldest_of(&hook);
        }
    }
}

impl Rings {
    fn drop_oldest_of(&mut self, hook: &str) {
        let oldest = self.lines.iter().position(|line| line.hook == hook);
        let dropped = oldest.and_then(|at| self.lines.remove(at));
        let length = dropped.as_ref().map_or(0, |line| line.message.len());
        self.dropped_bytes += length as u64;
        match self.kept.get_mut(hook) {
            Some(kept) if dropped.is_some() => {
                kept.lines = kept.lines.saturating_sub(1);
                kept.bytes = kept.bytes.saturating_sub(length);
            }
            // Nothing left to drop: never loop on what cannot be reached.
            _ => drop(self.kept.remove(hook)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(hook: &str, message: &str) -> LogLine {
        LogLine {
            hook: hook.into(),
            version: "1".into(),
            phase: Phase::Prepare,
            level: LogLevel::Info,
            message: message.into(),
        }
    }

    #[test]
    fn a_full_ring_drops_the_oldest_of_that_hook_and_counts_exactly() {
        let logs = HookLogs::default();
        logs.push(line("quiet", "kept"), &[], 8);
        for message in ["aaaa", "bbbb", "cccc"] {
            logs.push(line("loud", message), &[], 8);
        }
        let drained = logs.drain();
        let messages: Vec<_> = drained.lines.iter().map(|line| line.message.as_str()).collect();
        assert_eq!(messages, ["kept", "bbbb", "cccc"]);
        assert_eq!(drained.dropped_bytes, 4);
        assert_eq!(logs.drain(), DrainedLog::default());
    }

    #[test]
    fn fields_follow_the_message_and_escapes_are_gone() {
        let logs = HookLogs::default();
        logs.push(line("a", "\u{1b}[1mbold"), &[("n".into(), "1\n2".into())], 99);
        assert_eq!(logs.drain().lines[0].message, "bold n=1 2");
    }

    #[test]
    fn empty_lines_neither_fill_the_memory_nor_make_room_for_more_bytes() {
        let logs = HookLogs::default();
        for _ in 0..3 * MOST_LINES {
            logs.push(line("a", ""), &[], 8);
            logs.push(line("a", "1234"), &[], 8);
        }
        let drained = logs.drain();
        assert!(drained.lines.len() <= MOST_LINES, "{} lines", drained.lines.len());
        let bytes: usize = drained.lines.iter().map(|line| line.message.len()).sum();
        assert!(bytes <= 8, "{bytes} bytes");
    }

    #[test]
    fn a_line_longer_than_the_ring_is_dropped_whole() {
        let logs = HookLogs::default();
        logs.push(line("a", "12345"), &[], 4);
        let drained = logs.drain();
        assert!(drained.lines.is_empty());
        assert_eq!(drained.dropped_bytes, 5);
    }
}
