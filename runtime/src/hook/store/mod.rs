//! Installed components. A component is compiled once, when it is installed; a run only loads what
//! was recorded then, and checks that it still is what was recorded.
//!
//! `<hooks>/<sha256>.wasm` is the component, `<hooks>/<sha256>.json` its record, and
//! `<images>/<sha256>-<engine>.cwasm` the image that this machine compiled from it.

mod error;
mod files;
mod record;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wasmtime::component::Component;

use super::component::{self, NotAHook};
use super::description::Description;
use super::digest::Digest;
use super::engine::HookEngine;
use super::since_v0_1_0::{self, Ready};
use super::wasm::describe;
use crate::config::grants::grant_files;
use crate::config::read::{OPEN_TO_OTHERS, read_trusted};
use crate::paths::Paths;
use crate::sys;
use crate::time::Deadline;

pub use error::StoreError;
use files::{private_directory, remove_file, write_whole};
pub use record::{
    DetachedSignature, InstallPolicy, InstallRequest, Installed, Signer, Source, Tool,
    signature_beside,
};
use record::{LONGEST_COMPONENT, RECORD_VERSION};

/// The longest image, in bytes; an image is two to three times its component.
const LONGEST_IMAGE: u64 = 1 << 30;

const LONGEST_RECORD: u64 = 4 << 20;

/// How long `describe` may take.
const DESCRIBE: Duration = Duration::from_secs(10);

/// What [`HookStore::inspect`] tells.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// What the component says about itself.
    pub description: Description,
    /// Its digest.
    pub digest: Digest,
    /// Its size, in bytes.
    pub bytes: u64,
    /// The record, if it is installed.
    pub installed: Option<Installed>,
    /// The grant files that name it.
    pub granted_in: Vec<PathBuf>,
}

/// The installed components, and the engine that runs them.
#[derive(Clone, Debug)]
pub struct HookStore {
    paths: Paths,
    engine: HookEngine,
}

/// Bytes, checked and compiled.
struct Compiled {
    digest: Digest,
    bytes: Vec<u8>,
    component: Component,
    description: Description,
}

impl HookStore {
    /// The store of an installation. Starts the engine and touches no file.
    ///
    /// # Errors
    /// If the engine does not start.
    pub fn new(paths: &Paths) -> Result<Self, StoreError> {
        Ok(Self { paths: paths.clone(), engine: HookEngine::start()? })
    }

    /// Checks a component, compiles it, asks it what it is, and keeps it. Takes seconds for
    /// interpreters. Installing what is installed already compiles it again.
    ///
    /// # Errors
    /// If it is not a hook, with the remedy in [`StoreError::hint`]; then nothing is kept.
    pub async fn install(&self, request: InstallRequest) -> Result<Installed, StoreError> {
        let file = PathBuf::from(request.source.to_string());
        let file = file.as_path();
        let compiled = self.compile(file, request.module).await?;
        let image = compiled.component.serialize().map_err(|error| StoreError::NotAHook {
            file: file.to_owned(),
            problem: format!("its image cannot be made: {error:#}"),
            hint: "report this with the component".into(),
        })?;
        let Compiled { digest, bytes, description, .. } = compiled;
        let installed = Installed {
            record_version: RECORD_VERSION,
            contract: since_v0_1_0::VERSION.into(),
            description,
            digest,
            bytes: bytes.len() as u64,
            image_digest: Digest::of(&image),
            image_bytes: image.len() as u64,
            engine: self.engine.hash().into(),
            imports: Vec::new(),
            toolchain: Vec::new(),
            source: request.source,
            signed_by: None,
            allowed_unsigned: Some("signatures are not checked yet".into()),
            installed: jiff::Timestamp::now().to_string(),
        };
        private_directory(&self.paths.hooks())?;
        private_directory(&self.paths.images())?;
        // The record last: it vouches for the other two.
        write_whole(&self.component_path(&digest), &bytes)?;
        write_whole(&self.image_path(&digest), &image)?;
        let record = serde_json::to_vec_pretty(&installed).map_err(|error| StoreError::Record {
            path: self.record_path(&digest),
            problem: error.to_string(),
        })?;
        write_whole(&self.record_path(&digest), &record)?;
        Ok(installed)
    }

