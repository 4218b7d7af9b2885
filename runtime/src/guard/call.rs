//! Calling the sentinel service, if there is one: before a freeze, within a second, or not at all.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, socketpair,
};
use nix::unistd::geteuid;
use tokio::time::timeout;

use super::cgroup;
use super::link::{async_socket, receive};
use super::protocol::Hello;
use super::spawn::Started;
use crate::sys::guardproc::{pidfd_open, send_message};

/// How long a service may take to answer: what takes longer is not there when it is needed.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(1);

/// Where the service of this installation listens.
pub(super) fn socket_in(run_dir: &Path) -> PathBuf {
    run_dir.join("sentinel.socket")
}

/// Calls the service; `None` if none is installed.
///
/// # Errors
/// In words, why the one that is there cannot be used.
pub(super) async fn call(run_dir: &Path) -> Result<Option<Started>, String> {
    let stream = match reach(&socket_in(run_dir)) {
        Ok(stream) => stream,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(format!("it does not listen ({})", errno.desc())),
    };
    match timeout(HANDSHAKE, shake_hands(stream)).await {
        Ok(result) => result.map(Some).map_err(|error| error.to_string()),
        Err(_) => Err(format!("it does not answer within {} s", HANDSHAKE.as_secs())),
    }
}

/// Never waits: a service with a full backlog is one that does not answer.
fn reach(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream)
}

async fn shake_hands(stream: OwnedFd) -> io::Result<Started> {
    let service = getsockopt(&stream, PeerCredentials)?;
    let pid = u32::try_from(service.pid()).map_err(io::Error::other)?;
    if service.uid() != geteuid().as_raw() {
        return Err(io::Error::other(format!("it runs as uid {}", service.uid())));
    }
    if cgroup::is_shared_with(pid) {
        return Err(io::Error::other("it is in this process's cgroup"));
    }
    // Before it has answered, so that the number is still its own.
    let pidfd = pidfd_open(pid)?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    send_message(&stream, &serde_json::to_vec(&Hello::ours())?, &[theirs.as_fd()])?;
    drop(theirs);
    let answer: Option<Hello> = receive(&async_socket(ours.try_clone()?)?).await?;
    match answer {
        Some(hello) if hello == Hello::ours() => Ok(Started { pid, pidfd, socket: ours }),
        Some(hello) => Err(io::Error::other(format!(
            "it is version {}, and this is {}; restart it",
            hello.version,
            Hello::ours().version
        ))),
        None => Err(io::Error::other("it has hung up")),
    }
}
