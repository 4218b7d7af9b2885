//! What outlives a session, and so the agent: the configuration that was changed, and the pause. Both are
//! kept before they are done, and undone by whoever comes next.

use std::time::Duration;

use serde_json::{Value, json};
use stillpoint_hook::sql::Connection;
use stillpoint_hook::{HookError, info, kv, run, warn};

use crate::info::Info;
use crate::server::{CONNECTION, Control};
use crate::statements as s;

/// Where it is kept.
const KEY: &str = "intent";

/// How long a command that gives back may take.
const GIVE_BACK: Duration = Duration::from_millis(500);

/// A pause that ends so much after ours is another one.
const NOT_OURS: u64 = 1000;

/// What this hook is doing to a server, on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// Which start of the server: another one knows nothing of what was done to the one before.
    pub run_id: String,
    /// What `auto-aof-rewrite-percentage` was before it was set to 0.
    pub rewrite_at: Option<u64>,
    /// When the pause ends by itself, by the server's clock, in milliseconds since 1970.
    pub paused_until: Option<u64>,
}

impl Intent {
    /// What was kept by this instance, or by one before it.
    ///
    /// # Errors
    /// What the state cannot be read with; text that is none of ours is thrown away, and told once.
    pub fn kept() -> Result<Option<Self>, HookError> {
        let Some(bytes) = kv::get(KEY)? else { return Ok(None) };
        let parsed = serde_json::from_slice::<Value>(&bytes).ok();
        let Some(value) = parsed.filter(|value| value["run-id"].is_string()) else {
            kv::delete(KEY)?;
            return Err(HookError::Internal(
                "what an earlier run kept cannot be read: check auto-aof-rewrite-percentage".into(),
            ));
        };
        Ok(Some(Intent {
            run_id: value["run-id"].as_str().unwrap_or_default().to_owned(),
            rewrite_at: value["rewrite-at"].as_u64(),
            paused_until: value["paused-until"].as_u64(),
        }))
    }

    /// Keeps it, in place of what was kept; nothing to undo is kept as nothing.
    ///
    /// # Errors
    /// What the state cannot be written with.
    pub fn keep(&self) -> Result<(), HookError> {
        if self.rewrite_at.is_none() && self.paused_until.is_none() {
            return Ok(kv::delete(KEY)?);
        }
        let value = json!({
            "run-id": self.run_id,
            "rewrite-at": self.rewrite_at,
            "paused-until": self.paused_until,
        });
        Ok(kv::set(KEY, value.to_string().as_bytes())?)
    }

    /// Undoes what an earlier instance did, if it kept anything. Without it, no session is opened.
    ///
    /// # Errors
    /// What could not be undone; it is kept, for the next time.
    pub fn undo_kept() -> Result<(), HookError> {
        let Some(mut intent) = Intent::kept()? else { return Ok(()) };
        let mut control = Control::open()?;
        intent.undo(&mut control)
    }

    /// Undoes both, the pause first. Idempotent; what is undone is not kept any more.
    ///
    /// # Errors
    /// What could not be undone; it is kept, for the next time.
    pub fn undo(&mut self, control: &mut Control) -> Result<(), HookError> {
        self.unpause(control).map_err(still_paused)?;
        self.restore(control)
    }

    /// Ends our pause, if it has not ended by itself. One that lasts longer than ours is another's, and is
    /// left; servers before 8.0 do not tell.
    ///
    /// # Errors
    /// Whatever the commands fail with.
    pub fn unpause(&mut self, control: &mut Control) -> Result<(), HookError> {
        let Some(until) = self.paused_until else { return Ok(()) };
        let info = control.info_within(GIVE_BACK)?;
        if self.is_in_force(&info, until)? {
            control.run(s::UNPAUSE, &[], GIVE_BACK)?;
        }
        self.paused_until = None;
        self.keep()
    }

    /// Ends our pause, which was just seen to be in force and nobody else's: at once, because everybody who
    /// writes waits for it. A server that stands still gets the command when it goes on.
    ///
    /// # Errors
    /// Whatever the command fails with; [`Self::undo`] then asks first.
    pub fn unpause_at_once(&mut self, control: &mut Control) -> Result<(), HookError> {
        if self.paused_until.is_some() {
            control.run(s::UNPAUSE, &[], GIVE_BACK)?;
            self.paused_until = None;
            self.keep()?;
        }
        Ok(())
    }

