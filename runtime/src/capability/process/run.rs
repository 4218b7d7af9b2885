//! One run of a program, from its start to the end of everything that it started.
//!
//! A thread of its own starts it and waits for it: starting can block (the program may lie on a slow
//! network), the program is killed by the kernel when that thread dies with the agent, and a process
//! that a frozen file system holds is waited for as long as that takes. Nobody else waits for it:
//! who called comes back by the deadline.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::resource::Resource;
use nix::unistd::{Gid, Uid, fchown, pipe2};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::GrantedProgram;
use super::registry::{Control, Gone};
use crate::cgroup::{self, Bounds, LimitedCgroup};
use crate::config::grants::ProgramGrant;
use crate::sys::program::{self, ProgramSpec};
use crate::time::Deadline;

/// The search path of a program: the rest of its environment is what the operator granted.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Descriptors that a program may have open.
const OPEN_FILES: u64 = 1024;

/// How long a SIGKILL may take before the call returns without waiting for it any longer: at least,
/// and at most where the phase has the time. The guest needs what is left after that to unwind.
const KILL_GRACE: (Duration, Duration) = (Duration::from_millis(60), Duration::from_secs(2));

/// How long the pipes may stay open after the last process. What is in them is read in microseconds.
const DRAIN_GRACE: Duration = Duration::from_millis(100);

/// The same where a process that cannot be killed yet keeps them open.
const SHORT_DRAIN: Duration = Duration::from_millis(10);

/// Between two looks at processes that do not die; doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(200));

/// How cgroups of programs are named.
pub(super) const PURPOSE: &str = "program";

/// What is to be run.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) program: Arc<GrantedProgram>,
    pub(super) arguments: Vec<String>,
    pub(super) stdin: Vec<u8>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, or by a signal that was not ours.
    ByItself(ExitStatus),
    /// Its time was over.
    TimedOut,
    /// The run was asked to stop.
    Stopped,
}

/// A program that has ended, but perhaps for processes that cannot be killed yet.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) truncated: bool,
}

/// Runs it to its end, to the deadline, or until `stop` resolves; then ends all that it started.
/// `phase` is the deadline beyond which not even the end is waited for.
///
/// # Errors
/// If it could not be started.
pub(super) async fn run(
    order: Order,
    (control, gone): (Arc<Control>, Gone),
    deadline: Deadline,
    phase: Deadline,
    stop: impl Future<Output = ()>,
) -> io::Result<Ended> {
    let most = order.program.grant.limits.output_bytes;
    // Whatever becomes of this call, nothing of the program goes on.
    let killed = KillOnDrop(Arc::clone(&control));
    let mut attended = Attended::start(order, control, gone)?;
    let mut streams = None;
    let end = {
        let running = async {
            streams = Some(Streams::of(attended.started().await?, most)?);
            attended.ended().await
        };
        tokio::select! {
            biased;
            status = running => End::ByItself(status?),
            () = tokio::time::sleep(deadline.remaining()) => End::TimedOut,
            () = stop => End::Stopped,
        }
    };
    drop(killed);
    let grace = phase.remaining().clamp(KILL_GRACE.0, KILL_GRACE.1);
    // Whoever is left sits in a system call that cannot be interrupted; `finish` looks again.
    let has_survivors = timeout(grace, attended.gone()).await.is_err();
    let (stdout, stderr, truncated) = match &mut streams {
        Some(streams) => {
            streams.finish(if has_survivors { SHORT_DRAIN } else { DRAIN_GRACE }).await
        }
        None => (Vec::new(), Vec::new(), false),
    };
    Ok(Ended { end, stdout, stderr, truncated })
}

