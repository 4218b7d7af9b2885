//! Every type of file system together, through the real command: frozen, cloned, and clean in the
//! copy. No database: what is asked here is what the file systems say.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use stillpoint_tests::journal::replay_needed;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::stillpoint::Stillpoint;

#[test]
fn ext4_xfs_and_btrfs_are_frozen_together_and_clean_in_the_copy() -> Result<()> {
    let specs = [
        FsSpec::new("ext4", FsType::Ext4, 64),
        FsSpec::new("xfs", FsType::Xfs, 320),
        FsSpec::new("btrfs", FsType::Btrfs, 128),
    ];
    let lab = Lab::new(&specs, Duration::from_secs(120))?;
    let stillpoint = Stillpoint::new(&lab)?;
    for fs in lab.file_systems() {
        // Dirty, not flushed: the run's business.
        fs::write(lab.mount(&fs.name).join("data"), vec![7_u8; 4 << 20])?;
    }
    let run = stillpoint.snapshot("types", &[])?;
    let manifest = run.succeeded()?.manifest()?;
    ensure!(manifest.level()? == "file-system", "{}", run.description());
    ensure!(manifest.reason_codes()? == ["no-hook"], "{}", run.description());

    let group = manifest.group()?;
    let copies = stillpoint.restore(group)?;
    for fs in lab.file_systems() {
        let copy = copies.of(&lab, &fs.name)?;
        let replay = replay_needed(&lab, &copy.device, fs.fs_type)?;
        ensure!(replay.is_none(), "{}: {replay:?}", fs.name);
        // A copy of btrfs has the UUID of its original, which is mounted.
        if fs.fs_type != FsType::Btrfs {
            let copy = lab.mount_copy(&copy.device, fs.fs_type, &format!("copy-{}", fs.name))?;
            ensure!(fs::read(copy.join("data"))? == vec![7_u8; 4 << 20], "{}", fs.name);
        }
        fs::write(lab.mount(&fs.name).join("after"), "writable")?;
    }
    lab.finish()
}
