//! Alibaba Cloud ECS, as far as a snapshot of this instance needs it: the metadata service, the
//! credentials of the instance's role, signed requests, snapshot-consistent groups, disks of snapshots.
//!
//! | module | job |
//! |---|---|
//! | [`sign`] | the two signatures, as pure functions: time and nonce are arguments |
//! | [`metadata`] | what the instance knows of itself, hardened mode first |
//! | [`credentials`] | the role's credentials, renewed before they expire |
//! | [`endpoint`] | where ECS of a region answers, inside the VPC or outside |
//! | [`client`] | one signed call over one warm connection, with its repeats |
//! | [`api`] | each action with typed requests and tolerant answers |
//! | [`error`] | what went wrong, without a secret in it |
//!
//! Nothing here knows of file systems, freezing or levels.

pub mod api;
pub mod client;
pub mod credentials;
pub mod endpoint;
pub mod error;
pub mod metadata;
pub mod sign;

mod http;
mod retry;

pub use client::{EcsClient, SignatureVersion};
pub use credentials::{CredentialSource, Credentials, Secret};
pub use endpoint::{Endpoint, Network};
pub use error::{ApiError, EcsError};
pub use metadata::{Metadata, MetadataError, MetadataOptions};
