//! Before the pause is asked for: is something in its way? Rewrites, saves and loads end by themselves, and
//! so does somebody else's pause.

use std::time::Duration;

use stillpoint_hook::sql::{Connection, Error};
use stillpoint_hook::{HookError, debug, info, run};

use crate::info::Info;
use crate::server::{CONNECTION, Control, time_left};
use crate::statements as s;

/// How often the way is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How long the probe may take; an answer takes less than a millisecond.
const PROBE: Duration = Duration::from_millis(250);

/// Waits until nothing is in the way, at most for `patience`, and keeps `reserve` of the phase. Gives
/// what the server said last.
///
/// # Errors
/// [`HookError::Busy`] naming it, or what the commands fail with.
pub fn wait_for_a_clear_way(
    control: &mut Control,
    patience: Duration,
    reserve: Duration,
) -> Result<Info, HookError> {
    let begun = run::remaining();
    let mut told = "";
    loop {
        let info = control.info_within(time_left(reserve)?)?;
        let Some(found) = in_the_way(&info)? else { return Ok(info) };
        let waited = begun.saturating_sub(run::remaining());
        if waited >= patience || run::remaining_but(reserve) <= POLL || run::cancelled() {
            return Err(HookError::Busy(format!(
                "{found} (waited {} s): try again later, or raise `wait-for-saves-seconds`",
                waited.as_secs()
            )));
        }
        if told != found {
            info!("waiting: {found}");
            told = found;
        }
        run::sleep(POLL);
    }
}

fn in_the_way(info: &Info) -> Result<Option<&'static str>, HookError> {
    let found = busy_with(info);
    if found.is_some() {
        return Ok(found);
    }
    Ok(is_paused(info)?.then_some(
        "somebody else paused the server's clients, and this hook would end that pause with its own",
    ))
}

/// What the server is busy with that changes its files, if anything.
#[must_use]
pub fn busy_with(info: &Info) -> Option<&'static str> {
    [
        (info.loading(), "the server loads its data"),
        (info.syncing(), "the replica gets a whole copy of its master's data"),
        (info.rewriting(), "the AOF is being rewritten"),
        (info.saving(), "an RDB file is being written"),
    ]
    .into_iter()
    .find_map(|(busy, what)| busy.then_some(what))
}

/// Whether writes are paused. Servers before 8.0 are tried: see [`s::PROBE`].
fn is_paused(info: &Info) -> Result<bool, HookError> {
    if let Some(left) = info.paused_ms() {
        return Ok(left > 0);
    }
    // In a session of its own: one that waits too long is closed.
    let probe = Connection::open(CONNECTION)?;
    match probe.query(s::PROBE, &[], Some(PROBE)) {
        Err(Error::Timeout) => Ok(true),
        Err(Error::Database(error)) if error.message.starts_with("NOPERM") => {
            debug!("whether somebody paused the server is not looked for: {}", error.message);
            Ok(false)
        }
        // `NOSCRIPT`, as a rule. Whatever it is, it was not held back.
        Ok(_) | Err(Error::Database(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
