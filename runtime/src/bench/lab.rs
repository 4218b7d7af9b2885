//! File systems to freeze, made for it: in mounts that nobody else sees, on images that have no name,
//! on loop devices that go when they are not used. All of it is gone with the processes that use it.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::BenchError;
use super::document::{BenchFileSystem, Image};
use super::lifeline::Lifeline;
use crate::guard::mounts::open_directory;
use crate::plan::{FileSystem, MountTable, parse_mountinfo};
use crate::sys::loopdev::{self, Geometry};
use crate::sys::reflink;

/// Types of file systems that a lab can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4
    Ext4,
    /// XFS
    Xfs,
    /// btrfs
    Btrfs,
}

impl Kind {
    /// As the kernel names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
        }
    }

    /// Makes one at once, without work that goes on in the background, and leaves the image sparse.
    fn options(self) -> &'static [&'static str] {
        match self {
            Kind::Ext4 => &["-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
            Kind::Xfs => &["-q", "-f", "-K"],
            Kind::Btrfs => &["-q", "-f", "-K"],
        }
    }

    fn package(self) -> &'static str {
        match self {
            Kind::Ext4 => "e2fsprogs",
            Kind::Xfs => "xfsprogs",
            Kind::Btrfs => "btrfs-progs",
        }
    }

    /// What it takes for itself and the writers, in MiB: XFS is not made smaller.
    fn least_mib(self) -> u64 {
        match self {
            Kind::Ext4 => 64,
            Kind::Xfs => 320,
            Kind::Btrfs => 256,
        }
    }
}

/// A lab: dropped, or left by a process that dies, it is gone.
#[derive(Debug)]
pub(super) struct Lab {
    /// First: what is mounted is gone before those who could still use it are waited for.
    _mounted: Mounted,
    /// As the guard wants them.
    pub(super) file_systems: Vec<FileSystem>,
    /// The same, opened.
    pub(super) mounts: Vec<OwnedFd>,
    /// Where journals of the lab are: a tmpfs that nobody else sees.
    pub(super) run_dir: PathBuf,
    pub(super) lifeline: Lifeline,
    images: Vec<LabImage>,
}

/// What was mounted, in that order; unmounted when dropped.
#[derive(Debug, Default)]
struct Mounted(Vec<PathBuf>);

impl Drop for Mounted {
    fn drop(&mut self) {
        for point in self.0.iter().rev() {
            let _ = umount2(point, MntFlags::MNT_DETACH);
        }
    }
}

#[derive(Debug)]
struct LabImage {
    file: File,
    bytes: u64,
    on: String,
    direct_io: bool,
    extents_before: Option<u32>,
}

/// How large each image is: for the dirty data of the smallest number of file systems that it is
/// in, and for the file system itself.
pub(super) fn sizes(kind: Kind, counts: &[usize], dirty_bytes: u64) -> Vec<u64> {
    let all = counts.iter().copied().max().unwrap_or_default();
    let share = |index: usize| {
        let fewest = counts.iter().copied().filter(|count| *count > index).min().unwrap_or(all);
        dirty_bytes / u64::try_from(fewest.max(1)).unwrap_or(1)
    };
    // An eighth for what describes the data.
    (0..all).map(|index| (kind.least_mib() << 20) + share(index) / 8 * 9).collect()
}

