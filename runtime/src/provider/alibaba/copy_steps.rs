//! The steps of a copy: make, wait, attach, find the device; and back: detach, wait, delete.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use stillpoint_alibaba::EcsError;
use stillpoint_alibaba::api::{CreateDisk, Disk as CloudDisk};
use tokio::time::sleep;

use super::copies::{Copies, Copy, Made, Order, Purpose};
use super::exit::{ecs_error, fail};
use super::group::is_final;
use super::{disks, local};
use crate::exit_code::ExitCode;
use crate::provider::{AttachedCopy, ProviderError};
use crate::time::Deadline;

/// The first wait between two looks; they grow by half.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(3);
/// A disk that was just made is listed within this.
const UNLISTED: Duration = Duration::from_secs(5);
/// The guest sees a disk that ECS calls attached within this.
const DEVICE: Duration = Duration::from_secs(60);
/// Whoever looks at a device for a moment, udev or a sandbox that ends, lets go of it within this.
const LET_GO: Duration = Duration::from_secs(10);

/// Waits that grow.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(FIRST_LOOK)
    }

    /// False if the deadline is nearer.
    async fn wait(&mut self, until: Deadline) -> bool {
        if until.remaining() <= self.0 {
            return false;
        }
        sleep(self.0).await;
        self.0 = (self.0 * 3 / 2).min(LONGEST_LOOK);
        true
    }
}

impl Copies {
    /// Makes and attaches all that is ordered. Disks are made side by side, and attached one after the
    /// other: an instance takes one at a time.
    pub(super) async fn bring(
        &self,
        orders: &[Order],
        made: &mut Made,
        until: Deadline,
    ) -> Result<Vec<AttachedCopy>, ProviderError> {
        for order in orders {
            self.make(order, made, until).await?;
        }
        let ids = made.ids.clone();
        self.wait_for(&ids, "Available", until).await?;
        for (order, id) in orders.iter().zip(&ids) {
            self.attach_disk(id, order.purpose, until).await?;
        }
        let mut copies = Vec::new();
        for (order, id) in orders.iter().zip(&ids) {
            let node = self.device_of(id, until).await?;
            copies.push(AttachedCopy { disk: order.original.clone(), copy: id.into(), node });
        }
        Ok(copies)
    }

    async fn make(
        &self,
        order: &Order,
        made: &mut Made,
        until: Deadline,
    ) -> Result<(), ProviderError> {
        let disk = CreateDisk {
            snapshot: order.snapshot.clone(),
            zone: order.zone.clone(),
            category: order.category.clone(),
            performance_level: order.performance_level.clone(),
            size: order.size,
            name: format!("stillpoint-copy-of-{}", order.original),
            description: String::new(),
            token: uuid::Uuid::new_v4().to_string(),
            tags: order.tags.clone(),
        };
        match self.session.ecs.create_disk(&disk, until.instant()).await {
            Ok(id) => {
                tracing::debug!("{id} is being made from {}", order.snapshot);
                made.ids.push(id);
                Ok(())
            }
            Err(error) => {
                made.unclear = error.may_have_happened().then(|| order.group.clone());
                Err(ecs_error(error))
            }
        }
    }

    async fn attach_disk(
        &self,
        id: &str,
        purpose: Purpose,
        until: Deadline,
    ) -> Result<(), ProviderError> {
        let instance = &self.session.instance;
        // What is only for a look goes with its instance; what somebody works on does not.
        let goes_along = purpose == Purpose::Verify;
        let asked = self.session.ecs.attach_disk(id, instance, goes_along, until.instant()).await;
        if let Err(error) = asked {
            // An attempt whose answer was lost may have done it: the disk says so.
            let disks = self.look(&[id.to_owned()], until).await?;
            if !disks.iter().any(|disk| disk.is_at(instance)) {
                return Err(ecs_error(error));
            }
        }
        self.wait_for(&[id.to_owned()], "In_use", until).await
    }

    /// Waits until all of these disks have a status.
    async fn wait_for(
        &self,
        ids: &[String],
        status: &str,
        until: Deadline,
    ) -> Result<(), ProviderError> {
        let mut pause = Pause::new();
        loop {
            let disks = self.look(ids, until).await?;
            let status_of = |id: &String| {
                let disk = disks.iter().find(|disk| disk.disk_id == *id);
                disk.map_or("not listed", |disk| disk.status.as_str())
            };
            let missing = ids.iter().find(|id| status_of(id) != status);
            let Some(missing) = missing else { return Ok(()) };
            if !pause.wait(until).await {
                let now = status_of(missing);
                let what = format!(
                    "{missing}, which was made for a copy, is {now} and not {status} after {:?}",
                    self.settings.copies
                );
                return Err(fail(ExitCode::GroupTimedOut, what).hint(
                    "`copies` in [provider.alibaba] of stillpoint.toml says how long the wait is",
                ));
            }
        }
    }

