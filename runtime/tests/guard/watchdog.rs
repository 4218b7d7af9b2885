//! A process that outlives a failed, hung or killed test, thaws its mounts, and removes its lab.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

pub const MODE: &str = "as-watchdog";
/// No case takes longer than this.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running watchdog. When this is dropped, it cleans up, and is waited for.
#[derive(Debug)]
pub struct Watchdog(Child);

impl Watchdog {
    /// Watches over everything that is or will be mounted below `lab`.
    pub fn over(lab: &Path) -> Self {
        let child = Command::new("/proc/self/exe")
            .arg(MODE)
            .arg(lab)
            .arg(crate::lab::rcu())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Waits for the end of its standard input (the test is done, or dead), or until time is up.
pub fn run(arguments: &[String]) -> ExitCode {
    let lab = PathBuf::from(&arguments[0]);
    let (ended, test) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    if test.recv_timeout(PATIENCE).is_err() {
        eprintln!("watchdog: time is up, thawing everything below {}", lab.display());
    }
    clean_up(&lab);
    if crate::lab::rcu() != arguments[1] {
        let _ = std::fs::write("/sys/kernel/rcu_expedited", &arguments[1]);
    }
    ExitCode::SUCCESS
}

fn clean_up(lab: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts: Vec<_> = table
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .filter(|m| Path::new(m).starts_with(lab))
        .collect();
    // What lies underneath first: a thaw of what is stacked on it may wait for it.
    for mount in &mounts {
        quietly(Command::new("fsfreeze").arg("-u").arg(mount));
    }
    for mount in mounts.iter().rev() {
        quietly(Command::new("umount").arg("-l").arg(mount));
    }
    let loops = Command::new("losetup").args(["-n", "-O", "NAME,BACK-FILE"]).output().unwrap();
    for line in String::from_utf8_lossy(&loops.stdout).lines() {
        if let Some((device, file)) = line.split_once(char::is_whitespace)
            && Path::new(file.trim().trim_end_matches(" (deleted)")).starts_with(lab)
        {
            quietly(Command::new("losetup").arg("-d").arg(device));
        }
    }
    let _ = std::fs::remove_dir_all(lab);
}

fn quietly(command: &mut Command) {
    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
}
