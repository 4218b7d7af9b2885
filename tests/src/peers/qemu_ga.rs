//! QEMU's guest agent, as the distribution packages it, driven over its socket as a hypervisor does.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::command::run;
use crate::lab::Lab;

const ENCLOSURE: &str = include_str!("enclosure.sh");
const MYSQL_HOOK: &str = include_str!("mysql-hook.sh");

/// How long it may take to open its socket.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long any answer may take; a freeze that flushes a gigabyte is among them.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What it must never do here, whoever asks: `guest-fsfreeze-freeze` freezes everything that is
/// mounted, the machine's own root with it.
const BLOCKED: &str = "guest-fsfreeze-freeze,guest-shutdown,guest-suspend-disk,guest-suspend-ram,\
                       guest-suspend-hybrid,guest-set-time,guest-exec,guest-fstrim";

/// A running agent. It is ended, and what it froze is thawed, when this is dropped.
#[derive(Debug)]
pub struct QemuGa {
    process: Child,
    stream: BufReader<UnixStream>,
    frozen: bool,
}

impl QemuGa {
    /// Starts it for a lab, without a hook.
    ///
    /// # Errors
    /// If it is not installed, or does not answer.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_with(lab, "qemu-ga", None)
    }

    /// Starts it with the usual hook for MySQL, for the server at `socket`.
    ///
    /// # Errors
    /// As [`QemuGa::start`].
    pub fn start_with_mysql(lab: &Lab, socket: &Path) -> Result<Self> {
        let directory = lab.scratch("qemu-ga-mysql")?;
        let hook = directory.join("fsfreeze-hook");
        let text = MYSQL_HOOK
            .replace("@SOCKET@", &socket.display().to_string())
            .replace("@DIRECTORY@", &directory.display().to_string());
        std::fs::write(&hook, text)?;
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o700))?;
        Self::start_with(lab, "qemu-ga-mysql", Some(&hook))
    }

    fn start_with(lab: &Lab, name: &str, hook: Option<&Path>) -> Result<Self> {
        version()?;
        let own = lab.scratch(name)?;
        let socket = own.join("sock");
        let log = std::fs::File::create(own.join("output"))?;
        let mut command = lab.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", ENCLOSURE, "qemu-ga"])
            .arg(lab.directory())
            .args(["--method", "unix-listen", "--block-rpcs", BLOCKED, "--path"])
            .arg(&socket)
            .arg("--statedir")
            .arg(&own)
            .arg("--pidfile")
            .arg(own.join("pid"))
            .arg("--logfile")
            .arg(own.join("log"));
        if let Some(hook) = hook {
            command.arg(format!("--fsfreeze-hook={}", hook.display()));
        }
        let mut process = command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start unshare")?;
        let stream = match connect(&socket, &mut process) {
            Ok(stream) => stream,
            Err(error) => {
                let said = std::fs::read_to_string(own.join("output")).unwrap_or_default();
                end(&mut process);
                return Err(error.context(format!("qemu-ga: {said}")));
            }
        };
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut agent = Self { process, stream: BufReader::new(stream), frozen: false };
        agent.ask("guest-ping", json!({}))?;
        Ok(agent)
    }

    /// Its hook's `freeze`, and then FIFREEZE of these, one after another.
    ///
    /// # Errors
    /// If it says so, or froze another number of file systems; everything is thawed then.
    pub fn freeze(&mut self, mounts: &[PathBuf]) -> Result<()> {
        // Also if it fails half-way.
        self.frozen = true;
        let frozen = self.ask("guest-fsfreeze-freeze-list", json!({ "mountpoints": mounts }));
        let done = frozen.and_then(|count| {
            ensure!(count == json!(mounts.len()), "{count} frozen of {}", mounts.len());
            Ok(())
        });
        if done.is_err() {
            self.thaw()?;
        }
        done
    }

    /// FITHAW of everything that it sees, and then its hook's `thaw`.
    ///
    /// # Errors
    /// If it says so.
    pub fn thaw(&mut self) -> Result<()> {
        self.ask("guest-fsfreeze-thaw", json!({}))?;
        self.frozen = false;
        Ok(())
    }

    /// Freezes and thaws these; from the request to the answer to the thaw, as a hypervisor sees it.
    ///
    /// # Errors
    /// As [`QemuGa::freeze`] and [`QemuGa::thaw`].
    pub fn window(&mut self, mounts: &[PathBuf]) -> Result<Duration> {
        let began = Instant::now();
        self.freeze(mounts)?;
        self.thaw()?;
        Ok(began.elapsed())
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{request}")?;
        let mut line = String::new();
        self.stream.read_line(&mut line).with_context(|| format!("no answer to {command}"))?;
        let answer: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        match answer.get("return") {
            Some(value) => Ok(value.clone()),
            None => bail!("qemu-ga: {command}: {answer}"),
        }
    }
}

impl Drop for QemuGa {
    fn drop(&mut self) {
        if self.frozen
            && let Err(error) = self.thaw()
        {
            eprintln!("{error:#}");
        }
        end(&mut self.process);
    }
}

/// What is installed, as it says itself.
///
/// # Errors
/// If it is not installed.
pub fn version() -> Result<String> {
    let text = run("qemu-ga", ["--version"])
        .context("QEMU's guest agent is missing: install qemu-guest-agent (make bench does)")?;
    Ok(text.trim().to_owned())
}

fn connect(socket: &Path, process: &mut Child) -> Result<UnixStream> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            return Ok(stream);
        }
        if let Some(status) = process.try_wait()? {
            bail!("it ended at its start: {status}");
        }
        ensure!(Instant::now() < deadline, "it does not open {}", socket.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// In order, so that it removes its own files; a namespace that holds the lab's mounts goes with it.
fn end(process: &mut Child) {
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap_or(i32::MAX));
    let _ = kill(pid, Signal::SIGTERM);
    let deadline = Instant::now() + Duration::from_secs(2);
    while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = process.kill();
    let _ = process.wait();
}
