//! Writers that feel a freeze, as a client does: in a process of their own. A writer that waits for a
//! thaw cannot be killed, and would keep the process that has to thaw from ending.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;
use serde::{Deserialize, Serialize};

use super::{BenchError, end};
use crate::guard::spawn::{Started, start};
use crate::sys::guardproc::{receive_message, send_message};
use crate::time::{Deadline, monotonic_ns};

/// `argv[0]` of the process.
pub(crate) const WRITERS_NAME: &str = "stillpoint-bench-writers";

/// What a client writes at a time.
const BLOCK: usize = 4096;
/// Its file: written round and round.
const BLOCKS: u64 = 256;
/// Between two writes.
const PAUSE: Duration = Duration::from_micros(500);
/// Longest message: names of some dozen files.
const MESSAGE: usize = 64 << 10;
/// How long the process may take for an answer: one write, behind all that is to be flushed.
const PATIENCE_MS: u16 = 60_000;

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// A file in each of these directories; it has no name from the start.
    Write(Vec<PathBuf>),
    /// The longest write that was under way between these two times, `CLOCK_MONOTONIC` ns.
    Longest { from: u64, to: u64 },
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Writing,
    Longest { ns: u64, writes: usize },
    Failed(String),
}

/// Writers at work, ended when dropped.
#[derive(Debug)]
pub(super) struct Writers(Started);

impl Writers {
    /// Starts one in each directory, and returns when each has written.
    pub(super) fn start(directories: Vec<PathBuf>) -> Result<Self, BenchError> {
        let started = start(WRITERS_NAME).map_err(BenchError::system("start the writers"))?;
        let writers = Self(started);
        match writers.ask(&Request::Write(directories))? {
            Reply::Writing => Ok(writers),
            other => Err(unexpected(other)),
        }
    }

