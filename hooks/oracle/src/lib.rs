#![doc = include_str!("../README.md")]

pub mod backup;
pub mod errors;
pub mod intent;
pub mod scripts;
pub mod settings;
pub mod sqlplus;
pub mod state;

use std::time::Duration;

use stillpoint_hook::{
    CapabilityNeed, Description, Frozen, HELD_BEFORE_FREEZE, Hook, HookError, MetadataEntry,
    Outcome, Plan, ProgramNeed, info, process, run, warn,
};

use backup::{Ended, Held};
use errors::explain;
use intent::Intent;
use scripts as s;
use settings::Settings;
use state::{State, Surroundings};

/// Between two looks at what is in the way.
const PAUSE: Duration = Duration::from_secs(1);

/// What archiving after the release leaves of the phase.
const TAIL: Duration = Duration::from_secs(2);

/// What the intent needs: 28 bytes for each data file, for about two thousand of them.
const KV_BYTES: u32 = 64 << 10;

/// The hook, for one instance.
#[derive(Debug, Default)]
pub struct Oracle {
    prepared: Option<Prepared>,
    held: Option<Held>,
}

/// From `prepare` on.
#[derive(Debug)]
struct Prepared {
    settings: Settings,
    state: State,
    surroundings: Surroundings,
}

impl Hook for Oracle {
    fn describe() -> Description {
        let words = |words: &[&str]| words.iter().map(|word| (*word).into()).collect::<Vec<_>>();
        Description::new(
            "oracle",
            env!("CARGO_PKG_VERSION"),
            "Puts an Oracle database into backup mode, proves it, and saves where it stands",
        )
        .settings_schema(settings::SCHEMA)
        .freeze_budget_ms(30_000)
        .needs(CapabilityNeed::Program(ProgramNeed {
            command: s::SQLPLUS.into(),
            arguments: vec![words(s::ARGUMENTS)],
            stdin_scripts: words(s::ALL),
            reason: "to look at one instance (SELECT), to archive its redo (ALTER SYSTEM), to put \
                     its files into backup mode while the snapshot is taken, and out of it again \
                     (ALTER DATABASE). Each script is a whole text; none is put together"
                .into(),
            required: true,
        }))
        .needs(CapabilityNeed::Program(ProgramNeed {
            command: s::CAT.into(),
            arguments: vec![words(&[s::ORATAB])],
            stdin_scripts: Vec::new(),
            reason: "for the setting `instances`: to see that /etc/oratab lists no instance that \
                     nobody answers for"
                .into(),
            required: false,
        }))
        .needs_kv(
            KV_BYTES,
            "backup mode belongs to no session: what was begun is kept, so that it is ended after \
             stillpoint was killed, and so that somebody else's is never ended",
        )
    }

    fn validate(settings: &str) -> Result<(), HookError> {
        Settings::parse(settings).map(drop)
    }

    /// Is it the instance, may we, is somebody else at work, which files; then the redo so far is
    /// archived. Nothing is begun.
    fn prepare(&mut self, settings: &str) -> Result<Plan, HookError> {
        let settings = Settings::parse(settings)?;
        check_oratab(&settings)?;
        let dry_run = run::info().dry_run;
        if !dry_run {
            end_what_an_earlier_run_left()?;
        }
        let (state, surroundings) = wait_for_a_clear_way(&settings)?;
        check_files(&state, &surroundings)?;
        let plan = plan(&settings, &state, &surroundings);
        if !dry_run {
            let timeout = settings.archive_timeout;
            archive_so_far(timeout)?;
            Intent::prepared(&state).keep()?;
        }
        self.prepared = Some(Prepared { settings, state, surroundings });
        Ok(plan)
    }

    /// Clients wait for nothing: backup mode lets them write on.
    fn pre_freeze(&mut self) -> Result<Frozen, HookError> {
        let Some(Prepared { state, surroundings, .. }) = &self.prepared else {
            return Err(HookError::Internal("prepare was not called".into()));
        };
        let now = backup::look("the last look before BEGIN BACKUP", run::remaining() / 2)?;
        now.check()?;
        if !now.is_same_run_of(state) {
            let why = "the instance was started anew since it was looked at: run again";
            return Err(HookError::Busy(why.into()));
        }
        refuse_others(&now, 0)?;
        let before = run::remaining();
        let held = backup::begin(&now, surroundings)?;
        let took = before.saturating_sub(run::remaining());
        let metadata = metadata(&held, surroundings, took);
        self.held = Some(held);
        Ok(Frozen::application(metadata))
    }

    fn confirm(&mut self) -> Result<(), HookError> {
        let Some(held) = &self.held else {
            return Err(HookError::Internal("nothing is in backup mode".into()));
        };
        held.confirm()
    }

