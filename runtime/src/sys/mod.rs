//! The only folder with `unsafe`: system calls that no safe wrapper covers, one kind in one file.
#![expect(unsafe_code, reason = "the one place for it; each block says why it is sound")]

pub(crate) mod exec;
pub(crate) mod exec_lease;
#[cfg(feature = "failpoints")]
pub(crate) mod failpoint;
pub(crate) mod fsfreeze;
pub(crate) mod guardproc;
pub(crate) mod guardproc_page;
pub(crate) mod image;
pub(crate) mod loopdev;
pub(crate) mod probe;
pub(crate) mod program;
pub(crate) mod reflink;
pub(crate) mod writeback;
