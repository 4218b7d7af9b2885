//! The ways in which a MariaDB is snapshotted, each once: what the benchmark goes round.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use stillpoint_tests::command::run;
use stillpoint_tests::lab::{FileSystem, Lab};
use stillpoint_tests::peers::QemuGa;
use stillpoint_tests::rig::Rig;
use stillpoint_tests::servers::shell::{self, ShellClient};
use stillpoint_tests::writers::{Interval, now_ns};

use crate::guarded::{self, Steps};

/// A way to snapshot a database, and what is compared with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Ours,
    /// Our guard and a session, without flush and rehearsal.
    Hasty,
    Shell,
    QemuGa,
    /// Nothing at all.
    Control,
}

impl Way {
    pub const ALL: [Self; 5] = [Self::Ours, Self::Hasty, Self::Shell, Self::QemuGa, Self::Control];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "stillpoint",
            Self::Hasty => "a session and stillpoint's guard, without sync and rehearsal",
            Self::Shell => "shell: client in a coprocess, sync, fsfreeze",
            Self::QemuGa => "QEMU's guest agent with the MySQL hook",
            Self::Control => "nothing",
        }
    }
}

/// One snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// From its start to its end.
    pub whole: Interval,
    /// From the request for the lock to the unlock.
    pub locked: Interval,
    /// The lock was had for so long, less the clones; none where it cannot be seen from outside.
    pub hold: Option<Duration>,
    /// From before the first freeze to after the last thaw, less the clones; likewise.
    pub window: Option<Duration>,
    /// The clones.
    pub clone: Duration,
}

/// Takes one, and removes it again.
pub async fn take(rig: &Rig, agent: &mut QemuGa, way: Way, length: Duration) -> Result<Taken> {
    match way {
        Way::Ours => tokio::task::block_in_place(|| ours(rig)),
        Way::Hasty => hasty(rig).await,
        Way::Shell => tokio::task::block_in_place(|| by_shell(rig)),
        Way::QemuGa => tokio::task::block_in_place(|| by_agent(rig, agent)),
        Way::Control => {
            let began_ns = now_ns();
            tokio::time::sleep(length).await;
            let whole = Interval { began_ns, ended_ns: now_ns() };
            Ok(Taken { whole, locked: whole, hold: None, window: None, clone: Duration::ZERO })
        }
    }
}

fn ours(rig: &Rig) -> Result<Taken> {
    let began_ns = now_ns();
    let run = rig.stillpoint.snapshot("bench", &[])?;
    let whole = Interval { began_ns, ended_ns: now_ns() };
    let manifest = run.succeeded()?.manifest()?;
    let timing = |name: &str| manifest.number(name).map(Duration::from_nanos);
    let clone = timing("/timings/provider_ns")?;
    let taken = Taken {
        whole,
        locked: manifest.span("quiesce", "release")?,
        hold: Some(timing("/timings/hold_ns")?.saturating_sub(clone)),
        window: Some(timing("/timings/window_ns")?.saturating_sub(clone)),
        clone,
    };
    rig.stillpoint.delete(manifest.group()?)?;
    Ok(taken)
}

/// What is left of ours without flush and rehearsal, hook and runtime.
async fn hasty(rig: &Rig) -> Result<Taken> {
    let began_ns = now_ns();
    let mounts: Vec<PathBuf> = rig.lab.file_systems().iter().map(|fs| fs.mount.clone()).collect();
    let steps = Steps { expedite_rcu: true, sync: false, rehearse: false };
    let armed = guarded::arm(&rig.lab, &mounts, steps).await?;
    let mut session = rig.server.connect().await?;
    let asked_ns = now_ns();
    session.query_drop("FLUSH TABLES WITH READ LOCK").await?;
    let held = Instant::now();
    session.query_drop("SHOW MASTER STATUS").await?;
    session.query_drop("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS").await?;
    let frozen = guarded::freeze(armed).await?;
    let cloned = tokio::task::block_in_place(|| Clones::make(&rig.lab, "hasty"));
    let (armed, window) = guarded::thaw(frozen).await?;
    session.query_drop("UNLOCK TABLES").await?;
    let (hold, released_ns) = (held.elapsed(), now_ns());
    armed.disarm().await.context("not disarmed")?;
    let whole = Interval { began_ns, ended_ns: now_ns() };
    session.disconnect().await?;
    let clone = cloned?.took;
    Ok(Taken {
        whole,
        locked: Interval { began_ns: asked_ns, ended_ns: released_ns },
        hold: Some(hold.saturating_sub(clone)),
        window: Some(window.duration().saturating_sub(clone)),
        clone,
    })
}

fn by_shell(rig: &Rig) -> Result<Taken> {
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "-N", "-B", "-n", "--unbuffered", "-u", "root", "-S"]);
    command.arg(rig.server.socket());
    let client = ShellClient {
        command,
        hold: "FLUSH TABLES WITH READ LOCK; SHOW MASTER STATUS; SELECT 'held';\n",
        release: "UNLOCK TABLES; SELECT 'released';\n",
    };
    let began_ns = now_ns();
    let times = shell::take(&rig.lab, client)?;
    Ok(Taken {
        whole: Interval { began_ns, ended_ns: times.locked.ended_ns },
        locked: times.locked,
        hold: Some(times.hold.saturating_sub(times.clone)),
        window: Some(times.window.saturating_sub(times.clone)),
        clone: times.clone,
    })
}

/// It takes the lock in its freeze command and says nothing of it before all is frozen: its hold and
/// its window are between the two requests, and nobody outside sees where.
fn by_agent(rig: &Rig, agent: &mut QemuGa) -> Result<Taken> {
    let mounts: Vec<PathBuf> = rig.lab.file_systems().iter().map(|fs| fs.mount.clone()).collect();
    let began_ns = now_ns();
    agent.freeze(&mounts)?;
    let cloned = Clones::make(&rig.lab, "qemu-ga");
    agent.thaw()?;
    let whole = Interval { began_ns, ended_ns: now_ns() };
    Ok(Taken { whole, locked: whole, hold: None, window: None, clone: cloned?.took })
}

/// Clones of all images of a lab, as a script makes them; removed when dropped.
struct Clones {
    images: Vec<PathBuf>,
    took: Duration,
}

impl Clones {
    fn make(lab: &Lab, name: &str) -> Result<Self> {
        let began = Instant::now();
        let mut clones = Self { images: Vec::new(), took: Duration::ZERO };
        for FileSystem { image, .. } in lab.file_systems() {
            let clone = image.with_extension(name);
            run("cp", [Path::new("--reflink=always"), image, &clone])?;
            clones.images.push(clone);
        }
        clones.took = began.elapsed();
        Ok(clones)
    }
}

impl Drop for Clones {
    fn drop(&mut self) {
        for image in &self.images {
            // The lab goes, and this with it.
            let _ = std::fs::remove_file(image);
        }
    }
}
