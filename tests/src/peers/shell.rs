//! `fsfreeze -f` of one file system after another, then `fsfreeze -u`, as people write it in scripts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::command::run;

/// Freezes and thaws these; from before the first freeze to after the last thaw.
///
/// # Errors
/// If one cannot be frozen, or thawed; the others are thawed then.
pub fn window(mounts: &[PathBuf]) -> Result<Duration> {
    let began = Instant::now();
    let mut frozen = Frozen(Vec::new());
    for mount in mounts {
        run("fsfreeze", [Path::new("-f"), mount])?;
        frozen.0.push(mount);
    }
    while let Some(mount) = frozen.0.pop() {
        run("fsfreeze", [Path::new("-u"), mount])?;
    }
    Ok(began.elapsed())
}

struct Frozen<'a>(Vec<&'a PathBuf>);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        for mount in self.0.drain(..).rev() {
            if let Err(error) = run("fsfreeze", [Path::new("-u"), mount]) {
                eprintln!("{error:#}");
            }
        }
    }
}
