//! From a grant to a hook that can run. Everything is checked here, before anything is touched.

use std::time::Duration;

use super::host::RunContext;
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
    /// agrees what it may do, reads passwords, and lets it check its settings. Contacts no target
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
        let (installed, ready) = self
            .ready(&grant.module)
            .map_err(|source| HookLoadError::Store { hook: hook(), source })?;
        let said = describe(self.engine(), &ready, Deadline::after(VALIDATE)).await;
        if said.as_ref().ok() != Some(&installed.description) {
            return Err(HookLoadError::Differs { hook: hook(), digest: installed.digest });
        }
        let powers = Powers::agreed(&installed.description, grant, connections).map_err(
            |error| match error {
                PowersError::Config(source) => HookLoadError::Config { hook: hook(), source },
                PowersError::Missing(message, hint) => {
                    HookLoadError::NotGranted { hook: hook(), message, hint }
                }
            },
        )?;
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
