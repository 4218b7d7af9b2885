//! Metrics for Prometheus, as a file that node_exporter's textfile collector reads: written whole after
//! each run, good or bad, when nothing is held any more.
//!
//! Nothing listens: a program that runs as root and is over in a second is no server. Counters live in
//! a small file of their own, because the runs are processes of their own. What each metric means:
//! `docs/metrics.md`.

mod file;
mod state;
mod text;

pub use file::{MetricsError, publish};
pub use state::State;
