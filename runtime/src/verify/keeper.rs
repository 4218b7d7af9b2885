//! The process that keeps the sandbox: it makes the cgroup and the name spaces, starts who works in
//! them, and ends all of it when that is done, when its time is over, or when the command is gone, for
//! which it needs no signal: the pipe that the command holds tells it. A process of its own, so that
//! nothing is left behind by a command that is killed.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

use super::job::{Event, Job};
use crate::cgroup::{self, Bounds, LimitedCgroup};
use crate::guard::spawn;
use crate::sys::guardproc::pidfd_open;
use crate::time::Deadline;

/// The name under which the keeper is started.
pub(crate) const KEEPER_NAME: &str = "stillpoint-verify";
/// The name under which who works in the sandbox is started.
pub(crate) const WORKER_NAME: &str = "stillpoint-verifying";

/// How cgroups of verifications are named.
const PURPOSE: &str = "verify";

/// Processes and threads in the sandbox: a server with its defaults has a few dozen.
const PROCESSES: u64 = 1024;

/// Longer than any job, which is one line.
const LONGEST_JOB: u64 = 16 << 20;

/// The keeper's life; its exit status.
pub(crate) fn run() -> i32 {
    match keep() {
        Ok(()) => 0,
        Err((what, error)) => {
            let hint =
                Some("run it as root, outside of containers that take privileges away".into());
            tell(&Event::Failed { what: format!("{what}: {error}"), hint });
            1
        }
    }
}

/// What could not be done, and why.
type Failed = (&'static str, io::Error);

fn keep() -> Result<(), Failed> {
    // Away from the terminal: what is typed there ends the command, and that ends us.
    let _ = nix::unistd::setsid();
    let mut line = String::new();
    let read = io::stdin().lock().take(LONGEST_JOB).read_line(&mut line);
    read.map_err(|error| ("what is to be verified cannot be read", error))?;
    let job: Job = serde_json::from_str(&line)
        .map_err(|error| ("what is to be verified makes no sense", error.into()))?;
    let deadline = Deadline::after(job.deadline);
    // Of keepers that were killed themselves.
    drop(cgroup::remains(PURPOSE));
    let bounds = Bounds { processes: PROCESSES, memory_bytes: job.memory_bytes, cpus: job.cpus };
    let cgroup = LimitedCgroup::create(&cgroup::name_for(PURPOSE), &bounds)
        .map_err(|error| ("no cgroup can be made", io::Error::other(error)))?;
    let spaces = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(spaces).map_err(|error| ("no name spaces can be made", error.into()))?;
    let worker = start(&cgroup, &line).map_err(|error| ("nothing can be started in it", error))?;
    attend(worker, deadline).map_err(|error| ("the sandbox cannot be watched", error))
}

/// Starts the first process of the new name spaces: when it ends, the kernel ends all others in them.
fn start(cgroup: &LimitedCgroup, job: &str) -> io::Result<Child> {
    let mut worker =
        spawn::command(WORKER_NAME).stdin(Stdio::piped()).stdout(Stdio::inherit()).spawn()?;
    // It waits for its job: all that it does, it does inside.
    let mut enter = || -> io::Result<()> {
        for procs in cgroup.procs() {
            nix::unistd::write(procs, worker.id().to_string().as_bytes())?;
        }
        let Some(mut stdin) = worker.stdin.take() else { return Ok(()) };
        stdin.write_all(job.as_bytes())
    };
    match enter() {
        Ok(()) => Ok(worker),
        Err(error) => {
            let _ = worker.kill();
            let _ = worker.wait();
            Err(error)
        }
    }
}

/// Waits for the end of the worker, of its time, or of the command.
fn attend(mut worker: Child, deadline: Deadline) -> io::Result<()> {
    let pidfd = pidfd_open(worker.id())?;
    let command = io::stdin();
    let mut is_late = false;
    loop {
        let nothing = PollFlags::empty();
        let mut ends =
            [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(command.as_fd(), nothing)];
        let left = deadline.remaining().min(Duration::from_secs(60)).as_millis() + 1;
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut ends, timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(0) if !deadline.has_passed() => continue,
            Ok(0) => is_late = true,
            Ok(_) => {}
        }
        break;
    }
    // One that has ended is not harmed.
    let _ = worker.kill();
    worker.wait()?;
    if is_late {
        tell(&Event::TooLate);
    }
    Ok(())
}

/// One line for the command.
pub(super) fn tell(event: &Event) {
    let Ok(mut line) = serde_json::to_vec(event) else { return };
    line.push(b'\n');
    let mut out = io::stdout().lock();
    // If the command is gone, the pipe on our standard input says so, too.
    let _ = out.write_all(&line).and_then(|()| out.flush());
}
