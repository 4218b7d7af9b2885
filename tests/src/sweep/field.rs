//! A lab in which runs are disturbed: file systems with a writer each, an installation, with a
//! server and its client where wanted; and what must be so once a run, however it ended, is over.
#![expect(clippy::print_stderr, reason = "what is looked into is told at once")]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mysql_async::prelude::Queryable;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use stillpoint::freeze::{ProbeState, probe};

use super::pulse::Pulse;
use crate::lab::{FsSpec, FsType, Lab};
use crate::mariadb::{MariaDb, Place};
use crate::stillpoint::{NO_SCRIPTS, Stillpoint};
use crate::sys::pidfd_open;
use crate::writers::now_ns;

/// Every file system is writable this long after a death, says the promise.
pub const LIMIT: Duration = Duration::from_millis(250);
/// A writer that is later than this is looked into.
const SUSPICIOUS: Duration = Duration::from_millis(100);
/// How long a writer that is too late is waited for, so that the figure is known.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long what is left of a run may take to go: the guard waits up to 2 s for the agent, and the
/// sentinel for both.
const REMAINS_LIMIT: Duration = Duration::from_secs(10);
/// `[deadlines] freeze` of the installation.
pub const WINDOW: Duration = Duration::from_secs(2);

/// What a field is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// ext4 and XFS.
    Ext4Xfs,
    /// ext4 and btrfs.
    Ext4Btrfs,
    /// All three.
    Mixed,
    /// Four btrfs.
    Btrfs,
    /// A MariaDB with the hook `mysql`: data on ext4, binary log on XFS.
    Database,
}

impl Ground {
    /// By number, for a number of fields at once: every kind of file system is in the first two.
    #[must_use]
    pub fn of(number: usize) -> Self {
        [Self::Mixed, Self::Ext4Btrfs, Self::Ext4Xfs][number % 3]
    }

    fn specs(self) -> Vec<FsSpec> {
        let ext4 = || FsSpec::new("ext4", FsType::Ext4, 64);
        let xfs = || FsSpec::new("xfs", FsType::Xfs, 320);
        let btrfs = |name: &str| FsSpec::new(name, FsType::Btrfs, 128);
        match self {
            Self::Ext4Xfs => vec![ext4(), xfs()],
            Self::Ext4Btrfs => vec![ext4(), btrfs("btrfs")],
            Self::Mixed => vec![ext4(), xfs(), btrfs("btrfs")],
            Self::Btrfs => ["b0", "b1", "b2", "b3"].map(btrfs).to_vec(),
            Self::Database => {
                vec![
                    FsSpec::new("data", FsType::Ext4, 512),
                    FsSpec::new("binlog", FsType::Xfs, 320),
                ]
            }
        }
    }
}

/// The lab, its writers, and the installation.
#[derive(Debug)]
pub struct Field {
    /// The installation.
    pub stillpoint: Stillpoint,
    /// One for each file system.
    pub writers: Vec<Pulse>,
    /// Of the server, if there is one.
    pub client: Option<Pulse>,
    server: Option<MariaDb>,
    /// Children of this process that belong to no run.
    ours: BTreeSet<i32>,
    /// A file system has turned read-only: another field must be made.
    pub spoiled: bool,
    /// The lab.
    pub lab: Lab,
}

