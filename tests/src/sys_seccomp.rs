//! System calls of another process, one by one, before they are done: `SECCOMP_RET_USER_NOTIF`.
//! Whoever listens says of each whether it goes on or fails. Threads that do not call are not slowed.
#![expect(unsafe_code, reason = "a filter is installed between fork and exec; see each block")]

use std::fs;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::pidfd_open;

/// How long the child may take from its fork to its filter.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A system call that waits for a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    id: u64,
    /// The thread.
    pub tid: u32,
    /// Which call.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// What there is to be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A call waits.
    Call(Call),
    /// Nothing, for as long as was asked.
    Nothing,
    /// Nobody is left who could call.
    End,
}

/// Hears the calls of one process and of all that it starts.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// The next call.
    ///
    /// # Errors
    /// If the kernel refuses to say.
    pub fn hear(&self, limit: Duration) -> io::Result<Heard> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let millis = u16::try_from(limit.as_millis()).unwrap_or(u16::MAX);
        if poll(&mut fds, PollTimeout::from(millis))? == 0 {
            return Ok(Heard::Nothing);
        }
        let said = fds[0].revents().unwrap_or(PollFlags::empty());
        if !said.contains(PollFlags::POLLIN) {
            return Ok(Heard::End);
        }
        // SAFETY: all zeros is a value of this struct of integers, and what the kernel wants to see.
        let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the struct is the one that this request fills, and lives through the call.
        let result = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice)
        };
        if result < 0 {
            let error = io::Error::last_os_error();
            // Whoever called was killed meanwhile.
            let gone = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR));
            return if gone { Ok(Heard::Nothing) } else { Err(error) };
        }
        Ok(Heard::Call(Call {
            id: notice.id,
            tid: notice.pid,
            number: i64::from(notice.data.nr),
            arguments: notice.data.args,
        }))
    }

    /// Lets a call go on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn go_on(&self, call: &Call) -> io::Result<()> {
        let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1);
        self.answer(libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags })
    }

    /// Has a call return this error; it is not done.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn fail(&self, call: &Call, errno: i32) -> io::Result<()> {
        self.answer(libc::seccomp_notif_resp { id: call.id, val: 0, error: -errno, flags: 0 })
    }

    fn answer(&self, mut answer: libc::seccomp_notif_resp) -> io::Result<()> {
        // SAFETY: the struct is the one that this request reads, and lives through the call.
        let result = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer)
        };
        match io::Error::last_os_error() {
            _ if result >= 0 => Ok(()),
            // Whoever called was killed meanwhile.
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            error => Err(error),
        }
    }
}

/// Which calls are heard.
#[derive(Clone, Debug)]
pub enum Heed {
    /// These, and `execve`.
    Only(Vec<i64>),
    /// All but these.
    AllBut(Vec<i64>),
}

impl Heed {
    /// The filter, as the kernel runs it: the number of the call is compared with each of the list.
    fn program(&self) -> Vec<libc::sock_filter> {
        let (list, in_list, else_) = match self {
            Self::Only(list) => (list, libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW),
            Self::AllBut(list) => (list, libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_USER_NOTIF),
        };
        let statement = |code: u32, k: u32| libc::sock_filter {
            code: u16::try_from(code).unwrap_or_default(),
            jt: 0,
            jf: 0,
            k,
        };
        let number = u32::try_from(std::mem::offset_of!(libc::seccomp_data, nr)).unwrap_or(0);
        let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number)];
        for call in list {
            let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
            let call = u32::try_from(*call).unwrap_or(u32::MAX);
            program.push(libc::sock_filter { jf: 1, ..statement(equal, call) });
            program.push(statement(libc::BPF_RET | libc::BPF_K, in_list));
        }
        program.push(statement(libc::BPF_RET | libc::BPF_K, else_));
        program
    }
}

/// Starts a command whose calls are heard from its `execve` on, that included.
///
/// # Errors
/// If it cannot be started, or the kernel does not let itself be asked (root is needed).
pub fn start(mut command: Command, heed: &Heed) -> io::Result<(Listener, Starting)> {
    let program = heed.program();
    let (mut reader, writer) = io::pipe()?;
    // SAFETY: between fork and exec only system calls are made, on memory that was made ready before
    // the fork; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            let pid = libc::getpid().to_ne_bytes();
            if libc::write(writer.as_raw_fd(), pid.as_ptr().cast(), pid.len()) != 4 {
                return Err(io::Error::last_os_error());
            }
            let filter = libc::sock_fprog {
                len: u16::try_from(program.len()).unwrap_or(u16::MAX),
                filter: program.as_ptr().cast_mut(),
            };
            let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
                | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            if libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    // `spawn` returns after the exec, which waits for the listener's word.
    let starting = std::thread::spawn(move || command.spawn());
    let listener = listener_of(&mut reader)?;
    Ok((listener, Starting(starting)))
}

/// A command that was started, as soon as its `execve` was heard and let go on.
#[derive(Debug)]
pub struct Starting(std::thread::JoinHandle<io::Result<Child>>);

impl Starting {
    /// It, if its `execve` has ended.
    ///
    /// # Errors
    /// If it could not be started.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for it.
    ///
    /// # Errors
    /// If it could not be started.
    pub fn child(self) -> io::Result<Child> {
        self.0.join().unwrap_or_else(|_| Err(io::Error::other("the starting thread panicked")))
    }
}

/// Takes the listener from the child, in which the kernel has put it.
fn listener_of(reader: &mut PipeReader) -> io::Result<Listener> {
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes)?;
    let pid = i32::from_ne_bytes(bytes);
    let pidfd = pidfd_open(pid)?;
    let until = Instant::now() + START_LIMIT;
    while Instant::now() < until {
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.filter_map(Result::ok) {
            let name = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
            let link = fs::read_link(entry.path()).unwrap_or_default();
            if let Some(number) = name
                && link.to_string_lossy().contains("seccomp notify")
            {
                return take(&pidfd, number).map(Listener);
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Err(io::Error::from(io::ErrorKind::TimedOut))
}

fn take(pidfd: &OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_getfd takes three integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
