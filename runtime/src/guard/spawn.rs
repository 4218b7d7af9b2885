//! Starting guard, sentinel and recovery: this binary again, under another name.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt::SockType as TypeOf,
};

use super::protocol::{GUARD_NAME, RECOVERY_NAME, SENTINEL_NAME, TOUCH_NAME};
use crate::bench::{LIFELINE_NAME, WRITERS_NAME};
use crate::flush::FLUSHER_NAME;
use crate::hook::compile::COMPILER_NAME;
use crate::sys::guardproc::{close_all_from, pidfd_open, take_stdin};
use crate::verify::keeper::{KEEPER_NAME, WORKER_NAME};

/// This program's `main` has called [`enter`]. Started under another name, one that has not would
/// run its own `main` again, as root.
static ENTERED: AtomicBool = AtomicBool::new(false);

pub(crate) fn has_entered() -> bool {
    ENTERED.load(Ordering::Relaxed)
}

/// A guard or a sentinel that was started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) socket: OwnedFd,
}

/// Starts this binary again under another name, with a socket as its standard input (the one
/// descriptor that can be handed over without a moment in which another thread's child inherits it).
pub(crate) fn start(name: &str) -> io::Result<Started> {
    start_with(name, std::iter::empty())
}

/// As [`start`], with these variables as its whole environment.
pub(crate) fn start_with<'a>(
    name: &str,
    environment: impl Iterator<Item = (&'a str, &'a Path)>,
) -> io::Result<Started> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    let child = command(name).envs(environment).stdin(theirs).spawn()?;
    let pid = child.id();
    // Before anything can reap it, so that the number is still its own.
    let pidfd = pidfd_open(pid)?;
    reap(child)?;
    Ok(Started { pid, pidfd, socket: ours })
}

/// This binary under another name: no environment, no output, and by `/proc/self/exe`, so that it
/// is the same one even if the file was replaced.
pub(crate) fn command(name: &str) -> Command {
    command_of(Path::new("/proc/self/exe"), name)
}

/// As [`command`], of another program whose `main` enters.
pub(crate) fn command_of(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command.arg0(name).env_clear().current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
    #[cfg(feature = "failpoints")]
    command.envs(
        std::env::var_os(crate::failpoint::VARIABLE).map(|plan| (crate::failpoint::VARIABLE, plan)),
    );
    command
}

/// Waits for a child in a thread of its own: it may outlive everything that would wait for it.
pub(crate) fn reap(mut child: Child) -> io::Result<()> {
    let wait = move || drop(child.wait());
    thread::Builder::new().name("reap".into()).stack_size(64 << 10).spawn(wait).map(drop)
}

/// Takes over if this process was started by [`start`]: see [`super::enter`].
#[expect(clippy::exit, reason = "a process with a role ends here; its caller's main must not run")]
pub(crate) fn enter() {
    ENTERED.store(true, Ordering::Relaxed);
    #[cfg(feature = "failpoints")]
    arm_failpoints();
    let Some(name) = std::env::args_os().next() else { return };
    if name == TOUCH_NAME {
        std::process::exit(crate::freeze::ask_of_stdin());
    }
    // Whoever started it: it gives up its privileges before it reads a byte.
    if name == COMPILER_NAME {
        std::process::exit(crate::hook::compile::run_worker());
    }
    // With no more power than whoever starts it.
    if name == FLUSHER_NAME {
        std::process::exit(crate::flush::run_worker());
    }
    // They act on nothing but the copies that they are told of.
    if name == KEEPER_NAME {
        std::process::exit(crate::verify::keeper::run());
    }
    if name == WORKER_NAME {
        std::process::exit(crate::verify::worker::run());
    }
    let run = match name.to_str() {
        Some(GUARD_NAME) => super::process::run,
        Some(SENTINEL_NAME) => super::sentinel::run,
        Some(RECOVERY_NAME) => crate::sequence::recover::run_as_a_process,
        Some(WRITERS_NAME) => crate::bench::run_writers,
        Some(LIFELINE_NAME) => crate::bench::run_lifeline,
        _ => return,
    };
    // A program of that name that somebody else started is not one of ours.
    if !stdin_is_our_socket() {
        return;
    }
    let result = close_all_from(3).and_then(|()| take_stdin()).and_then(run);
    std::process::exit(i32::from(result.is_err()));
}

/// Only what runs a sequence has places to stop at: not the children that touch, flush or compile.
#[cfg(feature = "failpoints")]
fn arm_failpoints() {
    let name = std::env::args_os().next().unwrap_or_default();
    match name.to_str() {
        Some(GUARD_NAME) => crate::failpoint::armed::begin("guard"),
        Some(SENTINEL_NAME) => crate::failpoint::armed::begin("sentinel"),
        Some(RECOVERY_NAME) => crate::failpoint::armed::begin("recovery"),
        Some(
            TOUCH_NAME | COMPILER_NAME | FLUSHER_NAME | KEEPER_NAME | WORKER_NAME | WRITERS_NAME
            | LIFELINE_NAME,
        ) => {}
        _ => crate::failpoint::armed::begin("agent"),
    }
}

fn stdin_is_our_socket() -> bool {
    getsockopt(&std::io::stdin().as_fd(), TypeOf) == Ok(SockType::SeqPacket)
}
