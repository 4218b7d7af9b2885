//! Verifying a snapshot: a copy of it is mounted and its databases are started on it, where nothing
//! else sees them and they see nothing else; what they say is compared with the manifest.
//!
//! ```text
//! command                       keeper                        worker (first process of its own
//!   attach nameless copies        cgroup, name spaces           pid, mount and network name spaces)
//!   job ───────────────────────▶  start worker, job ─────────▶  state of journals, checks
//!                                 wait: worker, deadline,       mount copies at the originals' paths
//!                                 command                       start servers, read their logs
//!   verdict, manifest, tag  ◀──────────────────────── events ── check tables, positions, queries
//! ```
//!
//! What is made here needs nobody to undo it: mounts go with their name space, that with the worker, and
//! that with the keeper or the command, whoever is killed. So do copies that have no name, with their
//! loop devices; copies that are disks of a cloud are given back when the sandbox has ended, and found
//! by the next who looks if nobody could. [ADR 25](../../../docs/adr/0025-a-verdict-by-starting-the-database.md) has the
//! reasons.

mod discover;
mod error;
mod file_systems;
mod job;
pub(crate) mod keeper;
mod root;
mod verdict;
mod verifier;
pub(crate) mod worker;

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::config::verify::VerifyConfig;
use crate::guard::spawn;
use crate::hook::CancelToken;
use crate::manifest::{HookRecord, Manifest};
use crate::plan::{Inventory, SkipReason};
use crate::provider::{AttachedCopy, GroupSummary, PassingCopies, Provider};
use job::{CopiedFileSystem, DatabaseJob, Event, HookJob, Job, Query};

pub use error::VerifyError;
pub use verdict::{
    Code, DatabaseCheck, FileSystemCheck, Finding, PositionCheck, QueryCheck, SCHEMA_VERSION,
    Verdict, Verification,
};

/// What is to be verified, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who has the snapshot.
    pub provider: Arc<dyn Provider>,
    /// The provider's id of the group.
    pub group: String,
    /// Databases, limits, deadline.
    pub config: VerifyConfig,
    /// Further queries, for each database that speaks SQL; they must not fail.
    pub queries: Vec<String>,
    /// Asks to stop: the sandbox is ended then, and the copies are given back.
    pub stop: CancelToken,
}

/// Verifies one snapshot and keeps the result in its manifest. The snapshot itself, its clones, are
/// only read.
///
/// # Errors
/// If there is no verdict. One that was reached but could not be kept is in `Err` too, as the provider's
/// error.
pub async fn verify(request: &Request) -> Result<Verification, VerifyError> {
    if !spawn::has_entered() {
        return Err(VerifyError::NotEntered);
    }
    let began = Instant::now();
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut manifest = find(request).await?;
    let passing = attach(request).await?;
    let looked = look(request, &manifest, &passing.copies).await;
    let released = request.provider.release_passing(&request.group, Some(passing)).await;
    let (told, released) = match (looked, released) {
        (Ok(told), released) => (told, released),
        (Err(error), Ok(())) => return Err(error),
        (Err(error), Err(left)) => {
            return Err(VerifyError::LeftBehind { left, source: Box::new(error) });
        }
    };
    let verification = Verification {
        schema_version: SCHEMA_VERSION,
        stillpoint: env!("CARGO_PKG_VERSION").to_owned(),
        group: request.group.clone(),
        level: manifest.level,
        verdict: Verification::judge(&told.findings),
        time,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        findings: told.findings,
        file_systems: told.file_systems,
        databases: told.databases,
        not_checked: told.not_checked,
    };
    manifest.verified = Some(verification.clone());
    request.provider.amend(&request.group, &manifest).await?;
    released?;
    Ok(verification)
}

/// The copies, unless somebody wants to stop: what was made of them until then is given back.
async fn attach(request: &Request) -> Result<PassingCopies, VerifyError> {
    let provider = &request.provider;
    let attached = tokio::select! {
        attached = provider.attach_passing(&request.group) => Some(attached),
        () = request.stop.cancelled() => None,
    };
    match attached {
        Some(attached) => Ok(attached?),
        None => {
            provider.release_passing(&request.group, None).await?;
            Err(VerifyError::Stopped)
        }
    }
}

/// What the sandbox tells of the copies. When this returns, it has ended.
async fn look(
    request: &Request,
    manifest: &Manifest,
    copies: &[AttachedCopy],
) -> Result<Told, VerifyError> {
    let mut not_checked = Vec::new();
    let job = job(request, manifest, copies, &mut not_checked)?;
    let mut told = in_sandbox(&job, &request.stop).await?;
    not_checked.append(&mut told.not_checked);
    Ok(Told { not_checked, ..told })
}

async fn find(request: &Request) -> Result<Manifest, VerifyError> {
    let groups: Vec<GroupSummary> = request.provider.list().await?;
    let found = groups.into_iter().find(|group| group.id == request.group);
    let group = found.ok_or_else(|| VerifyError::Unknown(request.group.clone()))?;
    match (group.manifest, group.incomplete) {
        (Some(manifest), None) => Ok(*manifest),
        (_, why) => Err(VerifyError::Unusable {
            group: request.group.clone(),
            why: why.unwrap_or_else(|| "it has no manifest".to_owned()),
        }),
    }
}

