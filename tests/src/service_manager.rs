//! A stand-in for systemd, as far as a service of type `notify` with a descriptor store sees it: it keeps
//! what the service sends, starts it again whatever ends it, and gives back what it kept.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::command::of_lab;
use crate::lab::Lab;
use crate::standing::{signal, wait_until};
use crate::stillpoint::Stillpoint;
use crate::test_cgroup::TestCgroup;

/// Most descriptors in a message.
const MOST_FDS: usize = 16;

/// Moves the descriptors that follow `$0` to 3, 4, …, as systemd hands them over, and becomes the program.
const HAND_OVER: &str = r#"
count=$1; shift
to=100; from=3
while [ $from -lt $((3 + count)) ]; do eval "exec $to<&$1 $1<&-"; shift; to=$((to + 1)); from=$((from + 1)); done
to=100; from=3
while [ $from -lt $((3 + count)) ]; do eval "exec $from<&$to $to<&-"; to=$((to + 1)); from=$((from + 1)); done
LISTEN_PID=$$ LISTEN_FDS=$count exec "$@"
"#;

/// The manager of one service: `stillpoint sentinel` of an installation.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    path: PathBuf,
    kept: Arc<Mutex<Kept>>,
    service: Option<Child>,
    command: (PathBuf, PathBuf, PathBuf),
    /// Its own, as every service has one.
    cgroup: TestCgroup,
}

#[derive(Debug, Default)]
struct Kept {
    store: BTreeMap<String, RawFd>,
    ready: u32,
    ever: usize,
}

impl ServiceManager {
    /// Starts the service, and waits until it says that it is ready.
    ///
    /// # Errors
    /// If it does not.
    pub fn start(lab: &Lab, stillpoint: &Stillpoint) -> Result<Self> {
        let path = lab.scratch("manager")?.join("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(Duration::from_secs(300)))?;
        let binary = stillpoint.binary().to_owned();
        let command = (binary, stillpoint.root().to_owned(), lab.directory().to_owned());
        let kept = Arc::default();
        listen(socket.try_clone()?, Arc::clone(&kept));
        let cgroup = TestCgroup::make()?;
        let mut manager = Self { socket, path, kept, service: None, command, cgroup };
        manager.start_again()?;
        Ok(manager)
    }

    /// Starts the service with what is kept, and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started, or does not say so.
    pub fn start_again(&mut self) -> Result<()> {
        let (binary, root, lab) = &self.command;
        let (names, fds): (Vec<_>, Vec<_>) = self.lock().store.clone().into_iter().unzip();
        let ready = self.lock().ready;
        let mut command = of_lab("bash", lab);
        command.args(["-c", HAND_OVER, "bash"]).arg(fds.len().to_string());
        command.args(fds.iter().map(ToString::to_string));
        command.arg(binary).arg("--root").arg(root).arg("sentinel");
        command.env("NOTIFY_SOCKET", &self.path).env("LISTEN_FDNAMES", names.join(":"));
        command.stdin(Stdio::null()).current_dir("/");
        let service = command.spawn().context("cannot start the service")?;
        self.cgroup.add(service.id())?;
        self.service = Some(service);
        wait_until("the service says that it is ready", || Ok(self.lock().ready > ready))
    }

    /// The service's process id.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.service.as_ref().context("it does not run")?.id())
    }

    /// Kills the service with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut service = self.service.take().context("it does not run")?;
        service.kill()?;
        service.wait()?;
        Ok(())
    }

    /// Asks the service to stop, and waits for its end.
    ///
    /// # Errors
    /// If it does not end with success.
    pub fn stop(mut self) -> Result<()> {
        let mut service = self.service.take().context("it does not run")?;
        signal(service.id(), Signal::SIGTERM)?;
        wait_until("the service ends", || Ok(service.try_wait()?.is_some()))?;
        ensure!(service.wait()?.success(), "it ended badly");
        Ok(())
    }

    /// Names of what is kept now.
    #[must_use]
    pub fn kept(&self) -> Vec<String> {
        self.lock().store.keys().cloned().collect()
    }

    /// How many descriptors were ever given to be kept.
    #[must_use]
    pub fn ever_kept(&self) -> usize {
        self.lock().ever
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        for (_, fd) in std::mem::take(&mut self.lock().store) {
            let _ = nix::unistd::close(fd);
        }
    }
}

/// Takes what the service says, in a thread that ends with the socket.
fn listen(socket: UnixDatagram, kept: Arc<Mutex<Kept>>) {
    std::thread::spawn(move || {
        while let Ok((text, fds)) = receive(&socket) {
            if text.is_empty() {
                return;
            }
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
            let name = line("FDNAME=").unwrap_or("stored").to_owned();
            if line("READY=1").is_some() {
                kept.ready += 1;
            }
            if line("FDSTORE=1").is_some() {
                kept.ever += fds.len();
                kept.store.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
            }
            if line("FDSTOREREMOVE=1").is_some()
                && let Some(fd) = kept.store.remove(&name)
            {
                let _ = nix::unistd::close(fd);
            }
        }
    });
}

/// Descriptors come without close-on-exec: the service that is started again inherits them.
fn receive(socket: &UnixDatagram) -> Result<(String, Vec<RawFd>)> {
    let mut buffer = [0; 4096];
    let mut space = nix::cmsg_space!([RawFd; MOST_FDS]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(more) = control {
            fds.extend(more);
        }
    }
    let length = message.bytes;
    Ok((String::from_utf8_lossy(&buffer[..length]).into_owned(), fds))
}

/// Where the service of an installation listens.
#[must_use]
pub fn socket_of(stillpoint: &Stillpoint) -> PathBuf {
    Path::new(stillpoint.root()).join("run/stillpoint/sentinel.socket")
}
