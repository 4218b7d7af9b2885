//! The end of the serial port that is in the machine: runs what the host says, any number of commands
//! at once. It writes nothing to any disk, so that a frozen root file system does not stop it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The port's name, on both sides.
pub const PORT: &str = "stillpoint.vm";
/// Where udev shows it in the machine.
const DEVICE: &str = "/dev/virtio-ports/stillpoint.vm";
/// The id of the one message that the agent sends by itself: it is there. Its output is the boot id.
pub const HELLO: u64 = 0;
/// How often a child is looked at.
const TICK: Duration = Duration::from_millis(10);
/// How long udev may take to show the port.
const PORT_PATIENCE: Duration = Duration::from_secs(300);
/// How long the output of a command may lag behind its end.
const DRAIN: Duration = Duration::from_millis(500);

/// A command.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Comes back with the answer.
    pub id: u64,
    /// For `sh -c`.
    pub script: String,
    /// Then it is killed, and answered for, whether it is gone or not.
    pub limit_ms: u64,
}

/// What became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The request's.
    pub id: u64,
    /// Exit status; absent if a signal or the limit ended it.
    pub code: Option<i32>,
    /// The limit passed.
    pub timed_out: bool,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
}

/// Serves for as long as the machine runs.
///
/// # Errors
/// If there is no port.
pub fn serve() -> Result<()> {
    let port = open_port()?;
    let writer = Arc::new(Mutex::new(port.try_clone()?));
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let hello = Answer {
        id: HELLO,
        code: Some(0),
        timed_out: false,
        stdout: boot_id.trim().to_owned(),
        stderr: String::new(),
    };
    send(&writer, &hello);
    let mut reader = BufReader::new(port);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            // Nobody is at the other end just now.
            thread::sleep(Duration::from_millis(100));
            continue;
        }
        let request: Request = serde_json::from_str(&line)?;
        let writer = Arc::clone(&writer);
        thread::spawn(move || send(&writer, &carry_out(&request)));
    }
}

/// udev makes it at some moment of the boot.
fn open_port() -> Result<File> {
    let began = Instant::now();
    loop {
        match OpenOptions::new().read(true).write(true).open(DEVICE) {
            Err(error)
                if error.kind() == ErrorKind::NotFound && began.elapsed() < PORT_PATIENCE =>
            {
                thread::sleep(TICK * 10);
            }
            port => return port.with_context(|| format!("cannot open {DEVICE}")),
        }
    }
}

fn send(port: &Mutex<File>, answer: &Answer) {
    let Ok(mut text) = serde_json::to_vec(answer) else { return };
    text.push(b'\n');
    // A host that is gone asks nothing more.
    if let Ok(mut port) = port.lock() {
        let _ = port.write_all(&text);
    }
}

fn carry_out(request: &Request) -> Answer {
    let (id, none) = (request.id, String::new());
    run(request).unwrap_or_else(|error| Answer {
        id,
        code: None,
        timed_out: false,
        stdout: none,
        stderr: format!("{error:#}"),
    })
}

fn run(request: &Request) -> Result<Answer> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", &request.script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = end_of(&mut child, Duration::from_millis(request.limit_ms))?;
    if status.is_none() {
        // In the kernel, behind a frozen file system, it stays until that thaws.
        let _ = child.kill();
        thread::spawn(move || child.wait());
    }
    Ok(Answer {
        id: request.id,
        code: status.and_then(|status| status.code()),
        timed_out: status.is_none(),
        stdout: stdout.text(),
        stderr: stderr.text(),
    })
}

fn end_of(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(TICK);
    }
    Ok(None)
}

/// Output that is read as it comes, so that no pipe fills up.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: mpsc::Receiver<()>,
}

impl Collected {
    /// What has come. A grandchild that holds the pipe open is not waited for.
    fn text(&self) -> String {
        let _ = self.end.recv_timeout(DRAIN);
        self.bytes
            .lock()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Collected {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let (ended, end) = mpsc::channel();
    let into = Arc::clone(&bytes);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        if let Some(mut pipe) = pipe {
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                if let Ok(mut bytes) = into.lock() {
                    bytes.extend(buffer.iter().take(count));
                }
            }
        }
        let _ = ended.send(());
    });
    Collected { bytes, end }
}
