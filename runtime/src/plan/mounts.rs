//! `/proc/self/mountinfo` as values (format: `proc_pid_mountinfo(5)`), and which mount a path is on.
//! Pure: text comes in, nothing is opened.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::DevId;

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's id of this mount; reused after an unmount.
    pub id: u64,
    /// The mount that it is mounted on.
    pub parent: u64,
    /// The superblock's device number.
    pub superblock: DevId,
    /// What of the file system is mounted: `/`, or a part of it (bind mount, subvolume).
    pub root: PathBuf,
    /// Where.
    pub mount_point: PathBuf,
    /// Options of this mount.
    pub options: String,
    /// `shared:2`, `master:1` and the like; none or several.
    pub propagation: Vec<String>,
    /// Type, as the kernel names it.
    pub fs_type: String,
    /// What was mounted: a device node, a server, or just a word.
    pub source: PathBuf,
    /// Options of the superblock, shared by all its mounts.
    pub super_options: String,
}

impl Mount {
    /// True if the superblock has the option `name` (without a value), such as `ro`.
    #[must_use]
    pub fn has_super_option(&self, name: &str) -> bool {
        self.super_options.split(',').any(|option| option == name)
    }

    /// The value of the superblock's option `name=value`.
    #[must_use]
    pub fn super_option(&self, name: &str) -> Option<&str> {
        self.super_options
            .split(',')
            .find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }
}

/// A line that is not as the kernel writes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mountinfo line {line}: {what} (\"{text}\")")]
pub struct MountInfoError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
    /// The line itself.
    pub text: String,
}

/// Parses the text of a mountinfo file. Order is kept: it is the order of mounting, roughly.
pub fn parse(text: &[u8]) -> Result<Vec<Mount>, MountInfoError> {
    text.split(|&byte| byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| {
            parse_line(line).map_err(|what| MountInfoError {
                line: index + 1,
                what,
                text: String::from_utf8_lossy(line).into_owned(),
            })
        })
        .collect()
}

fn parse_line(line: &[u8]) -> Result<Mount, &'static str> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut next = |what| fields.next().ok_or(what);

    let id = number(next("it ends before the mount id")?).ok_or("the mount id is not a number")?;
    let parent =
        number(next("it ends before the parent id")?).ok_or("the parent id is not a number")?;
    let superblock = dev_id(next("it ends before the device number")?)
        .ok_or("the device number is not major:minor")?;
    let root = path(next("it ends before the root")?);
    let mount_point = path(next("it ends before the mount point")?);
    let options = string(next("it ends before the mount options")?);
    let mut propagation = Vec::new();
    loop {
        match next("the separator \" - \" is missing")? {
            b"-" => break,
            tag => propagation.push(string(tag)),
        }
    }
    let fs_type = string(next("it ends before the file system type")?);
    let source = path(next("it ends before the source")?);
    let super_options = string(next("it ends before the superblock's options")?);
    Ok(Mount {
        id,
        parent,
        superblock,
        root,
        mount_point,
        options,
        propagation,
        fs_type,
        source,
        super_options,
    })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Parses `major:minor`.
