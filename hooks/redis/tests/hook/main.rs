//! The hook, natively, against a small server behind the fake host.

#![expect(clippy::unwrap_used, reason = "tests")]

mod failures;
mod grant;
mod order;
mod support;
