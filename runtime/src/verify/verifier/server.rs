//! A server, or another program, on the copy: as the data's owner, without capabilities, writing only
//! to the copies and to scratch space, with the system calls refused that change a machine.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, chown};

use super::{Bench, Database, Stop};
use crate::capability::process::confine::Confinement;
use crate::sys::program::{self, ProgramSpec};

/// Sockets, logs, and what servers put aside.
const SCRATCH: &str = "/tmp/verify";

/// How long a server may take to stop; it is killed then.
const STOP: Duration = Duration::from_secs(60);

/// Between two looks at something that is not there yet.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// What of a log is read.
const LONGEST_LOG: usize = 8 << 20;

/// A running program, with all that it says in one file.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    log: PathBuf,
    pub(super) began: Instant,
}

/// A directory of its own for a database's socket and temporary files.
pub(super) fn scratch(database: &Database) -> Result<PathBuf, Stop> {
    let number = fs::read_dir(SCRATCH).map_or(0, Iterator::count);
    let directory = Path::new(SCRATCH).join(number.to_string());
    let (uid, gid) = database.owner;
    let made = fs::create_dir_all(&directory)
        .and_then(|()| Ok(chown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?));
    made.map_err(|error| Stop::new(format!("no scratch space: {error}")))?;
    Ok(directory)
}

impl Server {
    pub(super) fn start(
        bench: &Bench<'_>,
        database: &Database,
        program: &Path,
        arguments: &[String],
        log: PathBuf,
    ) -> Result<Self, Stop> {
        let cannot = |error: io::Error| {
            Stop::new(format!("{} cannot be started in the sandbox: {error}", program.display()))
        };
        let scratch = ["/tmp", "/var/tmp", "/dev/shm", "/run"].map(PathBuf::from);
        let writable: Vec<&PathBuf> =
            bench.places.iter().chain(scratch.iter().filter(|it| it.is_dir())).collect();
        let confinement =
            Confinement::new(&writable).map_err(|error| cannot(io::Error::other(error)))?;
        let file = File::open(program).map_err(cannot)?;
        let output = File::create(&log).map_err(cannot)?;
        let error_output = output.try_clone().map_err(cannot)?;
        let (uid, gid) = database.owner;
        let child = program::spawn(ProgramSpec {
            program: file.as_fd(),
            path: program,
            arguments,
            environment: vec![
                ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
                ("LC_ALL", "C"),
                ("TZ", "UTC"),
            ],
            // It is in the sandbox's already.
            cgroups: Vec::new(),
            uid,
            gid,
            groups: &[gid],
            limits: vec![(Resource::RLIMIT_CORE, 0)],
            landlock: confinement.landlock(),
            filters: confinement.filters(),
            stdin: None,
            stdout: output.into(),
            stderr: error_output.into(),
        })
        .map_err(cannot)?;
        Ok(Self { child, log, began: Instant::now() })
    }

    /// What it has said so far.
    pub(super) fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let kept = bytes.get(..bytes.len().min(LONGEST_LOG)).unwrap_or_default();
        String::from_utf8_lossy(kept).into_owned()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        // An error says that there is nobody to wait for.
        self.child.try_wait().unwrap_or_else(|_| Some(ExitStatus::from_raw(0)))
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self) -> Option<ExitStatus> {
        self.child.wait().ok()
    }

    /// Asks it to stop, and kills it if it does not. True if it stopped by itself.
    pub(super) fn stop(&mut self, signal: Signal) -> bool {
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        let asked = pid.is_ok_and(|pid| kill(pid, signal).is_ok());
        let began = Instant::now();
        while asked && began.elapsed() < STOP {
            if let Some(status) = self.ended() {
                return status.success();
            }
            thread::sleep(PAUSE);
        }
        // It cannot be waited for if it has been.
        let _ = self.child.kill();
        let _ = self.child.wait();
        false
    }
}

/// Runs a program to its end, as the data's owner; what it said, and how it ended.
pub(super) fn run(
    bench: &Bench<'_>,
    database: &Database,
    program: &Path,
    arguments: &[String],
) -> Result<(Option<ExitStatus>, String), Stop> {
    let log = Path::new("/tmp").join("verify-program.log");
    let mut running = Server::start(bench, database, program, arguments, log)?;
    let status = running.wait();
    Ok((status, running.log()))
}
