//! What the suites, the demo and the bench stand on: real file systems, real servers, clients that
//! know what was acknowledged, and an oracle that says whether a copy is what it must be.
//!
//! | module | job |
//! |---|---|
//! | [`lab`] | loop images on a reflink XFS, mounted; gone when dropped |
//! | [`watchdog`] | the independent process that cleans a lab up, also after a SIGKILL |
//! | [`mariadb`] | a server of its own, and one on a restored copy |
//! | [`writers`] | clients that commit, and when each commit was begun and acknowledged |
//! | [`oracle`] | whether a copy holds what it must, and nothing else |
//! | [`journal`] | whether a copied file system would replay its journal |
//! | [`file_writers`] | one writer per file system, to see a freeze as users do |
//! | [`stillpoint`] | the program under test, as its users run it |
//! | [`plugin_manager`] | how Cloud Assistant's manager splits, installs and runs |
//! | [`plugin`] | the plug-in of Cloud Assistant, as its users run it |
//! | [`publisher`] | who signs hooks with minisign, and pushes them |
//! | [`registry`] | an OCI registry, with TLS and a login where wanted |
//! | [`tokens`] | the token service of a registry |
//! | [`leftovers`] | what is still there when everything should be gone |
//! | [`cloud`] | the ECS emulator, with the lab's loop devices as disks |
//! | [`cloud_rig`] | a lab in that cloud, and what must not be seen of it |
//! | [`by_hand`] | the snapshot that a shell takes |
//! | [`rig`] | all of it put together for the main job |
//! | [`stats`] | medians and their like |

#![expect(
    clippy::print_stderr,
    reason = "a test tool says on standard error what went wrong while it cleans up"
)]

pub mod by_hand;
pub mod cloud;
pub mod cloud_rig;
pub mod command;
pub mod file_writers;
pub mod journal;
pub mod lab;
pub mod leftovers;
pub mod mariadb;
pub mod oracle;
pub mod plugin;
pub mod plugin_manager;
pub mod publisher;
pub mod registry;
pub mod rig;
pub mod stats;
pub mod stillpoint;
pub mod tokens;
pub mod watchdog;
pub mod writers;
