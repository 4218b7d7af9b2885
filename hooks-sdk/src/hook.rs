//! The trait that a hook implements, and the words of its signatures.

pub use crate::bindings::exports::stillpoint::hook::lifecycle::{
    CapabilityNeed, Description, Frozen, KvNeed, Outcome, Plan, ProgramNeed, SqlNeed,
};
pub use crate::bindings::stillpoint::hook::types::{
    AppError, Consistency, HookError, MetaValue, MetadataEntry, Phase, SettingsError,
};

use crate::sql::Engine;

/// One application's hook.
///
/// One value lives through one run, from `prepare` to `finish`: what it keeps in its fields between
/// `pre_freeze` and `post_thaw` — above all an open [`Connection`](crate::sql::Connection) — is what
/// keeps the application quiesced. When the value goes away, in whatever way, the host closes its
/// sessions, and every lock that a database ties to a session is released.
///
/// Each method has a deadline: see [`run::remaining`](crate::run::remaining). A method that is not
/// back in time costs the instance; one that gets a typed time-out and returns keeps it.
pub trait Hook: Default + 'static {
    /// What the hook is and what it asks for. Always the same; no host function may be called.
    fn describe() -> Description;

    /// Checks settings (JSON text; nobody has compared it with the schema of [`Self::describe`]) for
    /// what a schema cannot say. Nothing may be contacted. By default everything is accepted.
    ///
    /// # Errors
    /// [`HookError::InvalidSettings`], see [`HookError::invalid_settings`].
    fn validate(_settings: &str) -> Result<(), HookError> {
        Ok(())
    }

    /// Finds out everything that can be found out before anything is held, and takes no lock. By
    /// default nothing is done, and no path is asked for.
    ///
    /// # Errors
    /// Any [`HookError`]; nothing may be held then.
    fn prepare(&mut self, _settings: &str) -> Result<Plan, HookError> {
        Ok(Plan::new("nothing to prepare"))
    }

    /// Quiesces the application and leaves it quiesced. Other clients wait from here to
    /// [`Self::post_thaw`]: do nothing that [`Self::prepare`] could have done.
    ///
    /// # Errors
    /// Any [`HookError`]; everything taken is released before it is returned.
    fn pre_freeze(&mut self) -> Result<Frozen, HookError>;

    /// Proves, after the thaw and before anything is released, that the application was quiesced
    /// all the time. There is no default: a hook that cannot prove it must say so by an error.
    ///
    /// # Errors
    /// Any [`HookError`]; the snapshot's consistency level is lowered, and `post_thaw` still runs.
    fn confirm(&mut self) -> Result<(), HookError>;

    /// Releases the application. Called whenever `pre_freeze` was called, also if that failed.
    ///
    /// # Errors
    /// Any [`HookError`]; the host closes all sessions of the hook at once.
    fn post_thaw(&mut self, outcome: Outcome) -> Result<Vec<MetadataEntry>, HookError>;

    /// Cleans up. Always called, always last, and on a fresh value if the first one is gone: what
    /// must be undone across instances has to be in [`kv`](crate::kv). By default nothing.
    ///
    /// # Errors
    /// Any [`HookError`]; it is reported, and the host closes all sessions all the same.
    fn finish(&mut self) -> Result<(), HookError> {
        Ok(())
    }
}

impl Description {
    /// A hook without settings that asks for nothing and for 10 s.
    pub fn new(
        name: impl Into<String>,
        version: impl Into<String>,
        summary: impl Into<String>,
    ) -> Self {
        Description {
            name: name.into(),
            version: version.into(),
            summary: summary.into(),
            settings_schema: NO_SETTINGS.into(),
            needs: Vec::new(),
            freeze_budget_ms: 10_000,
        }
    }

    /// With settings of this JSON Schema (2020-12).
    #[must_use]
    pub fn settings_schema(mut self, schema: &str) -> Self {
        self.settings_schema = schema.into();
        self
    }

    /// With so much time for each phase, in milliseconds; the operator's limits win.
    #[must_use]
    pub fn freeze_budget_ms(mut self, milliseconds: u32) -> Self {
        self.freeze_budget_ms = milliseconds;
        self
    }

    /// Asks for these statements, as whole texts, on a connection of the operator's; without them
    /// the hook does not run. `reason` is for the operator who decides.
    #[must_use]
    pub fn needs_sql(
        mut self,
        connection: &str,
        engines: &[Engine],
        statements: &[&str],
        reason: &str,
    ) -> Self {
        self.needs.push(CapabilityNeed::Sql(SqlNeed {
            connection: connection.into(),
            engines: engines.to_vec(),
            statements: statements.iter().map(|text| (*text).into()).collect(),
            reason: reason.into(),
            required: true,
        }));
        self
    }

    /// Asks for so many bytes of durable state; without them the hook does not run.
    #[must_use]
    pub fn needs_kv(mut self, bytes: u32, reason: &str) -> Self {
        self.needs.push(CapabilityNeed::Kv(KvNeed {
            bytes,
            reason: reason.into(),
            required: true,
        }));
        self
    }

    /// Asks for something else: a program, or what is not required.
    #[must_use]
    pub fn needs(mut self, need: CapabilityNeed) -> Self {
        self.needs.push(need);
        self
    }
}

/// The schema of a hook without settings.
const NO_SETTINGS: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false
}"#;

impl Plan {
    /// A plan without paths. `summary` is one line for people.
    pub fn new(summary: impl Into<String>) -> Self {
        Plan { paths: Vec::new(), summary: summary.into() }
    }

    /// With a path whose file system must be in the snapshot. A path that is there already is not
    /// added again.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        let path = path.into();
        if !self.paths.contains(&path) {
            self.paths.push(path);
        }
        self
    }
}

impl Frozen {
    /// The application is quiesced.
    #[must_use]
    pub fn application(metadata: Vec<MetadataEntry>) -> Self {
        Frozen { consistency: Consistency::Application, metadata }
    }
}

/// The key under which `pre_freeze` says, in nanoseconds, for how long the application had been held
/// when it returned: the host then does not count waiting for a lock as holding it.
pub const HELD_BEFORE_FREEZE: &str = "held-before-freeze-ns";

impl MetadataEntry {
    /// An entry of the manifest; `key` in kebab-case.
    ///
    /// ```
    /// use stillpoint_hook::MetadataEntry;
    /// let entry = MetadataEntry::new("binlog-position", 4_i64);
    /// assert_eq!(entry.key, "binlog-position");
    /// ```
    pub fn new(key: impl Into<String>, value: impl Into<MetaValue>) -> Self {
        MetadataEntry { key: key.into(), value: value.into() }
    }
}

impl From<&str> for MetaValue {
    fn from(text: &str) -> Self {
        MetaValue::Text(text.into())
    }
}
impl From<String> for MetaValue {
    fn from(text: String) -> Self {
        MetaValue::Text(text)
    }
}
impl From<i64> for MetaValue {
    fn from(number: i64) -> Self {
        MetaValue::Integer(number)
    }
}
impl From<bool> for MetaValue {
    fn from(flag: bool) -> Self {
        MetaValue::Boolean(flag)
    }
}
impl From<Vec<u8>> for MetaValue {
    fn from(bytes: Vec<u8>) -> Self {
        MetaValue::Bytes(bytes)
    }
}
