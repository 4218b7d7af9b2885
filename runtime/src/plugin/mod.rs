//! What stands in for Alibaba Cloud's `app-snapshot-plugin`: its parameters, its lines, its exit
//! codes. The run itself is that of every other command ([`crate::sequence`]).
//!
//! | module | job |
//! |---|---|
//! | [`flags`] | command lines as Go's package `flag` reads them |
//! | [`params`] | the parameters: the original's nine, and ours |
//! | [`lines`] | the original's lines, bounded, and held back while file systems are frozen |
//! | [`log_file`] | all lines whole, and the details; never on a frozen file system |
//! | [`exit`] | the documented meaning of each exit code, and ours |

pub mod exit;
pub mod flags;
pub mod lines;
pub mod log_file;
pub mod params;

pub use params::{HookChoice, ParamError, Params, parse};

/// What a binary is called that is the plug-in, whatever its arguments are.
pub const NAME: &str = "app-snapshot-plugin";
