//! The process that a sentinel starts when an agent has died: recovers at once, so that nobody has to
//! wait for the next start.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use crate::guard::aftercare::RecoveryOrder;
use crate::guard::cgroup::{self, OwnCgroup};
use crate::guard::harden::be_ordinary;
use crate::guard::protocol::RECOVERY_NAME;
use crate::journal::{RecoveryRecord, RunLock, recovery_of};
use crate::paths::Paths;

use super::{Aftermath, undo};

/// How long a lock of a process that is gone may still be held by a child of it that has not executed
/// its program yet.
const LOCK_LIMIT: Duration = Duration::from_secs(1);

/// Longest order: two paths and the names of two scripts.
const LONGEST_ORDER: usize = 64 << 10;

/// Reads its order from `socket`, does what a start of a run does first, and writes down what that was.
pub(crate) fn run_as_a_process(socket: OwnedFd) -> io::Result<()> {
    be_ordinary();
    // Best effort: whoever kills the sentinel's cgroup leaves this to the next start.
    let _own: io::Result<OwnCgroup> = cgroup::enter_own(RECOVERY_NAME);
    let order = receive(&socket)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(recover_for(&order));
    // A thread that hangs in the kernel must not keep this process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

fn receive(socket: &OwnedFd) -> io::Result<RecoveryOrder> {
    let mut buffer = vec![0; LONGEST_ORDER];
    let length = loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            result => break result?,
        }
    };
    Ok(serde_json::from_slice(&buffer[..length])?)
}

async fn recover_for(order: &RecoveryOrder) -> io::Result<()> {
    // Whoever else has the lock by now recovers, too: every holder does so first.
    let name = recovery_of(&order.run_id);
    let lock = RunLock::acquire_within(&order.run_dir, &name, LOCK_LIMIT).await;
    let mut lock = lock.map_err(io::Error::other)?;
    let paths = Paths::under(&order.aftercare.root);
    let aftermath = Aftermath {
        paths: &paths,
        scripts: &order.aftercare.scripts,
        finish: order.aftercare.finish,
        asked: false,
    };
    let recovered = undo(&mut lock, &aftermath).await.map_err(io::Error::other)?;
    RecoveryRecord::add(&order.run_dir, &order.run_id, recovered.done).map_err(io::Error::other)
}
