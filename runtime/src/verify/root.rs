//! The root that the servers see: the machine's programs, the copies at the paths of the originals, and
//! nothing else. An absolute path in the data (a tablespace's link, the index of a binary log) leads to
//! the copy, or nowhere.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::pivot_root;

use super::file_systems::{Sound, mount_at};
use crate::plan::{self, DevId};

/// Where the new root is put together: a directory of every machine. Only this name space sees it.
const STAGE: &str = "/run";

/// What servers are made of.
const PROGRAMS: [&str; 8] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt"];

/// What of `/etc` a server needs to know: who users are, where libraries are, what time it is, and how
/// databases are configured. No keys, no passwords, nothing of ours.
const SETTINGS: [&str; 11] = [
    "alternatives",
    "group",
    "ld.so.cache",
    "localtime",
    "machine-id",
    "my.cnf",
    "my.cnf.d",
    "mysql",
    "nsswitch.conf",
    "passwd",
    "timezone",
];

const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// What servers write beside their data: at most this much, in memory.
const SCRATCH: &str = "mode=1777,size=256m";

const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// A mount name space of our own, with an empty directory in it for a first look at the copies.
pub(super) fn own_mounts() -> io::Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let everything = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, everything, None::<&str>)?;
    tmpfs(Path::new(STAGE), "mode=0755,size=64m")?;
    let scratch = Path::new(STAGE).join(".look");
    fs::create_dir(&scratch)?;
    Ok(scratch)
}

/// Puts the root together and goes there. The copies are given with parents before children.
///
/// # Errors
/// If something cannot be mounted, or a copy turns out to be the original.
pub(super) fn enter(copies: &[Sound]) -> io::Result<()> {
    let stage = Path::new(STAGE);
    let whole = copies.iter().find(|copy| copy.mount_point == Path::new("/"));
    match whole {
        // The machine's programs are the copy's.
        Some(root) => mount_copy(root, stage)?,
        None => {
            fs::remove_dir(stage.join(".look"))?;
            PROGRAMS.iter().try_for_each(|name| show(name, stage))?;
            fs::create_dir(stage.join("etc"))?;
            SETTINGS.iter().try_for_each(|name| show(&format!("etc/{name}"), stage))?;
        }
    }
    // Before the copies: one of them can lie below `/tmp`, and would be covered.
    surroundings(stage)?;
    for copy in copies.iter().filter(|copy| copy.mount_point != Path::new("/")) {
        let below = copy.mount_point.strip_prefix("/").unwrap_or(&copy.mount_point);
        let place = stage.join(below);
        fs::create_dir_all(&place)?;
        mount_copy(copy, &place)?;
    }
    nix::unistd::chdir(stage)?;
    // The old root is stacked below the new one, and let go.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Ok(())
}

/// Mounts a copy, and makes sure that it is one: a kernel that knows file systems by UUID could have
/// given us the original, which nothing has been written to yet.
fn mount_copy(copy: &Sound, place: &Path) -> io::Result<()> {
    let before = superblocks(None)?;
    mount_at(copy, place)?;
    if superblocks(Some(place))?.iter().any(|it| before.contains(it)) {
        umount2(place, MntFlags::MNT_DETACH)?;
        return Err(io::Error::other(format!(
            "mounting the copy of {} gave its original",
            copy.mount_point.display()
        )));
    }
    Ok(())
}

/// Of all mounts, or of those at one place.
fn superblocks(at: Option<&Path>) -> io::Result<Vec<DevId>> {
    let text = fs::read("/proc/self/mountinfo")?;
    let mounts = plan::parse_mountinfo(&text).map_err(io::Error::other)?;
    let wanted = mounts.iter().filter(|mount| at.is_none_or(|at| mount.mount_point == at));
    // The latest of several at one place is the last of them.
    let found: Vec<DevId> = wanted.map(|mount| mount.superblock).collect();
    Ok(if at.is_some() { found.last().copied().into_iter().collect() } else { found })
}

/// Shows a file, directory or link of the machine at the same place below `stage`, read-only.
fn show(name: &str, stage: &Path) -> io::Result<()> {
    let (original, place) = (Path::new("/").join(name), stage.join(name));
    let Ok(meta) = fs::symlink_metadata(&original) else { return Ok(()) };
    if meta.is_symlink() {
        return symlink(fs::read_link(&original)?, &place);
    }
    if meta.is_dir() {
        fs::create_dir(&place)?
    } else {
        drop(File::create(&place)?)
    }
    let none = None::<&str>;
    // Without what is mounted below it: that could be an original.
    mount(Some(&original), &place, none, MsFlags::MS_BIND, none)?;
    let fixed = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | HARMLESS;
    Ok(mount(none, &place, none, fixed, none)?)
}

fn surroundings(stage: &Path) -> io::Result<()> {
    for name in ["proc", "dev", "tmp", "run", "var/tmp"] {
        fs::create_dir_all(stage.join(name))?;
    }
    let none = None::<&str>;
    let fixed = HARMLESS | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("proc"), &stage.join("proc"), Some("proc"), fixed, none)?;
    let dev = stage.join("dev");
    mount(Some("tmpfs"), &dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755,size=1m"))?;
    for device in DEVICES {
        let place = dev.join(device);
        drop(File::create(&place)?);
        let original = Path::new("/dev").join(device);
        mount(Some(&original), &place, none, MsFlags::MS_BIND, none)?;
    }
    fs::create_dir(dev.join("shm"))?;
    tmpfs(&dev.join("shm"), SCRATCH)?;
    tmpfs(&stage.join("var/tmp"), SCRATCH)?;
    tmpfs(&stage.join("tmp"), SCRATCH)
}

fn tmpfs(place: &Path, options: &str) -> io::Result<()> {
    let flags = HARMLESS | MsFlags::MS_NOEXEC;
    Ok(mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options))?)
}
