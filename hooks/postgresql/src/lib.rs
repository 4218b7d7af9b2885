#![doc = include_str!("../README.md")]

pub mod dialect;
pub mod server;
pub mod settings;
pub mod statements;
pub mod window;

use stillpoint_hook::sql::{Connection, Engine};
use stillpoint_hook::{
    Consistency, Description, Frozen, HELD_BEFORE_FREEZE, Hook, HookError, MetadataEntry, Outcome,
    Plan, run,
};

use server::{CONNECTION, Identity, Server};
use settings::{Mode, Settings};
use statements as s;
use window::{Backup, Position};

/// The hook. One session, from `prepare` to `finish`.
#[derive(Debug, Default)]
pub struct Postgresql {
    prepared: Option<Prepared>,
    quiesced: Option<Quiesced>,
}

/// From `prepare` on.
#[derive(Debug)]
struct Prepared {
    settings: Settings,
    server: Server,
    session: Connection,
}

/// From `pre_freeze` to `post_thaw`.
#[derive(Debug)]
struct Quiesced {
    identity: Identity,
    backup: Option<Backup>,
    /// What was found out after the thaw, for the manifest.
    after: Vec<MetadataEntry>,
}

impl Hook for Postgresql {
    fn describe() -> Description {
        Description::new(
            "postgresql",
            env!("CARGO_PKG_VERSION"),
            "Makes PostgreSQL ready for a snapshot by a checkpoint or a base backup, and saves where it stands",
        )
        .settings_schema(settings::SCHEMA)
        .freeze_budget_ms(20_000)
        .needs_sql(
            CONNECTION,
            &[Engine::Postgresql],
            s::ALL,
            "to find out what the server is, where its files are, and what it is told to do (SELECT), \
             to keep its own statements and sessions within bounds (set_config), to write out what is \
             dirty (CHECKPOINT), and, in mode backup, to begin and end a base backup of its own. A \
             server gets only those of its own version. No table of a user is read or written",
        )
    }

    fn validate(settings: &str) -> Result<(), HookError> {
        Settings::parse(settings).map(drop)
    }

    /// Who is it, may we, which files; and what is dirty is written out, while nobody waits for it.
    fn prepare(&mut self, settings: &str) -> Result<Plan, HookError> {
        let settings = Settings::parse(settings)?;
        let session = Connection::open(CONNECTION)?;
        let server = Server::ask(&session, &settings)?;
        let plan = server.plan(&settings);
        if !run::info().dry_run && settings.mode == Mode::Checkpoint {
            window::checkpoint(&session, &server, settings.checkpoint)?;
        }
        self.prepared = Some(Prepared { settings, server, session });
        Ok(plan)
    }

    /// Short: a second checkpoint if it is worth it, or the begin of the base backup; and where the
    /// server stands. Nobody waits for anything of this but the freeze.
    fn pre_freeze(&mut self) -> Result<Frozen, HookError> {
        let Some(prepared) = &mut self.prepared else {
            return Err(HookError::Internal("prepare was not called".into()));
        };
        match prepared.make_ready() {
            Ok((quiesced, frozen)) => {
                self.quiesced = Some(quiesced);
                Ok(frozen)
            }
            Err(error) => {
                // Closes the session: a base backup that has begun ends with it.
                self.prepared = None;
                Err(error)
            }
        }
    }

    /// The server is the one that it was, all the time; and the base backup, if there is one, has its
    /// end.
    fn confirm(&mut self) -> Result<(), HookError> {
        let (Some(prepared), Some(quiesced)) = (&self.prepared, &mut self.quiesced) else {
            return Err(HookError::Internal("nothing is quiesced".into()));
        };
        let session = &prepared.session;
        let now = Identity::ask(session).map_err(|error| error.context("after the snapshot"))?;
        if let Some(change) = quiesced.identity.change(&now) {
            return Err(HookError::application(
                "changed",
                format!("the server is not the one that it was before the freeze: {change}"),
                true,
            ));
        }
        let position = Position::ask(session)?;
        quiesced.after.push(MetadataEntry::new("lsn-after", position.lsn));
        if let Some(backup) = quiesced.backup.take() {
            quiesced.after.extend(backup.end(session, &prepared.server)?);
        }
        Ok(())
    }

    /// A base backup that has no end by now is of no use: it ends with its session, by the server.
    fn post_thaw(&mut self, _outcome: Outcome) -> Result<Vec<MetadataEntry>, HookError> {
        let quiesced = self.quiesced.take();
        self.prepared = None;
        Ok(quiesced.map(|quiesced| quiesced.after).unwrap_or_default())
    }

    /// Nothing outlives the session, so that a fresh instance has nothing to do.
    fn finish(&mut self) -> Result<(), HookError> {
        self.quiesced = None;
        self.prepared = None;
        Ok(())
    }
}

impl Prepared {
    fn make_ready(&mut self) -> Result<(Quiesced, Frozen), HookError> {
        let identity = self.same_server()?;
        let Prepared { settings, server, session } = self;
        server.refuse_exclusive_backup(session)?;
        window::limit_idleness(session, server, settings.hold_budget)?;
        let backup = match settings.mode {
            Mode::Checkpoint => {
                window::final_checkpoint(session, settings)?;
                None
            }
            Mode::Backup => Some(Backup::begin(session, server, settings)?),
        };
        let position = Position::ask(session)?;
        let mut metadata = server.metadata(settings);
        metadata.extend(position.metadata());
        metadata.extend(backup.iter().map(Backup::metadata));
        if identity.standby {
            metadata.extend(window::standby(session)?);
        }
        // Writers are held by the freeze, and by nothing before it.
        metadata.push(MetadataEntry::new(HELD_BEFORE_FREEZE, 0_i64));
        let consistency = match server.weaknesses.is_empty() {
            true => Consistency::Application,
            false => Consistency::Crash,
        };
        let quiesced = Quiesced { identity, backup, after: Vec::new() };
        Ok((quiesced, Frozen { consistency, metadata }))
    }

    /// The session has been idle since `prepare`, and the server may have ended it; that does no harm
    /// yet. That the server is another one than the one that was looked at does.
    fn same_server(&mut self) -> Result<Identity, HookError> {
        let now = match self.session.query(s::IDENTITY, &[], None) {
            Ok(answer) => Identity::of(&self.session, &answer)?,
            Err(error) if error.session_is_gone() => {
                self.session = Connection::open(CONNECTION)?;
                Identity::ask(&self.session)?
            }
            Err(error) => return Err(error.into()),
        };
        let before = Identity { pid: now.pid, ..self.server.identity.clone() };
        match before.change(&now) {
            None => Ok(now),
            Some(change) => Err(HookError::application(
                "changed",
                format!("the server is not the one that was looked at: {change}; run it again"),
                true,
            )),
        }
    }
}

stillpoint_hook::export!(Postgresql);
