//! Fifteen ways in which tools of this kind have left production frozen, locked, or with a snapshot that
//! was not what it was called: each with what has to come of it, seen from outside. Where each comes
//! from is told in its first line.
//!
//! What a kernel without device mapper, and a root that must not be frozen, cannot show is in the virtual
//! machines of `make test-vm`: the fourth with `dm-suspend`, the thirteenth with a frozen root.

#[path = "scenarios/applications.rs"]
mod applications;
#[path = "scenarios/common.rs"]
mod common;
#[path = "scenarios/demands.rs"]
mod demands;
#[path = "scenarios/file_systems.rs"]
mod file_systems;
#[path = "scenarios/processes.rs"]
mod processes;
