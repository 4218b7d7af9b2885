//! What agent, guard and sentinel ask of the kernel while anything is frozen. Every call of every
//! thread is heard; from the first FIFREEZE until the last FITHAW has returned, only those of a list
//! may come, each with its reason.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::libc;

use super::calls::{FREEZE, THAW, kind_of};
use super::nth::Role;
use crate::sys_seccomp::{Call, Heard, Heed, start};

/// Far longer than a run takes that is heard call by call.
const LIMIT: Duration = Duration::from_secs(120);

/// What is done with the descriptor that is the first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// Nothing, or it does not matter which it is.
    Anything,
    /// It must be one of the kernel's own, a socket or a pipe: nothing reaches a disk.
    NoDisk,
    /// As `NoDisk`, or a file of `/proc` that was opened before.
    NoDiskOrProc,
    /// Only F_GETFD.
    Question,
    /// Only [`PROVIDER`].
    Provider,
}

/// Calls that may come while something is frozen, and why.
const ALLOWED: &[(i64, On, &str)] = &[
    (libc::SYS_futex, On::Anything, "threads wait for each other; no memory is asked for"),
    (libc::SYS_clock_nanosleep, On::Anything, "the pauses of a sweep of thaws"),
    (libc::SYS_clock_gettime, On::Anything, "where the clock is not read without a call"),
    (libc::SYS_poll, On::Anything, "the guard and the sentinel wait for news"),
    (libc::SYS_ppoll, On::Anything, "as poll"),
    (libc::SYS_epoll_wait, On::Anything, "the agent waits for news"),
    (libc::SYS_epoll_pwait, On::Anything, "as epoll_wait"),
    (libc::SYS_epoll_pwait2, On::Anything, "as epoll_wait"),
    (libc::SYS_timerfd_settime, On::NoDisk, "the deadline is put back"),
    (libc::SYS_read, On::NoDisk, "counters, and what others say"),
    (libc::SYS_write, On::NoDisk, "wakes a thread, or a log line into a pipe"),
    (libc::SYS_sendto, On::NoDisk, "request and answer between agent and guard"),
    (libc::SYS_recvfrom, On::NoDisk, "as sendto"),
    (libc::SYS_sendmsg, On::NoDisk, "as sendto"),
    (libc::SYS_recvmsg, On::NoDisk, "as sendto"),
    (libc::SYS_pread64, On::NoDiskOrProc, "whether a process that hangs was killed"),
    (libc::SYS_sched_yield, On::Anything, "a lock that is about to be free"),
    (libc::SYS_munmap, On::Anything, "gives memory back"),
    (libc::SYS_close, On::Anything, "gives back what was opened before"),
    (libc::SYS_fcntl, On::Question, "is it open? Rust's own check in builds for tests"),
    (libc::SYS_ioctl, On::Provider, "the provider's work, on descriptors that it opened before"),
    (libc::SYS_madvise, On::Anything, "gives memory back"),
    (libc::SYS_exit, On::Anything, "a thread of the provider has done its one call"),
    (libc::SYS_rt_sigprocmask, On::Anything, "a thread ends"),
    (libc::SYS_sigaltstack, On::Anything, "a thread ends"),
    (libc::SYS_gettid, On::Anything, "asks for nothing"),
    (libc::SYS_getpid, On::Anything, "asks for nothing"),
];

/// What the provider `reflink` asks of an image and its loop device: state and geometry of the device,
/// and the clone.
const PROVIDER: [u64; 3] = [0x4C05, 0x1268, 0x4004_9409];

/// A call that came while something was frozen, and is not on the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offence {
    /// Whose.
    pub role: &'static str,
    /// The name of the thread.
    pub thread: String,
    /// The number of the call, and what it was called with.
    pub call: String,
}

/// What was heard of a run.
#[derive(Debug)]
pub struct Heedings {
    /// How it ended.
    pub status: ExitStatus,
    /// How often something was frozen: the rehearsal, and the window.
    pub windows: usize,
    /// Calls on the list, by number: proof that something was heard.
    pub allowed: BTreeMap<i64, usize>,
    /// The others.
    pub offences: BTreeMap<Offence, usize>,
}