    /// Everything that is installed, by name.
    ///
    /// # Errors
    /// If the directory or a record cannot be read.
    pub fn list(&self) -> Result<Vec<Installed>, StoreError> {
        let directory = self.paths.hooks();
        let failed = |source| StoreError::Read { path: directory.clone(), source };
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                all.push(self.read_record(&path)?);
            }
        }
        all.sort_by(|a, b| {
            (&a.description.name, &a.installed).cmp(&(&b.description.name, &b.installed))
        });
        Ok(all)
    }

    /// Tells about an installed hook by name or digest, or about a file that is not installed.
    ///
    /// # Errors
    /// If there is no such hook, or the file is not one.
    pub async fn inspect(&self, what: &str) -> Result<Inspection, StoreError> {
        match self.find(what) {
            Ok(installed) => Ok(Inspection {
                description: installed.description.clone(),
                digest: installed.digest,
                bytes: installed.bytes,
                granted_in: self.granted_in(&installed.digest)?,
                installed: Some(installed),
            }),
            Err(StoreError::NotInstalled { .. }) if Path::new(what).exists() => {
                let request = InstallRequest::from_file(Path::new(what))?;
                let compiled = self.compile(Path::new(what), request.module).await?;
                let digest = compiled.digest;
                Ok(Inspection {
                    description: compiled.description,
                    digest,
                    bytes: compiled.bytes.len() as u64,
                    installed: self.find(&digest.to_string()).ok(),
                    granted_in: self.granted_in(&digest)?,
                })
            }
            Err(other) => Err(other),
        }
    }

    /// Removes a hook by name or digest.
    ///
    /// # Errors
    /// If there is none, or a grant file names it; then nothing is removed.
    pub fn remove(&self, what: &str) -> Result<Installed, StoreError> {
        let installed = self.find(what)?;
        if let Some(file) = self.granted_in(&installed.digest)?.into_iter().next() {
            let name = installed.description.name.clone();
            return Err(StoreError::InUse { name, digest: installed.digest, file });
        }
        // The record first: without it, nothing vouches for the rest.
        remove_file(&self.record_path(&installed.digest))?;
        remove_file(&self.component_path(&installed.digest))?;
        self.remove_images(&installed.digest)?;
        Ok(installed)
    }

    /// The component that a grant names, ready to be instantiated. Nothing is compiled.
    pub(super) fn ready(&self, digest: &Digest) -> Result<(Installed, Ready), StoreError> {
        let installed = self.find(&digest.to_string())?;
        self.check_component(&installed)?;
        let component = self.load_image(&installed)?;
        let ready = Ready::new(self.engine.engine(), &component)
            .map_err(|error| self.no_image(&installed, format!("{error:#}")))?;
        Ok((installed, ready))
    }

    pub(super) fn engine(&self) -> &HookEngine {
        &self.engine
    }

    /// Compiles and describes a component.
    async fn compile(&self, file: &Path, bytes: Vec<u8>) -> Result<Compiled, StoreError> {
        let engine = self.engine.engine().clone();
        let refused = |NotAHook { problem, hint }| StoreError::NotAHook {
            file: file.to_owned(),
            problem,
            hint,
        };
        let compiling = tokio::task::spawn_blocking(move || {
            let component = component::compile(&engine, &bytes)?;
            let ready = Ready::new(&engine, &component).map_err(|error| NotAHook {
                problem: format!("its imports or exports do not fit the contract: {error:#}"),
                hint: format!(
                    "build it against stillpoint:hook@{}, as it is in hooks-sdk/wit",
                    since_v0_1_0::VERSION
                ),
            })?;
            Ok((bytes, component, ready))
        });
        let (bytes, component, ready) = compiling
            .await
            .map_err(|error| NotAHook {
                problem: format!("compiling it failed: {error}"),
                hint: "report this with the component".into(),
            })
            .and_then(|compiled| compiled)
            .map_err(refused)?;
        let description = describe(&self.engine, &ready, Deadline::after(DESCRIBE))
            .await
            .map_err(|(problem, hint)| NotAHook {
                problem: format!("its `describe` failed: {problem}"),
                hint: hint.unwrap_or_else(|| "report this to the hook's author".into()),
            })
            .map_err(refused)?;
        Ok(Compiled { digest: Digest::of(&bytes), bytes, component, description })
    }

    fn check_component(&self, installed: &Installed) -> Result<(), StoreError> {
        let file = self.component_path(&installed.digest);
        let found = Digest::of(&read_trusted(&file, OPEN_TO_OTHERS, LONGEST_COMPONENT)?);
        if found == installed.digest {
            return Ok(());
        }
        Err(StoreError::Changed { file, recorded: installed.digest, found })
    }

    fn load_image(&self, installed: &Installed) -> Result<Component, StoreError> {
        if installed.engine != self.engine.hash() {
            let why = "it was compiled for another version or processor";
            return Err(self.no_image(installed, why.into()));
        }
        let file = self.image_path(&installed.digest);
        let bytes = match read_trusted(&file, OPEN_TO_OTHERS, LONGEST_IMAGE) {
            Err(error) if error.is_not_found() => {
                return Err(self.no_image(installed, format!("{} is missing", file.display())));
            }
            other => other?,
        };
        match sys::image::load(self.engine.engine(), &bytes, installed.image_digest) {
            None => Err(StoreError::Changed {
                file,
                recorded: installed.image_digest,
                found: Digest::of(&bytes),
            }),
            Some(loaded) => loaded.map_err(|error| self.no_image(installed, format!("{error:#}"))),
        }
    }

    fn no_image(&self, installed: &Installed, why: String) -> StoreError {
        StoreError::NoImage {
            name: installed.description.name.clone(),
            why,
            component: self.component_path(&installed.digest),
        }
    }

    fn find(&self, what: &str) -> Result<Installed, StoreError> {
        let not_installed = |there_are| StoreError::NotInstalled { what: what.into(), there_are };
        if let Ok(digest) = what.parse::<Digest>() {
            return match self.read_record(&self.record_path(&digest)) {
                Err(StoreError::File(error)) if error.is_not_found() => {
                    Err(not_installed(self.names()?))
                }
                other => other,
            };
        }
        let mut found = self.list()?;
        found.retain(|installed| installed.description.name == what);
        match found.len() {
            0 => Err(not_installed(self.names()?)),
            1 => Ok(found.remove(0)),
            _ => Err(StoreError::Ambiguous {
                what: what.into(),
                digests: found.iter().map(|installed| installed.digest).collect(),
            }),
        }
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names: Vec<_> =
            self.list()?.into_iter().map(|installed| installed.description.name).collect();
        names.dedup();
        Ok(names)
    }

    /// Grant files that name the digest anywhere: a file that cannot be parsed counts, too.
    fn granted_in(&self, digest: &Digest) -> Result<Vec<PathBuf>, StoreError> {
        let mut naming = Vec::new();
        for path in grant_files(&self.paths)? {
            let text = fs::read(&path)
                .map_err(|source| StoreError::Read { path: path.clone(), source })?;
            if String::from_utf8_lossy(&text).contains(&digest.hex()) {
                naming.push(path);
            }
        }
        Ok(naming)
    }

    fn read_record(&self, path: &Path) -> Result<Installed, StoreError> {
        let bytes = read_trusted(path, OPEN_TO_OTHERS, LONGEST_RECORD)?;
        let wrong = |problem| StoreError::Record { path: path.to_owned(), problem };
        let installed: Installed =
            serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if installed.record_version != RECORD_VERSION {
            return Err(wrong(format!("its form is version {}", installed.record_version)));
        }
        if path != self.record_path(&installed.digest) {
            return Err(wrong(format!("it is about {}", installed.digest)));
        }
        Ok(installed)
    }

    fn remove_images(&self, digest: &Digest) -> Result<(), StoreError> {
        let directory = self.paths.images();
        let Ok(entries) = fs::read_dir(&directory) else { return Ok(()) };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(&digest.hex()) {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn component_path(&self, digest: &Digest) -> PathBuf {
        self.paths.hooks().join(format!("{}.wasm", digest.hex()))
    }

    fn record_path(&self, digest: &Digest) -> PathBuf {
        self.paths.hooks().join(format!("{}.json", digest.hex()))
    }

    fn image_path(&self, digest: &Digest) -> PathBuf {
        self.paths.images().join(format!("{}-{}.cwasm", digest.hex(), self.engine.hash()))
    }
}
