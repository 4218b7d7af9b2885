//! Pausing writes, and what has to be done and read while they are paused: everybody who writes waits
//! meanwhile.
//!
//! Why the files then have every acknowledged write: Redis appends a write to a buffer of its own, and puts
//! that into the AOF by `write(2)` before it answers the client; only while a sync of the second before runs
//! (`appendfsync everysec`) may it answer first, for at most two seconds. So when writes are paused and that
//! buffer is empty, all that was acknowledged is in the file, as far as the kernel is concerned, and the
//! freeze of the file system puts that on the disk, whatever `appendfsync` says.

use std::time::Duration;

use stillpoint_hook::{HookError, debug, info, run};

use crate::guard;
use crate::info::{Info, Marks};
use crate::intent::{Intent, WayBack};
use crate::server::{Control, Persistence, Server, time_left, writable};
use crate::settings::Settings;
use crate::statements as s;

/// Time that is kept for giving back: nothing is begun when less than this is left of the phase.
pub const RESERVE: Duration = Duration::from_secs(2);
/// After the hold budget, the server itself ends the pause.
const DEAD_MAN: Duration = Duration::from_secs(5);
/// How long the AOF's buffer may take to get empty: a sync may hold it back for two seconds.
const DRAIN: Duration = Duration::from_secs(4);
/// How long to wait, at the last look, for what began since `prepare`: other hooks may hold their
/// applications meanwhile.
const LAST_LOOK: Duration = Duration::from_secs(2);
/// How long a sync may take, which the server does every second.
const SYNC: Duration = Duration::from_millis(1500);
/// How often the server is asked under the pause.
const POLL: Duration = Duration::from_millis(2);
/// The same, while an RDB file is written: the server notices its end ten times a second.
const SAVE_POLL: Duration = Duration::from_millis(10);
/// How often a save or rewrite may begin between the last look and the pause.
const ATTEMPTS: u32 = 3;

/// Writes are paused, and the files have all of them.
#[derive(Debug)]
pub struct Held {
    /// What the server said then.
    pub info: Info,
    /// What must not move.
    pub marks: Marks,
    /// When the pause ends by itself, by the server's clock, in milliseconds since 1970.
    pub until: u64,
    /// What was left of the phase when writes were paused.
    pub since: Duration,
    /// How long the RDB file took.
    pub saved_in: Option<Duration>,
    /// `confirm` has just seen that the pause is in force, and ours.
    pub confirmed: bool,
}