    /// The disks with these ids. Nobody's answer is nothing seen.
    async fn look(&self, ids: &[String], until: Deadline) -> Result<Vec<CloudDisk>, ProviderError> {
        match self.session.ecs.describe_disks_by_id(ids, until.instant()).await {
            Ok(disks) => Ok(disks),
            Err(error) if is_final(&error) => Err(ecs_error(error)),
            Err(error) => {
                tracing::debug!("looking at {}: {error}", ids.join(", "));
                Ok(Vec::new())
            }
        }
    }

    /// The node of an attached disk, once the guest has it.
    async fn device_of(&self, id: &str, until: Deadline) -> Result<PathBuf, ProviderError> {
        let until = until.min(Deadline::after(DEVICE));
        let (mut pause, began) = (Pause::new(), Instant::now());
        loop {
            let disks = self.look(&[id.to_owned()], until).await?;
            let disk = disks.first();
            if let Some(node) = disk.map(|disk| self.node_of(disk)).transpose()?.flatten() {
                return Ok(node);
            }
            if !pause.wait(until).await {
                let (serial, device) = disk.map_or(("", ""), |disk| {
                    (disk.serial_number.as_str(), disk.device_in(&self.session.instance))
                });
                let what = format!(
                    "ECS says that {id} is attached here as {device}, but no block device with its \
                     serial number {serial} came within {:.0?}",
                    began.elapsed()
                );
                return Err(fail(ExitCode::CreateFailed, what).hint(
                    "does the kernel have the drivers for hot plug (virtio_pci, acpiphp, nvme)? \
                     `dmesg` and `lsblk -o NAME,SERIAL` show what came",
                ));
            }
        }
    }

    fn node_of(&self, disk: &CloudDisk) -> Result<Option<PathBuf>, ProviderError> {
        let local = local::local_disks(&self.settings.sys).map_err(|error| {
            let what = format!("cannot read {}", self.settings.sys.join("block").display());
            fail(ExitCode::Unknown, what).because(error)
        })?;
        let found = disks::certain(disk, &local, &self.session.instance);
        Ok(found.map(|found| Path::new("/dev").join(&found.name)))
    }

    /// Removes what an attempt has made, and what it may have made.
    pub(super) async fn take_back(&self, made: &Made) -> Result<(), ProviderError> {
        let until = Deadline::after(self.settings.copies.max(LET_GO + UNLISTED));
        let mut ids: BTreeSet<String> = made.ids.iter().cloned().collect();
        if let Some(group) = &made.unclear {
            // One request has no answer, so one disk at most is missing.
            let is_missing = |found: &BTreeSet<String>| found.is_subset(&ids);
            let found = self.late_ones(group, is_missing, until).await?;
            ids.extend(found);
        }
        self.remove(ids, until).await
    }

    /// Removes what an attempt may have made of which nothing is known any more.
    pub(super) async fn take_back_unknown(&self, group: &str) -> Result<(), ProviderError> {
        let until = Deadline::after(self.settings.copies.max(LET_GO + UNLISTED));
        let found = self.late_ones(group, |_| true, until).await?;
        self.remove(found, until).await
    }

    /// Looks for disks of which nobody knows the id, as long as something can be missing.
    async fn late_ones(
        &self,
        group: &str,
        is_missing: impl Fn(&BTreeSet<String>) -> bool,
        until: Deadline,
    ) -> Result<BTreeSet<String>, ProviderError> {
        let soon = until.min(Deadline::after(UNLISTED));
        let mut pause = Pause::new();
        let mut found = BTreeSet::new();
        loop {
            let copies = self.of_group(group, until).await?;
            found.extend(copies.into_iter().map(|it| it.disk.disk_id));
            if !is_missing(&found) || !pause.wait(soon).await {
                return Ok(found);
            }
        }
    }

