//! What guard and sentinel do first: be hard to kill, to stall, and to be held up by what they
//! inherited. Everything here is best effort; what cannot be had is said in a warning.

use std::fs;
use std::os::fd::AsFd;

use nix::fcntl::{OFlag, open};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::sys::guardproc::{run_at_normal_priority, run_at_realtime_priority, set_nice};

/// Thread stacks are locked in memory whole, so they are small. 128 KiB holds the deepest call (a
/// panic with its message) several times.
pub(crate) const STACK_BYTES: usize = 128 << 10;

/// Hardens this process. Called while it has one thread.
pub(crate) fn harden(name: &std::ffi::CStr) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut note = |what: &str, error: &dyn std::fmt::Display| {
        warnings.push(format!("{}: {what}: {error}", name.to_string_lossy()));
    };
    let _ = prctl::set_name(name);
    // A session of its own: no terminal's hangup, no killpg of the agent's group.
    let _ = setsid();
    if let Err(error) = SigSet::all().thread_block() {
        note("cannot block signals", &error);
    }
    // In a container without CAP_SYS_RESOURCE this is refused: the usual case there, and nothing that
    // an operator can change for one run.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000")
        && error.kind() != std::io::ErrorKind::PermissionDenied
    {
        note("cannot be kept from the out-of-memory killer", &error);
    }
    if let Err(error) = chdir("/") {
        note("cannot change to /", &error);
    }
    if let Err(error) = standard_streams_to_null() {
        note("cannot open /dev/null", &error);
    }
    // Page faults must not depend on a disk that may be the one that is frozen or dead.
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        note("cannot lock its memory", &error);
    }
    prefer_this_thread();
    warnings
}

/// Takes back what a child inherits of a hardened process: for one that waits for applications, and
/// must be as easy to end as any other. No core of it is written: it knows passwords.
pub(crate) fn be_ordinary() {
    let _ = prctl::set_dumpable(false);
    let _ = setsid();
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    let _ = run_at_normal_priority();
    let _ = set_nice(0);
    let _ = standard_streams_to_null();
}

fn standard_streams_to_null() -> nix::Result<()> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(null.as_fd())?;
    dup2_stdout(null.as_fd())?;
    dup2_stderr(null.as_fd())
}

/// For threads that thaw and watch: they sleep, do one short call, and sleep again, so real-time
/// priority starves nobody. The highest, because a process that spins at a real-time priority of its
/// own would else hold up the thaw, and nobody could stop it on a machine that is frozen. Where it cannot be had (a cgroup without a real-time budget), the best
/// nice value.
pub(crate) fn prefer_this_thread() {
    if run_at_realtime_priority().is_err() {
        let _ = set_nice(-20);
    }
}

/// For threads that freeze and flush: a flush can work for seconds inside the kernel, and must not
/// do so at real-time priority, which they inherit from the thread that started them.
pub(crate) fn favour_this_thread() {
    let _ = run_at_normal_priority();
    let _ = set_nice(-20);
}
