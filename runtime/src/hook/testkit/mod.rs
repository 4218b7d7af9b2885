//! `stillpoint hook test`: a hook, tested by the very code that runs it, with the world behind it
//! replaced or watched.
//!
//! ```text
//! Setup ──▶ Bench::new         installed, granted and loaded as for a real run, in a place of its own
//!             .run(record)     one run: each call of the script in its place; or real servers, recorded
//!             .conformance()   everything that can go wrong, one at a time, at every call
//!             .cycles(times)   runs, timed
//! ```
//!
//! What is replaced is behind the checks, at the seam where a client of a server would begin
//! ([`crate::capability::stage`]); what the hook can notice of its host is the host's own.

mod answers;
mod bench;
mod conformance;
mod cycle;
mod error;
mod holds;
mod report;
mod script;
mod tape;
mod text;
mod timing;
mod verify;
mod world;

pub use bench::{Bench, Setup};
pub use error::TestError;
pub use holds::{HoldRule, LivesIn};
pub use report::{
    Ask, AskItem, CallTold, Check, Conformance, Finding, PhaseTold, RunReport, Severity, Tested,
};
pub use script::Script;
pub use timing::Cycles;
