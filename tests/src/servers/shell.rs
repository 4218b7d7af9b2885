//! The usual way, as scripts do it: a client process that holds the database, `sync`, `fsfreeze`, a
//! clone, `fsfreeze -u`, and the client lets go. What the bench compares with.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::command::run;
use crate::lab::Lab;
use crate::writers::{Interval, now_ns};

/// A command line client, and what it is told.
#[derive(Debug)]
pub struct ShellClient {
    /// It reads statements from its standard input, and answers at once.
    pub command: Command,
    /// Holds the database, and then prints `held`.
    pub hold: &'static str,
    /// Lets go, and then prints `released`.
    pub release: &'static str,
}

/// How long a snapshot by a shell took.
#[derive(Clone, Copy, Debug)]
pub struct ShellTimes {
    /// From the request for the lock to the release's return.
    pub locked: Interval,
    /// From the moment at which the client had the database to the one at which it had let go.
    pub hold: Duration,
    /// From before the first freeze to after the last thaw.
    pub window: Duration,
    /// Of it, the clones.
    pub clone: Duration,
}

struct Coprocess {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Coprocess {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let input = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, input, output })
    }

    fn tell(&mut self, text: &str, until: &str) -> Result<()> {
        self.input.write_all(text.as_bytes())?;
        self.input.flush()?;
        let mut line = String::new();
        while line.trim() != until {
            line.clear();
            ensure!(self.output.read_line(&mut line)? > 0, "the client ended before {until}");
        }
        Ok(())
    }
}

impl Drop for Coprocess {
    fn drop(&mut self) {
        // What it holds, it holds no longer then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes a snapshot of all file systems of the lab; the clones are removed.
///
/// # Errors
/// If a step fails; everything is thawed and let go by then.
pub fn take(lab: &Lab, client: ShellClient) -> Result<ShellTimes> {
    let mut coprocess = Coprocess::start(client.command)?;
    let began_ns = now_ns();
    coprocess.tell(client.hold, "held")?;
    let began = Instant::now();
    let cloned = clone_frozen(lab);
    let thawed = Instant::now();
    coprocess.tell(client.release, "released")?;
    let hold = began.elapsed();
    let locked = Interval { began_ns, ended_ns: now_ns() };
    let Cloned { froze, clone, images } = cloned?;
    for image in images {
        std::fs::remove_file(image)?;
    }
    Ok(ShellTimes { locked, hold, window: thawed.saturating_duration_since(froze), clone })
}

struct Cloned {
    /// Before the first freeze.
    froze: Instant,
    clone: Duration,
    images: Vec<PathBuf>,
}

fn clone_frozen(lab: &Lab) -> Result<Cloned> {
    let mut frozen = Frozen(Vec::new());
    for fs in lab.file_systems() {
        run("sync", [Path::new("-f"), &fs.mount])?;
    }
    let froze = Instant::now();
    for fs in lab.file_systems() {
        run("fsfreeze", [Path::new("-f"), &fs.mount])?;
        frozen.0.push(fs.mount.clone());
    }
    let began = Instant::now();
    let mut images = Vec::new();
    for fs in lab.file_systems() {
        let image = fs.image.with_extension("shell");
        run("cp", [Path::new("--reflink=always"), &fs.image, &image])?;
        images.push(image);
    }
    Ok(Cloned { froze, clone: began.elapsed(), images })
}

struct Frozen(Vec<PathBuf>);

impl Drop for Frozen {
    fn drop(&mut self) {
        for mount in self.0.drain(..).rev() {
            if let Err(error) = run("fsfreeze", [Path::new("-u"), &mount]) {
                eprintln!("{error:#}");
            }
        }
    }
}
