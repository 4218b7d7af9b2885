//! A hook on one screen: who signed it, what it imports, what it asks for, what it gets, and what would
//! be refused.

mod agreement;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

pub use agreement::{Item, ItemKind, Power, PowerKind, Standing};

use super::description::Description;
use super::digest::Digest;
use super::store::{HookStore, InstallRequest, Installed, Signer, StoreError, Tool};
use super::vetting::Vetting;
use crate::capability::Powers;
use crate::config::connections::Connections;
use crate::config::grants::{HookGrant, Limits, OnFailure};
use crate::config::read::ConfigError;

/// What [`HookStore::inspect`] tells.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// What the component says about itself.
    pub description: Description,
    /// Its digest.
    pub digest: Digest,
    /// Its size, in bytes.
    pub bytes: u64,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it was made with, as it says.
    pub toolchain: Vec<Tool>,
    /// Whose word there is for it.
    pub word: WordFor,
    /// The record, if it is installed.
    pub installed: Option<Installed>,
    /// The grant files that name it.
    pub granted_in: Vec<PathBuf>,
    /// What it asks for, if no grant file names it; nothing of it is granted then.
    pub asks: Vec<Power>,
    /// What each grant file that names it says.
    pub grants: Vec<Granted>,
}

/// Whose word there is for a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WordFor {
    /// The trusted key that signed it.
    pub signed_by: Option<Signer>,
    /// Why no trusted key vouches for it, if the operator allowed that when it was installed.
    pub allowed_unsigned: Option<String>,
    /// Why it would not be installed, or does not run any more: untrusted, revoked.
    pub refused: Option<String>,
}

/// What one grant file says about a hook.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Granted {
    /// The operator's name for the hook.
    pub hook: String,
    /// The grant file.
    pub file: PathBuf,
    /// Why the hook would not run with it, if so.
    pub problem: Option<String>,
    /// What a failure of it does to a run: `abort`, `lower`, `skip`.
    pub on_failure: Option<String>,
    /// Hooks that are quiesced before it.
    pub after: Vec<String>,
    /// What it asks for and what it gets.
    pub powers: Vec<Power>,
    /// Its bounds.
    pub limits: Option<Bounds>,
}

/// The bounds of a hook, as in `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Memory of an instance.
    pub memory_bytes: usize,
    /// Processor time in one phase, in milliseconds.
    pub cpu_time_ms: u64,
    /// Calls of host functions in one phase.
    pub calls: usize,
    /// Rows of one answer.
    pub rows: usize,
    /// Bytes of one answer.
    pub answer_bytes: usize,
    /// Sessions at the same time.
    pub connections: usize,
    /// Statements of one instance.
    pub statements: usize,
    /// Bytes of log kept in memory.
    pub log_bytes: usize,
}

impl From<Limits> for Bounds {
    fn from(limits: Limits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes,
            cpu_time_ms: u64::try_from(limits.cpu_time.as_millis()).unwrap_or(u64::MAX),
            calls: limits.calls,
            rows: limits.rows,
            answer_bytes: limits.answer_bytes,
            connections: limits.connections,
            statements: limits.statements,
            log_bytes: limits.log_bytes,
        }
    }
}

impl HookStore {
    /// Tells about an installed hook by name or digest, or about a file that is not installed. A file is
    /// compiled for it, in a child without privileges, and not kept.
    ///
    /// # Errors
    /// If there is no such hook, or the file is not one.
    pub async fn inspect(&self, what: &str) -> Result<Inspection, StoreError> {
        match self.find(what) {
            Ok(installed) => self.inspect_installed(installed),
            Err(StoreError::NotInstalled { .. }) if Path::new(what).exists() => {
                self.inspect_file(Path::new(what)).await
            }
            Err(other) => Err(other),
        }
    }

    fn inspect_installed(&self, installed: Installed) -> Result<Inspection, StoreError> {
        let word = WordFor {
            signed_by: installed.signed_by.clone(),
            allowed_unsigned: installed.allowed_unsigned.clone(),
            refused: self.check_revocation(&installed).err().map(|error| in_full(&error)),
        };
        let inspection = Inspection {
            description: installed.description.clone(),
            digest: installed.digest,
            bytes: installed.bytes,
            imports: installed.imports.clone(),
            toolchain: installed.toolchain.clone(),
            word,
            installed: Some(installed),
            granted_in: Vec::new(),
            asks: Vec::new(),
            grants: Vec::new(),
        };
        self.with_grants(inspection)
    }

