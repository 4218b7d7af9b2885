//! The sentinel as a service, `stillpoint sentinel`: one process for all runs of an installation, in a
//! cgroup that no agent shares, which its manager starts again whatever ends it. What it needs for that
//! it leaves with the manager (systemd's descriptor store): the plan of the run, the board, and the
//! open mounts.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::sockopt::{PeerCredentials, ReceiveTimeout};
use nix::sys::socket::{MsgFlags, getsockopt, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::geteuid;

use super::Aftercare;
use super::aftercare::{self, RecoveryOrder};
use super::call::{HANDSHAKE, socket_in};
use super::cgroup;
use super::harden::harden;
use super::notify::{Manager, take_kept};
use super::protocol::{
    Arm, Failure, FailureKind, Hello, Reply, SENTINEL_NAME, receive_arm, send_to,
};
use super::sentinel::{attend, resume};
use super::watched::poll_or_pause;
use crate::config::Deadlines;
use crate::file_lock::FileLock;
use crate::journal::{FreezeRecord, JournalError, RunRecord, prepare_directory};
use crate::paths::Paths;
use crate::script::ScriptSettings;
use crate::sys::guardproc::receive_message;

/// How long an agent that has called may be silent before it has armed.
const ARM_SECONDS: i64 = 5;

/// Why the service cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Another process serves this installation.
    #[error("a sentinel serves {} already", run_dir.display())]
    Served {
        /// Whose runs.
        run_dir: PathBuf,
    },
    /// The directory of the journal cannot be used.
    #[error("the journal's directory cannot be used")]
    Journal(#[from] JournalError),
    /// Something of the service's own failed.
    #[error("{}: cannot {doing}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl ServiceError {
    fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}

/// Serves the runs of an installation until SIGTERM or SIGINT; a run that is being watched then is
/// watched to its end first. The calling process must have one thread; its standard streams are
/// closed.
///
/// # Errors
/// If another process serves it already, or the socket cannot be made.
pub fn serve(paths: &Paths) -> Result<(), ServiceError> {
    let run_dir = paths.run();
    let kept = take_kept().map_err(ServiceError::file("take over what is kept for", &run_dir))?;
    let manager = Manager::of_environment();
    let service = Service::open(paths, manager)?;
    let warnings = harden(c"stillpoint-sentinel");
    // A manager has given us a cgroup that is nobody else's.
    let _own = (!service.manager.is_there()).then(|| cgroup::enter_own(SENTINEL_NAME));
    let stop = stop_signals().map_err(ServiceError::file("wait for signals at", &run_dir))?;
    service.manager.tell("READY=1\nSTATUS=waiting for runs");
    service.take_over(kept);
    service.recover_the_dead();
    service.attend_all(&stop, &warnings);
    Ok(())
}

fn stop_signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

struct Service {
    paths: Paths,
    manager: Manager,
    listener: UnixListener,
    socket: PathBuf,
    /// Held as long as this process lives.
    _lock: FileLock,
}

impl Service {
    fn open(paths: &Paths, manager: Manager) -> Result<Self, ServiceError> {
        let run_dir = paths.run();
        prepare_directory(&run_dir)?;
        let lock = lock(&run_dir)?;
        let socket = socket_in(&run_dir);
        // The lock is ours, so this one's maker is gone.
        let _ = fs::remove_file(&socket);
        let listener =
            UnixListener::bind(&socket).map_err(ServiceError::file("listen at", &socket))?;
        Ok(Self { paths: paths.clone(), manager, listener, socket, _lock: lock })
    }

    fn attend_all(&self, stop: &SignalFd, warnings: &[String]) {
        loop {
            let mut fds = [
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            ];
            poll_or_pause(&mut fds, PollTimeout::NONE);
            if fds[0].any().unwrap_or(false) {
                return;
            }
            if let Ok((stream, _)) = self.listener.accept() {
                // An agent that is refused, or says nothing, starts a sentinel of its own.
                let _ = self.attend_one(&stream, warnings.to_vec());
            }
        }
    }

    /// One run, from the handshake to its end.
    fn attend_one(&self, stream: &UnixStream, warnings: Vec<String>) -> io::Result<()> {
        let caller = getsockopt(stream, PeerCredentials)?;
        if caller.uid() != geteuid().as_raw() {
            return Err(Errno::EPERM.into());
        }
        let (hello, socket) = shake_hands(stream)?;
        send_to(&socket, &Hello::ours())?;
        if hello != Hello::ours() {
            return Err(Errno::EPROTO.into());
        }
        let (plan, fds) = receive_arm(&socket)?;
        if u32::try_from(caller.pid()) != Ok(plan.agent.pid) {
            let detail = "it counts processes otherwise: it is in another PID namespace";
            let failure = Failure::new(FailureKind::Protocol, Vec::new()).detail(detail);
            return send_to(&socket, &Reply::Failed(failure));
        }
        let names = self.keep(&plan, &fds);
        self.manager.tell("STATUS=watching a run");
        let result = attend(&socket, plan, fds, None, warnings);
        names.iter().for_each(|name| self.manager.forget(name));
        self.manager.tell("STATUS=waiting for runs");
        result
    }

    /// Leaves with the manager what [`Service::take_over`] needs.
    fn keep(&self, plan: &Arm, fds: &[OwnedFd]) -> Vec<String> {
        if !self.manager.is_there() {
            return Vec::new();
        }
        let mut names = Vec::new();
        let mut keep = |part: String, fd: &OwnedFd| {
            let name = format!("{}.{part}", plan.run_id);
            self.manager.keep(&name, fd);
            names.push(name);
        };
        if let (Ok(text), Some(board)) = (in_memory(plan), fds.first()) {
            fds.iter().skip(3).enumerate().for_each(|(index, fd)| keep(index.to_string(), fd));
            keep(BOARD.to_owned(), board);
            keep(PLAN.to_owned(), &text);
        }
        names
    }

    /// Goes on where a sentinel of this service was cut off: its guard has given the run up, or is
    /// gone, and then what is frozen is for us to thaw.
    fn take_over(&self, kept: Vec<(String, OwnedFd)>) {
        for (run_id, run) in KeptRun::sort(kept) {
            let names = run.names(&run_id);
            if let Some((plan, board, mounts)) = run.whole() {
                let is_ours = plan.run_id == run_id;
                let _ = is_ours.then(|| resume(plan, board, mounts));
            }
            names.iter().for_each(|name| self.manager.forget(name));
        }
    }

    /// What a run left of which nothing was kept for us, if all of its processes are gone.
    fn recover_the_dead(&self) {
        let run_dir = self.paths.run();
        let run = RunRecord::load(&run_dir).ok().flatten();
        let freeze = FreezeRecord::load(&run_dir).ok().flatten();
        let agents = run.iter().map(|run| run.agent);
        let of_freeze =
            freeze.iter().flat_map(|freeze| [freeze.agent, freeze.guard, freeze.sentinel]);
        if agents.chain(of_freeze).any(|process| process.is_alive()) {
            return;
        }
        let mut ids = run.iter().map(|run| &run.run_id).chain(freeze.iter().map(|f| &f.run_id));
        let Some(run_id) = ids.next().cloned() else { return };
        let aftercare = Aftercare {
            root: self.paths.root().to_owned(),
            scripts: ScriptSettings::default(),
            finish: Deadlines::default().release,
            credentials: None,
        };
        let left = run.map(|run| run.left_hooks()).unwrap_or_default();
        let limit = aftercare::limit(&left, &aftercare);
        // What it cannot do stays in the journal, for the next start.
        let order = RecoveryOrder { run_id, run_dir, aftercare };
        let _ = aftercare::recover_by_a_process(&order, limit);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

fn lock(run_dir: &Path) -> Result<FileLock, ServiceError> {
    let path = run_dir.join("sentinel.lock");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(ServiceError::file("open", &path))?;
    FileLock::try_new(file).map_err(|(_, error)| match error {
        TryLockError::WouldBlock => ServiceError::Served { run_dir: run_dir.to_owned() },
        TryLockError::Error(error) => ServiceError::file("lock", &path)(error),
    })
}

/// What an agent says first, and the socket for all that follows. Neither is waited for longer than
/// an agent waits.
fn shake_hands(stream: &UnixStream) -> io::Result<(Hello, OwnedFd)> {
    stream.set_read_timeout(Some(HANDSHAKE))?;
    let mut buffer = [0; 256];
    let (length, fds) = receive_message(stream, &mut buffer, MsgFlags::empty())?;
    let hello = serde_json::from_slice(&buffer[..length])?;
    let socket = fds.into_iter().next().ok_or(Errno::EBADMSG)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ARM_SECONDS))?;
    Ok((hello, socket))
}

const PLAN: &str = "plan";
const BOARD: &str = "board";

fn in_memory(plan: &Arm) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"stillpoint-plan", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&serde_json::to_vec(plan)?)?;
    Ok(file.into())
}

