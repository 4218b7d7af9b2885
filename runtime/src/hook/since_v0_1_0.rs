//! The contract `stillpoint:hook`, since 0.1.0: every version of 0.1. Translates, and decides nothing:
//! every check is in [`crate::capability`], for these versions and the ones to come.
//!
//! Within 0.1 imports only grow (hooks-sdk/wit; ADR 23), so the newest text is linked, and a component
//! that was built against an older one finds all that it imports.

use std::time::Duration;

use wasmtime::component::{Component, HasSelf, Linker, Resource};
use wasmtime::{Engine, Store};

use super::description::{Description, Need};
use super::host::HostState;
use super::logs::LogLevel;
use super::{Failed, HookFailureKind, Outcome, Phase, Prepared, Quiesced};
use crate::capability::kv::{KvFailure, Refused};
use crate::capability::process::{Call, Output, ProcessError};
use crate::capability::sql::{Flavour, Refusal, SqlError, SqlSession, Value, clamp};
use crate::consistency::Level;
use crate::manifest::{MetadataEntry, MetadataValue};

/// The published versions that are served here, oldest first. Each has its text in hooks-sdk/wit.
pub(super) const VERSIONS: [&str; 2] = ["0.1.0", "0.1.1"];
/// The newest of them.
pub(super) const VERSION: &str = "0.1.1";
/// What a component may import.
pub(super) const IMPORTS: [&str; 6] = [
    "stillpoint:hook/types",
    "stillpoint:hook/sql",
    "stillpoint:hook/process",
    "stillpoint:hook/kv",
    "stillpoint:hook/run",
    "stillpoint:hook/log",
];
/// What it must export.
pub(super) const EXPORT: &str = "stillpoint:hook/lifecycle";

/// True if an import is one of ours, in a version that is served.
pub(super) fn serves(import: &str) -> bool {
    is_of(import, &IMPORTS)
}

/// True if an export makes a component a hook of a version that is served.
pub(super) fn calls(export: &str) -> bool {
    is_of(export, &[EXPORT])
}

fn is_of(name: &str, interfaces: &[&str]) -> bool {
    let Some((interface, version)) = name.split_once('@') else { return false };
    interfaces.contains(&interface) && VERSIONS.contains(&version)
}

/// The versions that are served, for people.
pub(super) fn served() -> String {
    format!("{} to {VERSION}", VERSIONS[0])
}

/// The version that a component with these imports was built for; one that imports nothing, for the
/// first.
pub(super) fn built_for(imports: &[String]) -> &'static str {
    let ours = |version: &str| {
        let import = |import: &String| {
            serves(import) && import.split_once('@').is_some_and(|(_, of)| of == version)
        };
        imports.iter().any(import)
    };
    VERSIONS.into_iter().rev().find(|version| ours(version)).unwrap_or(VERSIONS[0])
}

mod bindings {
    wasmtime::component::bindgen!({
        path: "../hooks-sdk/wit/since_v0_1_1",
        world: "hook",
        imports: {
            "stillpoint:hook/sql": async | trappable,
            "stillpoint:hook/process": async | trappable,
            "stillpoint:hook/kv": async | trappable,
            "stillpoint:hook/run.sleep": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: { "stillpoint:hook/sql.connection": crate::capability::sql::SqlSession },
    });
}

use bindings::exports::stillpoint::hook::lifecycle as exported;
use bindings::stillpoint::hook::{kv, log, process, run, sql, types};

/// A component whose imports are resolved: instances are made from it.
#[derive(Clone)]
pub(super) struct Ready(bindings::HookPre<HostState>);

/// One instance.
pub(super) struct Instance(bindings::Hook);

/// What a call into the guest gives: the outer error is a trap, the inner one the guest's own.
pub(super) type Called<T> = wasmtime::Result<Result<T, Failed>>;

impl Ready {
    /// Resolves a component's imports. Without `wasi`, nothing of WASI is there to be found.
    pub(super) fn new(
        engine: &Engine,
        component: &Component,
        wasi: bool,
    ) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(engine);
        bindings::Hook::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
        if wasi {
            super::wasi::add_to_linker(&mut linker)?;
        }
        Ok(Self(bindings::HookPre::new(linker.instantiate_pre(component)?)?))
    }