    /// Detaches and deletes these disks, whatever state they are in. Each is looked at before anything
    /// is done to it, and left alone if it is not proved to be a copy of ours. One that cannot be removed
    /// does not keep the others; the first such error is told.
    pub(super) async fn remove(
        &self,
        ids: BTreeSet<String>,
        until: Deadline,
    ) -> Result<(), ProviderError> {
        let (mut pause, began) = (Pause::new(), Instant::now());
        let mut left = ids;
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut in_use_since: BTreeMap<String, Instant> = BTreeMap::new();
        let mut failed = Ok(());
        while !left.is_empty() {
            let wanted: Vec<String> = left.iter().cloned().collect();
            let ecs = &self.session.ecs;
            let listed = match ecs.describe_disks_by_id(&wanted, until.instant()).await {
                Ok(listed) => Some(listed),
                Err(error) if is_final(&error) => return Err(ecs_error(error)),
                Err(_) => None,
            };
            for disk in listed.iter().flatten() {
                seen.insert(disk.disk_id.clone());
                let since = in_use_since.entry(disk.disk_id.clone()).or_insert_with(Instant::now);
                match self.one_step_back(disk, *since, until).await {
                    Ok(false) => continue,
                    Ok(true) => {}
                    Err(error) => failed = failed.and(Err(error)),
                }
                left.remove(&disk.disk_id);
            }
            if let Some(listed) = listed {
                let is_listed = |id: &String| listed.iter().any(|disk| disk.disk_id == *id);
                // One that was never seen may be too new to be listed.
                let known = |id: &String| seen.contains(id) || began.elapsed() > UNLISTED;
                left.retain(|id| is_listed(id) || !known(id));
            }
            if !left.is_empty() && !pause.wait(until).await {
                return failed.and(Err(too_late(&left)));
            }
        }
        failed
    }

    /// True if nothing is left to be done.
    async fn one_step_back(
        &self,
        disk: &CloudDisk,
        since: Instant,
        until: Deadline,
    ) -> Result<bool, ProviderError> {
        let (ecs, instance, id) = (&self.session.ecs, &self.session.instance, &disk.disk_id);
        let Some(copy) = Copy::recognise(disk, instance) else {
            let what = format!("{id} is not a copy that stillpoint made, and is left alone");
            return Err(fail(ExitCode::GroupState, what));
        };
        let done = match disk.status.as_str() {
            "In_use" if disk.is_at(instance) => {
                if self.is_used_here(&copy, since)? {
                    return Ok(false);
                }
                ecs.detach_disk(id, instance, until.instant()).await.map(|()| false)
            }
            "In_use" => {
                let what = format!("{id}, a copy of group {}, is in use elsewhere", copy.group);
                return Err(fail(ExitCode::GroupState, what)
                    .hint("somebody attached it to another instance: detach it there first"));
            }
            "Available" => ecs.delete_disk(id, until.instant()).await.map(|()| true),
            // On its way to one of these.
            _ => return Ok(false),
        };
        match done {
            Err(error) if !is_passing(&error) => Err(ecs_error(error)),
            Err(error) => {
                tracing::debug!("removing {id}: {error}");
                Ok(false)
            }
            Ok(done) => Ok(done),
        }
    }

    /// A disk that is pulled from under a mount loses what was written to it. True: not yet let go of.
    fn is_used_here(&self, copy: &Copy, since: Instant) -> Result<bool, ProviderError> {
        match self.refuse_if_used(copy) {
            Err(_) if since.elapsed() < LET_GO => Ok(true),
            other => other.map(|()| false),
        }
    }

    /// An error if a copy is used here, by whomever.
    pub(super) fn refuse_if_used(&self, copy: &Copy) -> Result<(), ProviderError> {
        let node = self.node_of(&copy.disk)?;
        let Some(node) = node.filter(|node| is_claimed(node)) else { return Ok(()) };
        let shown = node.display();
        let what =
            format!("{shown}, the copy of {} in group {}, is in use", copy.original, copy.group);
        Err(fail(ExitCode::GroupState, what).hint(format!(
            "`lsblk {shown}` shows by whom; unmount it, then `stillpoint detach {}`",
            copy.group
        )))
    }
}

/// True if the device, or a partition of it, is mounted in whatever name space, or is part of another
/// device: the kernel lets nobody else open it exclusively then.
fn is_claimed(node: &Path) -> bool {
    let exclusively = libc::O_EXCL | libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(exclusively).open(node);
    opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}

/// A disk is on its way from one state to another, by ourselves or somebody else.
fn is_passing(error: &EcsError) -> bool {
    let code = error.code().unwrap_or_default();
    let states = ["IncorrectDiskStatus", "IncorrectInstanceStatus", "DependencyViolation"];
    !is_final(error)
        || states.iter().any(|state| code.starts_with(state))
        || code.contains("Conflict")
}

fn too_late(left: &BTreeSet<String>) -> ProviderError {
    let ids: Vec<&str> = left.iter().map(String::as_str).collect();
    let what = format!("copies could not be detached and deleted in time: {}", ids.join(", "));
    fail(ExitCode::GroupTimedOut, what)
        .hint("`copies` in [provider.alibaba] of stillpoint.toml says how long the wait is")
}
