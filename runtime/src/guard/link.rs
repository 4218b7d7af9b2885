//! The agent's end: what it knows of guard and sentinel, and what it does if they are lost.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use tokio::io::Ready;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::board::{Abort, Board, PEER_SILENCE};
use super::error::Peer;
use super::mounts::ReadOnly;
use super::protocol::{
    Arm, Failure, FailureKind, GUARD_NAME, Reply, Request, SENTINEL_NAME, receive_from, send_arm,
    send_to,
};
use super::sentinel::undo_the_rest;
use super::spawn::{Started, start};
use super::watched::Watched;
use super::worker::Workers;
use super::{FileSystemTimes, GuardError, GuardOptions, ThawedFileSystem, call, cgroup, mounts};
use crate::journal::{ProcessId, prepare_directory};
use crate::plan::FileSystem;
use crate::sys::guardproc::{async_readable, pidfd_open};

/// How long guard and sentinel may take to say that they are armed, and to open the mount points.
const ARM_LIMIT: Duration = Duration::from_secs(5);
/// How long the guard may be silent after it was told to thaw, before the agent turns to others.
const THAW_REACTION: Duration = Duration::from_millis(250);
/// How long a thaw that has begun may take. The guard itself reports after 2 s.
const THAW_LIMIT: Duration = Duration::from_secs(3);
/// How long the sentinel has, when the guard is lost, before the agent thaws itself.
const SENTINEL_REACTION: Duration = Duration::from_millis(250);
/// How long the end of a process is waited for. It goes on by itself if that is not enough.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How often to look for what no descriptor tells of.
const TICK: Duration = Duration::from_millis(20);
/// Over and above a deadline that the guard keeps itself.
const GRACE: Duration = Duration::from_secs(1);

/// Guard and sentinel, as the agent sees them.
#[derive(Debug)]
pub(super) struct Link {
    socket: AsyncFd<OwnedFd>,
    guard: Process,
    sentinel: Process,
    /// The conversation with a sentinel that serves other runs, too: it ends before the process does.
    service: Option<AsyncFd<OwnedFd>>,
    board: Arc<Board>,
    mounts: Vec<OwnedFd>,
    was_read_only: ReadOnly,
    plan: Arm,
    /// The guard does not answer any more, or is gone.
    lost: bool,
    pub(super) warnings: Vec<String>,
}

/// One of the two.
#[derive(Debug)]
struct Process {
    pidfd: AsyncFd<OwnedFd>,
    watched: Watched,
}

impl Process {
    fn new(started: &Started) -> io::Result<Self> {
        let watched = Watched::new(started.pidfd.try_clone()?, started.pid)?;
        let pidfd = async_readable(started.pidfd.try_clone()?)?;
        Ok(Self { pidfd, watched })
    }

    /// Resolves when it is gone, stopped, or killed and hanging in the kernel.
    async fn lost(&self) {
        loop {
            if let Ok(result) = timeout(TICK, self.pidfd.readable()).await {
                if result.is_ok() || self.watched.is_gone() {
                    return;
                }
            } else if self.watched.is_lost() {
                return;
            }
        }
    }

    /// Waits for its end; true if it has come.
    async fn ended(&self, limit: Duration) -> bool {
        self.watched.is_gone() || timeout(limit, self.pidfd.readable()).await.is_ok()
    }
}