    /// Makes an instance; may run code of the guest.
    pub(super) async fn instantiate(
        &self,
        store: &mut Store<HostState>,
    ) -> wasmtime::Result<Instance> {
        Ok(Instance(self.0.instantiate_async(store).await?))
    }
}

impl Instance {
    fn guest(&self) -> &exported::Guest {
        self.0.stillpoint_hook_lifecycle()
    }

    pub(super) async fn describe(
        &self,
        store: &mut Store<HostState>,
    ) -> wasmtime::Result<Description> {
        Ok(self.guest().call_describe(store).await?.into())
    }

    pub(super) async fn validate(
        &self,
        store: &mut Store<HostState>,
        settings: &str,
    ) -> Called<()> {
        Ok(self.guest().call_validate(store, settings).await?.map_err(Failed::from))
    }

    pub(super) async fn prepare(
        &self,
        store: &mut Store<HostState>,
        settings: &str,
    ) -> Called<Prepared> {
        let prepared = self.guest().call_prepare(store, settings).await?;
        Ok(prepared.map(Prepared::from).map_err(Failed::from))
    }

    pub(super) async fn pre_freeze(&self, store: &mut Store<HostState>) -> Called<Quiesced> {
        let frozen = self.guest().call_pre_freeze(store).await?;
        Ok(frozen.map(Quiesced::from).map_err(Failed::from))
    }

    pub(super) async fn confirm(&self, store: &mut Store<HostState>) -> Called<()> {
        Ok(self.guest().call_confirm(store).await?.map_err(Failed::from))
    }

    pub(super) async fn post_thaw(
        &self,
        store: &mut Store<HostState>,
        outcome: Outcome,
    ) -> Called<Vec<MetadataEntry>> {
        let released = self.guest().call_post_thaw(store, outcome.into()).await?;
        Ok(released.map(all).map_err(Failed::from))
    }

    pub(super) async fn finish(&self, store: &mut Store<HostState>) -> Called<()> {
        Ok(self.guest().call_finish(store).await?.map_err(Failed::from))
    }
}

// What the guest may call.

impl types::Host for HostState {}

impl sql::Host for HostState {
    async fn open(
        &mut self,
        name: String,
    ) -> wasmtime::Result<Result<Resource<SqlSession>, sql::Error>> {
        self.count_call()?;
        let opened = match self.check_phase("nothing may be contacted") {
            Ok(()) => self.sql.open(&name, self.clock.deadline).await,
            Err(denial) => Err(denial.into()),
        };
        match opened {
            Ok(session) => Ok(Ok(self.resources.push(session)?)),
            Err(refusal) => Ok(Err(self.told(refusal).into())),
        }
    }

    async fn granted(&mut self) -> wasmtime::Result<Vec<String>> {
        self.count_call()?;
        Ok(self.sql.granted())
    }
}

impl sql::HostConnection for HostState {
    async fn info(&mut self, session: Resource<SqlSession>) -> wasmtime::Result<sql::ServerInfo> {
        self.count_call()?;
        let info = self.resources.get(&session)?.info();
        let engine = match info.flavour {
            Flavour::Mysql => sql::Engine::Mysql,
            Flavour::Mariadb => sql::Engine::Mariadb,
            Flavour::Postgresql => sql::Engine::Postgresql,
            Flavour::Redis => sql::Engine::Other,
        };
        Ok(sql::ServerInfo { engine, version: info.version.clone() })
    }

    async fn query(
        &mut self,
        session: Resource<SqlSession>,
        statement: String,
        params: Vec<sql::Value>,
        timeout: Option<u64>,
    ) -> wasmtime::Result<Result<sql::RowSet, sql::Error>> {
        let answer = self.run_statement(&session, &statement, params, timeout).await?;
        Ok(answer.map(sql::RowSet::from).map_err(sql::Error::from))
    }

    async fn execute(
        &mut self,
        session: Resource<SqlSession>,
        statement: String,
        params: Vec<sql::Value>,
        timeout: Option<u64>,
    ) -> wasmtime::Result<Result<u64, sql::Error>> {
        let answer = self.run_statement(&session, &statement, params, timeout).await?;
        Ok(answer.map(|answer| answer.affected).map_err(sql::Error::from))
    }