struct KillOnDrop(Arc<Control>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// The reading ends of a program's two streams.
type Outputs = (OwnedFd, OwnedFd);

/// What the thread of a program tells, in this order.
struct Attended {
    started: oneshot::Receiver<io::Result<Outputs>>,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
    gone: oneshot::Receiver<()>,
}

impl Attended {
    fn start(order: Order, control: Arc<Control>, registered: Gone) -> io::Result<Self> {
        let (tell_started, started) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        let (tell_gone, gone) = oneshot::channel();
        thread::Builder::new().name("program".into()).spawn(move || {
            attend(&order, &control, tell_started, tell_ended);
            drop(registered);
            // Nobody may be waiting any more.
            let _ = tell_gone.send(());
        })?;
        Ok(Self { started, ended, gone })
    }

    async fn started(&mut self) -> io::Result<Outputs> {
        (&mut self.started).await.map_err(|_| thread_is_gone())?
    }

    async fn ended(&mut self) -> io::Result<ExitStatus> {
        (&mut self.ended).await.map_err(|_| thread_is_gone())?
    }

    /// Resolves when no process of it is left.
    async fn gone(&mut self) {
        // An error says that the thread is gone, and it goes last.
        let _ = (&mut self.gone).await;
    }
}

fn thread_is_gone() -> io::Error {
    io::Error::other("the thread that waits for it is gone")
}

/// The life of a program's thread. Nobody may be listening any more: it goes on all the same.
fn attend(
    order: &Order,
    control: &Control,
    started: oneshot::Sender<io::Result<Outputs>>,
    ended: oneshot::Sender<io::Result<ExitStatus>>,
) {
    let (mut child, cgroup) = match start(order, control) {
        Ok((child, outputs, cgroup)) => {
            let _ = started.send(Ok(outputs));
            (child, cgroup)
        }
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    if control.is_told() {
        cgroup.kill_once();
    }
    let status = child.wait();
    // Before anybody is told that it ended: what it left in the background ends with it.
    cgroup.kill_once();
    let _ = ended.send(status);
    let mut pause = PAUSE.0;
    while !cgroup.is_empty() {
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE.1);
        // A process that was blocked by a frozen file system dies when that is thawed; one that was
        // forked between two looks (where there is no `cgroup.kill`) is found by the next.
        cgroup.kill_once();
    }
}

fn start(
    order: &Order,
    control: &Control,
) -> io::Result<(std::process::Child, Outputs, Arc<LimitedCgroup>)> {
    let GrantedProgram { grant, file, confinement } = &*order.program;
    let Some(program) = file else { return Err(io::ErrorKind::NotFound.into()) };
    let bounds = bounds(grant);
    let cgroup = LimitedCgroup::create(&cgroup::name_for(PURPOSE), &bounds)
        .map(Arc::new)
        .map_err(io::Error::other)?;
    control.is_in(&cgroup);
    warn_of_unbounded(&cgroup);
    let (stdout, to_stdout) = output_pipe(grant)?;
    let (stderr, to_stderr) = output_pipe(grant)?;
    let fixed = [("PATH", SEARCH_PATH)];
    let granted = grant.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let child = program::spawn(ProgramSpec {
        program: program.as_fd(),
        path: &grant.path,
        arguments: &order.arguments,
        environment: fixed.into_iter().chain(granted).collect(),
        cgroups: cgroup.procs(),
        uid: grant.user.uid,
        gid: grant.user.gid,
        groups: &grant.user.groups,
        limits: resource_limits(grant, &cgroup),
        landlock: confinement.landlock(),
        filters: confinement.filters(),
        stdin: stdin_pipe(&order.stdin, grant)?,
        stdout: to_stdout,
        stderr: to_stderr,
    })?;
    Ok((child, (stdout, stderr), cgroup))
}

fn bounds(grant: &ProgramGrant) -> Bounds {
    let limits = &grant.limits;
    Bounds { processes: limits.processes, memory_bytes: limits.memory_bytes, cpus: limits.cpu }
}

/// Limits of each process. Those that stand in for a cgroup's bound are rougher than it: memory is
/// counted for each process, and tasks for the user.
fn resource_limits(grant: &ProgramGrant, cgroup: &LimitedCgroup) -> Vec<(Resource, u64)> {
    let limits = &grant.limits;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a grant has at most a day and 1024 CPUs"
    )]
    let cpu_seconds = (limits.seconds as f64 * limits.cpu).ceil() as u64 + 1;
    let mut all = vec![
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_NOFILE, OPEN_FILES),
        (Resource::RLIMIT_CPU, cpu_seconds),
        (Resource::RLIMIT_RTPRIO, 0),
    ];
    for bound in cgroup.unbounded() {
        match bound {
            cgroup::Bound::Memory => all.push((Resource::RLIMIT_DATA, limits.memory_bytes)),
            cgroup::Bound::Processes => {
                let others = tasks_of(grant.user.uid);
                all.push((Resource::RLIMIT_NPROC, others + limits.processes));
            }
            cgroup::Bound::Cpu => {}
        }
    }
    all
}

