//! What a service says to systemd, and gets back from it: `sd_notify(3)` with descriptors
//! (`FDSTORE=1`) and `sd_listen_fds(3)`. A datagram and three variables, so no crate for it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::os::fd::AsRawFd;

use crate::sys::guardproc::{send_message, take_inherited};

/// The first descriptor that systemd hands over (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

/// The service manager, if there is one that wants to be told.
#[derive(Debug)]
pub(super) struct Manager(Option<OwnedFd>);

impl Manager {
    /// The one that `NOTIFY_SOCKET` names.
    pub(super) fn of_environment() -> Self {
        Self(std::env::var_os("NOTIFY_SOCKET").and_then(|name| reach(&name).ok()))
    }

    /// This process is a service of its.
    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Says something; best effort, as `sd_notify(3)` is.
    pub(super) fn tell(&self, text: &str) {
        let _ = self.send(text, &[]);
    }

    /// Has it keep a descriptor under this name, over the end of this process.
    pub(super) fn keep(&self, name: &str, fd: impl AsFd) {
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}");
        let _ = self.send(&text, &[fd.as_fd()]);
    }

    /// Has it close what it keeps under this name.
    pub(super) fn forget(&self, name: &str) {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }

    fn send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if let Some(socket) = &self.0 {
            send_message(socket, text.as_bytes(), fds)?;
        }
        Ok(())
    }
}

/// A leading `@` stands for the abstract namespace's zero byte.
fn reach(name: &OsStr) -> io::Result<OwnedFd> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name)?,
        None => UnixAddr::new(name)?,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let own = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    connect(own.as_raw_fd(), &address)?;
    Ok(own)
}

/// The descriptors that the manager gave back, with their names. Called once, before this process
/// opens any of its own.
pub(super) fn take_kept() -> io::Result<Vec<(String, OwnedFd)>> {
    let variable = |name: &str| std::env::var(name).ok();
    let for_us = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    let count = variable("LISTEN_FDS").and_then(|count| count.parse().ok()).filter(|_| for_us);
    let Some(count) = count.filter(|count: &i32| *count > 0) else { return Ok(Vec::new()) };
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    Ok(names.zip(take_inherited(FIRST, count)?).collect())
}