impl Link {
    /// Opens the mount points, starts sentinel and guard, and waits until both say that they are
    /// armed. On an error, both see their sockets closed, and go.
    pub(super) async fn arm(
        file_systems: &[FileSystem],
        options: GuardOptions,
        window: Duration,
    ) -> Result<Self, GuardError> {
        prepare_directory(&options.run_dir)?;
        let mounts = open_all(file_systems.to_vec(), options.run_dir.clone()).await?;
        let was_read_only = ReadOnly::now(file_systems).map_err(|e| start_error(Peer::Guard, e))?;
        let board = Arc::new(
            Board::create(mounts.len()).map_err(|source| start_error(Peer::Guard, source))?,
        );
        let guard = start(GUARD_NAME).map_err(|e| start_error(Peer::Guard, e))?;
        let mut plan = Arm {
            run_id: options.run_id,
            run_dir: options.run_dir,
            window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
            expedite_rcu: options.expedite_rcu,
            keep_warm: options.keep_warm,
            agent: ProcessId::myself(),
            guard: process_id(&guard, Peer::Guard)?,
            sentinel: ProcessId::myself(),
            sentinel_cgroup: None,
            file_systems: file_systems.iter().map(without_lists).collect(),
            aftercare: options.aftercare,
        };
        let mut warnings = Vec::new();
        let (sentinel, is_service) =
            engage_sentinel(&mut plan, &board, &guard, &mounts, &mut warnings).await?;
        let armed = hand_over(&guard, Peer::Guard, &plan, &board, &sentinel, &mounts).await;
        if let (Err(_), Some(cgroup)) = (&armed, &plan.sentinel_cgroup) {
            // A sentinel that is there removes it itself; one that was killed cannot.
            let _ = std::fs::remove_dir(cgroup);
        }
        let (_, said) = armed?;
        warnings.extend(said);
        let process = |started, peer| Process::new(started).map_err(|e| start_error(peer, e));
        Ok(Self {
            guard: process(&guard, Peer::Guard)?,
            sentinel: process(&sentinel, Peer::Sentinel)?,
            service: is_service
                .then(|| async_socket(sentinel.socket))
                .transpose()
                .map_err(|e| start_error(Peer::Sentinel, e))?,
            socket: async_socket(guard.socket).map_err(|e| start_error(Peer::Guard, e))?,
            board,
            mounts,
            was_read_only,
            plan,
            lost: false,
            warnings,
        })
    }

    pub(super) fn window(&self) -> Duration {
        Duration::from_millis(self.plan.window_ms)
    }

    /// Asks the guard for something that it keeps a deadline for itself. If it is lost, everything
    /// is thawed before this returns.
    pub(super) async fn ask(
        &mut self,
        request: Request,
        its_limit: Duration,
    ) -> Result<(), GuardError> {
        match self.converse(request, its_limit + GRACE + THAW_LIMIT).await {
            Some(Reply::Failed(failure)) => Err(self.explain(failure, its_limit).await),
            Some(_) => Ok(()),
            None => {
                self.thaw_without_guard().await?;
                Err(GuardError::GuardLost)
            }
        }
    }

    /// Has everything thawed, by whoever can. What is read-only now and was not is given back.
    pub(super) async fn thaw(&mut self) -> Result<Vec<usize>, GuardError> {
        let reply = if self.lost { None } else { self.ask_for_thaw().await };
        match reply {
            Some(Reply::Thawed { turned_read_only }) => Ok(turned_read_only),
            Some(Reply::Failed(failure)) if failure.kind == FailureKind::NotThawed => {
                Err(GuardError::NotThawed { mount_points: self.names(&failure.file_systems) })
            }
            _ => {
                self.thaw_without_guard().await?;
                let all = (0..self.mounts.len()).collect();
                let now = ReadOnly::now(&self.plan.file_systems);
                Ok(now.map_or(all, |now| now.turned_since(&self.was_read_only)))
            }
        }
    }

    /// A guard that has not even begun to thaw after [`THAW_REACTION`] is stopped or stuck.
    async fn ask_for_thaw(&mut self) -> Option<Reply> {
        let board = Arc::clone(&self.board);
        let does_not_react = async {
            sleep(THAW_REACTION).await;
            if board.all_idle() || board.slots().any(|slot| slot.thaw_has_begun()) {
                pending::<()>().await;
            }
        };
        tokio::select! {
            reply = self.converse(Request::Thaw, THAW_LIMIT) => reply,
            () = does_not_react => { self.lost = true; None }
        }
    }

    /// Sends a request and waits for its answer; `None` if the guard is lost.
    async fn converse(&mut self, request: Request, limit: Duration) -> Option<Reply> {
        if self.lost || send_to(self.socket.get_ref(), &request).is_err() {
            self.lost = true;
            return None;
        }
        // If this future is dropped half-way, a late answer would be taken for that of the next
        // request: then the conversation is over.
        self.lost = true;
        let answer = async {
            loop {
                match receive(&self.socket).await {
                    Ok(Some(Reply::Broken)) => {}
                    Ok(reply) => return reply,
                    Err(_) => return None,
                }
            }
        };
        let reply = tokio::select! {
            biased;
            reply = answer => reply,
            () = self.guard.lost() => None,
            () = sleep(limit) => None,
        };
        self.lost = reply.is_none();
        reply
    }

