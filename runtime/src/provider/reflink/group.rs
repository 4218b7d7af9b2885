//! A group in the making: everything opened and checked beforehand, clone calls in the window,
//! the rest after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nix::libc;

use super::error::{fail, io_error, plan_error};
use super::image::{self, Image};
use super::store::{self, MemberRecord, Record, Store};
use super::worker::{Job, Worker};
use super::{A_LOOK, blocking, within};
use crate::durable;
use crate::exit_code::ExitCode;
use crate::file_lock::FileLock;
use crate::manifest::Manifest;
use crate::plan::Inventory;
use crate::provider::{CreatedGroup, GroupRequest, Member, PreparedGroup, ProviderError};
use crate::sys::reflink;
use crate::time::Deadline;

/// Room that must be free where clones are made: the live images are copied on write from then on,
/// and a full disk underneath would fail the instance's own file systems.
const LEAST_FREE: u64 = 16 << 20;
/// And at least this share of what the images occupy.
const LEAST_FREE_SHARE: u64 = 50;

/// How long `discard` waits for a clone call that is still running.
const CALL_ENDS: Duration = Duration::from_secs(10);

/// One clone, open for writing until it is on the disk.
#[derive(Clone, Debug)]
struct Copy {
    disk: String,
    file: Arc<File>,
    directory: PathBuf,
    name: String,
}

/// A group that is about to be created.
#[derive(Debug)]
pub(super) struct ReflinkGroup {
    id: String,
    copies: Vec<Copy>,
    workers: Vec<Worker>,
    directories: BTreeSet<PathBuf>,
    /// Held until the group is dropped: no other command touches the folders before.
    locks: Vec<FileLock>,
    /// The word to clone was not given yet: nobody can want what is there.
    only_prepared: bool,
}

impl Drop for ReflinkGroup {
    /// A preparation that is given up (its deadline passed, say) leaves nothing. A group that was
    /// created stays as it is: `discard` or `delete` remove it.
    fn drop(&mut self) {
        if self.only_prepared
            && let Err(error) = remove(&self.id, &self.directories)
        {
            tracing::warn!("group {} was not removed: {error}", self.id);
        }
    }
}

impl ReflinkGroup {
    /// Checks all members, opens sources and destinations, tries the clone call on one block.
    /// Leaves nothing if anything fails.
    pub(super) fn prepare(store: &Store, request: &GroupRequest) -> Result<Self, ProviderError> {
        if request.disks.is_empty() {
            return Err(fail(ExitCode::NoUsableDisk, "the snapshot has no disk"));
        }
        let inventory = Inventory::collect().map_err(plan_error)?;
        let images = request.disks.iter().map(|disk| image::reopen(&inventory, disk));
        let images = images.collect::<Result<Vec<Image>, _>>()?;
        let directories = images.iter().map(|image| store.directory_for(&image.path, &inventory));
        let directories = directories.collect::<Result<Vec<PathBuf>, _>>()?;
        for (image, directory) in images.iter().zip(&directories) {
            check_not_frozen(&inventory, request, image, directory)?;
            store::make_directory(directory)?;
        }
        check_room(&images, &directories)?;

        let mut group = Self {
            id: store::group_id(&request.name, &request.run_id),
            copies: Vec::new(),
            workers: Vec::new(),
            directories: directories.iter().cloned().collect(),
            locks: Vec::new(),
            only_prepared: true,
        };
        // If this fails, dropping the group removes what was made.
        group.fill(request, images, &directories)?;
        Ok(group)
    }

    fn fill(
        &mut self,
        request: &GroupRequest,
        images: Vec<Image>,
        directories: &[PathBuf],
    ) -> Result<(), ProviderError> {
        for directory in &self.directories {
            let folder = directory.join(store::unfinished(&self.id));
            DirBuilder::new()
                .mode(0o700)
                .create(&folder)
                .map_err(|error| io_error(ExitCode::CreateFailed, "cannot make", &folder, error))?;
            self.locks.push(store::lock(&folder)?);
        }
        let mut members = Vec::new();
        for (index, (image, directory)) in images.into_iter().zip(directories).enumerate() {
            let name = clone_name(index, &image.path);
            let geometry = image.status.geometry;
            members.push(MemberRecord::new(&image.disk.id, directory, name.clone(), geometry));
            self.add(image, directory, name)?;
        }
        let record = Record::new(&self.id, request, members);
        for directory in &self.directories {
            store::write_record(&directory.join(store::unfinished(&self.id)), &record)?;
            durable::sync_directory(directory).map_err(|error| {
                io_error(ExitCode::CreateFailed, "cannot write into", directory, error)
            })?;
        }
        Ok(())
    }

