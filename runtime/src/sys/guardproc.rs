//! What a guard process needs of the kernel and has no safe wrapper for: process descriptors,
//! descriptors over a socket, scheduling, and closing what it inherited.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Most descriptors that one message carries. The kernel's limit is 253 (SCM_MAX_FD).
pub(crate) const MAX_FDS_IN_MESSAGE: usize = 200;

/// A process descriptor of `pid`: readable once the whole thread group is gone. Closed on exec.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid =
        libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to exactly the process behind `pidfd`, never to one that has its number now.
pub(crate) fn pidfd_send_signal(pidfd: impl AsFd, signal: libc::c_int) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means "as kill(2) would"; the rest are integers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes every descriptor from `first` up. Called once, at the start of a guard process, when
/// nothing but the standard three is owned by anything.
pub(crate) fn close_all_from(first: u32) -> io::Result<()> {
    // SAFETY: closing a descriptor touches no memory; the caller is at the start of its `main`, so
    // that no live value owns one of them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Of SCHED_FIFO, on Linux (`sched(7)`).
const HIGHEST_PRIORITY: libc::c_int = 99;

/// Real-time scheduling at the highest real-time priority, for the calling thread.
pub(crate) fn run_at_realtime_priority() -> io::Result<()> {
    let highest = libc::sched_param { sched_priority: HIGHEST_PRIORITY };
    // SAFETY: pid 0 is the calling thread; the struct lives through the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const highest) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ordinary scheduling, for the calling thread.
pub(crate) fn run_at_normal_priority() -> io::Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: pid 0 is the calling thread; the struct lives through the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const none) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Nice value of the calling thread (on Linux, nice values belong to threads).
pub(crate) fn set_nice(nice: libc::c_int) -> io::Result<()> {
    // SAFETY: who = 0 is the calling thread; only integers are passed.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends one message, with descriptors, over a `SOCK_SEQPACKET` socket. Never raises SIGPIPE.
pub(crate) fn send_message(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    debug_assert!(fds.len() <= MAX_FDS_IN_MESSAGE);
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .map(drop)
}

/// Receives one message and the descriptors with it (closed on exec). A length of 0 is the end.
///
/// # Errors
/// EMSGSIZE if the message was cut: longer than `buffer`, or with too many descriptors.
pub(crate) fn receive_message(
    socket: impl AsFd,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS_IN_MESSAGE]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut space),
        flags | MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just installed these descriptors for us, each exactly once.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((message.bytes, fds))
}

/// Descriptors that whoever started this process left open for it, `count` from `first` up; closed on
/// exec from now on. Called once, before anything else of this process owns a descriptor up there.
pub(crate) fn take_inherited(first: RawFd, count: RawFd) -> io::Result<Vec<OwnedFd>> {
    let each = (first..first.saturating_add(count)).map(|fd| {
        // SAFETY: only integers are passed; it fails if this is no open descriptor.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is open, and by the caller's promise nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    });
    each.collect()
}

/// The standard input of a process that was started as a guard, taken as its socket: duplicated
/// away from descriptor 0 (closed on exec), which the caller then covers with `/dev/null`.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    // SAFETY: only integers are passed; the lowest free descriptor from 3 up is returned.
    let fd = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the duplicate has just been made; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor that tokio says of when it is readable.
pub(crate) fn async_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the `OwnedFd` moves into the `AsyncFd`, is only lent out by it, and so stays the same
    // open descriptor until the `AsyncFd` is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
