//! What the child gives up before it reads a byte: its user, files, network, most system calls, and
//! more than its share of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, Scope};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid, setuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::CompileLimits;
use super::talk::LONGEST_ANSWER;
use crate::sys::guardproc::{close_all_from, set_nice};

/// Users that no package and no person has: systemd's range for users that live as long as a service.
const USERS: std::ops::Range<u32> = 61_184..65_520;

/// Address space for the memories of a guest, of which each reserves 4 GiB and a guard and uses next to
/// nothing of it. What is used is bounded by [`Bounds::memory_bytes`].
const RESERVED_BYTES: u64 = 640 << 30;

/// Open files: the engine keeps the initial memory of each module in one.
const MOST_FILES: u64 = 256;

/// Yields the processor to whatever else runs on the machine.
const NICE: libc::c_int = 10;

/// The bounds, as they are handed to the child: two numbers in its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    processor_seconds: u64,
    memory_bytes: u64,
}

impl From<CompileLimits> for Bounds {
    fn from(limits: CompileLimits) -> Self {
        Self {
            processor_seconds: limits.processor_time.as_secs().max(1),
            memory_bytes: limits.memory_bytes,
        }
    }
}

impl Bounds {
    pub(super) fn as_arguments(self) -> [String; 2] {
        [self.processor_seconds.to_string(), self.memory_bytes.to_string()]
    }

    pub(super) fn from_arguments(arguments: impl Iterator<Item = String>) -> io::Result<Self> {
        let numbers: Vec<u64> = arguments.map_while(|argument| argument.parse().ok()).collect();
        match numbers[..] {
            [processor_seconds, memory_bytes] => Ok(Self { processor_seconds, memory_bytes }),
            _ => Err(io::Error::other("it was not told its bounds")),
        }
    }
}

/// Confines this process, which has one thread yet. What a kernel does not have of landlock is left
/// out; everything else is there or nothing is compiled.
pub(super) fn confine(bounds: Bounds) -> io::Result<()> {
    close_all_from(3)?;
    let _ = prctl::set_name(c"hook-compiler");
    // The first to go when memory is short on the whole machine, and the last to be served.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let _ = set_nice(NICE);
    limit(bounds)?;
    become_nobody()?;
    prctl::set_no_new_privs()?;
    // No process of anybody's may look into this one, or change what it answers.
    prctl::set_dumpable(false)?;
    without_files().map_err(|error| io::Error::other(format!("landlock: {error}")))?;
    without_system_calls().map_err(|error| io::Error::other(format!("seccomp: {error}")))
}

fn limit(bounds: Bounds) -> io::Result<()> {
    let seconds = bounds.processor_seconds;
    for (resource, soft, hard) in [
        // The first is a signal with a name of its own, the second is the end.
        (Resource::RLIMIT_CPU, seconds, seconds + 2),
        (Resource::RLIMIT_DATA, bounds.memory_bytes, bounds.memory_bytes),
        (
            Resource::RLIMIT_AS,
            bounds.memory_bytes.saturating_add(RESERVED_BYTES),
            bounds.memory_bytes.saturating_add(RESERVED_BYTES),
        ),
        (Resource::RLIMIT_FSIZE, LONGEST_ANSWER, LONGEST_ANSWER),
        (Resource::RLIMIT_NOFILE, MOST_FILES, MOST_FILES),
        (Resource::RLIMIT_CORE, 0, 0),
        (Resource::RLIMIT_MEMLOCK, 0, 0),
    ] {
        setrlimit(resource, soft, hard)?;
    }
    Ok(())
}

/// From root to a user that owns nothing and that nobody else is. Whoever is not root stays who he is.
fn become_nobody() -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let id = USERS.start + std::process::id() % (USERS.end - USERS.start);
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    match setuid(Uid::from_raw(0)) {
        Err(_) => Ok(()),
        Ok(()) => Err(io::Error::other("it could become root again")),
    }
}

/// No file can be opened, made or listed, no port reached, no other process signalled.
fn without_files() -> Result<(), landlock::RulesetError> {
    let abi = ABI::V6;
    Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()?;
    Ok(())
}

/// What a compiler, a runtime of one thread, and threads need; no file can be opened by it. All else
/// fails with EPERM.
fn without_system_calls() -> Result<(), Box<dyn std::error::Error>> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    // Its flags are behind a pointer, where a filter cannot look: the C library then takes clone.
    let no_clone3 = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        arch,
    )?;
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    allowed.insert(libc::SYS_clone, vec![only_threads()?]);
    allowed.insert(libc::SYS_clone3, Vec::new());
    let only_allowed = SeccompFilter::new(
        allowed,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        arch,
    )?;
    // In this order: the second leaves no way to add one.
    for filter in [no_clone3, only_allowed] {
        apply_filter(&BpfProgram::try_from(filter)?)?;
    }
    Ok(())
}

/// `clone` of a thread of this process, never of a process.
fn only_threads() -> Result<SeccompRule, seccompiler::BackendError> {
    let thread = libc::CLONE_THREAD as u64;
    SeccompRule::new(vec![SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(thread),
        thread,
    )?])
}

const ALLOWED: &[i64] = &[
    // What is open: three streams, and files in memory.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fcntl,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_getrandom,
    // Threads and time.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    // Itself.
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_uname,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Older forms of the same, on the processors that have them.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_they_are_handed_over() {
        let bounds = Bounds::from(CompileLimits::default());
        assert_eq!(Bounds::from_arguments(bounds.as_arguments().into_iter()).unwrap(), bounds);
        for wrong in [&[][..], &["1"], &["1", "x"], &["1", "2", "3"]] {
            let arguments = wrong.iter().map(|&argument| argument.to_owned());
            assert!(Bounds::from_arguments(arguments).is_err(), "{wrong:?}");
        }
    }
}
