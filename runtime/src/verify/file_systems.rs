//! What state a file system was copied in: read from its superblock before anything mounts it, and from
//! the programs that check it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use nix::mount::{MsFlags, mount, umount};

use super::job::{CopiedFileSystem, Event};
use super::keeper::tell;
use super::verdict::{Code, FileSystemCheck, Finding};

/// Where programs are looked for.
const PROGRAMS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Entries that two looks at an XFS are compared by. Of more, the first of them are.
const MOST_ENTRIES: usize = 200_000;

/// Lines of a checking program that are told.
const MOST_LINES: usize = 5;

/// What is mounted is data: nothing on it is a program or a device for us.
const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// A file system that can be mounted.
#[derive(Debug)]
pub(super) struct Sound {
    pub(super) mount_point: PathBuf,
    pub(super) fs_type: String,
    pub(super) device: PathBuf,
}

/// Looks at one, checks it, and tells what it finds. `scratch` is an empty directory. `None`: it cannot
/// be mounted.
pub(super) fn check(copied: &CopiedFileSystem, scratch: &Path) -> Option<Sound> {
    let shown = copied.mount_point.display().to_string();
    tell(&Event::Doing(format!("the file system of {shown}")));
    let device = match device_of(&copied.node, &copied.fs_type) {
        Ok(device) => device,
        Err(why) => {
            tell(&Event::Found(Finding::new(Code::NotMountable, shown, why)));
            return None;
        }
    };
    let sound =
        Sound { mount_point: copied.mount_point.clone(), fs_type: copied.fs_type.clone(), device };
    match examine(&sound, scratch) {
        Ok(Examined { replay, checked_by, errors }) => {
            let journal_clean = replay.is_none();
            let found = |code, detail| tell(&Event::Found(Finding::new(code, &shown, detail)));
            replay.into_iter().for_each(|what| found(Code::JournalReplay, what));
            errors.into_iter().for_each(|what| found(Code::FileSystemErrors, what));
            tell(&Event::FileSystem(FileSystemCheck {
                mount_point: copied.mount_point.clone(),
                fs_type: copied.fs_type.clone(),
                disk: copied.disk.clone(),
                journal_clean,
                checked_by,
            }));
            Some(sound)
        }
        Err(error) => {
            tell(&Event::Found(Finding::new(Code::NotMountable, shown, error.to_string())));
            None
        }
    }
}

/// Mounts it at a directory that is there.
pub(super) fn mount_at(sound: &Sound, place: &Path) -> io::Result<()> {
    let options = match sound.fs_type.as_str() {
        // The original, of the same UUID, is mounted, too.
        "xfs" => Some("nouuid"),
        _ => None,
    };
    mount_with(sound, place, PLAIN, options)
}

fn mount_with(
    sound: &Sound,
    place: &Path,
    flags: MsFlags,
    options: Option<&str>,
) -> io::Result<()> {
    Ok(mount(Some(&sound.device), place, Some(sound.fs_type.as_str()), flags, options)?)
}

struct Examined {
    replay: Option<String>,
    checked_by: Option<String>,
    errors: Vec<String>,
}

fn examine(sound: &Sound, scratch: &Path) -> io::Result<Examined> {
    let replay = match sound.fs_type.as_str() {
        "ext3" | "ext4" => ext4_replay(&sound.device)?,
        "xfs" => xfs_replay(sound, scratch)?,
        "btrfs" => btrfs_replay(&sound.device)?,
        _ => None,
    };
    if sound.fs_type == "btrfs" {
        // It finds file systems by UUID: beside its original, the copy needs one of its own.
        give_own_uuid(&sound.device)?;
    }
    // The replay, if one is needed, so that what is checked is what a restore would have.
    mount_at(sound, scratch)?;
    umount(scratch)?;
    let (program, arguments): (_, &[&str]) = match sound.fs_type.as_str() {
        "ext2" | "ext3" | "ext4" => ("e2fsck", &["-f", "-n"]),
        "xfs" => ("xfs_repair", &["-n"]),
        "btrfs" => ("btrfs", &["check", "--readonly"]),
        _ => return Ok(Examined { replay, checked_by: None, errors: Vec::new() }),
    };
    let Some((status, said)) = run(program, arguments, &sound.device)? else {
        return Ok(Examined { replay, checked_by: None, errors: Vec::new() });
    };
    let errors = if status.success() { Vec::new() } else { last_lines(program, status, &said) };
    Ok(Examined { replay, checked_by: Some(program.to_owned()), errors })
}

