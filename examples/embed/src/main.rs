//! Embeds the runtime with a provider of its own: freezes the file system mounted at the directory
//! given, and "snapshots" it by noting the time. Run as root: `embed /mnt/data`.
use std::sync::Arc;

use async_trait::async_trait;
use stillpoint::exit_code::ExitCode;
use stillpoint::manifest::Manifest;
use stillpoint::plan::{DevId, Inventory};
use stillpoint::provider::{CreatedGroup, Disk, GroupRequest, Member, PreparedGroup, Provider, ProviderError};
use stillpoint::sequence::{self, Request};
use stillpoint::time::{Deadline, monotonic_ns};

#[derive(Debug)]
struct Notes(Vec<Disk>);

#[derive(Debug)]
struct Note(GroupRequest, u64);

#[async_trait]
impl Provider for Notes {
    fn name(&self) -> &str {
        "notes"
    }
    async fn disks(&self) -> Result<Vec<Disk>, ProviderError> {
        Ok(self.0.clone())
    }
    async fn prepare(&self, request: GroupRequest, _: Deadline) -> Result<Box<dyn PreparedGroup>, ProviderError> {
        Ok(Box::new(Note(request, 0)))
    }
}