    async fn inspect_file(&self, file: &Path) -> Result<Inspection, StoreError> {
        let request = InstallRequest::from_file(file)?;
        let compiled = self.compile(&request.module, &request.source).await?;
        let (facts, digest) = (compiled.facts, Digest::of(&request.module));
        if let Ok(installed) = self.find(&digest.to_string()) {
            return self.inspect_installed(installed);
        }
        let inspection = Inspection {
            word: self.word_for(&request, &facts.description.name)?,
            description: facts.description,
            digest,
            bytes: request.module.len() as u64,
            imports: facts.imports,
            toolchain: facts.toolchain,
            installed: None,
            granted_in: Vec::new(),
            asks: Vec::new(),
            grants: Vec::new(),
        };
        self.with_grants(inspection)
    }

    /// Whose word an installation would find.
    fn word_for(&self, request: &InstallRequest, name: &str) -> Result<WordFor, StoreError> {
        let vetting = Vetting::load(self.paths())?;
        let vouched = vetting.vouched(&request.module, &request.signatures);
        let signed_by = vouched.and_then(|vouched| vouched.for_name(name));
        Ok(match signed_by {
            Ok((signer, _)) => WordFor { signed_by: Some(signer), ..WordFor::default() },
            Err(error) => WordFor { refused: Some(error.to_string()), ..WordFor::default() },
        })
    }

    fn with_grants(&self, mut inspection: Inspection) -> Result<Inspection, StoreError> {
        inspection.granted_in = self.granted_in(&inspection.digest)?;
        let connections = Connections::load(self.paths());
        for file in &inspection.granted_in {
            let granted = self.granted(&inspection, file, connections.as_ref());
            inspection.grants.push(granted);
        }
        if inspection.grants.is_empty() {
            inspection.asks = agreement::powers(&inspection.description, None);
        }
        Ok(inspection)
    }

    /// What one file says. One that is wrong is told as it is: that the hook does not run with it is what
    /// the operator wants to see.
    fn granted(
        &self,
        inspection: &Inspection,
        file: &Path,
        connections: Result<&Connections, &ConfigError>,
    ) -> Granted {
        let hook = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let connections = match connections {
            Ok(connections) => connections,
            Err(error) => return Granted::broken(hook, file, error),
        };
        let grant = match HookGrant::load(file, connections) {
            Ok(grant) => grant,
            Err(error) => return Granted::broken(hook, file, &error),
        };
        let problem = self.problem(inspection, &grant, connections);
        Granted {
            hook,
            file: file.to_owned(),
            problem,
            on_failure: Some(
                match grant.on_failure {
                    OnFailure::Abort => "abort",
                    OnFailure::Lower => "lower",
                    OnFailure::Skip => "skip",
                }
                .into(),
            ),
            powers: agreement::powers(&inspection.description, Some(&grant)),
            limits: Some(grant.limits.into()),
            after: grant.after,
        }
    }

    /// What a run would say before anything is touched.
    fn problem(
        &self,
        inspection: &Inspection,
        grant: &HookGrant,
        connections: &Connections,
    ) -> Option<String> {
        if grant.module != inspection.digest {
            return Some(format!("its `module` is {}", grant.module));
        }
        let loaded = self.image(&grant.module).map(drop);
        let agreed = || Powers::agreed(&inspection.description, grant, connections).map(drop);
        match loaded {
            Err(error) => Some(in_full(&error)),
            Ok(()) => agreed().err().map(|error| error.to_string()),
        }
    }
}

impl Granted {
    fn broken(hook: String, file: &Path, error: &ConfigError) -> Self {
        Self {
            hook,
            file: file.to_owned(),
            problem: Some(in_full(error)),
            on_failure: None,
            after: Vec::new(),
            powers: Vec::new(),
            limits: None,
        }
    }
}

/// An error with its causes, on one line.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
