//! What is carried from one place to another: an installed hook out of the store again, and what a
//! component says of itself before anybody installs it.

use std::path::PathBuf;

use super::HookStore;
use super::error::StoreError;
use super::record::{InstallRequest, Tool};
use crate::hook::description::Description;
use crate::hook::since_v0_1_0;

/// What a component says of itself.
#[derive(Clone, Debug)]
pub struct Portrait {
    /// Name, version, and what it asks for.
    pub description: Description,
    /// What it imports, by name.
    pub imports: Vec<String>,
    /// What it exports and is called by, by name.
    pub exports: Vec<String>,
    /// What it says that it was made with.
    pub toolchain: Vec<Tool>,
}

impl HookStore {
    /// Asks a component what it is, and installs nothing. Takes as long as installing it.
    ///
    /// # Errors
    /// If it is not a hook, with the remedy in [`StoreError::hint`].
    pub async fn portrait(&self, request: &InstallRequest) -> Result<Portrait, StoreError> {
        let compiled = self.compile(&request.module, &request.source).await?;
        let facts = compiled.facts;
        let contract = since_v0_1_0::built_for(&facts.imports);
        Ok(Portrait {
            description: facts.description,
            imports: facts.imports,
            exports: vec![format!("{}@{contract}", since_v0_1_0::EXPORT)],
            toolchain: facts.toolchain,
        })
    }

    /// The file of an installed component, by name or digest, checked to be what was installed. Its
    /// signature lies beside it.
    ///
    /// # Errors
    /// If nothing of that name is installed, or somebody changed it.
    pub fn installed_file(&self, what: &str) -> Result<PathBuf, StoreError> {
        let installed = self.find(what)?;
        self.check_component(&installed)?;
        Ok(self.component_path(&installed.digest))
    }
}