    /// Resolves when the run is given up: the guard says so, or is lost.
    pub(super) async fn broken(&mut self) -> Abort {
        loop {
            if let Some(abort) = self.board.aborted() {
                return abort;
            }
            // The guard says every 20 ms that it is at work: one that starves is as good as none.
            if self.lost || self.board.guard_silent_for() > PEER_SILENCE {
                self.lost = true;
                return Abort::GuardLost;
            }
            tokio::select! {
                said = receive::<Reply>(&self.socket) => {
                    self.lost = !matches!(said, Ok(Some(_)));
                }
                () = self.guard.lost() => self.lost = true,
                () = sleep(TICK) => {}
            }
        }
    }

    /// The guard is lost: the sentinel thaws. It must never come to it, but if that is gone too,
    /// the agent does, in threads of their own: a thaw can hang in the kernel. (Whoever kills the
    /// agent inside FITHAW turns a btrfs read-only, which is why it comes last.)
    async fn thaw_without_guard(&mut self) -> Result<(), GuardError> {
        self.lost = true;
        self.board.abort(Abort::GuardLost);
        if !self.sentinel.watched.is_gone() && self.idle_within(SENTINEL_REACTION).await {
            return Ok(());
        }
        let clones = self.mounts.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>();
        let workers = clones.and_then(|m| Workers::start_thawing(Arc::clone(&self.board), m));
        if let Ok(workers) = workers {
            if self.guard.ended(SENTINEL_REACTION).await {
                workers.no_freeze_is_in_flight();
            }
            workers.thaw_all();
            if self.idle_within(THAW_LIMIT).await {
                return Ok(());
            }
        }
        Err(GuardError::NotThawed { mount_points: self.still_frozen() })
    }

    async fn idle_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while !self.board.all_idle() {
            if Instant::now() >= until {
                return false;
            }
            sleep(Duration::from_millis(2)).await;
        }
        true
    }

    /// Ends guard and sentinel and leaves nothing behind, whichever of them is still there.
    pub(super) async fn disarm(mut self) -> Result<(), GuardError> {
        self.board.set_released();
        let farewell = self.converse(Request::Disarm, END_LIMIT).await;
        if let Some(Reply::Failed(failure)) = farewell {
            return Err(GuardError::NotThawed { mount_points: self.names(&failure.file_systems) });
        }
        if farewell.is_none() {
            self.thaw_without_guard().await?;
        }
        let Self { socket, guard, sentinel, service, board, plan, .. } = self;
        // The end of the conversation is the end of the guard, if it is still there. One that was
        // stopped must run to see it; nobody kills it.
        drop(socket);
        guard.watched.continue_if_stopped();
        let guard_ended = guard.ended(END_LIMIT).await;
        sentinel.watched.continue_if_stopped();
        let sentinel_ended = match service {
            Some(service) => timeout(END_LIMIT, receive::<Reply>(&service)).await.is_ok(),
            None => sentinel.ended(END_LIMIT).await,
        };
        if guard_ended && sentinel_ended && !board.disarmed() {
            undo_the_rest(&board, &plan);
        }
        if let Some(cgroup) = &plan.sentinel_cgroup {
            cgroup::remove(cgroup);
        }
        Ok(())
    }

    /// Puts a failure into the caller's words.
    async fn explain(&mut self, failure: Failure, limit: Duration) -> GuardError {
        let mount_points = self.names(&failure.file_systems);
        let first = failure.file_systems.first().and_then(|i| self.plan.file_systems.get(*i));
        let source = || io::Error::from_raw_os_error(failure.errno);
        match (failure.kind, first) {
            (FailureKind::Freeze, Some(fs)) => freeze_error(fs, Errno::from_raw(failure.errno)),
            (FailureKind::Sync, Some(fs)) => {
                GuardError::SyncFailed { mount_point: fs.mount_point.clone(), source: source() }
            }
            (FailureKind::SyncTimedOut, _) => {
                GuardError::SyncTimedOut { mount_points, budget: limit }
            }
            (FailureKind::Busy, _) => GuardError::Busy { mount_points },
            (FailureKind::NotThawed, _) => GuardError::NotThawed { mount_points },
            (FailureKind::Journal, _) => GuardError::GuardJournal { detail: failure.detail },
            (FailureKind::Broken, _) => self.broken_off(mount_points),
            (_, _) => GuardError::Protocol { detail: failure.detail },
        }
    }

    /// Whatever the reason: a freeze that is still in flight holds writers as a frozen file system
    /// does, and must not be called by a milder name.
    fn broken_off(&self, mount_points: Vec<PathBuf>) -> GuardError {
        if !self.board.all_idle() {
            return GuardError::NotThawed { mount_points: self.still_frozen() };
        }
        match self.board.aborted() {
            Some(Abort::DeadlinePassed) => {
                GuardError::FreezeTimedOut { mount_points, window: self.window() }
            }
            Some(Abort::SentinelLost) => GuardError::SentinelLost,
            _ => GuardError::GuardLost,
        }
    }

    pub(super) fn aborted(&self) -> Option<Abort> {
        self.board.aborted()
    }

    pub(super) fn times(&self) -> Vec<FileSystemTimes> {
        self.board.slots().enumerate().map(|(index, slot)| slot.times(index)).collect()
    }

    pub(super) fn thawed(&self, turned_read_only: &[usize]) -> Vec<ThawedFileSystem> {
        let one = |(index, slot): (usize, super::board::Slot<'_>)| ThawedFileSystem {
            times: slot.times(index),
            thawed_by_us: slot.thawed_by_us(),
            error: slot.thaw_error().map(|errno| errno.desc().to_owned()),
            turned_read_only: turned_read_only.contains(&index),
        };
        self.board.slots().enumerate().map(one).collect()
    }

    fn still_frozen(&self) -> Vec<PathBuf> {
        let slots = self.board.slots().zip(&self.plan.file_systems);
        slots
            .filter(|(slot, _)| slot.state() != super::board::State::Idle)
            .map(|(_, fs)| fs.mount_point.clone())
            .collect()
    }

    fn names(&self, indexes: &[usize]) -> Vec<PathBuf> {
        let known = indexes.iter().filter_map(|index| self.plan.file_systems.get(*index));
        known.map(|fs| fs.mount_point.clone()).collect()
    }
}

