//! What `stillpoint hook inspect --json` prints.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::json::SCHEMA_VERSION;
use crate::hook::inspection::{Granted, Inspection, Power, WordFor};
use crate::hook::{Source, Tool};

/// What `stillpoint hook inspect --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InspectDocument {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The component's own name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line about it.
    pub summary: String,
    /// Its digest.
    pub digest: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it was made with, as it says.
    pub toolchain: Vec<Tool>,
    /// JSON Schema of its settings, as text; may be empty.
    pub settings_schema: String,
    /// How long it would like a phase to be at most, in milliseconds.
    pub freeze_budget_ms: u32,
    /// Whose word there is for it.
    pub word: WordFor,
    /// How it is installed, if it is.
    pub installed: Option<InstalledDocument>,
    /// The grant files that name it.
    pub granted_in: Vec<PathBuf>,
    /// What it asks for, if no grant file names it; nothing of it is granted then.
    pub asks: Vec<Power>,
    /// What each grant file that names it says.
    pub grants: Vec<Granted>,
}

/// How a hook is installed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstalledDocument {
    /// When; RFC 3339, UTC.
    pub when: String,
    /// From where.
    pub source: Source,
    /// The version of the contract that it is built for.
    pub contract: String,
    /// The digest of the image that was compiled here.
    pub image_digest: String,
    /// The image's size, in bytes.
    pub image_bytes: u64,
    /// The engine that the image is for.
    pub engine: String,
}

impl From<&Inspection> for InspectDocument {
    fn from(inspection: &Inspection) -> Self {
        let description = &inspection.description;
        let installed = inspection.installed.as_ref().map(|installed| InstalledDocument {
            when: installed.installed.clone(),
            source: installed.source.clone(),
            contract: installed.contract.clone(),
            image_digest: installed.image_digest.to_string(),
            image_bytes: installed.image_bytes,
            engine: installed.engine.clone(),
        });
        Self {
            schema_version: SCHEMA_VERSION,
            name: description.name.clone(),
            version: description.version.clone(),
            summary: description.summary.clone(),
            digest: inspection.digest.to_string(),
            bytes: inspection.bytes,
            imports: inspection.imports.clone(),
            toolchain: inspection.toolchain.clone(),
            settings_schema: description.settings_schema.clone(),
            freeze_budget_ms: description.freeze_budget_ms,
            word: inspection.word.clone(),
            installed,
            granted_in: inspection.granted_in.clone(),
            asks: inspection.asks.clone(),
            grants: inspection.grants.clone(),
        }
    }
}
