//! One script, from its start to the end of everything that it started.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::task::JoinHandle;

use super::cgroup::Cgroup;
use super::check::CheckedScript;
use super::ring::Ring;
use crate::cgroup::Survivor;
use crate::sys::exec;
use crate::time::Deadline;

/// What is kept of each stream, in bytes.
pub const OUTPUT_LIMIT: usize = 64 * 1024;

/// Between SIGTERM and SIGKILL of a script whose time is over: enough for a shell's `trap`.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// How long a SIGKILL may take. Only a process in an uninterruptible system call takes longer.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// How long the pipes may stay open after the script's own end before it is reported: what is in
/// them is read in microseconds, and a process in the background may keep them open for good.
const DRAIN_GRACE: Duration = Duration::from_millis(200);

/// The search path of a script; the rest of its environment names root and nothing else.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptEnd {
    /// By itself, with this status.
    Exited(ExitStatus),
    /// Its time was over; it was killed with everything that it had started.
    TimedOut {
        /// After how long.
        after: Duration,
        /// Who cannot be killed yet.
        survivors: Vec<Survivor>,
    },
}

/// What a script wrote, to a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptOutput {
    /// The end of its standard output, control characters removed.
    pub stdout: String,
    /// The end of its standard error.
    pub stderr: String,
    /// How many bytes of both are not shown, because they came before.
    pub dropped: u64,
}

impl ScriptOutput {
    /// Its last lines for an error message: of standard error, or of standard output if it wrote
    /// none.
    pub(super) fn last_lines(&self, count: usize) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join(" | ")
    }
}

/// A script that was started and has ended; what it left in the background may live on.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: ScriptEnd,
    streams: Streams,
}

impl Ended {
    /// What has been written so far; processes in the background may add to it.
    pub(super) fn output(&self) -> ScriptOutput {
        self.streams.output()
    }
}

/// Runs it to its end or to the deadline, whichever is first.
///
/// A script that ends by itself may leave processes in the background: a client that holds a
/// database's lock is the very way in which such scripts work. They stay in the cgroup. At the
/// deadline everything in the cgroup is asked to end, and killed a little later.
pub(super) async fn run(
    script: &CheckedScript,
    cgroup: &Cgroup,
    environment: &[(&str, &str)],
    deadline: Deadline,
) -> io::Result<Ended> {
    let began = std::time::Instant::now();
    let mut child = start(script, cgroup, environment)?;
    let mut streams = Streams::of(&mut child);
    let end = match tokio::time::timeout(deadline.remaining(), child.wait()).await {
        Ok(status) => ScriptEnd::Exited(status?),
        Err(_elapsed) => {
            let after = began.elapsed();
            let survivors = end_by_force(&mut child, cgroup).await;
            ScriptEnd::TimedOut { after, survivors }
        }
    };
    streams.drain().await;
    Ok(Ended { end, streams })
}

fn start(
    script: &CheckedScript,
    cgroup: &Cgroup,
    environment: &[(&str, &str)],
) -> io::Result<Child> {
    let path = script.path.to_string_lossy();
    let home = root_home();
    // HOME, because many a script relies on /root/.my.cnf and the like.
    let mut whole = vec![
        ("PATH", SEARCH_PATH),
        ("HOME", home.as_str()),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("STILLPOINT_SCRIPT", path.as_ref()),
    ];
    whole.extend_from_slice(environment);
    exec::spawn(&exec::ExecSpec {
        script: script.file.as_fd(),
        cgroup_procs: cgroup.procs(),
        environment: &whole,
        directory: Path::new("/"),
    })
}

fn root_home() -> String {
    nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(0))
        .ok()
        .flatten()
        .map_or_else(|| "/root".to_owned(), |root| root.dir.to_string_lossy().into_owned())
}

/// SIGTERM, a short grace, then the whole cgroup's end.
async fn end_by_force(child: &mut Child, cgroup: &Cgroup) -> Vec<Survivor> {
    cgroup.terminate();
    // Whether it ended in time or not: what is left is killed.
    let _ = tokio::time::timeout(TERM_GRACE, child.wait()).await;
    let deadline = Deadline::after(KILL_GRACE);
    let survivors = cgroup.kill(deadline).await;
    // Reaps the script itself, so that no zombie is left; one in D state is reaped when it dies.
    let _ = tokio::time::timeout(deadline.remaining(), child.wait()).await;
    survivors
}

/// Both streams of a script, read until they end or this is dropped.
#[derive(Debug)]
struct Streams {
    stdout: Arc<Mutex<Ring>>,
    stderr: Arc<Mutex<Ring>>,
    readers: Vec<JoinHandle<()>>,
}

impl Streams {
    fn of(child: &mut Child) -> Self {
        let ring = || Arc::new(Mutex::new(Ring::with_capacity(OUTPUT_LIMIT)));
        let (stdout, stderr) = (ring(), ring());
        let readers = [
            child.stdout.take().map(|stream| tokio::spawn(read(stream, Arc::clone(&stdout)))),
            child.stderr.take().map(|stream| tokio::spawn(read(stream, Arc::clone(&stderr)))),
        ];
        Self { stdout, stderr, readers: readers.into_iter().flatten().collect() }
    }

    /// Waits for the end of both streams, but not long: the readers go on where somebody in the
    /// background still has a pipe, so that a write to it never blocks or fails.
    async fn drain(&mut self) {
        let all = async {
            for reader in &mut self.readers {
                // A reader that panicked has no more to say.
                let _ = reader.await;
            }
        };
        if tokio::time::timeout(DRAIN_GRACE, all).await.is_ok() {
            self.readers.clear();
        }
    }

    fn output(&self) -> ScriptOutput {
        let stdout = self.stdout.lock().unwrap_or_else(PoisonError::into_inner);
        let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        ScriptOutput {
            stdout: stdout.text(),
            stderr: stderr.text(),
            dropped: stdout.dropped() + stderr.dropped(),
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

async fn read(mut stream: impl AsyncRead + Unpin, ring: Arc<Mutex<Ring>>) {
    let mut chunk = vec![0_u8; 16 * 1024];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let bytes = chunk.get(..length).unwrap_or_default();
                ring.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
            }
        }
    }
}