fn last_lines(program: &str, status: ExitStatus, said: &str) -> Vec<String> {
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let first = lines.len().saturating_sub(MOST_LINES);
    let told = lines.get(first..).unwrap_or_default().join("; ");
    vec![format!("{program} ended with {status}: {told}")]
}

/// The device itself, or the partition of it that has a file system of this type.
fn device_of(node: &Path, fs_type: &str) -> Result<PathBuf, String> {
    let mut candidates = vec![node.to_owned()];
    if let Some(name) = node.file_name().and_then(|name| name.to_str()) {
        let entries = fs::read_dir(Path::new("/sys/class/block").join(name));
        let names = entries.into_iter().flatten().filter_map(Result::ok).map(|it| it.file_name());
        let partitions =
            names.filter_map(|it| it.into_string().ok()).filter(|it| it.starts_with(name));
        candidates.extend(partitions.map(|partition| Path::new("/dev").join(partition)));
    }
    let mut found: Vec<PathBuf> =
        candidates.into_iter().filter(|device| has_type(device, fs_type)).collect();
    match (found.len(), found.pop()) {
        (1, Some(device)) => Ok(device),
        (0, _) => Err(format!("there is no {fs_type} on the copy of its disk")),
        (several, _) => {
            Err(format!("{several} partitions of its disk have an {fs_type}: which is not known"))
        }
    }
}

/// Magic numbers where each type has them; the types that we do not know are taken on trust.
fn has_type(device: &Path, fs_type: &str) -> bool {
    let (offset, magic): (u64, &[u8]) = match fs_type {
        "ext2" | "ext3" | "ext4" => (1024 + 0x38, &[0x53, 0xef]),
        "xfs" => (0, b"XFSB"),
        "btrfs" => (0x1_0040, b"_BHRfS_M"),
        _ => return true,
    };
    let mut found = vec![0; magic.len()];
    let read = File::open(device).and_then(|file| file.read_exact_at(&mut found, offset));
    read.is_ok() && found == magic
}

fn read_u32(device: &Path, offset: u64) -> io::Result<u32> {
    let mut bytes = [0; 4];
    File::open(device)?.read_exact_at(&mut bytes, offset)?;
    Ok(u32::from_le_bytes(bytes))
}

/// A freeze takes the flag `needs_recovery` away, a thaw sets it again.
fn ext4_replay(device: &Path) -> io::Result<Option<String>> {
    const FEATURE_INCOMPAT: u64 = 1024 + 0x60;
    const NEEDS_RECOVERY: u32 = 0x4;
    let features = read_u32(device, FEATURE_INCOMPAT)?;
    let needed = features & NEEDS_RECOVERY != 0;
    Ok(needed.then(|| "the journal was replayed: needs_recovery was set".to_owned()))
}

/// The log tree is what fsync wrote since the last commit; a freeze commits.
fn btrfs_replay(device: &Path) -> io::Result<Option<String>> {
    const LOG_ROOT: u64 = 0x1_0000 + 96;
    let (low, high) = (read_u32(device, LOG_ROOT)?, read_u32(device, LOG_ROOT + 4)?);
    let needed = low != 0 || high != 0;
    Ok(needed.then(|| "the log tree was replayed: it was not empty".to_owned()))
}

/// The log of a frozen XFS is dirty on purpose. What counts is whether its replay changes what anybody
/// can see.
fn xfs_replay(sound: &Sound, scratch: &Path) -> io::Result<Option<String>> {
    let without = entries(sound, scratch, PLAIN | MsFlags::MS_RDONLY, "norecovery,nouuid")?;
    let with = entries(sound, scratch, PLAIN, "nouuid")?;
    if without.len() >= MOST_ENTRIES || with.len() >= MOST_ENTRIES {
        let place = sound.mount_point.display();
        let what = format!("{place}: the log was compared by {MOST_ENTRIES} of its files");
        tell(&Event::NotChecked(what));
    }
    let changed = with.iter().find(|(path, entry)| without.get(*path) != Some(entry));
    let lost = || without.keys().find(|path| !with.contains_key(*path));
    let path = changed.map(|(path, _)| path).or_else(lost);
    Ok(path.map(|path| {
        let path = path.strip_prefix(scratch).unwrap_or(path);
        format!("the log was replayed, which changed {}", Path::new("/").join(path).display())
    }))
}

