//! Starting a program that must not be trusted: from an open descriptor, in cgroups, as another user,
//! without capabilities, with bounds, and with the kernel's filters on before its first instruction.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use seccompiler::BpfProgram;

/// What to start, and in which surroundings.
#[derive(Debug)]
pub(crate) struct ProgramSpec<'a> {
    /// What runs: the inode behind this descriptor. An ELF file: an interpreter of a script could
    /// not open it again.
    pub(crate) program: BorrowedFd<'a>,
    /// What it is told that it is called.
    pub(crate) path: &'a Path,
    pub(crate) arguments: &'a [String],
    /// The whole environment.
    pub(crate) environment: Vec<(&'a str, &'a str)>,
    /// `cgroup.procs` of the cgroups that it is in from its first instruction on.
    pub(crate) cgroups: Vec<BorrowedFd<'a>>,
    pub(crate) uid: libc::uid_t,
    pub(crate) gid: libc::gid_t,
    /// Further groups, and no others.
    pub(crate) groups: &'a [libc::gid_t],
    /// Soft and hard resource limits at once.
    pub(crate) limits: Vec<(Resource, u64)>,
    /// Landlock rules, where the kernel has landlock.
    pub(crate) landlock: Option<BorrowedFd<'a>>,
    /// Seccomp filters, in the order to install them in.
    pub(crate) filters: &'a [BpfProgram],
    /// Standard input; an empty one if `None`.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Starts it. It is killed when the calling thread ends, so the caller stays until it has ended.
///
/// # Errors
/// If it cannot be forked, or any of its surroundings cannot be had: it does not run then.
pub(crate) fn spawn(spec: ProgramSpec<'_>) -> io::Result<Child> {
    let mut command = Command::new(format!("/proc/self/fd/{}", spec.program.as_raw_fd()));
    command
        .arg0(spec.path)
        .args(spec.arguments)
        .env_clear()
        .envs(spec.environment.iter().copied())
        .current_dir("/")
        .stdin(spec.stdin.map_or_else(Stdio::null, Stdio::from))
        .stdout(Stdio::from(spec.stdout))
        .stderr(Stdio::from(spec.stderr));
    let surroundings = Surroundings {
        parent: libc::pid_t::try_from(std::process::id()).unwrap_or(0),
        cgroups: spec.cgroups.iter().map(AsRawFd::as_raw_fd).collect(),
        uid: spec.uid,
        gid: spec.gid,
        groups: spec.groups.to_vec(),
        limits: spec.limits,
        landlock: spec.landlock.map(|fd| fd.as_raw_fd()),
        filters: spec.filters.to_vec(),
    };
    // SAFETY: the closure runs between fork and exec in a copy of a multi-threaded process, so it
    // may only make async-signal-safe calls. It makes plain system calls on integers and on memory
    // that `surroundings` owned before the fork; it allocates nothing, frees nothing (the closure is
    // never dropped in the child: exec or _exit follows) and takes no lock. The descriptors are
    // borrowed by `spec` and so are open until `spawn` has returned, that is, until the child has
    // executed or failed.
    unsafe {
        command.pre_exec(move || surroundings.enter());
    }
    command.spawn()
}

/// What the child needs, all of it made before the fork.
struct Surroundings {
    parent: libc::pid_t,
    cgroups: Vec<RawFd>,
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
    limits: Vec<(Resource, u64)>,
    landlock: Option<RawFd>,
    filters: Vec<BpfProgram>,
}

impl Surroundings {
    /// Runs in the child, before exec: see the safety note of [`spawn`]. Whatever fails ends it.
    fn enter(&self) -> io::Result<()> {
        self.enter_cgroups()?;
        reset_signals();
        detach()?;
        self.limit()?;
        self.become_user()?;
        self.restrict()
    }

    /// First of all: whatever happens later is inside.
    fn enter_cgroups(&self) -> io::Result<()> {
        for &procs in &self.cgroups {
            // SAFETY: "0" is the writer itself; a static buffer of the length given.
            check(unsafe { libc::write(procs, c"0".as_ptr().cast(), 1) } as libc::c_long)?;
        }
        Ok(())
    }

