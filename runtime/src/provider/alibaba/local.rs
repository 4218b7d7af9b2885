//! The block devices of this instance, with the serial numbers that tell which cloud disk each is.

use std::fs;
use std::path::Path;

use crate::plan::DevId;

/// A whole disk of this instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalDisk {
    /// Its number.
    pub(super) device: DevId,
    /// The kernel's name: `vdb`, `nvme1n1`, `loop7`.
    pub(super) name: String,
    /// As the device shows it; disks from before June 2020, and loop devices, show none.
    pub(super) serial: Option<String>,
    /// In bytes.
    pub(super) bytes: Option<u64>,
}

/// The disks under `<sys>/block`. What is made of other devices (dm, md) is none; a device that goes
/// away meanwhile is not there.
pub(super) fn local_disks(sys: &Path) -> std::io::Result<Vec<LocalDisk>> {
    let mut disks = Vec::new();
    for entry in fs::read_dir(sys.join("block"))? {
        let entry = entry?;
        let folder = entry.path();
        if ["dm", "md", "bcache"].iter().any(|kind| folder.join(kind).exists()) {
            continue;
        }
        let (Some(device), Ok(name)) = (device(&folder), entry.file_name().into_string()) else {
            continue;
        };
        disks.push(LocalDisk { device, name, serial: serial(&folder), bytes: bytes(&folder) });
    }
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(disks)
}

fn device(folder: &Path) -> Option<DevId> {
    let text = fs::read_to_string(folder.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(DevId { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// virtio-blk shows it at the device itself, NVMe at the controller, padded with blanks. Read from
/// `/sys` and not from the links of udev: before Linux 4.20 the serial could come after the event.
fn serial(folder: &Path) -> Option<String> {
    let read = |file: &str| {
        let bytes = fs::read(folder.join(file)).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
        (!text.is_empty()).then_some(text)
    };
    read("serial").or_else(|| read("device/serial"))
}

/// The kernel counts in sectors of 512 bytes, whatever those of the device are.
fn bytes(folder: &Path) -> Option<u64> {
    let sectors: u64 = fs::read_to_string(folder.join("size")).ok()?.trim().parse().ok()?;
    sectors.checked_mul(512)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `/sys` with these files.
    fn sys(files: &[(&str, &str)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let file = sys.path().join("block").join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        sys
    }

    #[test]
    fn serials_are_found_where_each_driver_keeps_them() {
        let sys = sys(&[
            ("vda/dev", "253:0\n"),
            ("vda/serial", "bp1aaaaaaaaaaaaaaaaa"),
            ("vda/size", "83886080\n"),
            ("nvme0n1/dev", "259:1\n"),
            ("nvme0n1/device/serial", "bp1bbbbbbbbbbbbbbbbb    \n"),
            ("nvme0n1/size", "garbled"),
            ("vdb/dev", "253:16\n"),
            ("vdb/serial", "\n"),
            ("loop7/dev", "7:7\n"),
        ]);
        let disks = local_disks(sys.path()).unwrap();
        let seen: Vec<_> = disks.iter().map(|d| (d.name.as_str(), d.serial.as_deref())).collect();
        assert_eq!(
            seen,
            [
                ("loop7", None),
                ("nvme0n1", Some("bp1bbbbbbbbbbbbbbbbb")),
                ("vda", Some("bp1aaaaaaaaaaaaaaaaa")),
                ("vdb", None),
            ]
        );
        assert_eq!(disks[2].device, DevId { major: 253, minor: 0 });
        assert_eq!(disks[2].bytes, Some(40 << 30));
        assert_eq!(disks[1].bytes, None);
    }

    #[test]
    fn what_is_made_of_other_devices_is_no_disk() {
        let sys = sys(&[
            ("dm-0/dev", "252:0"),
            ("dm-0/dm/name", "vg-lv"),
            ("md0/dev", "9:0"),
            ("md0/md/level", "raid1"),
            ("vda/dev", "253:0"),
            ("vdz/size", "1"),
        ]);
        let disks = local_disks(sys.path()).unwrap();
        assert_eq!(disks.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>(), ["vda"]);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        assert!(!local_disks(Path::new("/sys")).unwrap().is_empty());
    }
}
