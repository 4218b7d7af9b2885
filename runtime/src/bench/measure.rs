//! One freeze, in each of the ways that are compared.

use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::syncfs;

use super::BenchError;
use super::document::Method;
use super::lab::{Lab, run};
use crate::guard::{self, GuardOptions, Thaw};
use crate::sys::fsfreeze;
use crate::time::monotonic_ns;

/// How long a flush may take: nobody waits for it but the bench.
const SYNC: Duration = Duration::from_secs(120);

/// One freeze, `CLOCK_MONOTONIC` ns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frozen {
    /// Before anything that a client could feel: the flush, the rehearsal.
    pub(super) began_ns: u64,
    /// After everything.
    pub(super) ended_ns: u64,
    /// From the first freeze called to the last thaw returned.
    pub(super) window_ns: u64,
}

/// Freezes and thaws the first `count` file systems of the lab once.
pub(super) async fn once(
    lab: &Lab,
    count: usize,
    method: Method,
    window: Duration,
) -> Result<Frozen, BenchError> {
    lab.lifeline.beat()?;
    match method {
        Method::Stillpoint | Method::NoRehearsal | Method::Cold => {
            guarded(lab, count, method, window).await
        }
        Method::Fsfreeze => in_turn(lab, count),
        Method::Bare => bare(&lab.mounts[..count]),
    }
}

async fn guarded(
    lab: &Lab,
    count: usize,
    method: Method,
    window: Duration,
) -> Result<Frozen, BenchError> {
    let rehearsed = method == Method::Stillpoint;
    let options = GuardOptions {
        run_id: format!("bench-{}", uuid::Uuid::new_v4()),
        run_dir: lab.run_dir.clone(),
        window,
        expedite_rcu: method != Method::Cold,
        keep_warm: rehearsed,
        aftercare: None,
    };
    let began_ns = monotonic_ns();
    let mut armed = guard::arm(&lab.file_systems[..count], options).await?;
    armed.sync(SYNC).await?;
    if rehearsed {
        armed.rehearse().await?;
    }
    let (armed, thaw) = match armed.freeze().await {
        Ok(freeze) => freeze.thaw().await?,
        Err((armed, error)) => {
            armed.disarm().await?;
            return Err(error.into());
        }
    };
    let ended_ns = monotonic_ns();
    armed.disarm().await?;
    Ok(Frozen { began_ns, ended_ns, window_ns: window_of(&thaw)? })
}

/// From the first freeze called to the last thaw returned, if all that was ours.
fn window_of(thaw: &Thaw) -> Result<u64, BenchError> {
    let all = &thaw.file_systems;
    if thaw.broken.is_some() || all.iter().any(|fs| !fs.thawed_by_us || fs.error.is_some()) {
        return Err(BenchError::Spoiled(
            "a file system of the lab was thawed by somebody else".to_owned(),
        ));
    }
    let first = all.iter().map(|fs| fs.times.freeze_began_ns).min().unwrap_or_default();
    let last = all.iter().map(|fs| fs.times.thawed_ns).max().unwrap_or_default();
    Ok(last.saturating_sub(first))
}

/// As people write it in scripts. A child that is still freezing keeps the lifeline from thawing for
/// the last time.
fn in_turn(lab: &Lab, count: usize) -> Result<Frozen, BenchError> {
    let file_systems = &lab.file_systems[..count];
    let fsfreeze = |flag: &str, index: usize| {
        let mut command = Command::new("fsfreeze");
        command.arg(flag).arg(&file_systems[index].mount_point);
        run(command.stdin(lab.lifeline.for_a_child()?))
    };
    let began_ns = monotonic_ns();
    let mut frozen = 0;
    let all = (0..count).try_for_each(|index| {
        fsfreeze("-f", index)?;
        frozen = index + 1;
        Ok(())
    });
    let mut thawed = Ok(());
    for index in (0..frozen).rev() {
        let one = fsfreeze("-u", index);
        if thawed.is_ok() {
            thawed = one;
        }
    }
    let ended_ns = monotonic_ns();
    all.and(thawed)?;
    Ok(Frozen { began_ns, ended_ns, window_ns: ended_ns - began_ns })
}

/// FIFREEZE and FITHAW by one thread for each, all at once, on superblocks that were frozen a moment
/// ago. Nothing guards it but the lifeline.
fn bare(mounts: &[OwnedFd]) -> Result<Frozen, BenchError> {
    let barrier = Barrier::new(mounts.len());
    let began_ns = monotonic_ns();
    let all: Vec<Result<(u64, u64), Errno>> = thread::scope(|scope| {
        let barrier = &barrier;
        let start = |mount| scope.spawn(move || freeze_and_thaw(mount, barrier));
        let threads: Vec<_> = mounts.iter().map(start).collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|result| result.unwrap_or(Err(Errno::EIO))).collect()
    });
    let ended_ns = monotonic_ns();
    let times = all
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_err(std::io::Error::from)
        .map_err(BenchError::system("freeze and thaw the lab's file systems"))?;
    let first = times.iter().map(|(began, _)| *began).min().unwrap_or_default();
    let last = times.iter().map(|(_, ended)| *ended).max().unwrap_or_default();
    Ok(Frozen { began_ns, ended_ns, window_ns: last.saturating_sub(first) })
}

fn freeze_and_thaw(mount: &OwnedFd, barrier: &Barrier) -> Result<(u64, u64), Errno> {
    // Whatever fails, nobody waits for this thread in vain, and nothing stays frozen.
    let warmed = syncfs(mount).and_then(|()| fsfreeze::freeze(mount));
    let warmed = warmed.and_then(|()| fsfreeze::thaw(mount));
    barrier.wait();
    let began = monotonic_ns();
    let frozen = fsfreeze::freeze(mount);
    barrier.wait();
    let thawed = frozen.and_then(|()| fsfreeze::thaw(mount));
    let ended = monotonic_ns();
    warmed.and(thawed).map(|()| (began, ended))
}
