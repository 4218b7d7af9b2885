//! Commands in the machine, from outside.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::agent::{Answer, HELLO, Request};

/// How long a command may take that nothing stands in the way of: the processor is emulated.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How much longer than a command's own limit its answer may take.
const GRACE: Duration = Duration::from_secs(60);

type Waiting = Arc<Mutex<HashMap<u64, Sender<Answer>>>>;

/// The line to the machine's agent.
#[derive(Debug)]
pub struct Guest {
    writer: Mutex<UnixStream>,
    waiting: Waiting,
    next: AtomicU64,
    /// Which boot of the machine this is.
    pub boot_id: String,
}

impl Guest {
    /// Waits until the machine has booted and its agent speaks.
    ///
    /// # Errors
    /// If it does not within `limit`.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        let waiting = Waiting::default();
        let hello = expect(&waiting, HELLO)?;
        let reader = BufReader::new(stream.try_clone()?);
        let sorted = Arc::clone(&waiting);
        std::thread::spawn(move || sort(reader, &sorted));
        let hello = hello.recv_timeout(limit).ok();
        let boot_id = hello.with_context(|| format!("it did not boot within {limit:?}"))?.stdout;
        Ok(Self { writer: Mutex::new(stream), waiting, next: AtomicU64::new(HELLO + 1), boot_id })
    }

    /// Begins a command; its answer is waited for later, or never.
    ///
    /// # Errors
    /// If the line is cut.
    pub fn begin(&self, script: &str, limit: Duration) -> Result<Begun> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let answer = expect(&self.waiting, id)?;
        let limit_ms = u64::try_from(limit.as_millis())?;
        let request = Request { id, script: script.to_owned(), limit_ms };
        let mut text = serde_json::to_vec(&request)?;
        text.push(b'\n');
        let writer = self.writer.lock();
        writer.ok().context("the line is broken")?.write_all(&text)?;
        Ok(Begun { script: script.to_owned(), answer, until: Instant::now() + limit + GRACE })
    }

    /// Runs a command to its end, or to its limit.
    ///
    /// # Errors
    /// If the machine does not answer; how the command ended is in the answer.
    pub fn run(&self, script: &str, limit: Duration) -> Result<Answer> {
        self.begin(script, limit)?.end()
    }

    /// Runs a command that must succeed, and gives what it printed.
    ///
    /// # Errors
    /// With all that it wrote, if it does not exit with 0.
    pub fn sh(&self, script: &str) -> Result<String> {
        let answer = self.run(script, PATIENCE)?;
        ensure!(answer.code == Some(0), "{}", describe(script, &answer));
        Ok(answer.stdout)
    }

    /// Waits until a command succeeds.
    ///
    /// # Errors
    /// If it does not within `limit`.
    pub fn until(&self, what: &str, script: &str, limit: Duration) -> Result<()> {
        let began = Instant::now();
        // The looking is done in the machine: each look from outside costs a shell.
        let waiting = format!("until {{ {script}\n}} >/dev/null 2>&1; do sleep 0.2; done");
        let answer = self.run(&waiting, limit)?;
        if answer.code == Some(0) {
            return Ok(());
        }
        let last = self.run(script, PATIENCE)?;
        bail!("not {what} after {:?}: {}", began.elapsed(), describe(script, &last))
    }
}

/// A command that was begun.
#[derive(Debug)]
pub struct Begun {
    script: String,
    answer: Receiver<Answer>,
    until: Instant,
}

impl Begun {
    /// Waits for its end.
    ///
    /// # Errors
    /// If the machine does not answer.
    pub fn end(self) -> Result<Answer> {
        let left = self.until.saturating_duration_since(Instant::now());
        let answer = self.answer.recv_timeout(left).ok();
        answer.with_context(|| format!("the machine does not answer: {}", self.script))
    }
}

/// What was run, how it ended, what it wrote.
#[must_use]
pub fn describe(script: &str, answer: &Answer) -> String {
    let how = match answer.code {
        _ if answer.timed_out => "did not end in time".to_owned(),
        Some(code) => format!("exit {code}"),
        None => "ended by a signal".to_owned(),
    };
    format!("`{script}`: {how}\n{}{}", answer.stdout, answer.stderr)
}

fn expect(waiting: &Waiting, id: u64) -> Result<Receiver<Answer>> {
    let (sender, receiver) = mpsc::channel();
    waiting.lock().ok().context("the line is broken")?.insert(id, sender);
    Ok(receiver)
}

/// Hands each answer to who waits for it, until the machine is gone.
fn sort(mut reader: BufReader<UnixStream>, waiting: &Waiting) {
    let mut line = String::new();
    while matches!(reader.read_line(&mut line), Ok(1..)) {
        if let Ok(answer) = serde_json::from_str::<Answer>(&line)
            && let Ok(mut waiting) = waiting.lock()
            && let Some(sender) = waiting.remove(&answer.id)
        {
            let _ = sender.send(answer);
        }
        line.clear();
    }
    // Whoever still waits learns that nothing comes any more.
    if let Ok(mut waiting) = waiting.lock() {
        waiting.clear();
    }
}
