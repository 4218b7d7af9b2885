//! The hook, natively, against a small server behind the fake host.

#![expect(clippy::unwrap_used, reason = "tests")]

mod backup;
mod checkpoint;
mod grant;
mod refusals;
mod support;
