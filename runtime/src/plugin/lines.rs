//! The lines of the original, `[level="info"][time="…"][message="…"]`, on a standard output that
//! somebody reads only up to 24 KB, and that may lie on a file system which is about to be frozen.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::io::Write;

/// What is written at most, in bytes: Cloud Assistant keeps 24 KB of a command's output, and the
/// original promised less than 20.
pub const OUTPUT_LIMIT: usize = 20_000;

/// How the limit is shared out: the first lines, the last lines, the line that says what is missing
/// between them, and the very last one.
const FIRST_LINES: usize = 8_000;
const LAST_LINES: usize = 7_000;
const GAP_LINE: usize = 400;
const LAST_LINE: usize = OUTPUT_LIMIT - FIRST_LINES - LAST_LINES - GAP_LINE - 100;

/// The longest message of an ordinary line, in bytes after escaping.
const LONGEST_MESSAGE: usize = 1_500;

/// The longest state, and the longest next step, in the last line of a run that failed.
const LONGEST_PART: usize = 1_000;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Info,
    /// The operator should know.
    Warning,
    /// The run failed, or something in it did.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One line, with its line end.
#[must_use]
pub fn line(severity: Severity, time: &str, message: &str) -> String {
    bounded_line(severity, time, message, LONGEST_MESSAGE)
}

/// As [`line`], however long it is: for the log.
#[must_use]
pub fn whole_line(severity: Severity, time: &str, message: &str) -> String {
    bounded_line(severity, time, message, usize::MAX)
}

fn bounded_line(severity: Severity, time: &str, message: &str, most: usize) -> String {
    let message = escaped(&fitted(message, most));
    format!("[level=\"{severity}\"][time=\"{time}\"][message=\"{message}\"]\n")
}

/// The last line of a run that left a group. Whoever runs the plug-in reads the id here.
#[must_use]
pub fn group_line(group: &str, message: &str) -> String {
    let group = escaped(&fitted(group, 200));
    let message = escaped(&fitted(message, LAST_LINE - 300));
    format!("[snapshotgroup=\"{group}\"][message=\"{message}\"]\n")
}

/// The last line of a run that failed: what failed, and then the state of the machine and the next
/// step, which are never lost behind a long cause.
#[must_use]
pub fn failure_line(time: &str, what: &str, then: &[String]) -> String {
    let then: String =
        then.iter().map(|part| format!("; {}", fitted(part, LONGEST_PART))).collect();
    let room = (LAST_LINE - 100).saturating_sub(escaped(&then).len());
    let message = format!("{}{then}", fitted(what, room));
    bounded_line(Severity::Error, time, &message, LAST_LINE - 100)
}

/// On one line and between quotes: quotes, backslashes and line ends escaped as in Go's strings;
/// control characters, terminal escapes and characters that change the direction of what follows
/// made visible.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            hidden if is_hidden(hidden) => {
                out.push_str(&format!("\\u{:04x}", u32::from(hidden)));
            }
            visible => out.push(visible),
        }
    }
    out
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// As much of a text as is at most `most` bytes long once it is escaped: never half of an escape.
fn fitted(text: &str, most: usize) -> Cow<'_, str> {
    if escaped(text).len() <= most {
        return Cow::Borrowed(text);
    }
    let mut room = most.saturating_sub('…'.len_utf8());
    let fits = |character: &char| {
        let length = escaped(character.encode_utf8(&mut [0; 4])).len();
        let fits = length <= room;
        room = room.saturating_sub(length);
        fits
    };
    let kept: String = text.chars().take_while(fits).collect();
    Cow::Owned(kept + "…")
}

/// Standard output, bounded: the first lines and the last ones, a count of what was left out between
/// them, and the last line, always whole. While it is held, nothing is written.
#[derive(Debug)]
pub struct Console<W> {
    out: W,
    held: bool,
    first: VecDeque<String>,
    room_for_first: usize,
    last: VecDeque<String>,
    last_bytes: usize,
    left_out: u64,
}

impl<W: Write> Console<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            held: false,
            first: VecDeque::new(),
            room_for_first: FIRST_LINES,
            last: VecDeque::new(),
            last_bytes: 0,
            left_out: 0,
        }
    }

    /// A line: written at once if there is room among the first ones and nothing is held, else kept.
    pub fn say(&mut self, line: String) {
        if self.last.is_empty() && self.left_out == 0 && line.len() <= self.room_for_first {
            self.room_for_first -= line.len();
            self.first.push_back(line);
            self.write_first();
            return;
        }
        self.last_bytes += line.len();
        self.last.push_back(line);
        while self.last_bytes > LAST_LINES {
            let Some(line) = self.last.pop_front() else { break };
            self.last_bytes -= line.len();
            self.left_out += 1;
        }
    }

    /// From now on nothing is written: file systems are about to be frozen, standard output may be a
    /// file on one of them, and a process that waits for such a write cannot be killed.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Nothing is frozen any more.
    pub fn resume(&mut self) {
        self.held = false;
        self.write_first();
    }

    /// Writes what was kept, and the last line. `details` says where all of it is.
    pub fn finish(mut self, details: &str, last_line: &str) {
        self.resume();
        if self.left_out > 0 {
            let (lines, place) = (self.left_out, escaped(&fitted(details, GAP_LINE - 100)));
            self.write(&format!("… {lines} lines are left out here; all are in {place}\n"));
        }
        for line in std::mem::take(&mut self.last) {
            self.write(&line);
        }
        self.write(last_line);
    }

    fn write_first(&mut self) {
        while !self.held
            && let Some(line) = self.first.pop_front()
        {
            self.write(&line);
        }
    }

    /// Whoever has closed standard output does not want to know.
    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
