#![doc = include_str!("../README.md")]

pub mod guard;
pub mod info;
pub mod intent;
pub mod pause;
pub mod server;
pub mod settings;
pub mod statements;

use std::time::Duration;

use stillpoint_hook::sql::Engine;
use stillpoint_hook::{
    Consistency, Description, Frozen, HELD_BEFORE_FREEZE, Hook, HookError, MetadataEntry, Outcome,
    Plan, info, run,
};

use info::Info;
use intent::{Intent, WayBack};
use pause::Held;
use server::{CONNECTION, Control, Persistence, Server};
use settings::Settings;
use statements as s;

/// The hook. One session, to which nothing is tied: what is taken is kept as an intent.
#[derive(Debug, Default)]
pub struct Redis {
    prepared: Option<Prepared>,
    held: Option<Held>,
}

/// From `prepare` on.
#[derive(Debug)]
struct Prepared {
    settings: Settings,
    server: Server,
    control: Control,
    intent: Intent,
    way_back: Option<WayBack>,
}

impl Hook for Redis {
    fn describe() -> Description {
        Description::new(
            "redis",
            env!("CARGO_PKG_VERSION"),
            "Quiesces Redis and Valkey by a pause of writes, and saves where they stand",
        )
        .settings_schema(settings::SCHEMA)
        .freeze_budget_ms(20_000)
        .needs_sql(
            CONNECTION,
            &[Engine::Other],
            s::ALL,
            "to find out what the server is, what it keeps on disk and whether something is in the way \
             (INFO, CONFIG GET, EVALSHA of a script that nobody has), to keep the AOF from being \
             rewritten during the run (CONFIG SET, put back afterwards), to pause writes and let them go \
             on (CLIENT PAUSE, UNPAUSE), to write the RDB file of a server that has nothing else \
             (BGSAVE), to wait until the AOF is synced (WAITAOF, from 7.2)",
        )
        .needs_kv(
            512,
            "to put back auto-aof-rewrite-percentage, and to end the pause, also after the agent died",
        )
    }

    fn validate(settings: &str) -> Result<(), HookError> {
        Settings::parse(settings).map(drop)
    }

    /// Who is it, may we, is something in the way, which files. Nothing is paused; automatic rewrites of
    /// the AOF are switched off, unless this is a dry run.
    fn prepare(&mut self, settings: &str) -> Result<Plan, HookError> {
        let settings = Settings::parse(settings)?;
        let dry_run = run::info().dry_run;
        if !dry_run {
            Intent::undo_kept()?;
        }
        let mut control = Control::open()?;
        let server = Server::ask(&mut control)?;
        let info = control.info()?;
        server.check(&info, &settings)?;
        let plan = server.plan(&info)?;
        let mut intent = Intent { run_id: info.run_id().to_owned(), ..Intent::default() };
        if server.persistence != Persistence::Nothing {
            guard::wait_for_a_clear_way(&mut control, settings.wait_for_saves, Duration::ZERO)?;
            if !dry_run {
                try_permissions(&mut control, &server, &settings, &mut intent)?;
                // One that began before it was switched off.
                guard::wait_for_a_clear_way(&mut control, settings.wait_for_saves, Duration::ZERO)?;
                pause::sync_before(&mut control, &server);
            }
        }
        let way_back = if dry_run { None } else { Some(WayBack::open()?) };
        self.prepared = Some(Prepared { settings, server, control, intent, way_back });
        Ok(plan)
    }

    /// The pause, and under it only what has to be under it.
    fn pre_freeze(&mut self) -> Result<Frozen, HookError> {
        let Some(Prepared { settings, server, control, intent, way_back }) = &mut self.prepared
        else {
            return Err(HookError::Internal("prepare was not called".into()));
        };
        if server.persistence == Persistence::Nothing {
            let metadata = server.metadata(&control.info()?);
            return Ok(Frozen { consistency: Consistency::Crash, metadata });
        }
        let held = pause::acquire(control, server, settings, intent, way_back.as_ref())?;
        info!("writes are paused, {} keys", held.info.keys());
        let metadata = held.metadata(server);
        self.held = Some(held);
        Ok(Frozen::application(metadata))
    }

