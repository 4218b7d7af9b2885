//! File systems to freeze: images on a reflink XFS that is itself an image, all in one directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command::{of_lab, run};
use crate::watchdog::Watchdog;

/// Types of file systems that can be frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsType {
    /// ext4
    Ext4,
    /// XFS
    Xfs,
    /// btrfs
    Btrfs,
}

impl FsType {
    /// As mount and mkfs call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FsType::Ext4 => "ext4",
            FsType::Xfs => "xfs",
            FsType::Btrfs => "btrfs",
        }
    }

    /// Options that make a file system at once, without work that goes on in the background.
    fn mkfs_options(self) -> &'static [&'static str] {
        match self {
            FsType::Ext4 => &["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
            FsType::Xfs => &["-q"],
            FsType::Btrfs => &["-q"],
        }
    }
}

/// A file system to make.
#[derive(Clone, Debug)]
pub struct FsSpec {
    name: String,
    fs_type: FsType,
    mib: u64,
}

impl FsSpec {
    /// A file system of this type and size, mounted at `mnt/NAME` of the lab. XFS wants 300 MiB.
    #[must_use]
    pub fn new(name: impl Into<String>, fs_type: FsType, mib: u64) -> Self {
        Self { name: name.into(), fs_type, mib }
    }
}

/// The name of a file that takes all the room of a file system, for a test.
pub const FILLER: &str = "stillpoint-lab-filler";

/// One of the lab's file systems, mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its name in the lab.
    pub name: String,
    /// Its type.
    pub fs_type: FsType,
    /// The image that it lies on.
    pub image: PathBuf,
    /// The loop device of the image.
    pub device: PathBuf,
    /// Where it is mounted.
    pub mount: PathBuf,
}

/// A directory with a reflink XFS, images on it, and their file systems mounted. All of it is gone
/// when this is dropped, or when the process dies.
#[derive(Debug)]
pub struct Lab {
    directory: PathBuf,
    file_systems: Vec<FileSystem>,
    // Last: what else the lab holds is closed before it cleans up.
    watchdog: Watchdog,
}

impl Lab {
    /// Makes one. It lives at most for `time`.
    ///
    /// # Errors
    /// If this is not root, or a program fails; what was made is removed.
    pub fn new(specs: &[FsSpec], time: Duration) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "the lab mounts and freezes: run it as root");
        let directory = tempfile::Builder::new()
            .prefix("stillpoint-lab.")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .context("cannot make a directory")?
            .keep();
        let watchdog = Watchdog::start(&directory, time)?;
        let mut lab = Self { directory, file_systems: Vec::new(), watchdog };
        lab.make_host(specs)?;
        for spec in specs {
            lab.make_file_system(spec)?;
        }
        lab.make_root()?;
        Ok(lab)
    }

    /// The lab's directory; nothing outside it belongs to the lab.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the images are: a reflink XFS.
    #[must_use]
    pub fn host(&self) -> PathBuf {
        self.directory.join("host")
    }

    /// What `stillpoint --root` is given.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// All file systems, in the order in which they were asked for.
    #[must_use]
    pub fn file_systems(&self) -> &[FileSystem] {
        &self.file_systems
    }

    /// Where the file system of this name is mounted.
    #[must_use]
    pub fn mount(&self, name: &str) -> PathBuf {
        self.directory.join("mnt").join(name)
    }

    /// A directory of the lab that is on none of its file systems.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn scratch(&self, name: &str) -> Result<PathBuf> {
        let directory = self.directory.join("scratch").join(name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory)
    }

    /// A command whose process is ended with the lab.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        of_lab(program, &self.directory)
    }

    /// Mounts a block device at a new directory `copy/NAME` of the lab.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn mount_copy(&self, device: &Path, fs_type: FsType, name: &str) -> Result<PathBuf> {
        let mount = self.directory.join("copy").join(name);
        fs::create_dir_all(&mount)?;
        if fs_type == FsType::Btrfs {
            // It finds file systems by UUID, and the original, of the same, is mounted.
            run("btrfstune", [Path::new("-f"), Path::new("-m"), device])?;
        }
        let mut command = Command::new("mount");
        command.args(["-t", fs_type.name()]);
        if fs_type == FsType::Xfs {
            // The original, of the same UUID, is mounted too.
            command.args(["-o", "nouuid"]);
        }
        crate::command::output_of(command.arg(device).arg(&mount))?;
        // No server starts on a full disk: whoever restores one makes room.
        match fs::remove_file(mount.join(FILLER)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(mount),
        }
    }

    /// Removes everything, and says if something could not be.
    ///
    /// # Errors
    /// If something is left.
    pub fn finish(mut self) -> Result<()> {
        self.watchdog.finish()
    }

    fn make_host(&self, specs: &[FsSpec]) -> Result<()> {
        // Sparse: room for the images, for copies of what changes, and for the XFS itself.
        let mib = 1024 + 3 * specs.iter().map(|spec| spec.mib).sum::<u64>();
        let image = self.directory.join("host.img");
        make_image(&image, mib)?;
        run("mkfs.xfs", [Path::new("-q"), Path::new("-m"), Path::new("reflink=1"), &image])?;
        let device = attach(&image, false)?;
        mount(&device, &self.host(), "xfs")
    }

    fn make_file_system(&mut self, spec: &FsSpec) -> Result<()> {
        let image = self.host().join(format!("{}.img", spec.name));
        make_image(&image, spec.mib)?;
        // Without it every block that is written after a clone becomes an extent of its own.
        run("xfs_io", [Path::new("-c"), Path::new("cowextsize 1m"), &image])?;
        let mut mkfs = Command::new(format!("mkfs.{}", spec.fs_type.name()));
        crate::command::output_of(mkfs.args(spec.fs_type.mkfs_options()).arg(&image))?;
        let device = attach(&image, true)?;
        let mount_point = self.mount(&spec.name);
        mount(&device, &mount_point, spec.fs_type.name())?;
        self.file_systems.push(FileSystem {
            name: spec.name.clone(),
            fs_type: spec.fs_type,
            image,
            device,
            mount: mount_point,
        });
        Ok(())
    }

    /// stillpoint's run directory has to be on a tmpfs, as /run is on most machines.
    fn make_root(&self) -> Result<()> {
        let run_directory = self.root().join("run");
        fs::create_dir_all(&run_directory)?;
        run(
            "mount",
            ["-t", "tmpfs", "-o", "mode=0755,size=16m", "tmpfs"]
                .map(Path::new)
                .into_iter()
                .chain([run_directory.as_path()]),
        )?;
        Ok(())
    }
}

fn make_image(image: &Path, mib: u64) -> Result<()> {
    fs::File::create_new(image)
        .and_then(|file| file.set_len(mib * 1024 * 1024))
        .with_context(|| format!("cannot make {}", image.display()))
}

/// Attaches an image to a free loop device of 512-byte sectors. The kernel would choose 4096 for an
/// image that was cloned before, and a file system made for 512 cannot be mounted then.
///
/// # Errors
/// If `losetup` fails.
pub fn attach(image: &Path, direct_io: bool) -> Result<PathBuf> {
    let mut command = Command::new("losetup");
    command.args(["--find", "--show", "--sector-size", "512"]);
    if direct_io {
        command.arg("--direct-io=on");
    }
    let device = crate::command::output_of(command.arg(image))?;
    Ok(PathBuf::from(device.trim()))
}

fn mount(device: &Path, mount_point: &Path, fs_type: &str) -> Result<()> {
    fs::create_dir_all(mount_point)?;
    run("mount", [Path::new("-t"), Path::new(fs_type), device, mount_point])?;
    Ok(())
}
