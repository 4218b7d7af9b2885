//! Starting a program from an open descriptor, inside a cgroup, with nothing inherited but what is
//! named here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::Stdio;

use nix::libc;
use tokio::process::{Child, Command};

/// What to start, and in which surroundings.
#[derive(Debug)]
pub(crate) struct ExecSpec<'a> {
    /// What runs: the inode behind this descriptor, whatever its path names by now. It must be
    /// readable; the interpreter opens it again through `/proc/self/fd`.
    pub(crate) script: BorrowedFd<'a>,
    /// `cgroup.procs` of the cgroup that it is in from its first instruction on.
    pub(crate) cgroup_procs: BorrowedFd<'a>,
    /// The whole environment.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Its working directory.
    pub(crate) directory: &'a Path,
}

/// Starts it: own session, stdin empty, stdout and stderr as pipes, no descriptor but these three
/// and the script's own. `$0` is `/proc/self/fd/N`.
///
/// # Errors
/// If it cannot be forked, put into its cgroup or executed.
pub(crate) fn spawn(spec: &ExecSpec<'_>) -> io::Result<Child> {
    let script = spec.script.as_raw_fd();
    let cgroup_procs = spec.cgroup_procs.as_raw_fd();
    let mut command = Command::new(format!("/proc/self/fd/{script}"));
    command
        .env_clear()
        .envs(spec.environment.iter().copied())
        .current_dir(spec.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: the closure runs between fork and exec in a copy of a multi-threaded process, so it
    // may only make async-signal-safe calls: it makes plain system calls, allocates nothing, takes
    // no lock, and captures two integers. Both descriptors are borrowed by `spec` and so are open
    // until `spawn` has returned, that is, until the child has executed or failed.
    unsafe {
        command.pre_exec(move || enter_surroundings(script, cgroup_procs));
    }
    command.spawn()
}

/// Runs in the child, before exec: see the safety note of [`spawn`].
fn enter_surroundings(script: i32, cgroup_procs: i32) -> io::Result<()> {
    const NO_SYSTEM_CALL: &[i32] = &[libc::ENOSYS, libc::EINVAL];
    // SAFETY: plain system calls on integers and on a static buffer of the length given.
    unsafe {
        // First into the cgroup ("0" is the writer itself): whatever happens later is inside.
        check(libc::write(cgroup_procs, c"0".as_ptr().cast(), 1))?;
        check(libc::setsid() as isize)?;
        libc::umask(0o022);
        // Everything that the agent may have left inheritable closes at exec (Linux 5.11; before
        // that, only Rust's own default of close-on-exec protects).
        let closed =
            libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if closed != 0 {
            let error = io::Error::last_os_error();
            if !error.raw_os_error().is_some_and(|code| NO_SYSTEM_CALL.contains(&code)) {
                return Err(error);
            }
        }
        // The script's descriptor alone stays: its interpreter opens the script through it.
        check(libc::fcntl(script, libc::F_SETFD, 0) as isize)
    }
}

/// The error of a call that failed.
fn check(result: isize) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
