//! Embeds the runtime with a provider of its own: freezes the file system mounted at the directory
//! given, and "snapshots" it by noting the time. Run as root: `embed /mnt/data`.
use std::{io::Write as _, os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use stillpoint::manifest::Manifest;
use stillpoint::plan::DevId;
use stillpoint::provider::{
    CreatedGroup, Disk, GroupRequest, Member, PreparedGroup, Provider, ProviderError,
};
use stillpoint::sequence::{self, Request};
use stillpoint::time::Deadline;

type Answer<T> = Result<T, ProviderError>;

#[derive(Debug)]
struct Notes(Disk);
#[async_trait]
impl Provider for Notes {
    fn name(&self) -> &str {
        "notes"
    }
    async fn disks(&self) -> Answer<Vec<Disk>> {
        Ok(vec![self.0.clone()])
    }
    async fn prepare(&self, _: GroupRequest, _: Deadline) -> Answer<Box<dyn PreparedGroup>> {
        Ok(Box::new(Notes(self.0.clone())))
    }
}

#[async_trait]
impl PreparedGroup for Notes {
    async fn create(&mut self, _: Deadline) -> Answer<CreatedGroup> {
        Ok(CreatedGroup { id: "note-1".into(), point_in_time_fixed: true })
    }
    async fn settle(&mut self, _: Deadline) -> Answer<Vec<Member>> {
        let disk = self.0.id.clone();
        Ok(vec![Member { disk, snapshot: "a note".into(), bytes: None }])
    }
    async fn record(&mut self, manifest: &Manifest) -> Answer<()> {
        let mut out = std::io::stdout();
        let _ = writeln!(out, "level {}, {} ns", manifest.level, manifest.timings.window_ns);
        Ok(())
    }
    async fn discard(&mut self) -> Answer<()> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    stillpoint::guard::enter(); // the guard is this program, executed again
    let mount = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: embed MOUNTPOINT")?);
    let device = DevId::of(std::fs::metadata(&mount)?.dev());
    let disk = Disk { id: "disk".into(), device, node: "/dev/disk".into(), warnings: vec![] };
    let mut request = Request::new("embedded", Arc::new(Notes(disk)));
    request.scope.mounts = vec![mount];
    tokio::runtime::Runtime::new()?.block_on(sequence::run(request))?;
    Ok(())
}
