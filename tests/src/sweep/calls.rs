//! System calls that can fail, each with the errors that it can fail with on a machine in trouble: out
//! of memory, of descriptors, of room, a disk that errs, a signal that interrupts.
//!
//! Left alone, with the reason: `close` and `munmap` (that they fail changes nothing, but the kernel
//! must have done them), `futex`, `rt_sig*`, `clock_*`, `sched_yield`, `getpid` and their like (they
//! cannot fail with correct arguments), `exit*` (they do not return), `brk` (it says no by its value,
//! not by an error; `mmap` stands for memory).

use crate::sys_seccomp::Call;
use nix::libc::{self, EAGAIN, EINTR, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM};

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Its name; of `ioctl`, that of the request.
    pub name: &'static str,
    number: i64,
    /// Of `ioctl` the second argument.
    request: Option<u64>,
    /// What it can fail with.
    pub errors: &'static [i32],
}

const fn call(name: &'static str, number: i64, errors: &'static [i32]) -> Kind {
    Kind { name, number, request: None, errors }
}

const fn ioctl(name: &'static str, request: u64, errors: &'static [i32]) -> Kind {
    Kind { name, number: libc::SYS_ioctl, request: Some(request), errors }
}

const NEW_DESCRIPTOR: &[i32] = &[EMFILE, ENFILE, ENOMEM];
const NEW_NAME: &[i32] = &[ENOSPC, EIO];
const LOOK: &[i32] = &[EIO, ENOMEM];

/// FIFREEZE.
pub const FREEZE: Kind = ioctl("FIFREEZE", 0xC004_5877, &[EIO, EPERM, ENOMEM, EINTR]);
/// FITHAW.
pub const THAW: Kind = ioctl("FITHAW", 0xC004_5878, &[EIO, EINTR, EPERM]);