impl Field {
    /// Makes one. This process becomes the parent of whatever a dead run leaves behind, so that
    /// nothing escapes; it should run nothing else.
    ///
    /// # Errors
    /// If a part cannot be made.
    pub fn new(ground: Ground, time: Duration) -> Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        // Nobody wants the cores of those who are shot.
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)?;
        let lab = Lab::new(&ground.specs(), time)?;
        let stillpoint = Stillpoint::new(&lab)?;
        let deadline = format!("[deadlines]\nfreeze = \"{}s\"\n\n{NO_SCRIPTS}", WINDOW.as_secs());
        stillpoint.configure(&stillpoint.settings(&lab, &deadline))?;
        let (server, client) = if ground == Ground::Database {
            let place = Place { data: lab.mount("data"), binlog: lab.mount("binlog") };
            let server = MariaDb::install(&lab, place)?;
            stillpoint.install_mysql_hook(server.socket())?;
            let client = client_of(&server)?;
            (Some(server), Some(client))
        } else {
            (None, None)
        };
        let writers = lab.file_systems().iter();
        let writers = writers.map(|fs| Pulse::of_file_system(fs.fs_type.name(), &fs.mount));
        let writers = writers.collect::<Result<Vec<_>>>()?;
        let ours = children_of(own_pid())?;
        Ok(Self { stillpoint, writers, client, server, ours, spoiled: false, lab })
    }

    /// Starts a run, with what it prints in files.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, name: &str) -> Result<Agent> {
        let output = self.lab.scratch("output")?;
        let (stdout, stderr) = (output.join("stdout"), output.join("stderr"));
        let mut command = self.stillpoint.command(["--json", "snapshot", "--name", name]);
        command.stdout(fs::File::create(&stdout)?).stderr(fs::File::create(&stderr)?);
        let started_ns = now_ns();
        let child = command.stdin(Stdio::null()).spawn().context("cannot start stillpoint")?;
        Ok(Agent { child, started_ns, stdout, stderr })
    }

    /// Forgets what was written so far.
    pub fn reset(&self) {
        for pulse in self.writers.iter().chain(&self.client) {
            let _ = pulse.take_longest();
        }
    }

    /// How long after `moment` each file system was written to, and whether all were in time.
    ///
    /// # Errors
    /// If a writer has failed.
    pub fn recovery(&self, moment_ns: u64) -> Result<Vec<Recovery>> {
        self.writers.iter().for_each(|pulse| pulse.ask_since(moment_ns));
        for pulse in &self.writers {
            if pulse.answer(moment_ns, SUSPICIOUS)?.is_none() {
                eprintln!("slow: {}", self.what_hangs()?);
                break;
            }
        }
        self.writers.iter().map(|pulse| recovery_of(pulse, moment_ns)).collect()
    }

    /// What every thread of guard and sentinel waits for, for whoever looks into a late thaw.
    fn what_hangs(&self) -> Result<String> {
        let read = |path: String| fs::read_to_string(path).unwrap_or_default();
        let mut text = format!("rcu_expedited {}", read("/sys/kernel/rcu_expedited".into()).trim());
        let load = read("/proc/loadavg".into());
        text.push_str(&format!(", load {}", load.trim()));
        for pid in children_of(own_pid())?.difference(&self.ours) {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let task = task.path();
                let of = |name: &str| read(task.join(name).display().to_string());
                let frames: Vec<String> = of("stack").lines().take(3).map(function_of).collect();
                text.push_str(&format!("; {}: {}", of("comm").trim(), frames.join(" < ")));
            }
        }
        Ok(text)
    }

    /// The same for the server's client, if there is one.
    ///
    /// # Errors
    /// If it has failed.
    pub fn client_recovery(&self, moment_ns: u64) -> Result<Option<Recovery>> {
        let Some(client) = &self.client else { return Ok(None) };
        client.ask_since(moment_ns);
        recovery_of(client, moment_ns).map(Some)
    }

    /// The longest write of any writer since the last reset.
    #[must_use]
    pub fn longest_write(&self) -> Duration {
        self.writers.iter().map(Pulse::take_longest).max().unwrap_or_default()
    }

    /// What is there of runs that must not be: waits for processes that are about to go. Empty is
    /// good.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn left_by_a_run(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let mut ended = Vec::new();
        let until = Instant::now() + REMAINS_LIMIT;
        loop {
            let now = children_of(own_pid())?;
            let remains: Vec<i32> = now.difference(&self.ours).copied().collect();
            for pid in &remains {
                if waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG)).is_ok_and(is_over) {
                    ended.push(*pid);
                }
            }
            if remains.is_empty() {
                break;
            }
            if Instant::now() > until {
                left.extend(remains.iter().map(|pid| format!("process {}", describe(*pid))));
                break;
            }
            std::thread::sleep(Duration::from_millis(4));
        }
        left.extend(ended.iter().flat_map(|pid| cgroups_of(*pid)));
        let journal = self.lab.root().join("run/stillpoint/freeze.json");
        if journal.exists() {
            left.push(format!("journal {}", journal.display()));
        }
        for fs in self.lab.file_systems() {
            match probe(&fs.mount) {
                // Told by `read_only`.
                Ok(found) if found.state != ProbeState::Frozen => {}
                Ok(found) => left.push(format!("{} is {:?}", fs.name, found.state)),
                Err(error) => left.push(format!("{}: {error}", fs.name)),
            }
        }
        Ok(left)
    }

    /// The journal says that file systems may be frozen by us.
    #[must_use]
    pub fn journal_says_ours(&self) -> bool {
        let journal = fs::read_to_string(self.lab.root().join("run/stillpoint/freeze.json"));
        journal.is_ok_and(|text| text.replace(' ', "").contains("\"ours\":true"))
    }

    /// File systems whose super options say that they are read-only. The options of the mount would
    /// go on saying `rw`.
    ///
    /// # Errors
    /// If the mount table cannot be read.
    pub fn read_only(&self) -> Result<Vec<String>> {
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        let mounts = self.lab.file_systems().iter();
        let ours = |line: &&str| {
            let point = line.split(' ').nth(4);
            mounts.clone().any(|fs| point == fs.mount.to_str())
        };
        let lines = table.lines().filter(ours);
        let read_only = lines.filter(|line| {
            let options = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').nth(2));
            options.is_none_or(|options| options.split(',').any(|option| option == "ro"))
        });
        Ok(read_only.map(|line| format!("read-only: {line}")).collect())
    }

    /// Removes the snapshots of the runs so far, and what a server has logged.
    ///
    /// # Errors
    /// If that fails.
    pub fn tidy(&self) -> Result<()> {
        match fs::remove_dir_all(self.lab.host().join(".stillpoint")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context("cannot remove the snapshots");
            }
            _ => {}
        }
        if let Some(server) = &self.server {
            server.execute("RESET MASTER")?;
        }
        Ok(())
    }

    /// Ends all of it.
    ///
    /// # Errors
    /// If a writer has failed, or something is left.
    pub fn finish(self) -> Result<()> {
        for pulse in self.writers.into_iter().chain(self.client) {
            pulse.stop()?;
        }
        if let Some(server) = self.server {
            server.stop()?;
        }
        self.lab.finish()
    }
}