    async fn session_id(
        &mut self,
        session: Resource<SqlSession>,
    ) -> wasmtime::Result<Result<String, sql::Error>> {
        self.count_call()?;
        Ok(Ok(self.resources.get(&session)?.id().to_string()))
    }

    async fn is_alive(&mut self, session: Resource<SqlSession>) -> wasmtime::Result<bool> {
        self.count_call()?;
        let session = self.resources.get(&session)?.clone();
        Ok(session.is_alive(self.clock.deadline).await)
    }

    async fn drop(&mut self, session: Resource<SqlSession>) -> wasmtime::Result<()> {
        drop(self.resources.delete(session)?);
        Ok(())
    }
}

impl HostState {
    async fn run_statement(
        &mut self,
        session: &Resource<SqlSession>,
        statement: &str,
        params: Vec<sql::Value>,
        timeout: Option<u64>,
    ) -> wasmtime::Result<Result<crate::capability::sql::Answer, SqlError>> {
        self.count_call()?;
        let session = self.resources.get(session)?.clone();
        let deadline = clamp(timeout.map(Duration::from_nanos), self.clock.deadline);
        let params = params.into_iter().map(Value::from).collect();
        let answer = self.sql.run(&session, statement, params, deadline).await;
        Ok(answer.map_err(|refusal: Refusal| self.told(refusal)))
    }
}

impl process::Host for HostState {
    async fn run(
        &mut self,
        command: String,
        arguments: Vec<String>,
        stdin: Option<Vec<u8>>,
        timeout: Option<u64>,
    ) -> wasmtime::Result<Result<process::Output, process::Error>> {
        self.count_call()?;
        let (stdin, timeout) = (stdin.unwrap_or_default(), timeout.map(Duration::from_nanos));
        let call = Call { command, arguments, stdin, timeout };
        Ok(self.run_program(call).await.map(Into::into).map_err(Into::into))
    }
}

impl kv::Host for HostState {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, kv::Error>> {
        self.count_call()?;
        let got = match self.check_phase("no state may be read or kept") {
            Ok(()) => self.kv.get(&key, self.clock.deadline).await,
            Err(denial) => Err(denial.into()),
        };
        Ok(got.map_err(|refused| self.refused(refused)))
    }

    async fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), kv::Error>> {
        self.count_call()?;
        self.change(&key, Some(value)).await
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), kv::Error>> {
        self.count_call()?;
        self.change(&key, None).await
    }

    async fn keys(&mut self) -> wasmtime::Result<Result<Vec<String>, kv::Error>> {
        self.count_call()?;
        let keys = match self.check_phase("no state may be read or kept") {
            Ok(()) => self.kv.keys(self.clock.deadline).await,
            Err(denial) => Err(denial.into()),
        };
        Ok(keys.map_err(|refused| self.refused(refused)))
    }
}

impl HostState {
    async fn change(
        &mut self,
        key: &str,
        value: Option<Vec<u8>>,
    ) -> wasmtime::Result<Result<(), kv::Error>> {
        let changed = match self.check_phase("no state may be read or kept") {
            Ok(()) => self.kv.set(key, value, self.clock.deadline).await,
            Err(denial) => Err(denial.into()),
        };
        Ok(changed.map_err(|refused| self.refused(refused)))
    }

    /// Keeps what is for the operator; gives what is for the guest.
    fn refused(&mut self, Refused { failure, hint }: Refused) -> kv::Error {
        if let Some(hint) = hint {
            self.hint(hint);
        }
        match failure {
            KvFailure::Denied => kv::Error::Denied,
            KvFailure::TooLarge => kv::Error::TooLarge,
            KvFailure::Io(what) => kv::Error::Io(what),
            KvFailure::BadKey(what) => kv::Error::Other(what),
        }
    }
}

impl run::Host for HostState {
    fn get_info(&mut self) -> wasmtime::Result<run::Info> {
        self.count_call()?;
        Ok(run::Info {
            run_id: self.run.run_id.clone(),
            hook_name: self.identity.name.clone(),
            dry_run: self.run.dry_run,
        })
    }

