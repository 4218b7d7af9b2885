//! `[limits]`: bounds for one hook. Each has a default, a range, and an error that names its line.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::config::read::{ConfigError, Document, parse_duration};

/// The longest processor time that can be granted for one phase.
const LONGEST_CPU_TIME: Duration = Duration::from_secs(600);

/// Bounds for one hook. What reaching one does is said at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory of an instance, in bytes; default 64 MiB, at most 1 GiB. Wanting more stops the hook.
    pub memory_bytes: usize,
    /// Processor time in one phase; default 5 s, 1 ms to 10 min. Waiting costs nothing: this is the
    /// time that the guest computes, and the host on its behalf. Passing it stops the hook.
    pub cpu_time: Duration,
    /// Calls of the host's functions in one phase; default 100 000, at most 10 million. One more
    /// stops the hook.
    pub calls: usize,
    /// Rows of one answer; default 10 000, at most a million. More are cut off, and the hook is told.
    pub rows: usize,
    /// Bytes of one answer; default 1 MiB, at most 64 MiB. More are cut off, and the hook is told.
    pub answer_bytes: usize,
    /// Sessions open at the same time; default 4, at most 64. One more is an error to the hook.
    pub connections: usize,
    /// Statements of one instance; default 10 000, at most 10 million. One more is an error to the
    /// hook.
    pub statements: usize,
    /// Bytes of log kept in memory; default 64 KiB, 0 to 16 MiB. The oldest lines are dropped and
    /// counted.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            cpu_time: Duration::from_secs(5),
            calls: 100_000,
            rows: 10_000,
            answer_bytes: 1 << 20,
            connections: 4,
            statements: 10_000,
            log_bytes: 64 << 10,
        }
    }
}

/// `[limits]` as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawLimits {
    memory_bytes: Option<Spanned<i64>>,
    cpu_time: Option<Spanned<String>>,
    calls: Option<Spanned<i64>>,
    rows: Option<Spanned<i64>>,
    answer_bytes: Option<Spanned<i64>>,
    connections: Option<Spanned<i64>>,
    statements: Option<Spanned<i64>>,
    log_bytes: Option<Spanned<i64>>,
}

impl RawLimits {
    pub(super) fn validated(self, document: &Document) -> Result<Limits, ConfigError> {
        let default = Limits::default();
        let bound = |value, key, default, least, most| {
            bounded(value, key, default, (least, most), document)
        };
        Ok(Limits {
            memory_bytes: bound(
                self.memory_bytes,
                "memory-bytes",
                default.memory_bytes,
                1,
                1 << 30,
            )?,
            cpu_time: cpu_time(self.cpu_time, default.cpu_time, document)?,
            calls: bound(self.calls, "calls", default.calls, 1, 10_000_000)?,
            rows: bound(self.rows, "rows", default.rows, 1, 1_000_000)?,
            answer_bytes: bound(
                self.answer_bytes,
                "answer-bytes",
                default.answer_bytes,
                1,
                64 << 20,
            )?,
            connections: bound(self.connections, "connections", default.connections, 1, 64)?,
            statements: bound(self.statements, "statements", default.statements, 1, 10_000_000)?,
            log_bytes: bound(self.log_bytes, "log-bytes", default.log_bytes, 0, 16 << 20)?,
        })
    }
}

fn bounded(
    value: Option<Spanned<i64>>,
    key: &str,
    default: usize,
    (least, most): (usize, usize),
    document: &Document,
) -> Result<usize, ConfigError> {
    let Some(value) = value else { return Ok(default) };
    match usize::try_from(*value.get_ref()) {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(document.invalid(
            value.span(),
            format!("`{key} = {}` is not from {least} to {most}", value.get_ref()),
        )),
    }
}

fn cpu_time(
    value: Option<Spanned<String>>,
    default: Duration,
    document: &Document,
) -> Result<Duration, ConfigError> {
    let Some(value) = value else { return Ok(default) };
    let wrong = |why: String| document.invalid(value.span(), format!("`cpu-time`: {why}"));
    let duration = parse_duration(value.get_ref()).map_err(wrong)?;
    if (Duration::from_millis(1)..=LONGEST_CPU_TIME).contains(&duration) {
        return Ok(duration);
    }
    Err(wrong(format!("`{}` is not from 1ms to 10m", value.get_ref())))
}