/// Why a pause will not do.
enum Objection {
    /// A save or a rewrite began just before: it is waited for, with writes going on.
    Began(&'static str),
    Failed(HookError),
}

impl From<HookError> for Objection {
    fn from(error: HookError) -> Self {
        Objection::Failed(error)
    }
}

/// Pauses writes, and sees to it that the files have what was acknowledged.
///
/// # Errors
/// Whatever happened. Then nothing is paused any more, or the error says that this could not be done.
pub fn acquire(
    control: &mut Control,
    server: &Server,
    settings: &Settings,
    intent: &mut Intent,
    way_back: Option<&WayBack>,
) -> Result<Held, HookError> {
    let patience = settings.wait_for_saves.min(LAST_LOOK);
    let mut left = ATTEMPTS;
    loop {
        let seen = guard::wait_for_a_clear_way(control, patience, RESERVE)?;
        left -= 1;
        let objection = match paused(control, &seen, server, settings, intent) {
            Ok(held) => return Ok(held),
            Err(objection) => objection,
        };
        if control.is_silent() {
            way_back.iter().for_each(|way_back| way_back.send(intent));
        }
        let given_back = match intent.unpause(control) {
            // A server that does not say whose pause is in force is still told to let writers go on: just
            // before, nobody else had paused it.
            Err(unproven) if !control.is_silent() => {
                intent.unpause_unasked(control, way_back).map_err(|_| unproven)
            }
            given_back => given_back,
        };
        let error = match objection {
            Objection::Began(what) if left > 0 && given_back.is_ok() => {
                debug!("writes go on, because {what}");
                continue;
            }
            Objection::Began(what) => HookError::Busy(what.into()),
            Objection::Failed(error) => error,
        };
        return Err(match given_back {
            Ok(()) => error,
            Err(unproven) => error.also(&still_paused(&unproven, settings)),
        });
    }
}

fn still_paused(unproven: &HookError, settings: &Settings) -> String {
    format!(
        "the pause could not be ended ({}): the server ends it by itself after {} s, CLIENT UNPAUSE at \
         once",
        unproven.message(),
        length(settings).as_secs()
    )
}

fn length(settings: &Settings) -> Duration {
    settings.hold_budget + DEAD_MAN
}

/// Waits, before the pause, for what was written so far: it leaves less for the freeze to write. Not
/// being synced is no failure.
pub fn sync_before(control: &mut Control, server: &Server) {
    if server.can_wait_for_sync
        && let Err(error) = wait_for_sync(control)
    {
        debug!("the AOF is not synced before the pause: {}", error.message());
    }
}

/// Asks for the sync of all that was written before the command that this session sent last.
fn wait_for_sync(control: &mut Control) -> Result<(), HookError> {
    let limit = SYNC.min(time_left(RESERVE)?);
    let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let patience = limit + Duration::from_millis(250);
    let rows = control.run(s::WAIT_FOR_SYNC, &[milliseconds.into()], patience)?;
    match rows.first()?.at::<i64>(0)? {
        0 => Err(HookError::Timeout(format!(
            "the AOF was not synced within {milliseconds} ms: is the disk slow?"
        ))),
        _ => Ok(()),
    }
}

/// One attempt. On an error the caller ends the pause.
fn paused(
    control: &mut Control,
    seen: &Info,
    server: &Server,
    settings: &Settings,
    intent: &mut Intent,
) -> Result<Held, Objection> {
    let length = length(settings);
    let milliseconds = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    // Earlier than it will be: the clock goes on until the server gets the command.
    let until = seen.clock_ms()?.saturating_add(milliseconds);
    intent.run_id = seen.run_id().to_owned();
    intent.paused_until = Some(until);
    intent.keep()?;

    let limit = time_left(RESERVE)?;
    control.run(s::PAUSE, &[milliseconds.into()], limit)?;
    let since = run::remaining();

    let mut info = drained(control)?;
    if info.run_id() != intent.run_id {
        let error = HookError::application("restarted", "the server was restarted just now", true);
        return Err(error.into());
    }
    if let Some(what) = guard::busy_with(&info) {
        return Err(Objection::Began(what));
    }
    let mut saved_in = None;
    if server.persistence == Persistence::Rdb {
        let before = run::remaining();
        info = saved(control, info, settings)?;
        saved_in = Some(before.saturating_sub(run::remaining()));
    }
    if server.can_wait_for_sync && settings.sync_under_pause {
        wait_for_sync(control)?;
    }
    let marks = Marks::of(&info)?;
    Ok(Held { info, marks, until, since, saved_in, confirmed: false })
}

/// Waits until the AOF's buffer is empty.
fn drained(control: &mut Control) -> Result<Info, HookError> {
    let begun = run::remaining();
    loop {
        let info = control.info_within(time_left(RESERVE)?)?;
        if !info.aof() {
            return Ok(info);
        }
        writable(&info)?;
        if info.required("aof_buffer_length")? == 0 {
            return Ok(info);
        }
        if begun.saturating_sub(run::remaining()) >= DRAIN {
            return Err(HookError::Busy(format!(
                "the server has not put acknowledged writes into its AOF within {} s: is the disk slow?",
                DRAIN.as_secs()
            )));
        }
        run::sleep(POLL);
    }
}

/// Writes the RDB file, which is all that such a server keeps, with nothing written meanwhile. A file
/// that has all changes is not written again.
fn saved(control: &mut Control, info: Info, settings: &Settings) -> Result<Info, HookError> {
    if info.required("rdb_changes_since_last_save")? == 0 {
        return Ok(info);
    }
    control.run(s::SAVE, &[], time_left(RESERVE)?)?;
    let begun = run::remaining();
    loop {
        let info = control.info_within(time_left(RESERVE)?)?;
        if !info.saving() {
            return complete(info);
        }
        if begun.saturating_sub(run::remaining()) >= settings.save_budget {
            return Err(HookError::Busy(format!(
                "the RDB file was not written within {} s, and writes go on: switch the AOF on, or raise \
                 `save-budget-seconds`",
                settings.save_budget.as_secs()
            )));
        }
        run::sleep(SAVE_POLL);
    }
}

fn complete(info: Info) -> Result<Info, HookError> {
    let changes = info.required("rdb_changes_since_last_save")?;
    if info.text("rdb_last_bgsave_status") == "ok" && changes == 0 {
        info!("the RDB file is written");
        return Ok(info);
    }
    Err(HookError::application(
        "save",
        "the server could not write its RDB file: see its log (is the disk full?)",
        true,
    ))
}