/// Opens all mount points in a thread that nobody has to wait for: opening can hang. The same
/// descriptors go to guard and sentinel, so that all three mean the same mounts.
async fn open_all(
    file_systems: Vec<FileSystem>,
    run_dir: PathBuf,
) -> Result<Vec<OwnedFd>, GuardError> {
    let (done, opened) = oneshot::channel();
    let names = file_systems.iter().map(|fs| fs.mount_point.clone()).collect();
    std::thread::Builder::new()
        .name("open-mounts".into())
        .spawn(move || done.send(open_each(&file_systems, &run_dir)))
        .map_err(|source| start_error(Peer::Guard, source))?;
    match timeout(ARM_LIMIT, opened).await {
        Ok(Ok(result)) => result,
        _ => Err(GuardError::Busy { mount_points: names }),
    }
}

fn open_each(file_systems: &[FileSystem], run_dir: &Path) -> Result<Vec<OwnedFd>, GuardError> {
    let open = |fs: &FileSystem| {
        let mount_point = fs.mount_point.clone();
        mounts::open_planned(fs).map_err(|error| match error {
            mounts::OpenError::Open(source) => GuardError::Open { mount_point, source },
            mounts::OpenError::Changed { planned, found } => {
                GuardError::MountChanged { mount_point, planned, found }
            }
        })
    };
    let opened = file_systems.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let superblock = mounts::superblock_of(run_dir)
        .map_err(|source| GuardError::Open { mount_point: run_dir.to_owned(), source })?;
    match file_systems.iter().find(|fs| fs.superblock == superblock) {
        Some(fs) => Err(GuardError::JournalOnPlannedFileSystem {
            run_dir: run_dir.to_owned(),
            mount_point: fs.mount_point.clone(),
        }),
        None => Ok(opened),
    }
}

/// A file system as guard and sentinel need it. A host of containers may have it mounted hundreds
/// of times, and one packet has to hold the plan.
fn without_lists(fs: &FileSystem) -> FileSystem {
    FileSystem { other_mounts: Vec::new(), disks: Vec::new(), ..fs.clone() }
}

/// Hands over to the service if there is one that can be used, else to a sentinel of this run's own.
/// The second is true for the service.
async fn engage_sentinel(
    plan: &mut Arm,
    board: &Board,
    guard: &Started,
    mounts: &[OwnedFd],
    warnings: &mut Vec<String>,
) -> Result<(Started, bool), GuardError> {
    let peer = Peer::Sentinel;
    match engage_service(plan, board, guard, mounts, warnings).await {
        Ok(None) => {}
        Ok(Some(service)) => return Ok((service, true)),
        Err(why) => warnings.push(format!(
            "the sentinel service is not used: {why}; this run has a sentinel of its own"
        )),
    }
    let sentinel = start(SENTINEL_NAME).map_err(|error| start_error(peer, error))?;
    plan.sentinel = process_id(&sentinel, peer)?;
    let (cgroup, said) = hand_over(&sentinel, peer, plan, board, guard, mounts).await?;
    plan.sentinel_cgroup = cgroup;
    warnings.extend(said);
    Ok((sentinel, false))
}

