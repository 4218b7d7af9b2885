//! The hook against the model of a database (`tests/src/sqlplus/model.rs`), on the SDK's fake host.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod failures;
mod grant;
mod order;
mod ownership;
mod parse;
mod support;
