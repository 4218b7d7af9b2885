//! The directories that hold the groups, and what is kept about each group.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::libc;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{fail, io_error, plan_error};
use crate::durable;
use crate::exit_code::ExitCode;
use crate::file_lock::FileLock;
use crate::manifest::Manifest;
use crate::plan::{self, Inventory};
use crate::provider::{GroupSummary, Member, ProviderError};
use crate::sys::loopdev::Geometry;

/// Beside each image, unless configured otherwise.
const FOLDER: &str = ".stillpoint";
/// Inside a group: writable copies.
pub(super) const ATTACHED: &str = "attached";
const INCOMPLETE: &str = ".incomplete";
const RECORD: &str = "group.json";
const MANIFEST: &str = "manifest.json";

/// The version of `group.json`.
const RECORD_VERSION: u32 = 1;

/// Long enough to be recognised, short enough for a folder's name.
const SLUG_LENGTH: usize = 40;

/// `group.json`: enough to attach a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    schema_version: u32,
    pub(super) id: String,
    run_id: String,
    name: String,
    description: String,
    pub(super) members: Vec<MemberRecord>,
}

/// One member in `group.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberRecord {
    /// The disk's id.
    pub(super) disk: String,
    /// The directory that holds the group's folder.
    pub(super) directory: PathBuf,
    /// The clone's name in that folder.
    pub(super) file: String,
    /// Where the loop device begins in the image, in bytes.
    offset: u64,
    /// How much of it the loop device shows at most; 0: all.
    size_limit: u64,
    /// The loop device's logical block size, in bytes.
    block_size: u32,
}

impl Record {
    pub(super) fn new(id: &str, request: &super::GroupRequest, members: Vec<MemberRecord>) -> Self {
        Self {
            schema_version: RECORD_VERSION,
            id: id.to_owned(),
            run_id: request.run_id.clone(),
            name: request.name.clone(),
            description: request.description.clone(),
            members,
        }
    }

    /// The directories that the group is spread over.
    pub(super) fn directories(&self) -> BTreeSet<&Path> {
        self.members.iter().map(|member| member.directory.as_path()).collect()
    }
}

impl MemberRecord {
    pub(super) fn new(disk: &str, directory: &Path, file: String, geometry: Geometry) -> Self {
        Self {
            disk: disk.to_owned(),
            directory: directory.to_owned(),
            file,
            offset: geometry.offset,
            size_limit: geometry.size_limit,
            block_size: geometry.block_size,
        }
    }

    pub(super) fn geometry(&self) -> Geometry {
        let Self { offset, size_limit, block_size, .. } = *self;
        Geometry { offset, size_limit, block_size }
    }
}

/// A group as it was found.
#[derive(Debug)]
pub(super) struct StoredGroup {
    pub(super) id: String,
    /// Its folders, one in each directory.
    pub(super) folders: BTreeSet<PathBuf>,
    /// `None`: no readable `group.json`.
    pub(super) record: Option<Record>,
    /// Why it must not be used, if so.
    pub(super) incomplete: Option<String>,
}

/// Where groups are kept.
#[derive(Clone, Debug)]
pub(super) struct Store {
    configured: Option<PathBuf>,
}

impl Store {
    pub(super) fn new(configured: Option<PathBuf>) -> Self {
        Self { configured }
    }

    /// The directory for the clones of `image`, without symbolic links.
    pub(super) fn directory_for(
        &self,
        image: &Path,
        inventory: &Inventory,
    ) -> Result<PathBuf, ProviderError> {
        match &self.configured {
            Some(directory) => plan::canonical(inventory, directory).map_err(|error| {
                fail(ExitCode::Parameters, "the setting `directory` is not a usable path")
                    .because(error)
                    .hint("give an absolute path on the file system of the images")
            }),
            None => Ok(image.parent().unwrap_or(Path::new("/")).join(FOLDER)),
        }
    }

    /// True if `path` is a clone or a copy of ours, not an image of the instance.
    pub(super) fn is_copy(&self, path: &Path) -> bool {
        group_folder_of(path).is_some()
    }

    /// The directories where groups can be, as far as it is known.
    fn directories(&self, inventory: &Inventory) -> Result<BTreeSet<PathBuf>, ProviderError> {
        if self.configured.is_some() {
            return Ok(BTreeSet::from([self.directory_for(Path::new("/"), inventory)?]));
        }
        let images = inventory.blocks.values().filter_map(|node| node.backing.as_ref());
        let directories = images.map(|backing| match group_folder_of(&backing.path) {
            Some(folder) => Ok(folder.parent().unwrap_or(Path::new("/")).to_owned()),
            None => self.directory_for(&backing.path, inventory),
        });
        let directories = directories.collect::<Result<BTreeSet<_>, _>>()?;
        Ok(directories.into_iter().filter(|directory| inventory.is_local(directory)).collect())
    }

