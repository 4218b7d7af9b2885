//! A throw-away laboratory: file systems on loop images, writers, and somebody else who freezes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use stillpoint::plan::{DevId, FileSystem};

use crate::watchdog::Watchdog;

/// A laboratory. Dropping it thaws, unmounts and removes everything, by the watchdog.
#[derive(Debug)]
pub struct Lab {
    root: PathBuf,
    rcu_before: String,
    cgroups_before: Vec<PathBuf>,
    pub file_systems: Vec<FileSystem>,
    _watchdog: Watchdog,
}

impl Lab {
    /// A laboratory with one file system of each of these types.
    pub fn with(types: &[&str]) -> Self {
        let root = tempfile::Builder::new().prefix("stillpoint-guard-").tempdir().unwrap().keep();
        let _watchdog = Watchdog::over(&root);
        let (rcu_before, cgroups_before, file_systems) = (rcu(), cgroups(), Vec::new());
        let mut lab = Self { root, rcu_before, cgroups_before, file_systems, _watchdog };
        for fs_type in types {
            let image = lab.root.join(format!("{}.img", lab.file_systems.len()));
            lab.add(fs_type, &image, 0);
        }
        lab
    }

    /// Makes, attaches and mounts one more file system on an image.
    pub fn add(&mut self, fs_type: &str, image: &Path, wave: usize) {
        let mount_point = self.root.join(format!("m{}", self.file_systems.len()));
        fs::create_dir(&mount_point).unwrap();
        let megabytes = match fs_type {
            "xfs" => 300,
            "btrfs" => 128,
            _ => 32,
        };
        fs::File::create(image).unwrap().set_len(megabytes << 20).unwrap();
        let force = if fs_type == "ext4" { "-Fq" } else { "-fq" };
        output(Command::new(format!("mkfs.{fs_type}")).arg(force).arg(image));
        let device = output(Command::new("losetup").args(["--find", "--show"]).arg(image));
        output(Command::new("mount").arg(device.trim()).arg(&mount_point));
        fs::write(mount_point.join("present"), "here before the freeze\n").unwrap();
        self.file_systems.push(describe(&mount_point, fs_type, wave));
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn run_dir(&self) -> PathBuf {
        self.root.join("run")
    }

    pub fn mount(&self, index: usize) -> &Path {
        &self.file_systems[index].mount_point
    }

    /// What a run leaves behind must be nothing: every file system writable within `limit`,
    /// `rcu_expedited` as before, no process, no cgroup, no journal.
    pub fn assert_all_undone(&self, limit: Duration) {
        let began = Instant::now();
        let writers: Vec<_> =
            self.file_systems.iter().map(|fs| Writer::start(&fs.mount_point)).collect();
        for (writer, fs) in writers.iter().zip(&self.file_systems) {
            let left = limit.saturating_sub(began.elapsed());
            assert!(writer.wrote_within(left), "{} is still frozen", fs.mount_point.display());
        }
        eventually("no process of ours is left", || self.processes().is_empty());
        eventually("rcu_expedited is as before", || self.rcu_is_as_before());
        eventually("the journal is removed", || !self.run_dir().join("freeze.json").exists());
        eventually("no cgroup is left", || {
            cgroups().iter().all(|cgroup| self.cgroups_before.contains(cgroup))
        });
    }

    /// It is one number for the whole machine: a run of somebody else may have raised it when this
    /// laboratory was made, or have it raised now.
    fn rcu_is_as_before(&self) -> bool {
        rcu() == self.rcu_before || rcu().trim() == "0" || others_run()
    }

    /// A file system on an image that lies on another one of this laboratory.
    pub fn with_stacked(outer_wave: usize, inner_wave: usize) -> Self {
        let mut lab = Self::with(&[]);
        let outer = lab.root.join("outer.img");
        lab.add("xfs", &outer, outer_wave);
        let inner = lab.mount(0).join("inner.img");
        lab.add("ext4", &inner, inner_wave);
        lab
    }

    /// Guards and sentinels that hold a mount of this laboratory open.
    pub fn processes(&self) -> Vec<u32> {
        pids_named(&["stillpoint-guard", "stillpoint-sentinel"])
            .into_iter()
            .filter(|pid| self.is_ours(*pid))
            .collect()
    }

    fn is_ours(&self, pid: u32) -> bool {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        fds.flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|p| p.starts_with(&self.root))
    }

    /// This laboratory's guard or sentinel.
    pub fn process(&self, name: &str) -> u32 {
        let found: Vec<_> = pids_named(&[name]).into_iter().filter(|p| self.is_ours(*p)).collect();
        assert_eq!(found.len(), 1, "one {name}");
        found[0]
    }
}

/// Guards and sentinels are there. (Asked when there are none of this laboratory.)
fn others_run() -> bool {
    !pids_named(&["stillpoint-guard", "stillpoint-sentinel"]).is_empty()
}

