//! What came of a run, kept after it, and drawn as one page: `stillpoint report`.
//!
//! A manifest lies next to each snapshot; a run that failed has none. So each run leaves a record of
//! its own, good or bad, which is written when nothing is held any more.

mod history;
mod lanes;
mod page;
mod record;
mod tables;
mod timeline;
mod verdict;
mod watch;

pub use history::{History, HistoryError, Line, Summary};
pub(crate) use lanes::{hold, window};
pub(crate) use page::head;
pub use page::page;
pub use record::{RunRecord, SCHEMA_VERSION};
pub(crate) use tables::table;
pub use watch::Watch;