/// Who holds what frozen, call by call.
#[derive(Default)]
struct Watch {
    roles: HashMap<u32, Role>,
    frozen: usize,
    /// Threads in FITHAW: it has returned when they call again.
    thawing: HashSet<u32>,
    windows: usize,
    allowed: BTreeMap<i64, usize>,
    offences: BTreeMap<Offence, usize>,
}

impl Watch {
    fn hear(&mut self, call: &Call) {
        let role = *self.roles.entry(call.tid).or_insert_with(|| Role::of(call.tid));
        if call.number == libc::SYS_execve {
            self.roles.remove(&call.tid);
        }
        if self.thawing.remove(&call.tid) {
            self.frozen = self.frozen.saturating_sub(1);
        }
        match kind_of(call.number, &call.arguments) {
            Some(kind) if kind == FREEZE => {
                self.windows += usize::from(self.frozen == 0);
                self.frozen += 1;
                return;
            }
            Some(kind) if kind == THAW => {
                self.thawing.insert(call.tid);
                return;
            }
            _ if self.frozen == 0 => return,
            _ => {}
        }
        if is_allowed(call) {
            *self.allowed.entry(call.number).or_default() += 1;
            return;
        }
        let comm = fs::read_to_string(format!("/proc/{}/comm", call.tid)).unwrap_or_default();
        let offence = Offence {
            role: match role {
                Role::Agent => "agent",
                Role::Guard => "guard",
                Role::Sentinel => "sentinel",
            },
            thread: comm.trim().to_owned(),
            call: describe(call),
        };
        *self.offences.entry(offence).or_default() += 1;
    }
}

fn is_allowed(call: &Call) -> bool {
    let Some((_, on, _)) = ALLOWED.iter().find(|(number, _, _)| *number == call.number) else {
        return false;
    };
    let target = || {
        let link = format!("/proc/{}/fd/{}", call.tid, call.arguments[0]);
        fs::read_link(link).unwrap_or_default().to_string_lossy().into_owned()
    };
    let no_disk = |target: &str| {
        ["anon_inode:", "socket:", "pipe:"].iter().any(|kind| target.starts_with(kind))
    };
    match on {
        On::Anything => true,
        On::Question => call.arguments[1] == u64::from(libc::F_GETFD.unsigned_abs()),
        On::Provider => PROVIDER.contains(&(call.arguments[1] & 0xFFFF_FFFF)),
        On::NoDisk => no_disk(&target()),
        On::NoDiskOrProc => no_disk(&target()) || target().starts_with("/proc/"),
    }
}

fn describe(call: &Call) -> String {
    let first = format!("/proc/{}/fd/{}", call.tid, call.arguments[0]);
    let target = fs::read_link(first).unwrap_or_default();
    let name = kind_of(call.number, &call.arguments).map_or("call", |kind| kind.name);
    let second = call.arguments[1];
    format!("{name} (number {}, {second:#x}) {}", call.number, target.display())
}

/// Runs a command to its end and hears every call.
///
/// # Errors
/// If it cannot be heard, or does not end.
pub fn heed(command: Command) -> Result<Heedings> {
    // Whoever is asked about a return from a signal would return twice.
    let (listener, starting) = start(command, &Heed::AllBut(vec![libc::SYS_rt_sigreturn]))?;
    let mut watch = Watch::default();
    let until = Instant::now() + LIMIT;
    loop {
        match listener.hear(Duration::from_millis(20))? {
            Heard::Call(call) => {
                watch.hear(&call);
                listener.go_on(&call)?;
            }
            Heard::Nothing => {}
            Heard::End => break,
        }
        if Instant::now() > until {
            bail!("the run does not end; heard so far: {:?}", watch.offences);
        }
    }
    let status = starting.child()?.wait()?;
    let Watch { windows, allowed, offences, .. } = watch;
    Ok(Heedings { status, windows, allowed, offences })
}

/// Why a call may come.
#[must_use]
pub fn reason(number: i64) -> &'static str {
    ALLOWED.iter().find(|(listed, _, _)| *listed == number).map_or("", |(_, _, why)| why)
}
