//! Small durable state: what a hook keeps from run to run, so that its `finish` can undo at the next
//! start what an agent killed in mid-run left behind.
//!
//! | when | where a change is once `set` has returned | survives |
//! |---|---|---|
//! | `prepare`, and whenever no run holds applications | `/var/lib/stillpoint/state/<hook>.kv`, synced | a power cut |
//! | from the first `pre-freeze` to the end of the release | `/run/stillpoint/kv/<hook>.kv`, on tmpfs: no disk is asked while it may be frozen | the agent's death; not a reboot |
//! | after the release | merged into the file on disk | a power cut |
//!
//! What is left on tmpfs by an agent that died is merged when the next run, or `stillpoint recover`,
//! starts. Files are written whole, to a new name, and carry a checksum; a file that is torn or not
//! ours is an error with its path, never an empty state. Keys are data, not file names. Disks are
//! asked by a thread of its own, so that one that hangs costs a hook its deadline and nobody else.

mod file;
mod host;
mod merge;
mod state;
mod states;
mod worker;

use crate::config::grants::KvGrant;
use crate::hook::description::Need;

use super::{Denial, PowersError};

pub(crate) use host::{KvFailure, KvHost, Refused};
pub(crate) use merge::merge;
pub use states::KvStates;

/// How much state a hook may keep, as far as hook and operator agree on it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KvPower {
    /// What the hook asked for, in bytes.
    asked: Option<u32>,
    /// What the operator granted, in bytes.
    granted: Option<u32>,
}

impl KvPower {
    pub(crate) fn granted(grant: Option<KvGrant>) -> Self {
        Self { asked: None, granted: grant.map(|grant| grant.bytes) }
    }

    /// Adds a need of the hook; one that is required and not granted is refused.
    pub(super) fn ask(&mut self, need: &Need, grant_file: &str) -> Result<(), PowersError> {
        let Need::Kv { bytes, reason, required } = need else { return Ok(()) };
        self.asked = Some(self.asked.unwrap_or_default().max(*bytes));
        if *required && self.granted.is_none() {
            return Err(PowersError::Missing(
                format!(
                    "durable state is not granted, and it cannot work without ({})",
                    super::clean(reason, super::LONGEST_STATEMENT)
                ),
                format!("add to {grant_file}: {}", section(*bytes)),
            ));
        }
        Ok(())
    }

    /// Bytes of keys and values together: the lesser of what both sides say.
    pub(super) fn quota(&self, grant_file: &str) -> Result<usize, Denial> {
        match (self.asked, self.granted) {
            (Some(asked), Some(granted)) => Ok(asked.min(granted) as usize),
            (None, Some(_)) => Err(super::not_declared("durable state")),
            (asked, None) => Err(Denial {
                message: "durable state is not granted".into(),
                hint: format!("add to {grant_file}: {}", section(asked.unwrap_or(4096))),
            }),
        }
    }
}

fn section(bytes: u32) -> String {
    format!("[kv] bytes = {bytes}")
}

#[cfg(test)]
mod tests;