/// A run that was started.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    /// When.
    pub started_ns: u64,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Agent {
    /// Its process id, good as long as it was not waited for.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// From its start to a moment.
    #[must_use]
    pub fn until(&self, moment_ns: u64) -> Duration {
        Duration::from_nanos(moment_ns.saturating_sub(self.started_ns))
    }

    /// It has ended.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Its guard or its sentinel, if it has one at this moment.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn helper(&self, name: &str) -> Result<Option<i32>> {
        let children = children_of(self.pid())?;
        Ok(children.into_iter().find(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).next() == Some(name.as_bytes()))
        }))
    }

    /// Waits for its end, at most for `limit`, and says how it ended and when it was seen.
    ///
    /// # Errors
    /// If it does not end; it is killed then.
    pub fn wait(&mut self, limit: Duration) -> Result<Ending> {
        // A process that was waited for already has no number any more.
        if self.child.try_wait()?.is_none() && !ends(&pidfd_open(self.pid())?, limit)? {
            let where_ = describe(self.pid());
            self.child.kill()?;
            bail!("the run does not end: {where_}");
        }
        let ended_ns = now_ns();
        let status = self.child.wait()?;
        let text = |path: &Path| fs::read(path).map(|t| String::from_utf8_lossy(&t).into());
        let (stdout, stderr) = (text(&self.stdout)?, text(&self.stderr)?);
        Ok(Ending { status, ended_ns, stdout, stderr })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // If it was waited for, this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Exit code, or the signal that ended it.
    pub status: std::process::ExitStatus,
    /// When that was seen.
    pub ended_ns: u64,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ending {
    /// The document that it printed, if it did.
    #[must_use]
    pub fn document(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.stdout).ok()
    }

    /// The manifest of a snapshot that was made.
    #[must_use]
    pub fn manifest(&self) -> Option<serde_json::Value> {
        self.document()?.get("manifest").filter(|manifest| !manifest.is_null()).cloned()
    }

    /// The level that it claims, if it claims one.
    #[must_use]
    pub fn level(&self) -> Option<String> {
        Some(self.manifest()?.get("level")?.as_str()?.to_owned())
    }
}