    /// The longest write that was under way at any moment from the one time to the other, and how
    /// many were: waits until each writer has ended a write after that.
    pub(super) fn longest(&self, from: u64, to: u64) -> Result<u64, BenchError> {
        match self.ask(&Request::Longest { from, to })? {
            Reply::Longest { writes: 0, .. } => {
                Err(BenchError::Spoiled("the writers wrote nothing meanwhile".to_owned()))
            }
            Reply::Longest { ns, .. } => Ok(ns),
            other => Err(unexpected(other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Reply, BenchError> {
        let ask = || -> io::Result<Reply> {
            send(&self.0.socket, request)?;
            let mut readable = [PollFd::new(self.0.socket.as_fd(), PollFlags::POLLIN)];
            if poll(&mut readable, PollTimeout::from(PATIENCE_MS))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            receive(&self.0.socket)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        ask().map_err(BenchError::system("ask the writers"))
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        end(&self.0);
    }
}

fn unexpected(reply: Reply) -> BenchError {
    match reply {
        Reply::Failed(why) => BenchError::Program { program: "a writer".to_owned(), said: why },
        other => BenchError::Program {
            program: "a writer".to_owned(),
            said: format!("an answer that makes no sense: {other:?}"),
        },
    }
}

fn send(socket: impl AsFd, message: &impl Serialize) -> io::Result<()> {
    Ok(send_message(socket, &serde_json::to_vec(message)?, &[])?)
}

fn receive<M: serde::de::DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<M>> {
    let mut buffer = vec![0; MESSAGE];
    let (length, _) = receive_message(socket, &mut buffer, MsgFlags::empty())?;
    if length == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&buffer[..length])?))
}

/// One write: when it was begun, and when it was on the disk.
type Write = (u64, u64);

/// What one writer has done since it was asked last, or how it failed.
#[derive(Debug, Default)]
struct Done {
    writes: Vec<Write>,
    failed: Option<String>,
}

/// The process: does what it is told until nobody tells it anything any more. A writer that hangs in
/// a frozen file system ends with it, once that is thawed.
pub(crate) fn run(socket: OwnedFd) -> io::Result<()> {
    let _ = nix::sys::prctl::set_name(c"sp-bench-write");
    let mut all = Vec::new();
    while let Some(request) = receive(&socket)? {
        let reply = match request {
            Request::Write(directories) => begin(&directories, &mut all),
            Request::Longest { from, to } => longest(&all, from, to),
        };
        send(&socket, &reply)?;
    }
    Ok(())
}

fn begin(directories: &[PathBuf], all: &mut Vec<Arc<Mutex<Done>>>) -> Reply {
    for directory in directories {
        let failed = |error: &io::Error| Reply::Failed(format!("{}: {error}", directory.display()));
        let file = match file_in(directory) {
            Ok(file) => file,
            Err(error) => return failed(&error),
        };
        let done = Arc::new(Mutex::new(Done::default()));
        let its = Arc::clone(&done);
        let thread = thread::Builder::new().name("writer".into());
        if let Err(error) = thread.spawn(move || write_for_ever(&file, &its)) {
            return failed(&error);
        }
        all.push(done);
    }
    // Everybody has written at least once after this moment.
    match longest(all, monotonic_ns(), monotonic_ns()) {
        Reply::Failed(why) => Reply::Failed(why),
        _ => Reply::Writing,
    }
}

/// A file of its full length, which has no name: nothing stays, however this process ends.
fn file_in(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!(".stillpoint-bench-{}", std::process::id()));
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    for block in 0..BLOCKS {
        file.write_all_at(&[0x5a; BLOCK], block * BLOCK as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

fn write_for_ever(file: &File, done: &Mutex<Done>) {
    let mut block = 0;
    loop {
        let began = monotonic_ns();
        let written =
            file.write_all_at(&[0xa5; BLOCK], block * BLOCK as u64).and_then(|()| file.sync_data());
        let ended = monotonic_ns();
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = written {
            done.failed = Some(error.to_string());
            return;
        }
        done.writes.push((began, ended));
        drop(done);
        block = (block + 1) % BLOCKS;
        thread::sleep(PAUSE);
    }
}

fn longest(all: &[Arc<Mutex<Done>>], from: u64, to: u64) -> Reply {
    let (mut ns, mut writes) = (0, 0);
    for done in all {
        match wait_for_one_after(done, to) {
            Ok(all) => {
                let overlaps = |(began, ended): &&Write| *began <= to && *ended >= from;
                for (began, ended) in all.iter().filter(overlaps) {
                    ns = ns.max(ended - began);
                    writes += 1;
                }
            }
            Err(why) => return Reply::Failed(why),
        }
    }
    Reply::Longest { ns, writes }
}

/// The writes of one writer up to one that ended after `moment`; they are forgotten with that.
fn wait_for_one_after(done: &Mutex<Done>, moment: u64) -> Result<Vec<Write>, String> {
    let patience = Deadline::after(Duration::from_millis(PATIENCE_MS.into()));
    while !patience.has_passed() {
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = done.failed.take() {
            return Err(why);
        }
        if done.writes.last().is_some_and(|(_, ended)| *ended > moment) {
            return Ok(std::mem::take(&mut done.writes));
        }
        drop(done);
        thread::sleep(PAUSE);
    }
    Err("a write has not ended".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_counts_if_it_was_under_way_at_any_moment_asked_for() {
        let done = Arc::new(Mutex::new(Done {
            writes: vec![(0, 90), (100, 110), (200, 260), (300, 301), (400, 990)],
            failed: None,
        }));
        let Reply::Longest { ns, writes } = longest(&[done], 105, 399) else { panic!() };
        assert_eq!((ns, writes), (60, 3));
    }

    #[test]
    fn a_writer_that_failed_says_so() {
        let failed = Some("no space".to_owned());
        let done = Arc::new(Mutex::new(Done { writes: Vec::new(), failed }));
        assert!(matches!(longest(&[done], 0, 1), Reply::Failed(why) if why == "no space"));
    }

    #[test]
    fn a_file_to_write_to_leaves_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(directory.path()).unwrap();
        assert_eq!(file.metadata().unwrap().len(), BLOCKS * BLOCK as u64);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