/// What the manager kept of one run.
#[derive(Default)]
struct KeptRun {
    plan: Option<OwnedFd>,
    board: Option<OwnedFd>,
    mounts: BTreeMap<usize, OwnedFd>,
    parts: Vec<String>,
}

impl KeptRun {
    /// By run.
    fn sort(kept: Vec<(String, OwnedFd)>) -> BTreeMap<String, Self> {
        let mut runs: BTreeMap<String, Self> = BTreeMap::new();
        for (name, fd) in kept {
            let (run_id, part) = name.rsplit_once('.').unwrap_or((&name, ""));
            let run = runs.entry(run_id.to_owned()).or_default();
            run.parts.push(part.to_owned());
            match (part, part.parse()) {
                (PLAN, _) => run.plan = Some(fd),
                (BOARD, _) => run.board = Some(fd),
                (_, Ok(index)) => drop(run.mounts.insert(index, fd)),
                // Not ours: closed, and forgotten.
                (_, Err(_)) => {}
            }
        }
        runs
    }

    fn names(&self, run_id: &str) -> Vec<String> {
        self.parts.iter().map(|part| format!("{run_id}.{part}")).collect()
    }

    /// All that it takes to go on; nothing if a part is missing.
    fn whole(self) -> Option<(Arm, OwnedFd, Vec<OwnedFd>)> {
        let mut text = Vec::new();
        let mut file = File::from(self.plan?);
        file.rewind().ok()?;
        file.read_to_end(&mut text).ok()?;
        let plan: Arm = serde_json::from_slice(&text).ok()?;
        let mounts: Vec<_> = self.mounts.into_values().collect();
        (mounts.len() == plan.file_systems.len()).then_some((plan, self.board?, mounts))
    }
}
