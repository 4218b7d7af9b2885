//! What a snapshot costs: how long file systems are frozen, applications held and clients kept
//! waiting. [`lab`] measures on file systems that it makes and removes, against what one would use
//! otherwise; [`Here`] measures this machine's own plan and hooks, with a provider that takes no
//! snapshot. Both give a [`BenchDocument`], which [`page`] draws.

mod document;
mod error;
mod here;
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
pub use here::{Here, HereError, PAUSE};
pub use lab::Kind;
pub use page::page;
pub use rounds::{LabOptions, lab};
pub use table::table;

use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};

use crate::guard::spawn::Started;

pub(crate) use lifeline::{LIFELINE_NAME, run as run_lifeline};
pub(crate) use writers::{WRITERS_NAME, run as run_writers};

/// How long the end of a process is waited for. It goes on by itself if that is not enough.
const END_MS: u16 = 5_000;

/// Ends the conversation with a process of the bench, and waits for its end: until then it keeps file
/// systems of the lab open.
fn end(process: &Started) {
    let _ = shutdown(process.socket.as_raw_fd(), Shutdown::Both);
    let mut ended = [PollFd::new(process.pidfd.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut ended, PollTimeout::from(END_MS));
}

/// Is told how far a bench is. It must not block: writers are waiting.
pub trait Progress {
    /// Something begins that takes a while and is not counted.
    fn stage(&self, what: &str);
    /// So many measurements of so many are done, and this is the next.
    fn step(&self, done: usize, of: usize, what: &str);
}
