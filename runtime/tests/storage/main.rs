//! Plan and provider on real loop devices and file systems. Runs as root.
#![expect(clippy::unwrap_used, reason = "tests")]

mod lab;
mod plan;
mod reflink;