async fn engage_service(
    plan: &mut Arm,
    board: &Board,
    guard: &Started,
    mounts: &[OwnedFd],
    warnings: &mut Vec<String>,
) -> Result<Option<Started>, String> {
    let Some(service) = call::call(&plan.run_dir).await? else { return Ok(None) };
    let engage = async {
        plan.sentinel = process_id(&service, Peer::Sentinel)?;
        hand_over(&service, Peer::Sentinel, plan, board, guard, mounts).await
    };
    let (_, said) = engage.await.map_err(|error| error.to_string())?;
    warnings.extend(said);
    Ok(Some(service))
}

/// Sends a process what it needs, and waits until it says that it is armed.
async fn hand_over(
    to: &Started,
    peer: Peer,
    plan: &Arm,
    board: &Board,
    other: &Started,
    mounts: &[OwnedFd],
) -> Result<(Option<PathBuf>, Vec<String>), GuardError> {
    let failed = |source| start_error(peer, source);
    let myself = pidfd_open(std::process::id()).map_err(failed)?;
    let mut fds = vec![board.as_fd(), myself.as_fd(), other.pidfd.as_fd()];
    fds.extend(mounts.iter().map(AsFd::as_fd));
    send_arm(&to.socket, plan, &fds).map_err(failed)?;
    let socket = async_socket(to.socket.try_clone().map_err(failed)?).map_err(failed)?;
    let detail = match timeout(ARM_LIMIT, receive(&socket)).await {
        Ok(Ok(Some(Reply::Armed { cgroup, warnings }))) => return Ok((cgroup, warnings)),
        Ok(Ok(Some(Reply::Failed(failure)))) if failure.kind == FailureKind::Journal => {
            return Err(GuardError::GuardJournal { detail: failure.detail });
        }
        Ok(Ok(Some(Reply::Failed(failure)))) if failure.kind == FailureKind::SharedCgroup => {
            return Err(GuardError::SharedCgroup { detail: failure.detail });
        }
        Ok(Ok(Some(Reply::Failed(failure)))) => failure.detail,
        Ok(Ok(Some(other))) => format!("it says {other:?}"),
        Ok(Ok(None)) => "it has ended; does the program's main begin with guard::enter()?".into(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no word within {} s", ARM_LIMIT.as_secs()),
    };
    Err(GuardError::NotArmed { process: peer, detail })
}

pub(super) fn async_socket(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    // The flag belongs to our end of the pair alone.
    nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFL(flags))?;
    async_readable(socket)
}

/// Receives one message; `None` at the end of the conversation. Nothing is lost if it is dropped.
pub(super) async fn receive<M: serde::de::DeserializeOwned>(
    socket: &AsyncFd<OwnedFd>,
) -> io::Result<Option<M>> {
    loop {
        let mut ready = socket.readable().await?;
        match receive_from(socket.get_ref(), MsgFlags::empty()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready_matching(Ready::READABLE);
            }
            result => return result,
        }
    }
}

fn process_id(started: &Started, peer: Peer) -> Result<ProcessId, GuardError> {
    ProcessId::of(started.pid).ok_or_else(|| GuardError::NotArmed {
        process: peer,
        detail: "it has ended at once".to_owned(),
    })
}

fn start_error(process: Peer, source: io::Error) -> GuardError {
    GuardError::Start { process, source }
}

fn freeze_error(fs: &FileSystem, errno: Errno) -> GuardError {
    let mount_point = fs.mount_point.clone();
    match errno {
        Errno::EBUSY => GuardError::FrozenByOther { mount_point },
        Errno::EOPNOTSUPP => GuardError::NotSupported { mount_point, fs_type: fs.fs_type.clone() },
        Errno::EPERM | Errno::EACCES => {
            GuardError::NotPermitted { mount_point, source: errno.into() }
        }
        _ => GuardError::FreezeFailed { mount_point, source: errno.into() },
    }
}