    /// Ends our pause of a moment ago, where the server does not say what is in force: first by a session
    /// that reaches the process that was paused and no other.
    ///
    /// # Errors
    /// Whatever the command fails with.
    pub fn unpause_unasked(
        &mut self,
        control: &mut Control,
        way_back: Option<&WayBack>,
    ) -> Result<(), HookError> {
        let sent = way_back.is_some_and(WayBack::unpause);
        if sent {
            self.paused_until = None;
            return self.keep();
        }
        self.unpause_at_once(control)
    }

    /// Whether our pause is in force, and the only one as far as the server tells.
    ///
    /// # Errors
    /// If the server does not tell its clock.
    pub fn is_ours(&self, info: &Info) -> Result<bool, HookError> {
        self.paused_until.map_or(Ok(false), |until| self.is_in_force(info, until))
    }

    fn is_in_force(&self, info: &Info, until: u64) -> Result<bool, HookError> {
        let now = info.clock_ms()?;
        if info.run_id() != self.run_id || now >= until {
            return Ok(false);
        }
        let others = info.paused_ms().is_some_and(|left| left > until - now + NOT_OURS);
        if others {
            warn!("somebody paused the server for longer than this hook did: that pause is left");
        }
        Ok(!others)
    }

    /// Puts the configuration back to what it was, unless somebody changed it meanwhile.
    ///
    /// # Errors
    /// Whatever the commands fail with.
    pub fn restore(&mut self, control: &mut Control) -> Result<(), HookError> {
        let Some(was) = self.rewrite_at else { return Ok(()) };
        let same_start = control.info_within(GIVE_BACK)?.run_id() == self.run_id;
        match (same_start, control.rewrite_at()?) {
            (true, 0) => {
                control.set_rewrite_at(was, GIVE_BACK)?;
                info!("auto-aof-rewrite-percentage is {was} again");
            }
            (true, now) if now == was => {}
            (true, now) => warn!(
                "somebody set auto-aof-rewrite-percentage to {now} during the run: it is left so (it was \
                 {was})"
            ),
            (false, 0) => warn!(
                "the server was restarted during the run, and auto-aof-rewrite-percentage is 0, where it \
                 was {was}: did somebody run CONFIG REWRITE?"
            ),
            (false, _) => {}
        }
        self.rewrite_at = None;
        self.keep()
    }
}

/// Sessions that are kept for the way back from a server that stands still: what is sent there waits in the
/// socket, and is run when the server goes on. They reach the process that was paused and no other.
#[derive(Debug)]
pub struct WayBack {
    unpause: Connection,
    restore: Connection,
}

/// How long a server that does not answer is waited for.
const NO_ANSWER: Duration = Duration::from_millis(50);

impl WayBack {
    /// Opens them.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn open() -> Result<Self, HookError> {
        let open = || Connection::open(CONNECTION);
        Ok(WayBack { unpause: open()?, restore: open()? })
    }

    /// Ends the pause; true if the server says that it is done.
    fn unpause(&self) -> bool {
        self.unpause.execute(s::UNPAUSE, &[], Some(GIVE_BACK)).is_ok()
    }

    /// Sends what undoes an intent, without having asked, and does not believe that it was run: the intent is
    /// still kept.
    pub fn send(&self, intent: &Intent) {
        if intent.paused_until.is_some() {
            let _ = self.unpause.execute(s::UNPAUSE, &[], Some(NO_ANSWER));
        }
        if let Some(was) = intent.rewrite_at {
            let _ = self.restore.execute(s::SET_REWRITE_AT, &[was.into()], Some(NO_ANSWER));
        }
    }
}

/// What the operator must know when the pause could not be ended.
fn still_paused(error: HookError) -> HookError {
    error.also(
        "writes to the server may be paused until the pause ends by itself (hold-budget-seconds and 5 s); \
         CLIENT UNPAUSE ends it at once",
    )
}

/// Switches automatic AOF rewrites off for this run: the server begins one in its main thread, by making
/// files, and would stand still on a frozen file system, for readers too.
///
/// # Errors
/// What the commands, or keeping the intent, fail with. Then nothing was changed, or it is kept what.
pub fn stop_rewrites(control: &mut Control, intent: &mut Intent) -> Result<(), HookError> {
    let was = control.rewrite_at()?;
    if was == 0 {
        return Ok(());
    }
    intent.rewrite_at = Some(was);
    intent.keep()?;
    control.set_rewrite_at(0, run::remaining())
}