    fn limit(&self) -> io::Result<()> {
        for (resource, limit) in &self.limits {
            setrlimit(*resource, *limit, *limit)?;
        }
        Ok(())
    }

    /// By plain system calls: the C library's would want to tell its other threads, of which the
    /// child has none. No identity and no capability is left to come back from.
    fn become_user(&self) -> io::Result<()> {
        drop_bounding_set();
        // SAFETY: integers, and a list of them of the length given, which lives through the call.
        unsafe {
            check(libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()))?;
            check(libc::syscall(libc::SYS_setresgid, self.gid, self.gid, self.gid))?;
            check(libc::syscall(libc::SYS_setresuid, self.uid, self.uid, self.uid))?;
        }
        drop_capabilities()
    }

    fn restrict(&self) -> io::Result<()> {
        // SAFETY: integers only. The first four arguments of prctl are unsigned long.
        unsafe {
            let (yes, no) = (1 as libc::c_ulong, 0 as libc::c_ulong);
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, no, no, no).into())?;
            // After the change of user, which would have reset it. If the agent has died meanwhile,
            // nobody will end this program.
            let signal = libc::SIGKILL as libc::c_ulong;
            check(libc::prctl(libc::PR_SET_PDEATHSIG, signal, no, no, no).into())?;
            if libc::getppid() != self.parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            if let Some(ruleset) = self.landlock {
                check(libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0))?;
            }
        }
        for filter in &self.filters {
            // Makes two system calls on memory of `filter`, and allocates nothing.
            seccompiler::apply_filter(filter)
                .map_err(|_| io::Error::from_raw_os_error(libc::ENOSYS))?;
        }
        Ok(())
    }
}

/// Nothing that the agent ignores is ignored in the program. (Rust has emptied the mask by now.) By
/// the plain system call: the C library keeps two signals to itself.
fn reset_signals() {
    /// The kernel's `struct sigaction`, all of it zero: the default. Larger than on any machine.
    const DEFAULT: [u64; 8] = [0; 8];
    /// Of the kernel's set of 64 signals, in bytes.
    const SET_SIZE: usize = 8;
    for signal in 1..=64 {
        let nothing = std::ptr::null::<u64>();
        // SAFETY: reads a struct that is a constant and longer than what is read, and writes
        // nothing. SIGKILL and SIGSTOP are refused.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), nothing, SET_SIZE);
        }
    }
}

/// Own session, own files only, and an ordinary victim when memory runs out.
fn detach() -> io::Result<()> {
    const NO_SYSTEM_CALL: &[i32] = &[libc::ENOSYS, libc::EINVAL];
    // SAFETY: plain system calls on integers and on static buffers of the length given.
    unsafe {
        check(libc::setsid().into())?;
        libc::umask(0o077);
        // The agent may be protected from the OOM killer; what it starts is not.
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY);
        if score >= 0 {
            libc::write(score, c"0".as_ptr().cast(), 1);
            libc::close(score);
        }
        // The program's own descriptor too: an ELF file is not opened again. (Linux 5.11; before
        // that, only Rust's own default of close-on-exec protects.)
        let closed =
            libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if closed != 0 {
            let error = io::Error::last_os_error();
            if !error.raw_os_error().is_some_and(|code| NO_SYSTEM_CALL.contains(&code)) {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// So that not even a program of root's has a capability again. An agent that may not do this has
/// other means: `no_new_privs`, and empty sets.
fn drop_bounding_set() {
    for capability in 0..64 as libc::c_ulong {
        let no = 0 as libc::c_ulong;
        // SAFETY: integers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, no, no, no) } != 0 {
            return;
        }
    }
}

/// Permitted, effective, inheritable, and with them ambient: all empty.
fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`, for sets of 64 bits in two halves.
    const VERSION: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    struct Half {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const NONE: Half = Half { effective: 0, permitted: 0, inheritable: 0 };
    let header = Header { version: VERSION, pid: 0 };
    let data = [NONE, NONE];
    // SAFETY: both structs are laid out as the kernel's, and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })
}

/// The error of a call that failed.
fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
