//! What the suites, the demo and the bench stand on: real file systems, real servers, clients that
//! know what was acknowledged, and an oracle that says whether a copy is what it must be.
//!
//! | module | job |
//! |---|---|
//! | [`lab`] | loop images on a reflink XFS, mounted; gone when dropped |
//! | [`watchdog`] | the independent process that cleans a lab up, also after a SIGKILL |
//! | [`mariadb`] | a server of its own, and one on a restored copy |
//! | [`servers`] | PostgreSQL and Redis of its own; several databases on one machine, with their proofs |
//! | [`writers`] | clients that commit, and when each commit was begun and acknowledged |
//! | [`oracle`] | whether a copy holds what it must, and nothing else |
//! | [`journal`] | whether a copied file system would replay its journal |
//! | [`example_hooks`] | the example hooks in JavaScript, TypeScript and Python, as their tools build them |
//! | [`hook_tools`] | hooks as their authors make them, with each language's tools |
//! | [`faults`] | the fault matrix: cells, the runner, the oracle, the table |
//! | [`file_writers`] | one writer per file system, to see a freeze as users do |
//! | [`stillpoint`] | the program under test, as its users run it |
//! | [`plugin_manager`] | how Cloud Assistant's manager splits, installs and runs |
//! | [`plugin`] | the plug-in of Cloud Assistant, as its users run it |
//! | [`publisher`] | who signs hooks with minisign, and pushes them |
//! | [`random`] | choices that a printed seed gives again |
//! | [`registry`] | an OCI registry, with TLS and a login where wanted |
//! | [`tokens`] | the token service of a registry |
//! | [`leftovers`] | what is still there when everything should be gone |
//! | [`cloud`] | the ECS emulator, with the lab's loop devices as disks |
//! | [`cloud_rig`] | a lab in that cloud, and what must not be seen of it |
//! | [`browser`] | a headless Chromium that looks at a page as a reader does |
//! | [`by_hand`] | the snapshot that a shell takes |
//! | [`peers`] | what people freeze with today: `fsfreeze`, QEMU's guest agent; and the bare system calls |
//! | [`proof`] | hundreds of snapshots, each proved; and what the oracle must catch |
//! | [`puppet`] | the hook that does what a test says |
//! | [`service_manager`] | a stand-in for systemd |
//! | [`standing`] | a run that stands still, to be killed and stopped |
//! | [`stuck`] | a write that holds up a freeze |
//! | [`test_cgroup`] | a cgroup to be killed as a whole |
//! | [`rig`] | all of it put together for the main job |
//! | [`vm`] | virtual machines, for what no container shows |
//! | [`sqlplus`] | a stand-in for Oracle's sqlplus, with a database behind it |
//! | [`stats`] | medians and their like |
//! | [`sweep`] | runs killed at thousands of moments, and failed at every system call |
//! | [`sys`], [`sys_seccomp`] | system calls that have no safe wrapper |

#![expect(
    clippy::print_stderr,
    reason = "a test tool says on standard error what went wrong while it cleans up"
)]

pub mod browser;
pub mod by_hand;
pub mod cloud;
pub mod cloud_rig;
pub mod command;
pub mod example_hooks;
pub mod faults;
pub mod file_writers;
pub mod hook_tools;
pub mod journal;
pub mod lab;
pub mod leftovers;
pub mod mariadb;
pub mod oracle;
pub mod peers;
pub mod plugin;
pub mod plugin_manager;
pub mod proof;
pub mod publisher;
pub mod puppet;
pub mod random;
pub mod registry;
pub mod rig;
pub mod servers;
pub mod service_manager;
pub mod sqlplus;
pub mod standing;
pub mod stats;
pub mod stillpoint;
pub mod stuck;
pub mod sweep;
pub mod sys;
pub mod sys_seccomp;
pub mod test_cgroup;
pub mod tokens;
pub mod vm;
pub mod watchdog;
pub mod writers;
