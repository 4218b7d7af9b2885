//! The only folder with `unsafe`: system calls that no safe wrapper covers, one kind in one file.
#![expect(unsafe_code, reason = "the one place for it; each block says why it is sound")]

pub(crate) mod image;
