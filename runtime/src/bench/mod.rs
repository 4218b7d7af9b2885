//! What a snapshot costs: how long file systems are frozen, applications held and clients kept
//! waiting. [`lab`] measures on file systems that it makes and removes, against what one would use
//! otherwise; [`here`] measures this machine's own plan and hooks, with a provider that takes no
//! snapshot. Both give a [`BenchDocument`], which [`page`] draws.

mod document;
mod error;
mod lab;
mod lifeline;
mod machine;
mod measure;
mod page;
mod rounds;
mod stats;
mod table;
mod writers;

pub use document::{
    BenchDocument, BenchFileSystem, Image, Load, Machine, Measure, Method, Place, Ratio,
    SCHEMA_VERSION, Set,
};
pub use error::BenchError;
pub use lab::Kind;
pub use page::page;
pub use rounds::{LabOptions, lab};
pub use table::table;

pub(crate) use lifeline::{LIFELINE_NAME, run as run_lifeline};
pub(crate) use writers::{WRITERS_NAME, run as run_writers};

/// Is told how far a bench is. It must not block: writers are waiting.
pub trait Progress {
    /// Something begins that takes a while and is not counted.
    fn stage(&self, what: &str);
    /// So many measurements of so many are done, and this is the next.
    fn step(&self, done: usize, of: usize, what: &str);
}
