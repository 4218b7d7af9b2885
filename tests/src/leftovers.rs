//! What a lab, or a run of stillpoint in it, has left on the machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::command::{LAB_VARIABLE, run};

/// Cgroups are removed by processes that end a moment after the command does.
const PATIENCE: Duration = Duration::from_secs(5);

/// The cgroups of stillpoint's that there are, to tell later which are new.
#[must_use]
pub fn cgroups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with("stillpoint-") {
                    found.insert(entry.path());
                }
                directories.push(entry.path());
            }
        }
    }
    found
}

/// Mounts, loop devices, processes and the directory of a lab that has ended, and cgroups that were
/// not there before it; waits a little for those that are about to go. Empty is good.
#[must_use]
pub fn of_lab(directory: &Path, cgroups_before: &BTreeSet<PathBuf>) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut found = of_directory(directory);
        found.extend(
            cgroups().difference(cgroups_before).map(|path| format!("cgroup {}", path.display())),
        );
        if found.is_empty() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn of_directory(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let name = directory.display().to_string();
    if directory.exists() {
        found.push(format!("directory {name}"));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(mounts.lines().filter(|l| l.contains(&name)).map(|l| format!("mount {l}")));
    let loops = run("losetup", ["-l", "-n", "-O", "NAME,BACK-FILE"]).unwrap_or_default();
    found.extend(loops.lines().filter(|l| l.contains(&name)).map(|l| format!("loop device {l}")));
    found.extend(processes(directory).map(|path| format!("process {}", path.display())));
    found
}

/// Directories in `/proc` of the processes that belong to a lab.
fn processes(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let marker = format!("{LAB_VARIABLE}={}", directory.display());
    let all = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    all.map(|entry| entry.path()).filter(move |path| {
        fs::read(path.join("environ")).is_ok_and(|environment| {
            environment.split(|&byte| byte == 0).any(|word| word == marker.as_bytes())
        })
    })
}

/// Those of a lab that run this program: agents, guards, sentinels.
#[must_use]
pub fn processes_of(directory: &Path, program: &Path) -> Vec<PathBuf> {
    processes(directory)
        .filter(|process| fs::read_link(process.join("exe")).is_ok_and(|exe| exe == program))
        .collect()
}

/// All that run this program, on the whole machine: guards, sentinels and recoveries have no environment
/// that would tell whose they are.
#[must_use]
pub fn processes_running(program: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    all.map(|entry| entry.path())
        .filter(|process| fs::read_link(process.join("exe")).is_ok_and(|exe| exe == program))
        .collect()
}
