#![doc = include_str!("../README.md")]

pub mod dialect;
pub mod guard;
pub mod lock;
pub mod position;
pub mod server;
pub mod settings;
pub mod statements;

use std::time::Duration;

use stillpoint_hook::sql::{Connection, Engine};
use stillpoint_hook::{
    Description, Frozen, HELD_BEFORE_FREEZE, Hook, HookError, MetadataEntry, Outcome, Plan, info,
    run,
};

use lock::{Holder, Locked, RESERVE};
use position::Position;
use server::{CONNECTION, Server};
use settings::Settings;
use statements as s;

/// The hook. Two sessions: one holds the lock and does nothing else, the other watches.
#[derive(Debug, Default)]
pub struct Mysql {
    prepared: Option<Prepared>,
    quiesced: Option<Quiesced>,
}

/// From `prepare` on.
#[derive(Debug)]
struct Prepared {
    settings: Settings,
    server: Server,
    control: Connection,
}

/// From `pre_freeze` to `post_thaw`.
#[derive(Debug)]
struct Quiesced {
    holder: Holder,
    position: Position,
}

impl Hook for Mysql {
    fn describe() -> Description {
        Description::new(
            "mysql",
            env!("CARGO_PKG_VERSION"),
            "Quiesces MariaDB and MySQL with a global read lock, and saves where it stands",
        )
        .settings_schema(settings::SCHEMA)
        .freeze_budget_ms(20_000)
        .needs_sql(
            CONNECTION,
            &[Engine::Mariadb, Engine::Mysql],
            s::ALL,
            "to find out what the server is and whether something is in the way (SELECT, SHOW, XA \
             RECOVER), to stop writes while the snapshot is taken (LOCK, FLUSH), to prove that they \
             were stopped, and to let them go on (UNLOCK). A server gets only those of its own \
             flavour and version. SET GLOBAL innodb_log_checkpoint_now is for the setting `deep`",
        )
    }

    fn validate(settings: &str) -> Result<(), HookError> {
        Settings::parse(settings).map(drop)
    }

    /// Who is it, may we, is something in the way, which files. Nothing is locked.
    fn prepare(&mut self, settings: &str) -> Result<Plan, HookError> {
        let settings = Settings::parse(settings)?;
        let control = Connection::open(CONNECTION)?;
        let mut server = Server::ask(&control)?;
        server.check(&settings)?;
        server.ask_replica(&control)?;
        try_privileges(&control, &mut server, &settings)?;
        server.refuse_prepared(&control)?;
        guard::wait_for_a_clear_way(&control, &server, &settings)?;
        let looked = run::remaining();
        let plan = server.plan(&control, &settings)?;
        server.warn();
        guard::let_the_cache_age(looked);
        self.prepared = Some(Prepared { settings, server, control });
        Ok(plan)
    }

    /// The lock, and under it only what has to be under it.
    fn pre_freeze(&mut self) -> Result<Frozen, HookError> {
        let Some(prepared) = &mut self.prepared else {
            return Err(HookError::Internal("prepare was not called".into()));
        };
        prepared.reopen_control()?;
        let Prepared { settings, server, control } = prepared;
        guard::last_look(control, server, settings)?;

        let locked = lock::acquire(control, server, settings)?;
        match under_the_lock(&locked, control, server, settings) {
            Ok((position, metadata)) => {
                let holder = locked.holder;
                self.quiesced = Some(Quiesced { holder, position });
                Ok(Frozen::application(metadata))
            }
            Err(error) => Err(match lock::give_back(locked.holder, control, server) {
                Ok(()) => error,
                Err(unproven) => error.also(&unproven),
            }),
        }
    }

    /// The session that took the lock is the one that answers, it has released nothing, and nothing was
    /// committed.
    fn confirm(&mut self) -> Result<(), HookError> {
        let (Some(prepared), Some(quiesced)) = (&self.prepared, &self.quiesced) else {
            return Err(HookError::Internal("nothing is quiesced".into()));
        };
        still_the_same_session(&quiesced.holder)?;
        let now = Position::ask(&quiesced.holder.session, &prepared.server)?;
        if now == quiesced.position {
            return Ok(());
        }
        Err(HookError::application(
            "moved",
            format!(
                "something was written to the binary log while the server was locked: it was at {}, \
                 and is at {}",
                quiesced.position.describe(),
                now.describe()
            ),
            false,
        ))
    }

    fn post_thaw(&mut self, _outcome: Outcome) -> Result<Vec<MetadataEntry>, HookError> {
        let before = run::remaining();
        self.release()?;
        let took = before.saturating_sub(run::remaining());
        Ok(vec![milliseconds("release-ms", took)])
    }