    /// Opens the destination of one image, tries it, and starts the thread that will clone it.
    fn add(&mut self, image: Image, directory: &Path, name: String) -> Result<(), ProviderError> {
        let copy_path = directory.join(store::unfinished(&self.id)).join(&name);
        let cannot = |what, error| io_error(ExitCode::CreateFailed, what, &copy_path, error);
        let copy = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&copy_path)
            .map_err(|error| cannot("cannot make", error))?;
        try_clone(&image.file, &copy)
            .map_err(|error| cannot("cannot clone the image to", error))?;
        copy.sync_all().map_err(|error| cannot("cannot write", error))?;
        let copy = Arc::new(copy);
        let disk = image.disk.id;
        self.copies.push(Copy {
            disk: disk.clone(),
            file: Arc::clone(&copy),
            directory: directory.to_owned(),
            name,
        });
        let Image { file: source, device, status, .. } = image;
        let job = Job { disk, source, device, status, copy, copy_path: copy_path.clone() };
        let worker = Worker::start(job)
            .map_err(|error| fail(ExitCode::Unknown, "cannot start a thread").because(error))?;
        self.workers.push(worker);
        Ok(())
    }
}

#[async_trait]
impl PreparedGroup for ReflinkGroup {
    async fn create(&mut self, deadline: Deadline) -> Result<CreatedGroup, ProviderError> {
        self.only_prepared = false;
        let answers: Vec<_> = self.workers.iter_mut().map(Worker::go).collect();
        let all = async {
            let mut failed = None;
            for answer in answers {
                let ended = match answer {
                    Some(answer) => answer.await.ok(),
                    None => None,
                };
                let ended = ended.unwrap_or_else(|| {
                    Err(fail(ExitCode::GroupState, "the group was created before, or discarded"))
                });
                // The others are waited for: no call may be running when we say how it ended.
                failed = failed.or(ended.err());
            }
            failed.map_or(Ok(()), Err)
        };
        within(deadline, "cloning the images", all).await?;
        Ok(CreatedGroup { id: self.id.clone(), point_in_time_fixed: true })
    }

    async fn settle(&mut self, deadline: Deadline) -> Result<Vec<Member>, ProviderError> {
        let (id, copies) = (self.id.clone(), self.copies.clone());
        let directories = self.directories.clone();
        let settled = blocking(move || settle(&id, &copies, &directories));
        within(deadline, "writing the clones to the disk", settled).await
    }

    async fn record(&mut self, manifest: &Manifest) -> Result<(), ProviderError> {
        let (id, directories) = (self.id.clone(), self.directories.clone());
        let manifest = manifest.clone();
        let write = blocking(move || {
            directories
                .iter()
                .try_for_each(|directory| store::write_manifest(&directory.join(&id), &manifest))
        });
        within(Deadline::after(A_LOOK), "writing the manifest", write).await
    }

    async fn discard(&mut self) -> Result<(), ProviderError> {
        self.only_prepared = false;
        let mut workers = std::mem::take(&mut self.workers);
        let waited = blocking(move || {
            let ended = workers.iter_mut().all(|worker| worker.end(CALL_ENDS));
            Ok((workers, ended))
        });
        let ended;
        (self.workers, ended) = waited.await?;
        let id = self.id.clone();
        if !ended {
            return Err(fail(
                ExitCode::CreateFailed,
                format!("a clone call of group {id} has not ended yet"),
            )
            .hint("delete the group when the file system of the images answers again"));
        }
        let directories = self.directories.clone();
        blocking(move || remove(&id, &directories)).await
    }
}

/// A write to a frozen file system would never end, with everybody else waiting for us.
fn check_not_frozen(
    inventory: &Inventory,
    request: &GroupRequest,
    image: &Image,
    directory: &Path,
) -> Result<(), ProviderError> {
    for path in [directory, image.path.as_path()] {
        let frozen = inventory.lies_on(path, &request.frozen_superblocks).map_err(plan_error)?;
        if let Some(superblock) = frozen {
            let mut mounts = inventory.mounts.iter();
            let mount = mounts.find(|mount| mount.superblock == superblock);
            let place = mount.map(|mount| mount.mount_point.display().to_string());
            return Err(fail(
                ExitCode::Precondition,
                format!(
                    "the clone of {} would be written to {}, which is frozen during the snapshot",
                    image.disk.node.display(),
                    place.unwrap_or_else(|| superblock.to_string())
                ),
            )
            .hint(
                "leave the disk that holds the image files out of the snapshot \
                 (`exclude-disks`), or leave out the disks whose images lie on it",
            ));
        }
    }
    Ok(())
}

