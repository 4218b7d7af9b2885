//! A process that can be told from a later one with the same number.

use std::fs;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A process: its number and when it started, so that a reused number is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub started: u64,
}

impl ProcessId {
    /// The process that has this number now, if there is one.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, started: Stat::read(pid)?.started })
    }

    /// This process.
    #[must_use]
    pub fn myself() -> Self {
        let pid = std::process::id();
        Self::of(pid).unwrap_or(Self { pid, started: 0 })
    }

    /// True while any thread of it lives. A zombie is dead, unless a thread of it hangs on in the
    /// kernel (in a FIFREEZE, say) that has not been told yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| {
            stat.started == self.started && (!matches!(stat.state, 'Z' | 'X') || stat.threads > 1)
        })
    }
}

/// What we need of `/proc/PID/stat`.
struct Stat {
    state: char,
    threads: u64,
    started: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name, in brackets, may itself hold brackets and spaces: fields count from the last one.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let threads = fields.nth(16)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        Some(Self { state, threads, started })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let text = "812 (a) b) (c) S 1 812 812 0 -1 4194560 152 0 0 0 3 4 5 6 20 -5 7 0 99887 1 2";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.threads, stat.started), ('S', 7, 99887));
    }

    #[test]
    fn this_process_lives_and_one_with_another_start_time_does_not() {
        let me = ProcessId::myself();
        assert!(me.is_alive());
        assert!(!ProcessId { started: me.started + 1, ..me }.is_alive());
    }
}