    /// Nothing outlives the sessions, so that a fresh instance has nothing to do.
    fn finish(&mut self) -> Result<(), HookError> {
        let released = self.release();
        self.prepared = None;
        released
    }
}

impl Mysql {
    /// Gives the lock back, if it is held; a second time there is nothing to do.
    fn release(&mut self) -> Result<(), HookError> {
        let (Some(prepared), Some(quiesced)) = (&self.prepared, self.quiesced.take()) else {
            return Ok(());
        };
        lock::release(quiesced.holder, &prepared.control, &prepared.server)
            .map_err(|unproven| HookError::application("release", unproven, false))
    }
}

impl Prepared {
    /// The control session has been idle since `prepare`: a server with a short `wait_timeout` may
    /// have ended it.
    fn reopen_control(&mut self) -> Result<(), HookError> {
        let asked = self.control.query(s::VERSION, &[], None);
        match asked {
            Ok(_) => Ok(()),
            Err(error) if error.session_is_gone() => {
                self.control = Connection::open(CONNECTION)?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Runs what needs a privilege and changes nothing, so that a missing one is found before anything is
/// locked.
fn try_privileges(
    control: &Connection,
    server: &mut Server,
    settings: &Settings,
) -> Result<(), HookError> {
    server.try_flush_logs(control)?;
    Position::ask(control, server)?;
    position::lsn(control, server)?;
    if let Some((_, try_it)) = server.dialect.checkpoint().filter(|_| settings.deep) {
        let tried = control.execute(try_it, &[], None);
        tried.map_err(|error| server.explain(error, true))?;
    }
    Ok(())
}

/// What has to be done, and read, while nothing moves. Every client waits meanwhile.
fn under_the_lock(
    locked: &Locked,
    control: &Connection,
    server: &Server,
    settings: &Settings,
) -> Result<(Position, Vec<MetadataEntry>), HookError> {
    let session = &locked.holder.session;
    let limit = || Some(run::remaining_but(RESERVE));
    if server.may_flush_logs {
        server.privileged(session.execute(s::FLUSH_LOGS, &[], limit()))?;
    }
    if let Some((checkpoint, _)) = server.dialect.checkpoint().filter(|_| settings.deep) {
        // On the other session: if it does not end, UNLOCK TABLES does not have to wait for it.
        let done = control.execute(checkpoint, &[], limit());
        done.map_err(|error| server.explain(error, true).context("deep"))?;
    }
    let position = Position::ask(session, server)?;
    let lsn = position::lsn(session, server)?;
    let replica = if server.replica { position::replica(session, server)? } else { Vec::new() };
    info!("locked at {}", position.describe());

    let mut metadata = server.metadata();
    metadata.extend(position.metadata());
    metadata.extend(lsn);
    metadata.extend(replica);
    let count = |number| i64::try_from(number).unwrap_or(i64::MAX);
    let held = locked.granted_at.saturating_sub(run::remaining());
    metadata.extend([
        MetadataEntry::new("deep", settings.deep),
        MetadataEntry::new("retries", i64::from(locked.retries)),
        MetadataEntry::new("open-transactions", count(locked.open_transactions)),
        milliseconds("lock-wait-ms", locked.waited),
        MetadataEntry::new(HELD_BEFORE_FREEZE, i64::try_from(held.as_nanos()).unwrap_or(i64::MAX)),
    ]);
    Ok((position, metadata))
}

/// Only the session that took a read lock can give it back, by UNLOCK TABLES or by its end. So: the same
/// session (the server's number of it, and the mark that was set on it, which a reset takes away), and no
/// UNLOCK TABLES by it.
fn still_the_same_session(holder: &Holder) -> Result<(), HookError> {
    let gone = |why: &str| {
        HookError::application(
            "lock-lost",
            format!(
                "the session that held the lock is gone ({why}): the snapshot took longer than \
                 `hold-budget-seconds`, or somebody killed it"
            ),
            true,
        )
    };
    let answer = match holder.session.query(s::SAME_SESSION, &[], None) {
        Err(error) if error.session_is_gone() => {
            return Err(gone(HookError::from(error).message()));
        }
        answer => answer?,
    };
    let row = answer.first()?;
    let (id, mark): (u64, Option<u64>) = (row.get("id")?, row.get("mark")?);
    if id.to_string() != holder.id || mark != Some(id) {
        return Err(gone("another one answers"));
    }
    let unlocks = holder.session.query(s::UNLOCKS, &[], None)?;
    if unlocks.first()?.at::<u64>(1)? != 0 {
        return Err(gone("it has run UNLOCK TABLES"));
    }
    Ok(())
}

fn milliseconds(key: &str, duration: Duration) -> MetadataEntry {
    let milliseconds = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    MetadataEntry::new(key, milliseconds)
}

stillpoint_hook::export!(Mysql);
