//! For tests only: an emulator of the ECS snapshot API and of the metadata service, for programs
//! that take snapshot-consistent groups of an instance's disks, and make disks of those.
//!
//! It is as strict as the vendor's documents are: signatures of both versions, parameters, limits,
//! idempotence, permissions. It changes over time as the service does, and goes wrong on demand.
//! The vendor's own SDKs, of both generations, keep it honest (`sdk/`, `tests/sdk.rs`).
//!
//! | module | job |
//! |---|---|
//! | [`emulator`] | the handle |
//! | [`scenario`], [`fault`] | what a test decides |
//! | `server`, `tls` | connections, and how they end |
//! | `ecs`, `api` | one request, and each action |
//! | [`signature`] | who says what |
//! | `credentials`, `metadata` | the role's keys, and where they come from |
//! | `world`, [`group`] | what exists, and how it changes |
//! | [`log`], `control` | what tests see |

mod answer;
mod api;
mod control;
mod credentials;
mod ecs;
pub mod emulator;
pub mod fault;
pub mod group;
pub mod log;
mod metadata;
pub mod scenario;
mod server;
pub mod signature;
mod tls;
mod world;

pub use api::error::ApiError;
pub use emulator::{Addresses, Emulator};
pub use fault::{ConnectionFault, ErrorAnswer, Fault};
pub use group::{GroupView, MemberView};
pub use log::Logged;
pub use scenario::{
    AccessKey, Disk, DiskLooks, GroupStatus, Instance, Limits, Metadata, Outcome, Role, Scenario,
    Tag, Timeline,
};
pub use world::{Attaching, Creation};
