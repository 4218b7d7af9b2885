//! What others do while a run goes on: they freeze, thaw, unmount, remount, write, and fill disks.

use std::fs::{self, File};
use std::io::{PipeWriter, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cell::World;
use crate::lab::Lab;
use crate::sys::Mapped;

/// How long a freeze is made to hang: longer than the window.
pub const HANG: Duration = Duration::from_millis(2500);
/// Dirty data for each file system.
const DIRTY_MIB: u64 = 48;

/// Something that somebody else does; dropping it undoes it.
#[derive(Debug, Default)]
pub struct Meddling {
    thaw: Vec<PathBuf>,
    mount_again: Option<(PathBuf, PathBuf, &'static str)>,
    remove: Option<PathBuf>,
    in_flight: Option<(PipeWriter, JoinHandle<()>)>,
    stop: Option<Arc<AtomicBool>>,
    unmount: Option<PathBuf>,
}

impl Meddling {
    /// Begins it, on the lab's first file system where one is enough.
    ///
    /// # Errors
    /// If it cannot be begun.
    pub fn begin(world: World, lab: &Lab) -> Result<Self> {
        let first = lab.file_systems().first().context("a file system")?;
        let mut own = Self::default();
        match world {
            World::FrozenBefore | World::FrozenByOther => {
                fsfreeze("-f", &first.mount);
                own.thaw.push(first.mount.clone());
            }
            World::ThawedByOther => fsfreeze("-u", &first.mount),
            World::LazyUnmount => {
                crate::command::run("umount", [Path::new("-l"), &first.mount])?;
                own.mount_again =
                    Some((first.device.clone(), first.mount.clone(), first.fs_type.name()));
            }
            World::RemountReadOnly => {
                // Refused as long as it is frozen; if it were not, it would wait.
                let mut remount = Command::new("timeout");
                remount.args(["1", "mount", "-o", "remount,ro"]).arg(&first.mount);
                let _ = remount.stderr(std::process::Stdio::null()).status();
            }
            World::WriteInFlightEarly | World::WriteInFlight | World::WriteInFlightAlone => {
                own.in_flight = Some(write_in_flight(&first.mount)?);
            }
            World::OuterFrozen => {
                fsfreeze("-f", &lab.host());
                own.thaw.push(lab.host());
            }
            World::DirtyData => {
                for fs in lab.file_systems() {
                    dirty(&fs.mount.join("dirty"))?;
                }
            }
            World::Writers => own.stop = Some(writers(lab)?),
            World::MappedWriters => own.stop = Some(mapped_writers(lab)?),
            World::JournalFull => {
                let path = lab.root().join("run/full");
                fill(&path)?;
                own.remove = Some(path);
            }
            World::StateFull => {
                let state = lab.root().join("var/lib/stillpoint/state");
                fs::create_dir_all(&state)?;
                fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
                let options = ["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs"].map(Path::new);
                crate::command::run("mount", options.into_iter().chain([&*state]))?;
                own.unmount = Some(state.clone());
                fill(&state.join("full"))?;
            }
            World::SessionsCut
            | World::Starved
            | World::CgroupFrozen
            | World::Descriptors(_)
            | World::AddressSpace(_)
            | World::Memory(_) => {}
        }
        Ok(own)
    }

    /// It lasts only for [`HANG`], whatever becomes of the run.
    #[must_use]
    pub fn hangs(&self) -> bool {
        self.in_flight.is_some() || !self.thaw.is_empty()
    }
}

impl Drop for Meddling {
    fn drop(&mut self) {
        if let Some((pipe, thread)) = self.in_flight.take() {
            drop(pipe);
            let _ = thread.join();
        }
        if let Some(stop) = self.stop.take() {
            stop.store(true, Ordering::Relaxed);
        }
        for mount in &self.thaw {
            fsfreeze("-u", mount);
        }
        if let Some((device, mount, fs_type)) = self.mount_again.take() {
            let _ = crate::command::run(
                "mount",
                [Path::new("-t"), Path::new(fs_type), &device, &mount],
            );
        }
        if let Some(path) = self.remove.take() {
            let _ = fs::remove_file(path);
        }
        if let Some(mount) = self.unmount.take() {
            let _ = crate::command::run("umount", [&mount]);
        }
    }
}

/// Writes a file until there is no room for more.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    while file.write_all(&[1; 4096]).is_ok() {}
    Ok(())
}

/// The usual tool; it says so when there is nothing to do, which is no error here.
fn fsfreeze(what: &str, mount: &Path) {
    let mut command = Command::new("fsfreeze");
    let _ = command.arg(what).arg(mount).stderr(std::process::Stdio::null()).status();
}

/// A splice from a pipe that nobody fills holds the superblock's write lock: a freeze waits for it,
/// in D state, as it does for a write to storage that does not answer.
fn write_in_flight(mount: &Path) -> Result<(PipeWriter, JoinHandle<()>)> {
    let (reader, mut writer) = std::io::pipe()?;
    let path = mount.join("in-flight");
    let mut file = File::create(&path)?;
    let mut reader = File::from(std::os::fd::OwnedFd::from(reader));
    let thread = std::thread::spawn(move || drop(std::io::copy(&mut reader, &mut file)));
    writer.write_all(b"the first bytes show that it has begun")?;
    while fs::metadata(&path)?.len() == 0 {
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok((writer, thread))
}

fn dirty(path: &Path) -> Result<()> {
    let file = File::create(path)?;
    let block = vec![7_u8; 1 << 20];
    for mib in 0..DIRTY_MIB {
        // Small file systems fill up: that is dirty enough.
        if file.write_at(&block, mib << 20).is_err() {
            break;
        }
    }
    Ok(())
}

/// Two threads for each file system: one appends and truncates, one makes and removes files.
fn writers(lab: &Lab) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for fs in lab.file_systems() {
        let (stopped, path) = (Arc::clone(&stop), fs.mount.join("busy"));
        let file = File::create(&path)?;
        std::thread::spawn(move || {
            let block = vec![3_u8; 64 << 10];
            for turn in 0_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let _ = file.write_at(&block, (turn % 64) << 16);
                let _ = file.set_len((turn % 64) << 16);
                let name = path.with_extension(format!("{}", turn % 16));
                let _ = fs::write(&name, b"x");
                let _ = fs::remove_file(&name);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
    Ok(stop)
}

/// A thread for each file system that writes to the pages of a mapped file, one after the other.
fn mapped_writers(lab: &Lab) -> Result<Arc<AtomicBool>> {
    const LENGTH: usize = 4 << 20;
    let stop = Arc::new(AtomicBool::new(false));
    for fs in lab.file_systems() {
        let path = fs.mount.join("mapped");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        // With room for all of it: a page without any is a SIGBUS.
        file.write_all_at(&vec![1; LENGTH], 0)?;
        let mut pages = Mapped::new(&file, LENGTH)?;
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            for turn in 0_usize.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                pages.write((turn * 4096) % LENGTH, u8::try_from(turn % 251).unwrap_or(0));
                if turn % 64 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
    }
    Ok(stop)
}