/// When something was written to again.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Whose.
    pub name: String,
    /// How long after the moment; `None` if not within 20 s.
    pub after: Option<Duration>,
}

impl Recovery {
    /// Within the promised time.
    #[must_use]
    pub fn in_time(&self) -> bool {
        self.after.is_some_and(|after| after <= LIMIT)
    }
}

fn recovery_of(pulse: &Pulse, moment_ns: u64) -> Result<Recovery> {
    Ok(Recovery { name: pulse.name.clone(), after: pulse.answer(moment_ns, PATIENCE)? })
}

/// A client that commits all the time.
fn client_of(server: &MariaDb) -> Result<Pulse> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut connection = runtime.block_on(server.connect())?;
    runtime.block_on(async {
        connection.query_drop("CREATE DATABASE lab").await?;
        connection.query_drop("CREATE TABLE lab.t (id INT PRIMARY KEY, n BIGINT)").await?;
        connection.query_drop("INSERT INTO lab.t VALUES (1, 0)").await
    })?;
    Pulse::start("client", move || {
        let update = connection.query_drop("UPDATE lab.t SET n = n + 1 WHERE id = 1");
        runtime.block_on(update).context("a commit failed")
    })
}

/// Waits for the end of the last thread behind a process descriptor.
///
/// # Errors
/// If it cannot be waited for.
pub fn ends(pidfd: &OwnedFd, limit: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::try_from(limit)?)? == 1)
}

/// The name in one line of a kernel stack.
fn function_of(line: &str) -> String {
    let name = line.rsplit(' ').next().unwrap_or_default();
    name.split('+').next().unwrap_or_default().to_owned()
}

fn own_pid() -> i32 {
    Pid::this().as_raw()
}

/// Processes whose parent is `parent`, the dead that were not waited for among them.
fn children_of(parent: i32) -> Result<BTreeSet<i32>> {
    let mut children = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that has gone meanwhile is nobody's child.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        if after_name.split(' ').nth(1).and_then(|word| word.parse().ok()) == Some(parent) {
            children.insert(pid);
        }
    }
    ensure!(parent != own_pid() || !children.is_empty(), "the watchdog is gone");
    Ok(children)
}

fn is_over(status: nix::sys::wait::WaitStatus) -> bool {
    use nix::sys::wait::WaitStatus::{Exited, Signaled};
    matches!(status, Exited(..) | Signaled(..))
}

/// A sentinel's cgroup that is still there though its process has ended.
fn cgroups_of(pid: i32) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let hierarchies = table.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (point, kind) = (words.nth(1)?, words.next()?);
        kind.starts_with("cgroup")
            .then(|| Path::new(point).join(format!("stillpoint-sentinel-{pid}")))
    });
    let left = hierarchies.filter(|path| path.exists());
    left.map(|path| format!("cgroup {}", path.display())).collect()
}

/// A process, for people: its name, and where it hangs.
fn describe(pid: i32) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let state = read("status").lines().find(|l| l.starts_with("State:")).unwrap_or("").to_owned();
    format!(
        "{pid} {} {} {}",
        read("comm").trim(),
        state,
        read("stack").lines().next().unwrap_or("")
    )
}