    /// Out of backup mode first. Archiving can hang, and nobody is to wait for it.
    fn post_thaw(&mut self, outcome: Outcome) -> Result<Vec<MetadataEntry>, HookError> {
        let Some(held) = &self.held else {
            // What `pre_freeze` could not undo, it kept.
            return self.end_the_rest().map(|()| Vec::new());
        };
        let ended = held.release()?;
        self.held = None;
        let mut metadata = vec![MetadataEntry::new("backup-mode-ended", ended == Ended::Now)];
        let archive_after = self
            .prepared
            .as_ref()
            .map_or(Duration::ZERO, |prepared| prepared.settings.archive_after);
        if outcome == Outcome::Captured && !archive_after.is_zero() {
            metadata.extend(archive(archive_after));
        }
        Ok(metadata)
    }

    /// On a fresh instance, too: what is kept says what may have to be ended.
    fn finish(&mut self) -> Result<(), HookError> {
        self.held = None;
        self.end_the_rest()
    }
}

impl Oracle {
    fn end_the_rest(&self) -> Result<(), HookError> {
        match Intent::kept()? {
            // This very instance knows that it began nothing.
            Some(intent) if self.prepared.is_some() && intent.is_only_prepared() => {
                Intent::forget()
            }
            _ => end_what_is_kept().map(drop),
        }
    }
}

fn end_what_is_kept() -> Result<Option<Ended>, HookError> {
    let Some(intent) = Intent::kept()? else { return Ok(None) };
    let ended = backup::settle(&intent)?;
    if ended == Ended::Now {
        info!("backup mode of run {} is ended", intent.run());
    }
    Ok(Some(ended))
}

/// A machine that went down keeps no journal, but it keeps this.
fn end_what_an_earlier_run_left() -> Result<(), HookError> {
    if end_what_is_kept()? == Some(Ended::Now) {
        warn!("an earlier run had left the database in backup mode: it is ended");
    }
    Ok(())
}

/// Looks until nobody else is at work, or the time for that is over.
fn wait_for_a_clear_way(settings: &Settings) -> Result<(State, Surroundings), HookError> {
    let mut left = settings.wait_for_others.min(run::remaining_but(settings.archive_timeout));
    loop {
        let before = run::remaining();
        let report = s::LOOK;
        let read = |failure| explain(failure, "looking at the database");
        let report = sqlplus::run_script(report, run::remaining()).map_err(read)?;
        let state = State::of(&report).map_err(read)?;
        check_sid(settings, &state)?;
        state.check()?;
        let surroundings = Surroundings::of(&report).map_err(read)?;
        match refuse_others(&state, surroundings.rman) {
            Ok(()) => return Ok((state, surroundings)),
            Err(busy) if left.is_zero() || run::cancelled() => return Err(busy),
            Err(_) => run::sleep(PAUSE.min(left)),
        }
        left = left.saturating_sub(before.saturating_sub(run::remaining()));
    }
}

fn check_sid(settings: &Settings, state: &State) -> Result<(), HookError> {
    let name = &state.instance.name;
    if settings.sid.is_empty() || settings.sid == *name {
        return Ok(());
    }
    Err(HookError::invalid_settings(
        "/sid",
        format!(
            "the instance that answers is {name}: correct this, or ORACLE_SID in the grant's `environment`"
        ),
    ))
}

/// Two people's backup modes cannot be told apart by the server, and RMAN fails on files in it.
fn refuse_others(state: &State, rman: u64) -> Result<(), HookError> {
    let active: Vec<_> = state.active().collect();
    if let Some(first) = active.first() {
        return Err(HookError::Busy(format!(
            "{} of {} data files are in backup mode, begun by somebody else ({} at change {}): that is never ended from here; wait for that backup, or end it by hand (V$BACKUP; ALTER DATABASE END BACKUP)",
            active.len(),
            state.files.len(),
            first.path,
            first.change
        )));
    }
    if rman > 0 {
        return Err(HookError::Busy(format!(
            "RMAN is at work ({rman} channels in V$SESSION): run again when it is done"
        )));
    }
    Ok(())
}

/// What is not a file cannot be frozen.
fn check_files(state: &State, surroundings: &Surroundings) -> Result<(), HookError> {
    let data = state.files.iter().map(|file| &file.path);
    let other = data.chain(&surroundings.redo_and_control).find(|path| !path.starts_with('/'));
    let Some(path) = other else { return Ok(()) };
    Err(HookError::application(
        "not-a-file",
        format!(
            "{path} is not a file of a file system: ASM and the like are not supported, because they cannot be frozen"
        ),
        false,
    ))
}

