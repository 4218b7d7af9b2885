//! stillpoint's own guard, with its steps switched on and off: what each of them is worth. The guard
//! is this program, executed again, as in any program that embeds the library.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stillpoint::guard::{self, ArmedGuard, Freeze, GuardOptions};
use stillpoint::plan::{FileSystem, Inventory};
use stillpoint_tests::lab::Lab;
use stillpoint_tests::writers::{Interval, now_ns};

/// Longest window; and how long a flush may take.
const WINDOW: Duration = Duration::from_secs(20);
const SYNC: Duration = Duration::from_secs(60);

const EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// What is done before the freeze.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// `rcu_expedited` is raised for the run.
    pub expedite_rcu: bool,
    /// `syncfs`.
    pub sync: bool,
    /// Everything is frozen and thawed once.
    pub rehearse: bool,
}

/// `rcu_expedited`, as it is now.
pub fn rcu_expedited() -> Result<u32> {
    let text = std::fs::read_to_string(EXPEDITED).with_context(|| EXPEDITED.to_owned())?;
    text.trim().parse().with_context(|| format!("{EXPEDITED}: {text}"))
}

/// Freezes and thaws the file systems of a lab; from before the first freeze to after the last thaw.
pub async fn window(lab: &Lab, mounts: &[PathBuf], steps: Steps) -> Result<Duration> {
    let armed = arm(lab, mounts, steps).await?;
    let frozen = freeze(armed).await?;
    let (armed, times) = thaw(frozen).await?;
    armed.disarm().await.context("not disarmed")?;
    Ok(times.duration())
}

/// Everything up to the freeze.
pub async fn arm(lab: &Lab, mounts: &[PathBuf], steps: Steps) -> Result<ArmedGuard> {
    let file_systems = file_systems(mounts)?;
    let options = GuardOptions {
        run_id: format!("bench-{}", now_ns()),
        run_dir: run_dir(lab)?,
        window: WINDOW,
        expedite_rcu: steps.expedite_rcu,
        keep_warm: true,
        aftercare: None,
    };
    let mut armed = guard::arm(&file_systems, options).await.context("no guard")?;
    if steps.sync {
        armed.sync(SYNC).await.context("no flush")?;
    }
    if steps.rehearse {
        armed.rehearse().await.context("no rehearsal")?;
    }
    Ok(armed)
}

/// The freeze.
pub async fn freeze(armed: ArmedGuard) -> Result<Freeze> {
    match armed.freeze().await {
        Ok(frozen) => Ok(frozen),
        Err((armed, error)) => {
            armed.disarm().await.context("not disarmed")?;
            Err(error).context("no freeze")
        }
    }
}

/// The thaw; the window, by the guard's own clock.
pub async fn thaw(frozen: Freeze) -> Result<(ArmedGuard, Interval)> {
    let (armed, thaw) = frozen.thaw().await.context("not thawed")?;
    ensure!(thaw.broken.is_none(), "the window ended by itself: {:?}", thaw.broken);
    let times = || thaw.file_systems.iter().map(|fs| &fs.times);
    let began_ns = times().map(|times| times.freeze_began_ns).min().context("nothing frozen")?;
    let ended_ns = times().map(|times| times.thawed_ns).max().context("nothing frozen")?;
    Ok((armed, Interval { began_ns, ended_ns }))
}

/// A journal of its own on the lab's tmpfs.
fn run_dir(lab: &Lab) -> Result<PathBuf> {
    let directory = lab.root().join("run/bench");
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn file_systems(mounts: &[PathBuf]) -> Result<Vec<FileSystem>> {
    let inventory = Inventory::collect().context("cannot read what is mounted")?;
    mounts.iter().map(|mount| file_system(&inventory, mount)).collect()
}

fn file_system(inventory: &Inventory, path: &Path) -> Result<FileSystem> {
    let mount = inventory.mount_of(path).with_context(|| format!("no mount {}", path.display()))?;
    Ok(FileSystem {
        superblock: mount.superblock,
        mount_point: mount.mount_point.clone(),
        mount_id: mount.id,
        fs_type: mount.fs_type.clone(),
        source: mount.source.display().to_string(),
        other_mounts: Vec::new(),
        disks: Vec::new(),
        wave: 0,
    })
}