/// The cgroups of sentinels that have no process in them any more.
fn cgroups() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let hierarchies =
        table.lines().filter(|l| l.contains(" cgroup")).filter_map(|l| l.split(' ').nth(1));
    let children = hierarchies.filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    children
        .map(|entry| entry.path())
        .filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("stillpoint-sentinel-"))
        .filter(|p| fs::read_to_string(p.join("cgroup.procs")).is_ok_and(|procs| procs.is_empty()))
        .collect()
}

fn pids_named(names: &[&str]) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        names.iter().any(|name| line.split(|b| *b == 0).next() == Some(name.as_bytes()))
    })
    .collect()
}

pub fn rcu() -> String {
    fs::read_to_string("/sys/kernel/rcu_expedited").unwrap_or_default()
}

/// A mounted file system as the plan describes it.
pub fn describe(mount_point: &Path, fs_type: &str, wave: usize) -> FileSystem {
    describe_to(std::process::id(), mount_point, fs_type, wave)
}

/// The same, as this process sees it.
pub fn describe_to(pid: u32, mount_point: &Path, fs_type: &str, wave: usize) -> FileSystem {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let line = table.lines().rfind(|l| l.split(' ').nth(4) == mount_point.to_str()).unwrap();
    let fields: Vec<_> = line.split(' ').collect();
    let (major, minor) = fields[2].split_once(':').unwrap();
    FileSystem {
        superblock: DevId { major: major.parse().unwrap(), minor: minor.parse().unwrap() },
        mount_point: mount_point.to_owned(),
        mount_id: fields[0].parse().unwrap(),
        fs_type: fs_type.to_owned(),
        source: "loop".to_owned(),
        other_mounts: Vec::new(),
        disks: Vec::new(),
        wave,
    }
}

/// Writes one new file, in a thread of its own: it may have to wait until the thaw.
#[derive(Debug)]
pub struct Writer {
    done: Receiver<Instant>,
    thread: nix::libc::pid_t,
}

impl Writer {
    pub fn start(directory: &Path) -> Self {
        let path = directory.join(format!("w{}", unique()));
        let (tell_thread, thread) = channel();
        let (tell_done, done) = channel();
        std::thread::spawn(move || {
            tell_thread.send(nix::unistd::gettid().as_raw()).unwrap();
            let mut file = fs::File::create(path).unwrap();
            file.write_all(b"written").unwrap();
            let _ = tell_done.send(Instant::now());
        });
        Self { done, thread: thread.recv().unwrap() }
    }

    pub fn wrote_within(&self, limit: Duration) -> bool {
        self.done.recv_timeout(limit).is_ok()
    }

    /// Waits until the writer waits for the file system, in D state.
    pub fn assert_is_blocked(&self) {
        let stat = format!("/proc/self/task/{}/stat", self.thread);
        eventually("the writer is blocked", || {
            assert!(self.done.try_recv().is_err(), "the writer was not blocked");
            fs::read_to_string(&stat).is_ok_and(|s| s.rsplit(") ").next().unwrap().starts_with('D'))
        });
    }
}

/// A write that is in flight until it is dropped: it splices from a pipe that nobody fills, and
/// holds the superblock's write lock meanwhile. A freeze waits for it in D state.
#[derive(Debug)]
pub struct WriteInFlight {
    pipe: Option<std::io::PipeWriter>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl WriteInFlight {
    pub fn on(directory: &Path) -> Self {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut file = fs::File::create(directory.join("in-flight")).unwrap();
        let mut reader = fs::File::from(std::os::fd::OwnedFd::from(reader));
        let (tell_thread, thread_id) = channel();
        let thread = std::thread::spawn(move || {
            tell_thread.send(nix::unistd::gettid().as_raw()).unwrap();
            std::io::copy(&mut reader, &mut file).unwrap();
        });
        writer.write_all(b"the first bytes show that it has begun").unwrap();
        let thread_id: i32 = thread_id.recv().unwrap();
        eventually("it waits inside the write", || {
            let syscall = format!("/proc/self/task/{thread_id}/syscall");
            let splice = nix::libc::SYS_splice.to_string();
            fs::metadata(directory.join("in-flight")).unwrap().len() > 0
                && fs::read_to_string(syscall).is_ok_and(|text| text.starts_with(&splice))
        });
        Self { pipe: Some(writer), thread: Some(thread) }
    }
}

impl Drop for WriteInFlight {
    fn drop(&mut self) {
        drop(self.pipe.take());
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Waits for something that happens soon; fails if it does not within 5 s.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(5), "not so after 5 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Somebody else, with the usual tool.
pub fn somebody_freezes(mount_point: &Path) {
    output(Command::new("fsfreeze").arg("-f").arg(mount_point));
}

pub fn somebody_thaws(mount_point: &Path) {
    output(Command::new("fsfreeze").arg("-u").arg(mount_point));
}

pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A signal to exactly one process.
pub fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}