pub(super) fn dev_id(field: &[u8]) -> Option<DevId> {
    let (major, minor) = std::str::from_utf8(field).ok()?.trim_end().split_once(':')?;
    Some(DevId { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

fn string(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Undoes the kernel's octal escapes (`\040` for a space). A backslash that begins none is kept:
/// the kernel escapes its own, so one that is left belongs to an option's own notation.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        match octal(rest) {
            Some(escaped) => {
                out.push(escaped);
                rest = &rest[4..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

fn octal(text: &[u8]) -> Option<u8> {
    let [b'\\', digits @ ..] = text.get(..4)? else { return None };
    digits.iter().try_fold(0u8, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

/// The mounts as a tree, to tell which mount a path leads to and which mounts are hidden.
#[derive(Debug)]
pub struct MountTable<'a> {
    by_id: HashMap<u64, &'a Mount>,
    /// A mount is found by the mount that it is on and its place; `None`: that mount is not ours to
    /// see (it is outside of our root).
    children: HashMap<(Option<u64>, &'a Path), u64>,
}

impl<'a> MountTable<'a> {
    /// The tree of `mounts`.
    #[must_use]
    pub fn new(mounts: &'a [Mount]) -> Self {
        let by_id: HashMap<u64, &Mount> = mounts.iter().map(|mount| (mount.id, mount)).collect();
        let children = mounts
            .iter()
            .map(|mount| {
                let known = mount.parent != mount.id && by_id.contains_key(&mount.parent);
                let parent = known.then_some(mount.parent);
                ((parent, mount.mount_point.as_path()), mount.id)
            })
            .collect();
        Self { by_id, children }
    }

    /// The mounts that the kernel crosses on the way to `path`, outermost first; the last one is
    /// the mount that `path` is on. `path` must be absolute; symbolic links are not followed, and
    /// `..` is taken literally.
    #[must_use]
    pub fn walk(&self, path: &Path) -> Vec<&'a Mount> {
        let mut crossed: Vec<&'a Mount> = Vec::new();
        let mut prefix = PathBuf::new();
        for component in normal(path).components() {
            prefix.push(component);
            // Several mounts can be stacked on one place: each is a child of the one below it.
            while let Some(id) =
                self.children.get(&(crossed.last().map(|mount| mount.id), prefix.as_path()))
            {
                let Some(mount) = self.by_id.get(id) else { break };
                if crossed.iter().any(|seen| seen.id == mount.id) {
                    break;
                }
                crossed.push(mount);
            }
        }
        crossed
    }

    /// The mount that `path` is on.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> Option<&'a Mount> {
        self.walk(path).last().copied()
    }

    /// True if the mount's own path leads to it: nothing is mounted over it or over a directory
    /// above it.
    #[must_use]
    pub fn is_reachable(&self, mount: &Mount) -> bool {
        self.resolve(&mount.mount_point).is_some_and(|top| top.id == mount.id)
    }

    /// The mount with this id.
    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<&'a Mount> {
        self.by_id.get(&id).copied()
    }
}

/// Without `.`, `..` and doubled slashes, by the letters alone.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// A mount point's name as bytes, for sorting that does not depend on the locale.
pub(super) fn order(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Mount {
        parse(line.as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn every_field_of_a_line_is_read() {
        let mount = one(
            "36 35 98:0 /mnt1 /mnt2 rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue\n",
        );
        assert_eq!(mount.id, 36);
        assert_eq!(mount.parent, 35);
        assert_eq!(mount.superblock, DevId { major: 98, minor: 0 });
        assert_eq!(mount.root, Path::new("/mnt1"));
        assert_eq!(mount.mount_point, Path::new("/mnt2"));
        assert_eq!(mount.options, "rw,noatime");
        assert_eq!(mount.propagation, ["shared:1", "master:2"]);
        assert_eq!(mount.fs_type, "ext3");
        assert_eq!(mount.source, Path::new("/dev/root"));
        assert_eq!(mount.super_option("errors"), Some("continue"));
    }

    #[test]
    fn octal_escapes_become_the_characters_they_stand_for() {
        let mount =
            one(r"36 35 98:0 / /a\040b\011c\134d\012\303\244 rw - ext4 /dev/x\040y rw,x=\134054");
        assert_eq!(mount.mount_point, Path::new("/a b\tc\\d\nä"));
        assert_eq!(mount.source, Path::new("/dev/x y"));
        assert_eq!(mount.super_options, r"rw,x=\054");
    }

    #[test]
    fn a_backslash_that_is_no_escape_is_kept() {
        assert_eq!(one(r"1 0 0:1 / /a\9bc\7 rw - x y rw").mount_point, Path::new(r"/a\9bc\7"));
    }

    #[test]
    fn a_name_that_is_not_utf8_is_kept() {
        let mounts = parse(b"1 0 0:1 / /a\xff rw - x y rw").unwrap();
        assert_eq!(mounts[0].mount_point.as_os_str().as_bytes(), b"/a\xff");
    }

    #[test]
    fn an_error_names_the_line_and_what_is_wrong_with_it() {
        let error = parse(b"1 0 0:1 / / rw - x y rw\n2 1 0:zwei / /a rw - x y rw\n").unwrap_err();
        assert_eq!(error.line, 2);
        assert!(error.to_string().contains("major:minor"), "{error}");
        assert!(error.to_string().contains("0:zwei"), "{error}");
        let error = parse(b"1 0 0:1 / / rw shared:1\n").unwrap_err();
        assert!(error.to_string().contains("separator"), "{error}");
    }

    #[test]
    fn super_options_are_not_mount_options() {
        let mount = one("1 0 0:1 / / rw,relatime - ext4 /dev/x ro,errors=remount-ro");
        assert!(mount.has_super_option("ro"));
        assert!(!mount.has_super_option("relatime"));
    }

    const STACKED: &str = "\
        1 0 254:1 / / rw - ext4 /dev/vda1 rw\n\
        2 1 7:0 / /srv rw - ext4 /dev/loop0 rw\n\
        3 2 7:1 / /srv/deep rw - ext4 /dev/loop1 rw\n\
        4 2 7:2 / /srv rw - xfs /dev/loop2 rw\n";

    #[test]
    fn a_path_leads_to_the_topmost_mount() {
        let mounts = parse(STACKED.as_bytes()).unwrap();
        let table = MountTable::new(&mounts);
        assert_eq!(table.resolve(Path::new("/srv/deep/file")).unwrap().id, 4);
        assert_eq!(table.resolve(Path::new("/srvx")).unwrap().id, 1);
        assert_eq!(table.resolve(Path::new("/srv/../etc")).unwrap().id, 1);
    }

    #[test]
    fn what_is_mounted_over_is_not_reachable() {
        let mounts = parse(STACKED.as_bytes()).unwrap();
        let table = MountTable::new(&mounts);
        let reachable: Vec<u64> =
            mounts.iter().filter(|mount| table.is_reachable(mount)).map(|mount| mount.id).collect();
        assert_eq!(reachable, [1, 4]);
    }

    #[test]
    fn the_mount_table_of_this_machine_is_understood() {
        let mounts = parse(&std::fs::read("/proc/self/mountinfo").unwrap()).unwrap();
        let table = MountTable::new(&mounts);
        assert_eq!(table.resolve(Path::new("/proc/self")).unwrap().fs_type, "proc");
    }
}
