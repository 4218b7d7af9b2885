//! A process that outlives a failed, hung or killed test, thaws its mounts, and removes its lab.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

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
        let cleaned_up = self.0.wait().is_ok_and(|status| status.success());
        assert!(cleaned_up || std::thread::panicking(), "the laboratory could not be removed");
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
    let clean = clean_up(&lab);
    if crate::lab::rcu() != arguments[1] {
        let _ = std::fs::write("/sys/kernel/rcu_expedited", &arguments[1]);
    }
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// True if nothing is left.
fn clean_up(lab: &Path) -> bool {
    // Asked before anything is unmounted: the path of an image on a detached mount names nothing.
    let loops = loops_of(lab);
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
    for device in &loops {
        quietly(Command::new("losetup").arg("-d").arg(device));
    }
    let _ = std::fs::remove_dir_all(lab);
    // One that lies on another is let go of in the background.
    let until = Instant::now() + Duration::from_secs(5);
    while !loops_of(lab).is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    loops_of(lab).is_empty() && !lab.exists()
}

/// Loop devices whose images lie in the laboratory, also on a mount in it.
fn loops_of(lab: &Path) -> Vec<String> {
    let list = Command::new("losetup").args(["-n", "-O", "NAME,BACK-FILE"]).output().unwrap();
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    let pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let ours = pairs.filter(|(_, file)| Path::new(file.trim()).starts_with(lab));
    ours.map(|(device, _)| device.to_owned()).collect()
}

fn quietly(command: &mut Command) {
    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
}
