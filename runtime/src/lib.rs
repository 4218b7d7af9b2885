//! **prepare → quiesce → freeze → snapshot → thaw → release; whatever happens, what was done is
//! undone in reverse, and the file systems run again.**
//!
//! This crate is the runtime behind the `stillpoint` command, and can be embedded: the command
//! uses nothing that is not public here. A program that embeds it calls [`guard::enter`] as the
//! first thing in its `main`, because the guard process is the same binary, executed again.
//!
//! | module | job |
//! |---|---|
//! | [`config`] | files in `/etc/stillpoint` → validated configuration; errors name file, line and column |
//! | [`plan`] | mounts and disks → what would be frozen, in which order, what is skipped and why |
//! | [`hook`] | WebAssembly hooks: store, engine, one instance per run |
//! | [`capability`] | what a hook may do: the intersection of what it asks and what the operator granted |
//! | [`script`] | legacy `/tmp/prescript.sh` and `/tmp/postscript.sh` |
//! | [`guard`] | the process that freezes and thaws, and outlives the agent |
//! | [`freeze`] | thaw by hand, recovery, and the probe that tells whether a file system is frozen |
//! | [`journal`] | what is ours, on tmpfs, for whoever must clean up |
//! | [`provider`] | what makes the snapshot: trait, and the embedded `reflink` provider |
//! | [`sequence`] | the story: each phase a type, each exit a move |
//! | [`plugin`] | stands in for Alibaba Cloud's `app-snapshot-plugin`: its parameters, lines and exit codes |
//! | [`bench`] | measures windows, holds and stalls: in a lab of its own, or with this machine's hooks |
//! | [`manifest`] | what a run did and how consistent the result is |
//! | [`metrics`] | what Prometheus reads: a file, written after each run |
//! | [`report`] | what came of each run, kept, and drawn as a page |
//! | [`verify`] | starts the databases of a copy, and says what the snapshot is worth |
//! | [`exit_code`] | every exit code, documented |
//! | [`failpoint`] | named places at which tests kill, stop and fail us; nothing of it in a release |

pub mod bench;
pub mod capability;
pub mod config;
pub mod consistency;
pub mod exit_code;
pub mod failpoint;
pub mod freeze;
pub mod guard;
pub mod hook;
pub mod journal;
pub mod manifest;
pub mod metrics;
pub mod output;
pub mod paths;
pub mod plan;
pub mod plugin;
pub mod provider;
pub mod report;
pub mod script;
pub mod sequence;
pub mod time;
pub mod verify;

mod cgroup;
mod durable;
mod file_lock;
mod flush;
mod sys;
mod walk;
