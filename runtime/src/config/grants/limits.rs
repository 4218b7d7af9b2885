//! `[limits]`: bounds for one hook in one run.

use serde::Deserialize;
use toml::Spanned;

use crate::config::read::{ConfigError, Document};

/// Bounds for one hook in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Limits {
    /// Memory of an instance, in bytes; default 64 MiB.
    pub memory_bytes: usize,
    /// Rows of one answer; default 10 000. More are cut off, and the hook is told.
    pub rows: usize,
    /// Bytes of one answer; default 1 MiB.
    pub answer_bytes: usize,
    /// Sessions open at the same time; default 4.
    pub connections: usize,
    /// Statements in one run; default 10 000.
    pub statements: usize,
    /// Bytes of log kept in memory; default 64 KiB.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            rows: 10_000,
            answer_bytes: 1 << 20,
            connections: 4,
            statements: 10_000,
            log_bytes: 64 << 10,
        }
    }
}

pub(super) fn check(limits: &Spanned<Limits>, document: &Document) -> Result<(), ConfigError> {
    let Limits { memory_bytes, rows, answer_bytes, connections, .. } = *limits.get_ref();
    for (name, value, most) in [
        ("memory-bytes", memory_bytes, 1 << 30),
        ("rows", rows, 1_000_000),
        ("answer-bytes", answer_bytes, 64 << 20),
        ("connections", connections, 64),
    ] {
        if value == 0 || value > most {
            return Err(document
                .invalid(limits.span(), format!("`{name} = {value}` is not from 1 to {most}")));
        }
    }
    Ok(())
}

pub(super) fn none_said() -> Spanned<Limits> {
    Spanned::new(0..0, Limits::default())
}
