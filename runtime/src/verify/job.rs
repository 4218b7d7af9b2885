//! What goes over the pipes between the command, the keeper of the sandbox and who works in it: one
//! JSON document a line.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::verdict::{DatabaseCheck, FileSystemCheck, Finding};
use crate::config::verify::VerifyEngine;
use crate::manifest::MetadataEntry;

/// What is to be verified, all of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) file_systems: Vec<CopiedFileSystem>,
    pub(crate) databases: Vec<DatabaseJob>,
    pub(crate) hooks: Vec<HookJob>,
    pub(crate) queries: Vec<Query>,
    pub(crate) deadline: Duration,
    pub(crate) memory_bytes: u64,
    pub(crate) cpus: f64,
}

/// One file system of the copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CopiedFileSystem {
    pub(crate) mount_point: PathBuf,
    pub(crate) fs_type: String,
    pub(crate) disk: String,
    /// The device that it is on, or whose partitions it can be on.
    pub(crate) node: PathBuf,
}

/// A database that the operator named, or that was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DatabaseJob {
    pub(crate) engine: Engine,
    pub(crate) directory: PathBuf,
    pub(crate) server: Option<PathBuf>,
    pub(crate) options: Vec<String>,
    pub(crate) queries: Vec<Query>,
}

impl DatabaseJob {
    /// One that nobody named.
    pub(crate) fn found(engine: Engine, directory: PathBuf) -> Self {
        Self { engine, directory, server: None, options: Vec::new(), queries: Vec::new() }
    }
}

/// Which verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Engine {
    Mariadb,
    Postgresql,
    Redis,
}

impl Engine {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Engine::Mariadb => "mariadb",
            Engine::Postgresql => "postgresql",
            Engine::Redis => "redis",
        }
    }
}

/// A hook of the manifest, and what it saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HookJob {
    pub(crate) name: String,
    /// It proved that it held.
    pub(crate) confirmed: bool,
    pub(crate) saved: Vec<MetadataEntry>,
}

/// A query, and its answer if there is only one that is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Query {
    pub(crate) text: String,
    pub(crate) expected: Option<String>,
}

/// What the sandbox tells, as it happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Event {
    /// It is busy with this now.
    Doing(String),
    Found(Finding),
    FileSystem(FileSystemCheck),
    Database(Box<DatabaseCheck>),
    NotChecked(String),
    /// It could not go on; that says nothing about the snapshot.
    Failed {
        what: String,
        hint: Option<String>,
    },
    /// A hook of the manifest quiesced a database that is not to be found.
    NoDatabase {
        hook: String,
    },
    /// Its time was over.
    TooLate,
    /// That was all.
    Done,
}

impl From<VerifyEngine> for Engine {
    fn from(engine: VerifyEngine) -> Self {
        match engine {
            VerifyEngine::Mariadb => Engine::Mariadb,
            VerifyEngine::Postgresql => Engine::Postgresql,
            VerifyEngine::Redis => Engine::Redis,
        }
    }
}
