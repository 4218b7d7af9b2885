//! A run that waits at a named place until it is told to go on: what happens there happens there in
//! every run, however fast the machine is. Needs a build with the feature `failpoints`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::lab::Lab;
use crate::stillpoint::{Run, Stillpoint};

/// Far more than any run in a test takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Two FIFOs for one place.
#[derive(Debug)]
pub struct Pause {
    directory: PathBuf,
    place: String,
}

/// A run that was started with a [`Pause`].
#[derive(Debug)]
pub struct Paused {
    child: Child,
    at: File,
    /// Kept open for reading, too: to write into it never waits.
    go: File,
    output: Option<std::thread::JoinHandle<std::io::Result<(String, String)>>>,
}

impl Pause {
    /// Makes the FIFOs for a place, such as `agent.quiesce.before`.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn at(lab: &Lab, place: &str) -> Result<Self> {
        let directory = lab.scratch("pause")?;
        for end in ["at", "go"] {
            let fifo = directory.join(format!("{place}.{end}"));
            let _ = std::fs::remove_file(&fifo);
            nix::unistd::mkfifo(&fifo, Mode::S_IRWXU)
                .with_context(|| format!("cannot make {}", fifo.display()))?;
        }
        Ok(Self { directory, place: place.to_owned() })
    }

    /// Starts a snapshot that will wait there.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, stillpoint: &Stillpoint, name: &str) -> Result<Paused> {
        let open = |end: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(self.directory.join(format!("{}.{end}", self.place)))
        };
        let (at, go) = (open("at")?, open("go")?);
        let action = format!("{}=pause({})", self.place, self.directory.display());
        let mut child = stillpoint
            .command(["--json", "snapshot", "--name", name])
            .env("STILLPOINT_FAILPOINTS", action)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start stillpoint")?;
        // Read all the time, so that the run never waits for its reader.
        let (mut stdout, mut stderr) = (
            child.stdout.take().context("no standard output")?,
            child.stderr.take().context("no standard error")?,
        );
        let output = std::thread::spawn(move || {
            let (mut out, mut err) = (String::new(), String::new());
            let errors = std::thread::spawn(move || stderr.read_to_string(&mut err).map(|_| err));
            stdout.read_to_string(&mut out)?;
            let err = errors.join().unwrap_or_else(|_| Ok(String::new()))?;
            Ok((out, err))
        });
        Ok(Paused { child, at, go, output: Some(output) })
    }
}

impl Paused {
    /// Waits until the run is at its place; false if it has ended before.
    ///
    /// # Errors
    /// If it does neither.
    pub fn reached(&mut self) -> Result<bool> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if matches!(self.at.read(&mut [0; 16]), Ok(read) if read > 0) {
                return Ok(true);
            }
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            ensure!(Instant::now() < deadline, "the run neither ends nor gets to its place");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// If the FIFO cannot be written to.
    pub fn go(&mut self) -> Result<()> {
        self.go.write_all(b"go").context("cannot let the run go on")
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end.
    pub fn ended(mut self) -> Result<Run> {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "the run does not end");
            std::thread::sleep(Duration::from_millis(2));
        };
        let output = self.output.take().context("the output was taken")?;
        let (stdout, stderr) = output.join().ok().context("the reader panicked")??;
        Ok(Run::of(&std::process::Output {
            status,
            stdout: stdout.into_bytes(),
            stderr: stderr.into_bytes(),
        }))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // The guard thaws, and its sessions end; a run that has ended is not there to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
