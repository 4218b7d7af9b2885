//! From a grant to a hook that can run. Everything is checked here, before anything is touched.

use std::path::PathBuf;
use std::time::Duration;

use super::description::{Description, Need};
use super::host::RunContext;
use super::schema::SettingsSchema;
use super::store::{HookStore, StoreError};
use super::wasm::{WasmHook, describe};
use super::{Digest, Hook, HookFailure, Identity, Provenance};
use crate::capability::{Powers, PowersError};
use crate::config::connections::Connections;
use crate::config::grants::HookGrant;
use crate::config::read::ConfigError;
use crate::exit_code::ExitCode;
use crate::time::Deadline;

/// How long `validate` may take.
const VALIDATE: Duration = Duration::from_secs(10);

/// Why a hook cannot run. Nothing has been touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookLoadError {
    /// The component is not there as it was installed.
    #[error("hook {hook}: {source}")]
    Store {
        /// Which.
        hook: String,
        /// The cause.
        source: StoreError,
    },
    /// A connection, its password or its certificates.
    #[error("hook {hook}: {source}")]
    Config {
        /// Which.
        hook: String,
        /// The cause.
        source: ConfigError,
    },
    /// It does not say about itself what it said when it was installed.
    #[error("hook {hook}: its `describe` does not say what it said when it was installed")]
    Differs {
        /// Which.
        hook: String,
        /// The component.
        digest: Digest,
    },
    /// It cannot work without something that it is not granted.
    #[error("hook {hook}: {message}")]
    NotGranted {
        /// Which.
        hook: String,
        /// What.
        message: String,
        /// The line to add.
        hint: String,
    },
    /// Its settings do not fit what the hook says of them.
    #[error("hook {hook}: {}", problems.join("; "))]
    Settings {
        /// Which.
        hook: String,
        /// Each with its place in the grant file.
        problems: Vec<String>,
        /// The grant file.
        file: PathBuf,
    },
    /// Its settings are wrong, or it failed while it checked them.
    #[error(transparent)]
    Invalid(#[from] HookFailure),
}

impl HookLoadError {
    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            HookLoadError::Store { source, .. } => source.hint(),
            HookLoadError::Config { source, .. } => source.hint(),
            HookLoadError::NotGranted { hint, .. } => Some(hint.clone()),
            HookLoadError::Differs { digest, .. } => Some(format!(
                "do not run {digest}: a hook that changes what it says, or a record that was changed; \
                 report it to the hook's author"
            )),
            HookLoadError::Settings { file, .. } => {
                Some(format!("correct [settings] in {}", file.display()))
            }
            HookLoadError::Invalid(failure) => failure.hint.clone(),
        }
    }
}

impl HookLoadError {
    /// How a command that cannot go on ends.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            HookLoadError::Store { source, .. } => source.exit_code(),
            _ => ExitCode::Parameters,
        }
    }
}

impl HookStore {
    /// Makes a hook for one run from its grant: loads the image that was compiled at installation,
    /// agrees what it may do, reads passwords, checks its settings, and lets it check them, too. Contacts no target
    /// and compiles nothing.
    ///
    /// # Errors
    /// See [`HookLoadError`].
    pub async fn load(
        &self,
        grant: &HookGrant,
        connections: &Connections,
        run: &RunContext,
    ) -> Result<Box<dyn Hook>, HookLoadError> {
        let hook = || grant.name.clone();
        let in_store = |source| HookLoadError::Store { hook: hook(), source };
        let (installed, component) = self.image(&grant.module).map_err(in_store)?;
        let powers = Powers::agreed(&installed.description, grant, connections).map_err(
            |error| match error {
                PowersError::Config(source) => HookLoadError::Config { hook: hook(), source },
                PowersError::Missing(message, hint) => {
                    HookLoadError::NotGranted { hook: hook(), message, hint }
                }
            },
        )?;
        let powers = powers.at(self.state_paths());
        let ready = self.ready(&installed, &component, powers.wasi()).map_err(in_store)?;
        let said = describe(self.engine(), &ready, Deadline::after(VALIDATE)).await;
        if !said.is_ok_and(|said| is_as_recorded(&said, &installed.description)) {
            return Err(HookLoadError::Differs { hook: hook(), digest: installed.digest });
        }
        let problems = settings_problems(&installed.description, grant);
        if !problems.is_empty() {
            let file = grant.file.clone();
            return Err(HookLoadError::Settings { hook: hook(), problems, file });
        }
        let identity = Identity {
            name: grant.name.clone(),
            version: installed.description.version,
            digest: installed.digest,
            provenance: Provenance {
                signed_by: installed.signed_by,
                allowed_unsigned: installed.allowed_unsigned,
            },
            grant_file: grant.file.clone(),
            settings_at: grant.settings_at.clone(),
        };
        let settings = grant.settings.to_string();
        let engine = self.engine().clone();
        let mut loaded = WasmHook::new(identity, engine, ready, powers, settings, run.clone());
        loaded.validate(Deadline::after(VALIDATE)).await?;
        Ok(Box::new(loaded))
    }
}

/// What a component says now, and what it said when it was installed; what it imports of WASI was added
/// to that by the compiler.
fn is_as_recorded(said: &Description, recorded: &Description) -> bool {
    let mut recorded = recorded.clone();
    recorded.needs.retain(|need| !matches!(need, Need::Wasi { .. }));
    *said == recorded
}

/// What is wrong with the settings, by the schema that the hook was installed with. Found before the
/// hook is asked.
fn settings_problems(description: &Description, grant: &HookGrant) -> Vec<String> {
    match SettingsSchema::compile(&description.settings_schema) {
        Ok(schema) => schema.problems(&grant.settings, &grant.settings_at),
        Err(why) => vec![format!(
            "its settings schema cannot be used: {why}; install the hook again, or report this to its author"
        )],
    }
}