/// Tasks that a user has now.
fn tasks_of(uid: u32) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let processes = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    processes
        .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == uid))
        .filter_map(|entry| Some(std::fs::read_dir(entry.path().join("task")).ok()?.count() as u64))
        .sum()
}

fn warn_of_unbounded(cgroup: &LimitedCgroup) {
    static WARNED: Once = Once::new();
    if cgroup.unbounded().is_empty() {
        return;
    }
    let controllers: Vec<_> = cgroup.unbounded().iter().map(|bound| bound.controller()).collect();
    WARNED.call_once(|| {
        tracing::warn!(
            missing = controllers.join(", "),
            "cgroup controllers that are not to be had here; resource limits stand in for them"
        );
    });
}

/// So that the program may open its streams again by their names in /proc, as some programs do.
fn give_to(end_of_pipe: &OwnedFd, grant: &ProgramGrant) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(grant.user.uid), Gid::from_raw(grant.user.gid));
    Ok(fchown(end_of_pipe, Some(uid), Some(gid))?)
}

fn output_pipe(grant: &ProgramGrant) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
    give_to(&writing, grant)?;
    nix::fcntl::fcntl(&reading, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reading, writing))
}

/// A pipe that has the whole text in it: a grant's texts are no longer than what it holds, so this
/// does not block, and a program that does not read harms nobody.
fn stdin_pipe(text: &[u8], grant: &ProgramGrant) -> io::Result<Option<OwnedFd>> {
    if text.is_empty() {
        return Ok(None);
    }
    let (reading, writing) = pipe2(OFlag::O_CLOEXEC)?;
    give_to(&reading, grant)?;
    nix::fcntl::fcntl(&writing, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    File::from(writing).write_all(text)?;
    Ok(Some(reading))
}

/// Both streams of a program: the first bytes of each are kept, all of them are read.
struct Streams {
    stdout: Arc<Mutex<Kept>>,
    stderr: Arc<Mutex<Kept>>,
    readers: Vec<JoinHandle<()>>,
}

/// The first bytes of a stream.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    truncated: bool,
}

impl Kept {
    fn push(&mut self, chunk: &[u8], most: usize) {
        let room = most - self.bytes.len();
        self.truncated |= chunk.len() > room;
        self.bytes.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
    }
}

impl Streams {
    fn of((stdout, stderr): Outputs, most: usize) -> io::Result<Self> {
        let kept = || Arc::new(Mutex::new(Kept::default()));
        let mut streams = Self { stdout: kept(), stderr: kept(), readers: Vec::new() };
        for (stream, kept) in [(stdout, &streams.stdout), (stderr, &streams.stderr)] {
            let stream = pipe::Receiver::from_owned_fd(stream)?;
            streams.readers.push(tokio::spawn(read(stream, Arc::clone(kept), most)));
        }
        Ok(streams)
    }

    /// What was kept. Waits for the end of both streams, but not long.
    async fn finish(&mut self, grace: Duration) -> (Vec<u8>, Vec<u8>, bool) {
        let all = async {
            for reader in &mut self.readers {
                // A reader that panicked has no more to say.
                let _ = reader.await;
            }
        };
        let whole = timeout(grace, all).await.is_ok();
        let take = |kept: &Mutex<Kept>| {
            std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let (stdout, stderr) = (take(&self.stdout), take(&self.stderr));
        (stdout.bytes, stderr.bytes, stdout.truncated || stderr.truncated || !whole)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

async fn read(mut stream: impl AsyncRead + Unpin, kept: Arc<Mutex<Kept>>, most: usize) {
    let mut chunk = vec![0_u8; 64 << 10];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let bytes = chunk.get(..length).unwrap_or_default();
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(bytes, most);
            }
        }
    }
}

/// The exit code and the signal that a status stands for; exactly one of them.
pub(super) fn code_and_signal(status: ExitStatus) -> (Option<i32>, Option<i32>) {
    match status.code() {
        Some(code) => (Some(code), None),
        None => (None, status.signal()),
    }
}