/// All of them.
pub const KINDS: &[Kind] = &[
    FREEZE,
    THAW,
    ioctl("FICLONE", 0x4004_9409, &[EIO, ENOSPC, EINTR]),
    ioctl("FICLONERANGE", 0x4020_940D, &[EIO, ENOSPC]),
    call("accept4", libc::SYS_accept4, NEW_DESCRIPTOR),
    call("clone", libc::SYS_clone, &[EAGAIN, ENOMEM]),
    call("clone3", libc::SYS_clone3, &[EAGAIN, ENOMEM]),
    call("connect", libc::SYS_connect, &[EAGAIN, EINTR]),
    call("dup", libc::SYS_dup, NEW_DESCRIPTOR),
    call("dup3", libc::SYS_dup3, NEW_DESCRIPTOR),
    call("epoll_create1", libc::SYS_epoll_create1, NEW_DESCRIPTOR),
    call("epoll_ctl", libc::SYS_epoll_ctl, &[ENOMEM, ENOSPC]),
    call("epoll_wait", libc::SYS_epoll_wait, &[EINTR]),
    call("eventfd2", libc::SYS_eventfd2, NEW_DESCRIPTOR),
    call("execve", libc::SYS_execve, &[ENOMEM, EIO, EAGAIN]),
    call("fchmod", libc::SYS_fchmod, NEW_NAME),
    call("fcntl", libc::SYS_fcntl, &[EMFILE, ENOMEM]),
    call("fdatasync", libc::SYS_fdatasync, NEW_NAME),
    call("flock", libc::SYS_flock, &[EINTR, ENOMEM]),
    call("fstat", libc::SYS_fstat, LOOK),
    call("fstatfs", libc::SYS_fstatfs, LOOK),
    call("fsync", libc::SYS_fsync, NEW_NAME),
    call("ftruncate", libc::SYS_ftruncate, NEW_NAME),
    call("getdents64", libc::SYS_getdents64, LOOK),
    call("getrandom", libc::SYS_getrandom, &[EINTR]),
    call("io_uring_setup", libc::SYS_io_uring_setup, &[ENOMEM, EPERM, EMFILE]),
    call("linkat", libc::SYS_linkat, NEW_NAME),
    call("lseek", libc::SYS_lseek, &[EIO]),
    call("memfd_create", libc::SYS_memfd_create, NEW_DESCRIPTOR),
    call("mkdir", libc::SYS_mkdir, NEW_NAME),
    call("mlockall", libc::SYS_mlockall, &[ENOMEM, EPERM, EAGAIN]),
    call("mmap", libc::SYS_mmap, &[ENOMEM]),
    call("mprotect", libc::SYS_mprotect, &[ENOMEM]),
    call("mremap", libc::SYS_mremap, &[ENOMEM]),
    call("newfstatat", libc::SYS_newfstatat, LOOK),
    call("openat", libc::SYS_openat, &[EMFILE, EIO, ENOMEM, EINTR]),
    call("openat2", libc::SYS_openat2, &[EMFILE, EIO, EAGAIN]),
    call("pidfd_open", libc::SYS_pidfd_open, NEW_DESCRIPTOR),
    call("pipe2", libc::SYS_pipe2, NEW_DESCRIPTOR),
    call("poll", libc::SYS_poll, &[EINTR, ENOMEM]),
    call("ppoll", libc::SYS_ppoll, &[EINTR, ENOMEM]),
    call("prctl", libc::SYS_prctl, &[EPERM]),
    call("pread64", libc::SYS_pread64, &[EIO, EINTR]),
    call("read", libc::SYS_read, &[EIO, EINTR]),
    call("readlink", libc::SYS_readlink, LOOK),
    call("recvfrom", libc::SYS_recvfrom, &[ENOMEM, EINTR]),
    call("recvmsg", libc::SYS_recvmsg, &[ENOMEM, EMFILE, EINTR]),
    call("rename", libc::SYS_rename, NEW_NAME),
    call("renameat2", libc::SYS_renameat2, NEW_NAME),
    call("sched_setscheduler", libc::SYS_sched_setscheduler, &[EPERM]),
    call("sendmsg", libc::SYS_sendmsg, &[ENOMEM, EAGAIN, EINTR]),
    call("sendto", libc::SYS_sendto, &[ENOMEM, EAGAIN, EINTR]),
    call("setpriority", libc::SYS_setpriority, &[EPERM]),
    call("setsid", libc::SYS_setsid, &[EPERM]),
    call("socket", libc::SYS_socket, NEW_DESCRIPTOR),
    call("socketpair", libc::SYS_socketpair, NEW_DESCRIPTOR),
    call("statfs", libc::SYS_statfs, LOOK),
    call("statx", libc::SYS_statx, LOOK),
    call("syncfs", libc::SYS_syncfs, NEW_NAME),
    call("timerfd_create", libc::SYS_timerfd_create, NEW_DESCRIPTOR),
    call("timerfd_settime", libc::SYS_timerfd_settime, &[ENOMEM]),
    call("unlink", libc::SYS_unlink, &[EIO]),
    call("unlinkat", libc::SYS_unlinkat, &[EIO]),
    call("vfork", libc::SYS_vfork, &[EAGAIN, ENOMEM]),
    call("write", libc::SYS_write, &[ENOSPC, EIO, EINTR]),
    call("writev", libc::SYS_writev, &[ENOSPC, EIO, EINTR]),
];

impl Kind {
    /// False for a read or a write of a descriptor that has no disk and no other end: the kernel's
    /// counters (eventfd, timerfd) fail for nobody.
    #[must_use]
    pub fn can_fail(&self, call: &Call) -> bool {
        let transfers = [libc::SYS_read, libc::SYS_write, libc::SYS_writev];
        !transfers.contains(&self.number) || {
            let link = format!("/proc/{}/fd/{}", call.tid, call.arguments[0]);
            let target = std::fs::read_link(link).unwrap_or_default();
            !target.to_string_lossy().starts_with("anon_inode:")
        }
    }
}

/// The numbers of all kinds, each once.
#[must_use]
pub fn numbers() -> Vec<i64> {
    let mut numbers: Vec<i64> = KINDS.iter().map(|kind| kind.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// The kind of a call; `None` if it is left alone.
#[must_use]
pub fn kind_of(number: i64, arguments: &[u64; 6]) -> Option<Kind> {
    let request = arguments[1] & 0xFFFF_FFFF;
    KINDS
        .iter()
        .copied()
        .find(|kind| kind.number == number && kind.request.is_none_or(|wanted| wanted == request))
}
