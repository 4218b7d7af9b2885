//! The two system calls and nothing else, each file system in a thread of its own: what no program
//! that freezes can go below.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::sys;

/// Freezes all of these at once, and when all are frozen, thaws them at once; from before the first
/// freeze to after the last thaw. The threads exist before it begins.
///
/// # Errors
/// If one cannot be frozen, or thawed; the others are thawed.
pub fn window(mounts: &[PathBuf]) -> Result<Duration> {
    let opened = mounts.iter().map(File::open).collect::<Result<Vec<_>, _>>()?;
    let (ready, frozen) = (Barrier::new(opened.len()), Barrier::new(opened.len()));
    let times = std::thread::scope(|scope| {
        let pair = |directory| {
            let (ready, frozen) = (&ready, &frozen);
            scope.spawn(move || pair(directory, ready, frozen))
        };
        let threads: Vec<_> = opened.iter().map(pair).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().ok().context("a thread panicked")?)
            .collect::<Result<Vec<_>>>()
    })?;
    let began = times.iter().map(|(began, _)| *began).min().context("nothing to freeze")?;
    let ended = times.iter().map(|(_, ended)| *ended).max().context("nothing to freeze")?;
    Ok(ended.duration_since(began))
}

fn pair(directory: &File, ready: &Barrier, frozen: &Barrier) -> Result<(Instant, Instant)> {
    ready.wait();
    let began = Instant::now();
    let freezing = sys::freeze(directory);
    // Passed by all, also by one whose freeze failed: the others wait for it, frozen.
    frozen.wait();
    freezing.context("cannot freeze")?;
    sys::thaw(directory).context("cannot thaw")?;
    Ok((began, Instant::now()))
}
