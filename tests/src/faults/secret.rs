//! Where the secret of a run is looked for: in everything that it wrote, and in what its processes show
//! to everybody on the machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::bed::{CANARY, SECRET};

/// Larger files are images and what a server keeps, not what the program writes.
const LONGEST: u64 = 32 << 20;

/// A sentence, if the arguments or the environment of a process have it.
#[must_use]
pub fn shown_by(pid: u32) -> Option<String> {
    let has = |what: &&str| fs::read(format!("/proc/{pid}/{what}")).is_ok_and(|text| holds(&text));
    let what = ["cmdline", "environ"].into_iter().find(has)?;
    Some(format!("a secret stands in /proc/{pid}/{what}"))
}

/// The files below `root`, and those of `others`, that have it; but for the one that is meant to.
///
/// # Errors
/// If a directory cannot be read.
pub fn written_below(root: &Path, others: &[&Path]) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = others.iter().map(|path| path.to_path_buf()).collect();
    left.push(root.to_owned());
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory)?.flatten() {
            let Ok(metadata) = entry.path().symlink_metadata() else { continue };
            if metadata.is_dir() {
                left.push(entry.path());
            } else if metadata.is_file()
                && metadata.len() <= LONGEST
                && entry.file_name() != SECRET
                && fs::read(entry.path()).is_ok_and(|text| holds(&text))
            {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn holds(text: &[u8]) -> bool {
    text.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_wherever_it_is_but_where_it_belongs() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join(SECRET), CANARY).unwrap();
        assert_eq!(written_below(dir.path(), &[]).unwrap(), Vec::<PathBuf>::new());
        let file = dir.path().join("below/log");
        fs::write(&file, format!("password={CANARY}!")).unwrap();
        assert_eq!(written_below(dir.path(), &[]).unwrap(), [file]);
    }
}