    /// All groups.
    pub(super) fn list(&self) -> Result<Vec<GroupSummary>, ProviderError> {
        self.groups()?.values().map(StoredGroup::summary).collect()
    }

    /// The group with this id.
    pub(super) fn find(&self, id: &str) -> Result<StoredGroup, ProviderError> {
        if !is_group_id(id) {
            return Err(fail(ExitCode::Parameters, format!("\"{id}\" is not the id of a group"))
                .hint("an id looks like 20261120T093000Z-nightly-0f3a91c2"));
        }
        let mut groups = self.groups()?;
        if let Some(group) = groups.remove(id) {
            return Ok(group);
        }
        let known: Vec<&str> = groups.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "there are none".to_owned() } else { known.join(", ") };
        Err(fail(ExitCode::GroupState, format!("there is no group {id} (groups: {known})")).hint(
            "groups beside an image are found while its loop device is attached; otherwise set \
             `directory` to the directory that holds them",
        ))
    }

    /// Replaces the manifest of a group, wherever it is kept.
    pub(super) fn amend(&self, id: &str, manifest: &Manifest) -> Result<(), ProviderError> {
        let group = self.find(id)?;
        let _locks = group.lock()?;
        let kept = group.folders.iter().filter(|folder| folder.join(MANIFEST).is_file());
        kept.into_iter().try_for_each(|folder| write_manifest(folder, manifest))
    }

    fn groups(&self) -> Result<BTreeMap<String, StoredGroup>, ProviderError> {
        let inventory = Inventory::collect().map_err(plan_error)?;
        let mut folders: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
        for directory in self.directories(&inventory)? {
            for (id, folder) in group_folders(&directory)? {
                folders.entry(id).or_default().insert(folder);
            }
        }
        Ok(folders
            .into_iter()
            .map(|(id, folders)| (id.clone(), StoredGroup::load(id, folders, &inventory)))
            .collect())
    }
}

impl StoredGroup {
    fn load(id: String, mut folders: BTreeSet<PathBuf>, inventory: &Inventory) -> Self {
        let found = folders.iter().map(|folder| read_record(folder, &id));
        let record = match found.reduce(Result::or) {
            Some(Ok(record)) => record,
            Some(Err(why)) => return Self { id, folders, record: None, incomplete: Some(why) },
            None => {
                let incomplete = Some("it has no folder".to_owned());
                return Self { id, folders, record: None, incomplete };
            }
        };
        // A group can be spread over directories that nothing else leads to.
        for directory in record.directories() {
            let there = [directory.join(&id), directory.join(unfinished(&id))];
            let local = there.into_iter().filter(|folder| inventory.is_local(folder));
            folders.extend(local.filter(|folder| folder.is_dir()));
        }
        let mut group = Self { id, folders, record: Some(record.clone()), incomplete: None };
        group.incomplete = record.members.iter().find_map(|member| group.why_missing(member));
        group
    }

    fn why_missing(&self, member: &MemberRecord) -> Option<String> {
        let clone = self.clone_of(member);
        if clone.is_file() {
            return None;
        }
        let unfinished = self.folders.iter().any(|folder| is_unfinished(folder));
        Some(if unfinished {
            "the run that made it did not get to its end".to_owned()
        } else {
            format!("{} is missing", clone.display())
        })
    }

    /// The finished folder that a member's clone is in.
    pub(super) fn folder_of(&self, member: &MemberRecord) -> PathBuf {
        let there = member.directory.join(&self.id);
        // The file system can be mounted elsewhere now.
        let elsewhere = || {
            let mut finished = self.folders.iter().filter(|folder| !is_unfinished(folder));
            finished.find(|folder| folder.join(&member.file).is_file()).cloned()
        };
        if there.join(&member.file).is_file() { there } else { elsewhere().unwrap_or(there) }
    }

    pub(super) fn clone_of(&self, member: &MemberRecord) -> PathBuf {
        self.folder_of(member).join(&member.file)
    }

    fn summary(&self) -> Result<GroupSummary, ProviderError> {
        let members = self.record.iter().flat_map(|record| &record.members).map(|member| {
            let clone = self.clone_of(member);
            let bytes = fs::metadata(&clone).ok().map(|meta| meta.len());
            Member { disk: member.disk.clone(), snapshot: clone.display().to_string(), bytes }
        });
        let manifest = self.folders.iter().find_map(|folder| {
            let text = fs::read(folder.join(MANIFEST)).ok()?;
            serde_json::from_slice::<Manifest>(&text).ok()
        });
        let no_manifest =
            || manifest.is_none().then(|| "it has no manifest that can be read".to_owned());
        Ok(GroupSummary {
            id: self.id.clone(),
            members: members.collect(),
            incomplete: self.incomplete.clone().or_else(no_manifest),
            manifest: manifest.map(Box::new),
        })
    }