fn check_room(images: &[Image], directories: &[PathBuf]) -> Result<(), ProviderError> {
    // Several directories can be on one file system: what lies there counts together.
    let mut occupied: BTreeMap<u64, (u64, &Path)> = BTreeMap::new();
    for (image, directory) in images.iter().zip(directories) {
        let meta = image.file.metadata();
        let meta = meta.map_err(|error| {
            io_error(ExitCode::CreateFailed, "cannot look at", &image.path, error)
        })?;
        occupied.entry(meta.dev()).or_insert((0, directory)).0 += meta.blocks() * 512;
    }
    for (bytes, directory) in occupied.into_values() {
        let room = nix::sys::statvfs::statvfs(directory).map_err(|error| {
            io_error(ExitCode::CreateFailed, "cannot look at", directory, error.into())
        })?;
        let free = room.blocks_available() * room.fragment_size();
        let needed = LEAST_FREE.max(bytes / LEAST_FREE_SHARE);
        if free < needed {
            return Err(fail(
                ExitCode::CreateFailed,
                format!(
                    "only {} MiB are free on the file system of {}, at least {} MiB must be",
                    free >> 20,
                    directory.display(),
                    needed.div_ceil(1 << 20)
                ),
            )
            .hint(
                "delete old groups or free space there: after a snapshot every change of the \
                 images needs room, and a full disk would fail the file systems inside them",
            ));
        }
    }
    Ok(())
}

/// Clones one block and takes it back: whatever could forbid the real call is found now.
fn try_clone(source: &File, copy: &File) -> io::Result<()> {
    reflink::adopt_no_cow(source, copy)?;
    let block = source.metadata()?.blksize().max(4096);
    if source.metadata()?.len() >= block {
        reflink::clone_start(source, copy, block)?;
    } else {
        reflink::clone_file(source, copy)?;
    }
    copy.set_len(0)
}

fn clone_name(index: usize, image: &Path) -> String {
    let name = image.file_name().map(|name| name.to_string_lossy().into_owned());
    format!("{index:02}-{}", name.unwrap_or_else(|| "image".to_owned()))
}

fn settle(
    id: &str,
    copies: &[Copy],
    directories: &BTreeSet<PathBuf>,
) -> Result<Vec<Member>, ProviderError> {
    let cannot = |path: &Path, error| {
        io_error(ExitCode::MemberState, "cannot bring to the disk:", path, error)
    };
    let mut members = Vec::new();
    for copy in copies {
        let path = copy.directory.join(id).join(&copy.name);
        copy.file.sync_all().map_err(|error| cannot(&path, error))?;
        let bytes = copy.file.metadata().map_err(|error| cannot(&path, error))?.len();
        let snapshot = path.display().to_string();
        members.push(Member { disk: copy.disk.clone(), snapshot, bytes: Some(bytes) });
    }
    for directory in directories {
        let (from, to) = (directory.join(store::unfinished(id)), directory.join(id));
        match fs::rename(&from, &to) {
            // Settled before: a second call finds it done.
            Err(error) if error.kind() == io::ErrorKind::NotFound && to.is_dir() => {}
            other => other.map_err(|error| cannot(&to, error))?,
        }
        durable::sync_directory(directory).map_err(|error| cannot(&to, error))?;
    }
    Ok(members)
}

/// Removes a group's folders, finished or not. What is not there is no error.
pub(super) fn remove(id: &str, directories: &BTreeSet<PathBuf>) -> Result<(), ProviderError> {
    for directory in directories {
        let (finished, unfinished) = (directory.join(id), directory.join(store::unfinished(id)));
        // From here on nobody takes it for a group that can be used.
        let renamed = fs::rename(&finished, &unfinished);
        for result in [renamed, fs::remove_dir_all(&unfinished)] {
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error(
                        ExitCode::GroupState,
                        "cannot remove",
                        &unfinished,
                        error,
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