fn plan(settings: &Settings, state: &State, surroundings: &Surroundings) -> Plan {
    let State { instance, database, files } = state;
    let summary = format!(
        "Oracle {} instance {}, database {}{}: {} data files at change {}",
        instance.version,
        instance.name,
        database.unique_name,
        if database.is_container { " (container)" } else { "" },
        files.len(),
        database.scn,
    );
    let mut paths: Vec<&String> = files.iter().map(|file| &file.path).collect();
    paths.extend(&surroundings.redo_and_control);
    for place in &surroundings.archive {
        if !place.starts_with('/') {
            warn!(
                "the archive destination {place} is not a file system's: it is not in the snapshot"
            );
        } else if settings.require_archive_path {
            paths.push(place);
        }
    }
    paths.into_iter().fold(Plan::new(summary), |plan, path| plan.with_path(path))
}

fn archive_so_far(timeout: Duration) -> Result<(), HookError> {
    let doing = "archiving the redo so far";
    let switched = sqlplus::run_script(s::SWITCH, timeout).map(drop);
    switched.map_err(|failure| {
        let hung = matches!(failure, sqlplus::Failure::Process(process::Error::Timeout(_)));
        let error = explain(failure, doing);
        if hung {
            return error.also(
                "is an archive destination full, unreachable, or on a frozen file system (V$ARCHIVE_DEST, df)? Nothing was begun; `archive-timeout-seconds` says how long it may take",
            );
        }
        error
    })
}

/// After the release: what fails here is told, and holds nothing.
fn archive(most: Duration) -> Vec<MetadataEntry> {
    let archived = sqlplus::run_script(s::ARCHIVE, most.min(run::remaining_but(TAIL)))
        .and_then(|report| Ok((State::of(&report)?, state::log(&report)?)));
    match archived {
        Ok((state, (_, sequence))) => vec![
            MetadataEntry::new("archived-after", true),
            number("end-scn", state.database.scn),
            MetadataEntry::new("log-sequence-after", sequence),
        ],
        Err(failure) => {
            let error = explain(failure, "archiving the redo of the backup");
            warn!("backup mode is ended, but the redo is not archived yet: {}", error.message());
            vec![MetadataEntry::new("archived-after", false)]
        }
    }
}

/// What a restore, and a recovery to a point in time, need to know.
fn metadata(held: &Held, around: &Surroundings, took: Duration) -> Vec<MetadataEntry> {
    let State { instance, database, files } = &held.state;
    let changes = || held.state.active().map(|file| file.change);
    let containers = around.containers.values().map(|(name, mode)| format!("{name} ({mode})"));
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    vec![
        MetadataEntry::new("oracle-version", instance.version.clone()),
        MetadataEntry::new("instance", instance.name.clone()),
        MetadataEntry::new("database", database.name.clone()),
        MetadataEntry::new("db-unique-name", database.unique_name.clone()),
        MetadataEntry::new("dbid", database.dbid.clone()),
        MetadataEntry::new("incarnation", around.incarnation),
        number("resetlogs-change", database.resetlogs),
        number("begin-scn", database.scn),
        number("backup-change-first", changes().min().unwrap_or_default()),
        number("backup-change-last", changes().max().unwrap_or_default()),
        MetadataEntry::new("thread", held.log.0),
        MetadataEntry::new("log-sequence", held.log.1),
        MetadataEntry::new("containers", containers.collect::<Vec<_>>().join(", ")),
        MetadataEntry::new("data-files", count(files.len())),
        MetadataEntry::new("data-files-in-backup-mode", count(held.state.active().count())),
        number("begin-backup-ms", u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        // Nobody waits for a database in backup mode.
        MetadataEntry::new(HELD_BEFORE_FREEZE, 0_i64),
    ]
}

fn number(key: &str, number: u64) -> MetadataEntry {
    MetadataEntry::new(key, i64::try_from(number).unwrap_or(i64::MAX))
}

/// An instance that nobody has thought of would be in the snapshot as after a power cut.
fn check_oratab(settings: &Settings) -> Result<(), HookError> {
    if settings.instances.is_empty() {
        return Ok(());
    }
    let output = process::run(s::CAT, &[s::ORATAB], None, Some(run::remaining()))
        .map_err(|error| HookError::from(error).context("reading /etc/oratab"))?;
    let output = output.success()?;
    if output.truncated {
        return Err(HookError::Internal(
            "/etc/oratab is longer than `output-bytes` of its grant".into(),
        ));
    }
    let text = output.stdout_text();
    match of_oratab(&text).find(|sid| !settings.instances.iter().any(|known| known == sid)) {
        None => Ok(()),
        Some(sid) => Err(HookError::invalid_settings(
            "/instances",
            format!(
                "/etc/oratab lists {sid}, which is not here: give it a grant file of its own (README.md, \"Several instances\"), and add it in each"
            ),
        )),
    }
}

/// `SID:HOME:Y`, one for each line; no comments, no `*`, nothing of the cluster's own (`+ASM`).
fn of_oratab(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(['#', '*', '+', '-']))
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
}

stillpoint_hook::export!(Oracle);