    /// Locks the group's folders against other commands, as long as the result lives.
    pub(super) fn lock(&self) -> Result<Vec<FileLock>, ProviderError> {
        self.folders.iter().map(|folder| lock(folder)).collect()
    }
}

/// Locks a group's folder: a run that makes it, and every command that changes it, hold the lock.
pub(super) fn lock(folder: &Path) -> Result<FileLock, ProviderError> {
    let cannot = |error| io_error(ExitCode::GroupState, "cannot open", folder, error);
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(folder)
        .map_err(cannot)?;
    FileLock::try_new(handle).map_err(|(_, error)| match error {
        TryLockError::WouldBlock => {
            fail(ExitCode::InProgress, format!("{} is in use by another run", folder.display()))
                .hint("try again when it has ended")
        }
        TryLockError::Error(error) => io_error(ExitCode::GroupState, "cannot lock", folder, error),
    })
}

/// The group's folder that `path` is in.
fn group_folder_of(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|folder| {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        is_group_id(name.strip_suffix(INCOMPLETE).unwrap_or(name))
    })
}

fn group_folders(directory: &Path) -> Result<Vec<(String, PathBuf)>, ProviderError> {
    let cannot = |error| io_error(ExitCode::GroupState, "cannot read", directory, error);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(cannot)?,
    };
    check_directory(directory)?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(cannot)?;
        let is_folder = entry.file_type().map_err(cannot)?.is_dir();
        let name = entry.file_name().to_string_lossy().into_owned();
        let id = name.strip_suffix(INCOMPLETE).unwrap_or(&name);
        if is_folder && is_group_id(id) {
            folders.push((id.to_owned(), entry.path()));
        }
    }
    Ok(folders)
}

fn read_record(folder: &Path, id: &str) -> Result<Record, String> {
    let path = folder.join(RECORD);
    let cannot = |why: String| format!("{} cannot be read: {why}", path.display());
    let text = fs::read(&path).map_err(|error| cannot(error.to_string()))?;
    let record: Record =
        serde_json::from_slice(&text).map_err(|error| cannot(error.to_string()))?;
    let plain = |member: &MemberRecord| {
        let mut parts = Path::new(&member.file).components();
        matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
    };
    if record.id != id || !record.members.iter().all(plain) {
        return Err(cannot("it does not belong to this folder".to_owned()));
    }
    Ok(record)
}

/// Makes the directory for groups if it is not there, and checks it: nobody but root may be able
/// to put something of their own into it.
pub(super) fn make_directory(directory: &Path) -> Result<(), ProviderError> {
    let parent = directory.parent().unwrap_or(Path::new("/"));
    let meta = fs::metadata(parent)
        .map_err(|error| io_error(ExitCode::CreateFailed, "cannot look at", parent, error))?;
    let (sticky, others_write) = (meta.mode() & 0o1000 != 0, meta.mode() & 0o022 != 0);
    if others_write && !sticky {
        return Err(fail(
            ExitCode::Precondition,
            format!("others than its owner can rename things in {}", parent.display()),
        )
        .hint(format!(
            "`chmod go-w {}`, or set `directory` to a directory elsewhere on that file system",
            parent.display()
        )));
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other
            .map_err(|error| io_error(ExitCode::CreateFailed, "cannot make", directory, error))?,
    }
    check_directory(directory)
}

fn check_directory(directory: &Path) -> Result<(), ProviderError> {
    let meta = fs::symlink_metadata(directory)
        .map_err(|error| io_error(ExitCode::CreateFailed, "cannot look at", directory, error))?;
    let ours = nix::unistd::geteuid().as_raw();
    if meta.is_dir() && meta.uid() == ours && meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    let shown = directory.display();
    Err(fail(
        ExitCode::Precondition,
        format!("{shown} is not a directory that only root can enter"),
    )
    .hint(format!("`chown root {shown} && chmod 700 {shown}`, after looking at what it is")))
}

/// Writes a file so that it is there whole or not at all, also after a power cut.
fn write_whole(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    durable::write_whole(&folder.join(format!(".{name}.new")), &folder.join(name), text)
}

pub(super) fn write_record(folder: &Path, record: &Record) -> Result<(), ProviderError> {
    let cannot = |error| io_error(ExitCode::CreateFailed, "cannot write into", folder, error);
    let text = serde_json::to_vec_pretty(record).map_err(|error| cannot(error.into()))?;
    write_whole(folder, RECORD, &text).map_err(cannot)
}