    fn current_phase(&mut self) -> wasmtime::Result<types::Phase> {
        self.count_call()?;
        Ok(match self.clock.phase {
            Phase::Describe => types::Phase::Describe,
            Phase::Validate => types::Phase::Validate,
            Phase::Prepare => types::Phase::Prepare,
            Phase::PreFreeze => types::Phase::PreFreeze,
            Phase::Confirm => types::Phase::Confirm,
            Phase::PostThaw => types::Phase::PostThaw,
            Phase::Finish => types::Phase::Finish,
        })
    }

    fn remaining(&mut self) -> wasmtime::Result<u64> {
        self.count_call()?;
        Ok(u64::try_from(self.clock.deadline.remaining().as_nanos()).unwrap_or(u64::MAX))
    }

    fn cancelled(&mut self) -> wasmtime::Result<bool> {
        self.count_call()?;
        Ok(self.run.cancel.is_cancelled())
    }

    async fn sleep(&mut self, duration: u64) -> wasmtime::Result<()> {
        self.count_call()?;
        HostState::sleep(self, Duration::from_nanos(duration)).await;
        Ok(())
    }
}

impl log::Host for HostState {
    fn write(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        self.count_call()?;
        let level = match level {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        self.log(level, message, &fields);
        Ok(())
    }
}

// Translations.

impl From<exported::Description> for Description {
    fn from(said: exported::Description) -> Self {
        Self {
            name: said.name,
            version: said.version,
            summary: said.summary,
            settings_schema: said.settings_schema,
            needs: all(said.needs),
            freeze_budget_ms: said.freeze_budget_ms,
        }
    }
}

impl From<exported::CapabilityNeed> for Need {
    fn from(need: exported::CapabilityNeed) -> Self {
        match need {
            exported::CapabilityNeed::Sql(need) => Need::Sql {
                connection: need.connection,
                engines: need.engines.into_iter().map(engine_name).collect(),
                statements: need.statements,
                reason: need.reason,
                required: need.required,
            },
            exported::CapabilityNeed::Program(need) => Need::Program {
                command: need.command,
                arguments: need.arguments,
                stdin_scripts: need.stdin_scripts,
                reason: need.reason,
                required: need.required,
            },
            exported::CapabilityNeed::Kv(need) => {
                Need::Kv { bytes: need.bytes, reason: need.reason, required: need.required }
            }
            exported::CapabilityNeed::Other(what) => Need::Other { what },
        }
    }
}

fn engine_name(engine: sql::Engine) -> String {
    match engine {
        sql::Engine::Mysql => "mysql",
        sql::Engine::Mariadb => "mariadb",
        sql::Engine::Postgresql => "postgresql",
        sql::Engine::Sqlite => "sqlite",
        sql::Engine::Mssql => "mssql",
        sql::Engine::Oracle => "oracle",
        sql::Engine::Other => "other",
    }
    .to_owned()
}

impl From<exported::Plan> for Prepared {
    fn from(plan: exported::Plan) -> Self {
        Self { paths: all(plan.paths), summary: plan.summary }
    }
}

impl From<exported::Frozen> for Quiesced {
    fn from(frozen: exported::Frozen) -> Self {
        let level = match frozen.consistency {
            types::Consistency::Application => Level::Application,
            // As if it were not there: the frozen file systems are worth what they are worth.
            types::Consistency::None => Level::FileSystem,
            types::Consistency::Crash => Level::Crash,
        };
        Self { level, metadata: all(frozen.metadata) }
    }
}

impl From<types::MetadataEntry> for MetadataEntry {
    fn from(entry: types::MetadataEntry) -> Self {
        let value = match entry.value {
            types::MetaValue::Text(text) => MetadataValue::Text(text),
            types::MetaValue::Integer(number) => MetadataValue::Integer(number),
            types::MetaValue::Boolean(flag) => MetadataValue::Boolean(flag),
            types::MetaValue::Bytes(bytes) => MetadataValue::Bytes(super::digest::hex(&bytes)),
        };
        Self { key: entry.key, value }
    }
}

impl From<Outcome> for exported::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Captured => Self::Captured,
            Outcome::Failed => Self::Failed,
            Outcome::Aborted => Self::Aborted,
        }
    }
}