impl Lab {
    /// Makes file systems of these sizes, in bytes. From then on the calling thread, which must be
    /// the process's first, and all that it starts have mounts of their own: `private`, a directory,
    /// is covered by a tmpfs there.
    pub(super) fn make(
        kind: Kind,
        sizes: &[u64],
        directory: &Path,
        private: &Path,
    ) -> Result<Self, BenchError> {
        let mkfs = format!("mkfs.{}", kind.name());
        find(&mkfs, kind.package())?;
        has_room(directory, sizes.iter().sum())?;
        let on = type_of(directory)?;
        have_own_mounts()?;
        mount_at(None, private, "tmpfs", Some("mode=0700,size=64m"))?;
        let mut mounted = Mounted(vec![private.to_owned()]);
        let mut images = Vec::new();
        for (index, bytes) in sizes.iter().enumerate() {
            let point = private.join(format!("fs{index}"));
            images.push(make_one(kind, &mkfs, *bytes, directory, &point, &on)?);
            mounted.0.push(point);
        }
        let points = &mounted.0[1..];
        let mounts = points
            .iter()
            .map(|point| open_directory(point))
            .collect::<io::Result<Vec<_>>>()
            .map_err(BenchError::system("open the lab's mount points"))?;
        Ok(Self {
            file_systems: planned(points)?,
            lifeline: Lifeline::start(&mounts)?,
            _mounted: mounted,
            mounts,
            run_dir: private.join("journal"),
            images,
        })
    }

    /// What was frozen, for the document. To be asked when it is over.
    pub(super) fn told(&self) -> Vec<BenchFileSystem> {
        let one = |(fs, image): (&FileSystem, &LabImage)| BenchFileSystem {
            name: fs
                .mount_point
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            fs_type: fs.fs_type.clone(),
            image: Some(Image {
                bytes: image.bytes,
                on: image.on.clone(),
                direct_io: image.direct_io,
                extents_before: image.extents_before,
                extents_after: reflink::extent_count(&image.file).ok(),
            }),
        };
        self.file_systems.iter().zip(&self.images).map(one).collect()
    }

    /// The images have been written to by what came before the first round.
    pub(super) fn count_extents(&mut self) {
        for image in &mut self.images {
            image.extents_before = reflink::extent_count(&image.file).ok();
        }
    }
}

fn make_one(
    kind: Kind,
    mkfs: &str,
    bytes: u64,
    directory: &Path,
    point: &Path,
    on: &str,
) -> Result<LabImage, BenchError> {
    let make = || -> io::Result<File> {
        let file = tempfile::tempfile_in(directory)?;
        file.set_len(bytes)?;
        Ok(file)
    };
    let file = make().map_err(BenchError::system(format!(
        "make an image of {} MiB in {}",
        bytes >> 20,
        directory.display()
    )))?;
    let geometry = Geometry { offset: 0, size_limit: 0, block_size: 512 };
    let (_in_use, node) = loopdev::attach_passing(&file, directory, geometry)
        .map_err(BenchError::system("attach an image to a loop device"))?;
    run(Command::new(mkfs).args(kind.options()).arg(&node))?;
    mount_at(Some(&node), point, kind.name(), None)?;
    let direct_io = node
        .file_name()
        .map(|name| Path::new("/sys/block").join(name).join("loop/dio"))
        .and_then(|path| fs::read_to_string(path).ok())
        .is_some_and(|flag| flag.trim() == "1");
    Ok(LabImage { file, bytes, on: on.to_owned(), direct_io, extents_before: None })
}

/// What is mounted from now on, nobody else sees; what others unmount is unmounted here, too.
fn have_own_mounts() -> Result<(), BenchError> {
    if nix::unistd::gettid() != nix::unistd::getpid() {
        return Err(BenchError::Options(
            "a lab is made by a program's first thread: its mounts are its own".to_owned(),
        ));
    }
    let own = || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        Ok(mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?)
    };
    own().map_err(BenchError::system("have mounts of its own (CAP_SYS_ADMIN)"))
}

fn mount_at(
    node: Option<&Path>,
    point: &Path,
    kind: &str,
    options: Option<&str>,
) -> Result<(), BenchError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let source = node.unwrap_or(Path::new("stillpoint-bench"));
    fs::create_dir_all(point)
        .and_then(|()| Ok(mount(Some(source), point, Some(kind), flags, options)?))
        .map_err(BenchError::system(format!("mount {kind} at {}", point.display())))
}