    /// It is the same server, its pause has not run out, and nothing was written.
    fn confirm(&mut self) -> Result<(), HookError> {
        let Some(prepared) = &mut self.prepared else {
            return Err(HookError::Internal("nothing is prepared".into()));
        };
        let Some(held) = &mut self.held else {
            // Nothing was claimed.
            return Ok(());
        };
        let now = prepared.control.info()?;
        held.still_in_force(&now)?;
        held.confirmed = prepared.intent.is_ours(&now)?;
        Ok(())
    }

    fn post_thaw(&mut self, _outcome: Outcome) -> Result<Vec<MetadataEntry>, HookError> {
        let confirmed = self.held.take().is_some_and(|held| held.confirmed);
        let Some(Prepared { control, intent, way_back, .. }) = &mut self.prepared else {
            return Ok(Vec::new());
        };
        let before = run::remaining();
        if confirmed && let Err(error) = intent.unpause_at_once(control) {
            info!("the pause is ended a second time, because of: {}", error.message());
        }
        if control.is_silent() {
            // Before it is asked: a server that stands still may cost the rest of the phase, and this
            // instance.
            way_back.iter().for_each(|way_back| way_back.send(intent));
        }
        if let Err(error) = intent.undo(control) {
            way_back.iter().for_each(|way_back| way_back.send(intent));
            return Err(error);
        }
        let took = before.saturating_sub(run::remaining());
        Ok(vec![milliseconds("release-ms", took)])
    }

    /// Undoes what was kept: by this instance, if `post_thaw` did not come, or by one that is gone.
    fn finish(&mut self) -> Result<(), HookError> {
        self.held = None;
        self.prepared = None;
        if run::info().dry_run { Ok(()) } else { Intent::undo_kept() }
    }
}

/// Runs what needs a permission and changes nothing, so that a missing one is found before anything is
/// paused; and switches automatic rewrites off.
fn try_permissions(
    control: &mut Control,
    server: &Server,
    settings: &Settings,
    intent: &mut Intent,
) -> Result<(), HookError> {
    // Nobody paused the server, as was just seen: a pause of no length, and its end, change nothing.
    control.run(s::PAUSE, &[0_u64.into()], run::remaining())?;
    control.run(s::UNPAUSE, &[], run::remaining())?;
    match server.persistence {
        Persistence::Aof if settings.stop_aof_rewrites => intent::stop_rewrites(control, intent),
        Persistence::Rdb => may_save(control),
        Persistence::Aof | Persistence::Nothing => Ok(()),
    }
}

/// A wrong argument is an error of the command's, and so says that the command is permitted.
fn may_save(control: &mut Control) -> Result<(), HookError> {
    match control.run(s::TRY_SAVE, &[], run::remaining()) {
        Ok(_) => Ok(()),
        Err(HookError::Application(error)) if error.code == "ERR" => Ok(()),
        Err(error) => Err(error),
    }
}

impl Held {
    fn metadata(&self, server: &Server) -> Vec<MetadataEntry> {
        let held = self.since.saturating_sub(run::remaining());
        let mut metadata = server.metadata(&self.info);
        metadata.extend(self.saved_in.map(|took| milliseconds("save-ms", took)));
        let held = i64::try_from(held.as_nanos()).unwrap_or(i64::MAX);
        metadata.push(MetadataEntry::new(HELD_BEFORE_FREEZE, held));
        metadata
    }

    fn still_in_force(&self, now: &Info) -> Result<(), HookError> {
        let lost = |code: &str, message: String, retryable| {
            Err(HookError::application(code, message, retryable))
        };
        if let Err(moved) = self.marks.compare(now) {
            let message =
                format!("the server did not stand still while it was to be paused: {moved}");
            return lost("moved", message, true);
        }
        if now.clock_ms()? >= self.until {
            let message =
                "the pause ran out before the snapshot was done: raise `hold-budget-seconds`";
            return lost("pause-lost", message.into(), true);
        }
        if now.paused_ms() == Some(0) {
            let message = "somebody ended the pause before the snapshot was done";
            return lost("pause-lost", message.into(), true);
        }
        Ok(())
    }
}

fn milliseconds(key: &str, duration: Duration) -> MetadataEntry {
    let milliseconds = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    MetadataEntry::new(key, milliseconds)
}

stillpoint_hook::export!(Redis);