fn job(
    request: &Request,
    manifest: &Manifest,
    copies: &[AttachedCopy],
    not_checked: &mut Vec<String>,
) -> Result<Job, VerifyError> {
    let config = &request.config;
    let plain = |text: &String| Query { text: text.clone(), expected: None };
    let databases = config.databases.iter().map(|database| DatabaseJob {
        engine: database.engine.into(),
        directory: database.directory.clone(),
        server: database.server.clone(),
        options: database.options.clone(),
        queries: database
            .queries
            .iter()
            .map(|query| Query { text: query.text.clone(), expected: query.expect.clone() })
            .collect(),
    });
    let hook = |record: &HookRecord| HookJob {
        name: record.name.clone(),
        confirmed: record.confirmed,
        saved: record.metadata.clone(),
    };
    Ok(Job {
        file_systems: file_systems(manifest, copies, not_checked)?,
        databases: databases.collect(),
        hooks: manifest.hooks.iter().map(hook).collect(),
        queries: request.queries.iter().map(plain).collect(),
        deadline: config.deadline,
        memory_bytes: config.memory_bytes,
        cpus: config.cpus,
    })
}

/// The file systems of the copy: those that the run froze, or left unfrozen on purpose; and of a run
/// that knew of none, those that are on the disks now.
fn file_systems(
    manifest: &Manifest,
    copies: &[AttachedCopy],
    not_checked: &mut Vec<String>,
) -> Result<Vec<CopiedFileSystem>, VerifyError> {
    let frozen = manifest.file_systems.iter().map(|it| (&it.mount_point, &it.fs_type, &it.disks));
    let unfrozen = manifest
        .skipped
        .iter()
        .filter(|it| it.reason == SkipReason::FreezeDisabled && !it.disks.is_empty());
    let all = frozen.chain(unfrozen.map(|it| (&it.mount_point, &it.fs_type, &it.disks)));
    let mut found = Vec::new();
    for (mount_point, fs_type, disks) in all {
        let copy = copies.iter().find(|copy| disks.contains(&copy.disk));
        match (copy, disks.len()) {
            (Some(copy), 1) => found.push(CopiedFileSystem {
                mount_point: mount_point.clone(),
                fs_type: fs_type.clone(),
                disk: copy.disk.clone(),
                node: copy.node.clone(),
            }),
            (_, disks) => not_checked.push(format!(
                "{} ({fs_type}): it lies on {disks} disks of the snapshot, and is verified only on one",
                mount_point.display()
            )),
        }
    }
    if found.is_empty() && not_checked.is_empty() {
        found = mounted_now(manifest, copies)?;
    }
    found.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    Ok(found)
}

fn mounted_now(
    manifest: &Manifest,
    copies: &[AttachedCopy],
) -> Result<Vec<CopiedFileSystem>, VerifyError> {
    let inventory = Inventory::collect()?;
    let mut found: Vec<CopiedFileSystem> = Vec::new();
    for copy in copies {
        let Some(disk) = manifest.disks.iter().find(|disk| disk.id == copy.disk) else { continue };
        let Some(device) = inventory.nodes.get(&disk.node) else { continue };
        for mount in inventory.mounts_over(*device) {
            if found.iter().all(|it| it.mount_point != mount.mount_point) {
                found.push(CopiedFileSystem {
                    mount_point: mount.mount_point.clone(),
                    fs_type: mount.fs_type.clone(),
                    disk: copy.disk.clone(),
                    node: copy.node.clone(),
                });
            }
        }
    }
    Ok(found)
}

/// What the sandbox told.
#[derive(Debug, Default)]
struct Told {
    findings: Vec<Finding>,
    file_systems: Vec<FileSystemCheck>,
    databases: Vec<DatabaseCheck>,
    not_checked: Vec<String>,
}

/// For the keeper's own end, after the worker's.
const CLEAN_UP: Duration = Duration::from_secs(30);

async fn in_sandbox(job: &Job, stop: &CancelToken) -> Result<Told, VerifyError> {
    let mut line = serde_json::to_vec(job).map_err(|error| VerifyError::Start(error.into()))?;
    line.push(b'\n');
    let mut command = spawn::command(keeper::KEEPER_NAME);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut keeper = Command::from(command).spawn().map_err(VerifyError::Start)?;
    // As long as it is open, we are there.
    let mut stdin = keeper.stdin.take();
    if let Some(stdin) = &mut stdin {
        stdin.write_all(&line).await.map_err(VerifyError::Start)?;
    }
    let told = match keeper.stdout.take() {
        Some(stdout) => tokio::select! {
            told = listen(BufReader::new(stdout), job) => told,
            () = stop.cancelled() => Err(VerifyError::Stopped),
            () = tokio::time::sleep(job.deadline + CLEAN_UP) => {
                Err(too_late(job, "ending".to_owned()))
            }
        },
        None => return Err(VerifyError::Start(std::io::ErrorKind::BrokenPipe.into())),
    };
    drop(stdin);
    // It removes the cgroup last.
    let _ = tokio::time::timeout(CLEAN_UP, keeper.wait()).await;
    told
}

fn too_late(job: &Job, during: String) -> VerifyError {
    VerifyError::TooLate { limit: job.deadline, during }
}

async fn listen(
    events: impl tokio::io::AsyncBufRead + Unpin,
    job: &Job,
) -> Result<Told, VerifyError> {
    let mut lines = events.lines();
    let (mut told, mut during) = (Told::default(), "its start".to_owned());
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(event) = serde_json::from_str::<Event>(&line) else { continue };
        match event {
            Event::Doing(what) => {
                tracing::debug!("{what}");
                during = what;
            }
            Event::Found(finding) => told.findings.push(finding),
            Event::FileSystem(check) => told.file_systems.push(check),
            Event::Database(check) => told.databases.push(*check),
            Event::NotChecked(what) => told.not_checked.push(what),
            Event::Failed { what, hint } => return Err(VerifyError::Sandbox { what, hint }),
            Event::NoDatabase { hook } => return Err(VerifyError::NoDatabase { hook }),
            Event::TooLate => return Err(too_late(job, during)),
            Event::Done => return Ok(told),
        }
    }
    Err(VerifyError::Died { during })
}