/// What the guard is to freeze.
fn planned(points: &[PathBuf]) -> Result<Vec<FileSystem>, BenchError> {
    let table = mount_table()?;
    let find = |point: &PathBuf| {
        let found = table.iter().rfind(|mount| mount.mount_point == *point);
        let found = found.ok_or_else(|| {
            BenchError::Spoiled(format!("{} is not mounted any more", point.display()))
        })?;
        Ok(FileSystem {
            superblock: found.superblock,
            mount_point: point.clone(),
            mount_id: found.id,
            fs_type: found.fs_type.clone(),
            source: found.source.display().to_string(),
            other_mounts: Vec::new(),
            disks: Vec::new(),
            wave: 0,
        })
    };
    points.iter().map(find).collect()
}

fn mount_table() -> Result<Vec<crate::plan::Mount>, BenchError> {
    let text = fs::read("/proc/self/mountinfo")
        .map_err(BenchError::system("read /proc/self/mountinfo"))?;
    parse_mountinfo(&text)
        .map_err(io::Error::other)
        .map_err(BenchError::system("read /proc/self/mountinfo"))
}

/// The type of the file system that a directory lies on.
fn type_of(directory: &Path) -> Result<String, BenchError> {
    let canonical = directory
        .canonicalize()
        .map_err(BenchError::system(format!("find {}", directory.display())))?;
    let mounts = mount_table()?;
    let table = MountTable::new(&mounts);
    Ok(table.resolve(&canonical).map(|mount| mount.fs_type.clone()).unwrap_or_default())
}

fn has_room(directory: &Path, needed: u64) -> Result<(), BenchError> {
    let room = nix::sys::statvfs::statvfs(directory)
        .map_err(io::Error::from)
        .map_err(BenchError::system(format!("look for room in {}", directory.display())))?;
    let free = room.blocks_available() * room.fragment_size();
    if free < needed {
        return Err(BenchError::NoRoom { directory: directory.to_owned(), free, needed });
    }
    Ok(())
}

/// A program that will be needed later is looked for at once.
pub(super) fn find(tool: &str, package: &'static str) -> Result<(), BenchError> {
    if is_installed(tool) {
        return Ok(());
    }
    Err(BenchError::NoTool { tool: tool.to_owned(), package })
}

/// True if it is in one of the directories of `PATH`.
pub(super) fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}

/// Runs a program to its end.
pub(super) fn run(command: &mut Command) -> Result<(), BenchError> {
    let program = || {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    let program = program();
    let output = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(BenchError::system(format!("start {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let said = if said.is_empty() { output.status.to_string() } else { said };
    Err(BenchError::Program { program, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_room_for_its_share_of_the_dirty_data() {
        let gib = 1 << 30;
        let sizes = sizes(Kind::Ext4, &[1, 4, 16], gib);
        assert_eq!(sizes.len(), 16);
        assert!(sizes[0] > gib && sizes[0] < gib / 4 * 5, "{sizes:?}");
        assert!(sizes[3] > gib / 4 && sizes[15] > gib / 16 && sizes[15] < gib / 4, "{sizes:?}");
        assert_eq!(super::sizes(Kind::Xfs, &[2], 0), [320 << 20, 320 << 20]);
    }

    #[test]
    fn a_directory_without_room_is_refused_with_both_figures() {
        let directory = tempfile::tempdir().unwrap();
        let error = has_room(directory.path(), u64::MAX).unwrap_err();
        assert!(matches!(&error, BenchError::NoRoom { free, .. } if *free > 0), "{error}");
        assert!(error.hint().unwrap().contains("--dir"));
    }

    #[test]
    fn a_tool_that_is_missing_is_named_with_its_package() {
        let error = find("mkfs.stillpoint-none", "e2fsprogs").unwrap_err();
        assert_eq!(error.to_string(), "mkfs.stillpoint-none is not installed");
        assert!(error.hint().unwrap().contains("e2fsprogs"));
    }
}