pub(super) fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), ProviderError> {
    let cannot = |error| io_error(ExitCode::Tags, "cannot write the manifest into", folder, error);
    let text = serde_json::to_vec_pretty(manifest).map_err(|error| cannot(error.into()))?;
    write_whole(folder, MANIFEST, &text).map_err(cannot)
}

/// A new group's id: when, the operator's name for it, and the run.
pub(super) fn group_id(name: &str, run_id: &str) -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    format!("{now}-{}-{}", slug(name), run_digits(run_id))
}

fn slug(name: &str) -> String {
    let folded = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let mut slug = String::new();
    for c in folded {
        if !(c == '-' && (slug.is_empty() || slug.ends_with('-'))) {
            slug.push(c.to_ascii_lowercase());
        }
    }
    slug.truncate(SLUG_LENGTH);
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "snapshot".to_owned() } else { slug.to_owned() }
}

/// Eight hexadecimal digits that stand for the run.
fn run_digits(run_id: &str) -> String {
    let start: String = run_id.chars().take(8).collect();
    if start.len() == 8 && start.chars().all(is_lower_hex) {
        return start;
    }
    let digest = Sha256::digest(run_id.as_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

fn is_lower_hex(c: char) -> bool {
    matches!(c, '0'..='9' | 'a'..='f')
}

/// True if `id` has the form that [`group_id`] gives: nothing in it can lead out of a directory.
pub(super) fn is_group_id(id: &str) -> bool {
    let Some((time, rest)) = id.split_once('-') else { return false };
    let Some((slug, digits)) = rest.rsplit_once('-') else { return false };
    let is_digit = |c: char| c.is_ascii_digit();
    let time_fits = time.len() == 16
        && time.char_indices().all(|(index, c)| match index {
            8 => c == 'T',
            15 => c == 'Z',
            _ => is_digit(c),
        });
    let slug_fits = !slug.is_empty()
        && slug.len() <= SLUG_LENGTH
        && slug.chars().all(|c| is_digit(c) || c.is_ascii_lowercase() || c == '-');
    time_fits && slug_fits && digits.len() == 8 && digits.chars().all(is_lower_hex)
}

/// The name of a group's folder until all of it is on the disk.
pub(super) fn unfinished(id: &str) -> String {
    format!("{id}{INCOMPLETE}")
}

fn is_unfinished(folder: &Path) -> bool {
    folder.to_string_lossy().ends_with(INCOMPLETE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_of_time_name_and_run() {
        let id = group_id("Nightly: ../../etc/passwd", "0f3a91c2-7b1e-4c55-9d6b-1a2b3c4d5e6f");
        assert!(id.ends_with("Z-nightly-etc-passwd-0f3a91c2"), "{id}");
        assert!(is_group_id(&id), "{id}");
        for (name, run) in
            [("", "x"), ("äöü", ""), (&*"long ".repeat(40), "RUN-1"), ("a", "ä1234567")]
        {
            let id = group_id(name, run);
            assert!(is_group_id(&id), "{id}");
        }
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for id in [
            "",
            "..",
            "20261120T093000Z-a/../b-0f3a91c2",
            "20261120T093000Z--0f3a91c",
            "20261120T093000Z-a-0F3A91C2",
            "20261120T0930000-a-0f3a91c2",
            "2026112äT93000Z-a-0f3a91c2",
            "20261120T093000Z-0f3a91c2",
        ] {
            assert!(!is_group_id(id), "{id}");
        }
    }

    #[test]
    fn clones_and_attached_copies_are_known_as_ours() {
        let store = Store::new(None);
        let group = "/srv/.stillpoint/20261120T093000Z-a-0f3a91c2";
        assert!(store.is_copy(Path::new(&format!("{group}/00-a.img"))));
        assert!(store.is_copy(Path::new(&format!("{group}/attached/00-a.img"))));
        assert!(store.is_copy(Path::new(&format!("{group}.incomplete/00-a.img"))));
        assert!(!store.is_copy(Path::new("/srv/.stillpoint/a.img")));
    }

    #[test]
    fn a_directory_that_others_can_enter_or_swap_is_refused() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let base = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let directory = base.path().join(".stillpoint");
        make_directory(&directory).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        make_directory(&directory).unwrap();
        mode(&directory, 0o755);
        assert!(make_directory(&directory).unwrap_err().hint.unwrap().contains("chmod 700"));
        fs::remove_dir(&directory).unwrap();
        symlink("/etc", &directory).unwrap();
        assert!(make_directory(&directory).is_err());
        fs::remove_file(&directory).unwrap();
        mode(base.path(), 0o777);
        assert!(make_directory(&directory).unwrap_err().to_string().contains("rename"));
    }
}