/// Mode, links, size and time of the last change.
type Entry = (u32, u64, u64, (i64, i64));

fn entries(
    sound: &Sound,
    scratch: &Path,
    flags: MsFlags,
    options: &str,
) -> io::Result<BTreeMap<PathBuf, Entry>> {
    mount_with(sound, scratch, flags, Some(options))?;
    let found = walk(scratch);
    umount(scratch)?;
    found
}

fn walk(top: &Path) -> io::Result<BTreeMap<PathBuf, Entry>> {
    let mut found = BTreeMap::new();
    let mut paths = vec![top.to_owned()];
    while let Some(path) = paths.pop() {
        if found.len() >= MOST_ENTRIES {
            break;
        }
        // Without the log an entry may lead nowhere.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            let mut below: Vec<PathBuf> =
                fs::read_dir(&path)?.filter_map(Result::ok).map(|it| it.path()).collect();
            below.sort();
            paths.append(&mut below);
        }
        let changed = (meta.mtime(), meta.mtime_nsec());
        found.insert(path, (meta.mode(), meta.nlink(), meta.size(), changed));
    }
    Ok(found)
}

fn give_own_uuid(device: &Path) -> io::Result<()> {
    match run("btrfstune", &["-f", "-m"], device)? {
        Some((status, _)) if status.success() => Ok(()),
        Some((_, said)) => Err(io::Error::other(format!("no UUID of its own: {}", said.trim()))),
        None => Err(io::Error::other("btrfstune, of btrfs-progs, is not installed here")),
    }
}

/// Runs a program on a device; `None` if it is not installed.
fn run(
    program: &str,
    arguments: &[&str],
    device: &Path,
) -> io::Result<Option<(ExitStatus, String)>> {
    let Some(path) = find_program(program) else { return Ok(None) };
    let output = Command::new(path)
        .args(arguments)
        .arg(device)
        .env_clear()
        .env("PATH", PROGRAMS.join(":"))
        .stdin(Stdio::null())
        .output()?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Some((output.status, said)))
}

/// Where a program is, if it is installed.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    PROGRAMS.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(bytes: &[(usize, &[u8])]) -> tempfile::NamedTempFile {
        let mut content = vec![0_u8; 0x1_1000];
        for (offset, bytes) in bytes {
            content[*offset..*offset + bytes.len()].copy_from_slice(bytes);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn an_ext4_that_was_not_frozen_wants_its_journal() {
        let running = image(&[(1024 + 0x60, &[0xc6, 0x02, 0, 0])]);
        assert!(ext4_replay(running.path()).unwrap().is_some());
        let frozen = image(&[(1024 + 0x60, &[0xc2, 0x02, 0, 0])]);
        assert_eq!(ext4_replay(frozen.path()).unwrap(), None);
    }

    #[test]
    fn a_btrfs_with_a_log_tree_wants_it_replayed() {
        let running = image(&[(0x1_0000 + 96, &[0, 0, 0xd1, 1])]);
        assert!(btrfs_replay(running.path()).unwrap().is_some());
        assert_eq!(btrfs_replay(image(&[]).path()).unwrap(), None);
    }

    #[test]
    fn a_type_is_known_by_its_magic_number() {
        let ext4 = image(&[(1024 + 0x38, &[0x53, 0xef])]);
        assert!(has_type(ext4.path(), "ext4") && !has_type(ext4.path(), "xfs"));
        let btrfs = image(&[(0x1_0040, b"_BHRfS_M")]);
        assert!(has_type(btrfs.path(), "btrfs") && !has_type(btrfs.path(), "ext4"));
        assert!(has_type(image(&[(0, b"XFSB")]).path(), "xfs"));
    }
}