impl From<types::HookError> for Failed {
    fn from(error: types::HookError) -> Self {
        use types::HookError as Said;
        let mut setting = None;
        let (kind, message) = match error {
            Said::InvalidSettings(wrong) => {
                setting = Some(wrong.pointer);
                (HookFailureKind::InvalidSettings, wrong.message)
            }
            Said::NotApplicable(why) => (HookFailureKind::NotApplicable, why),
            Said::Denied(what) => (HookFailureKind::Denied, what),
            Said::Busy(why) => (HookFailureKind::Busy, why),
            Said::Timeout(what) => (HookFailureKind::Timeout, what),
            Said::Application(said) => {
                (HookFailureKind::Application, format!("{} ({})", said.message, said.code))
            }
            Said::Internal(what) => (HookFailureKind::Internal, what),
        };
        Self { kind, message, setting }
    }
}

impl From<sql::Value> for Value {
    fn from(value: sql::Value) -> Self {
        match value {
            sql::Value::Null => Value::Null,
            sql::Value::Boolean(flag) => Value::Boolean(flag),
            sql::Value::Int64(number) => Value::Int64(number),
            sql::Value::Uint64(number) => Value::Uint64(number),
            sql::Value::Float64(number) => Value::Float64(number),
            sql::Value::Text(text) => Value::Text(text),
            sql::Value::Binary(bytes) => Value::Binary(bytes),
            sql::Value::Decimal(text) => Value::Decimal(text),
            sql::Value::Temporal(text) => Value::Temporal(text),
            sql::Value::Other(text) => Value::Other(text),
        }
    }
}

impl From<Value> for sql::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => sql::Value::Null,
            Value::Boolean(flag) => sql::Value::Boolean(flag),
            Value::Int64(number) => sql::Value::Int64(number),
            Value::Uint64(number) => sql::Value::Uint64(number),
            Value::Float64(number) => sql::Value::Float64(number),
            Value::Text(text) => sql::Value::Text(text),
            Value::Binary(bytes) => sql::Value::Binary(bytes),
            Value::Decimal(text) => sql::Value::Decimal(text),
            Value::Temporal(text) => sql::Value::Temporal(text),
            Value::Other(text) => sql::Value::Other(text),
        }
    }
}

impl From<crate::capability::sql::Answer> for sql::RowSet {
    fn from(answer: crate::capability::sql::Answer) -> Self {
        let columns = answer.columns.into_iter();
        Self {
            columns: columns
                .map(|column| sql::Column { name: column.name, db_type: column.db_type })
                .collect(),
            rows: answer.rows.into_iter().map(all).collect(),
            truncated: answer.truncated,
        }
    }
}

impl From<SqlError> for sql::Error {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Denied(what) => sql::Error::Denied(what),
            SqlError::Unavailable(why) => sql::Error::Unavailable(why),
            SqlError::Timeout => sql::Error::Timeout,
            SqlError::ConnectionLost(why) => sql::Error::ConnectionLost(why),
            SqlError::Database { sqlstate, vendor_code, message } => {
                sql::Error::Database(sql::DbError {
                    sqlstate,
                    vendor_code,
                    message,
                    extras: Vec::new(),
                })
            }
            SqlError::Limit(what) => sql::Error::Limit(what),
            SqlError::Unsupported(what) => sql::Error::Unsupported(what),
            SqlError::Other(what) => sql::Error::Other(what),
        }
    }
}

impl From<Output> for process::Output {
    fn from(output: Output) -> Self {
        let Output { exit_code, signal, stdout, stderr, truncated } = output;
        Self { exit_code, signal, stdout, stderr, truncated }
    }
}

impl From<ProcessError> for process::Error {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::Denied(what) => process::Error::Denied(what),
            ProcessError::NotFound(what) => process::Error::NotFound(what),
            ProcessError::Timeout(output) => process::Error::Timeout(output.into()),
            ProcessError::Failed(why) => process::Error::Failed(why),
            ProcessError::Other(what) => process::Error::Other(what),
        }
    }
}

fn all<A, B: From<A>>(items: Vec<A>) -> Vec<B> {
    items.into_iter().map(B::from).collect()
}
