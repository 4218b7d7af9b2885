//! Installed components. A component is compiled once, when it is installed; a run only loads what
//! was recorded then, and checks that it still is what was recorded.
//!
//! `<hooks>/<sha256>.wasm` is the component, `….wasm.minisig` the signature that it was accepted for,
//! `<hooks>/<sha256>.json` its record, and `<images>/<sha256>-<engine>.cwasm` the image that this machine
//! compiled from it.

mod carry;
mod error;
mod files;
mod install;
mod record;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wasmtime::component::Component;

use super::compile::Compiler;
use super::digest::Digest;
use super::engine::HookEngine;
use super::since_v0_1_0::Ready;
use super::vetting::Revocations;
use crate::config::grants::grant_files;
use crate::config::read::{OPEN_TO_OTHERS, read_trusted};
use crate::paths::Paths;
use crate::sys;

pub use carry::Portrait;
pub use error::StoreError;
use files::remove_file;
pub use record::{
    DetachedSignature, InstallPolicy, InstallRequest, Installed, LONGEST_COMPONENT, Signer, Source,
    Tool, signature_beside,
};
use record::{Form, RECORD_VERSION};

/// The longest image, in bytes; an image is two to three times its component.
const LONGEST_IMAGE: u64 = 1 << 30;

const LONGEST_RECORD: u64 = 4 << 20;

/// The installed components, and the engine that runs them.
#[derive(Clone, Debug)]
pub struct HookStore {
    paths: Paths,
    /// Where what hooks keep is, if not there: tests of a hook run side by side.
    state: Option<Paths>,
    engine: HookEngine,
    compiler: Compiler,
}

impl HookStore {
    /// The store of an installation. Starts the engine and touches no file.
    ///
    /// # Errors
    /// If the engine does not start.
    pub fn new(paths: &Paths) -> Result<Self, StoreError> {
        let engine = HookEngine::start()?;
        Ok(Self { paths: paths.clone(), state: None, engine, compiler: Compiler::this_program() })
    }

    /// The same store with another compiler: for programs whose `main` does not begin with
    /// [`guard::enter`](crate::guard::enter), and for other bounds.
    #[must_use]
    pub fn compiled_by(self, compiler: Compiler) -> Self {
        Self { compiler, ..self }
    }

    /// The same store, with what hooks keep elsewhere.
    pub(in crate::hook) fn with_state_at(&self, state: &Paths) -> Self {
        Self { state: Some(state.clone()), ..self.clone() }
    }

    /// The installation that hooks keep their state in.
    pub(in crate::hook) fn state_paths(&self) -> &Paths {
        self.state.as_ref().unwrap_or(&self.paths)
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
        remove_file(&self.signature_path(&installed.digest))?;
        self.remove_images(&installed.digest)?;
        Ok(installed)
    }

    /// The component that a grant names. Nothing is compiled.
    pub(super) fn image(&self, digest: &Digest) -> Result<(Installed, Component), StoreError> {
        let installed = self.find(&digest.to_string())?;
        self.check_revocation(&installed)?;
        self.check_component(&installed)?;
        let component = self.load_image(&installed)?;
        Ok((installed, component))
    }

    /// Makes it ready to be instantiated; what of WASI is granted is there to be found.
    pub(super) fn ready(
        &self,
        installed: &Installed,
        component: &Component,
        wasi: bool,
    ) -> Result<Ready, StoreError> {
        Ready::new(self.engine.engine(), component, wasi)
            .map_err(|error| self.no_image(installed, format!("{error:#}")))
    }

    pub(super) fn paths(&self) -> &Paths {
        &self.paths
    }

    pub(super) fn engine(&self) -> &HookEngine {
        &self.engine
    }

    /// A hook whose digest or signer was revoked since it was installed does not run.
    pub(super) fn check_revocation(&self, installed: &Installed) -> Result<(), StoreError> {
        let revoked = Revocations::load(&self.paths.revoked())?;
        revoked
            .check(&installed.digest, installed.signed_by.as_ref())
            .map_err(|source| StoreError::NotAccepted { what: installed.to_string(), source })
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

    pub(super) fn find(&self, what: &str) -> Result<Installed, StoreError> {
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
    pub(super) fn granted_in(&self, digest: &Digest) -> Result<Vec<PathBuf>, StoreError> {
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
        let form: Form =
            serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if form.record_version != RECORD_VERSION {
            return Err(wrong(form.says()));
        }
        let installed: Installed =
            serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
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

    /// Beside the component as [`signature_beside`] names it, so that it is found again with it.
    fn signature_path(&self, digest: &Digest) -> PathBuf {
        signature_beside(&self.component_path(digest))
    }

    fn record_path(&self, digest: &Digest) -> PathBuf {
        self.paths.hooks().join(format!("{}.json", digest.hex()))
    }

    fn image_path(&self, digest: &Digest) -> PathBuf {
        self.paths.images().join(format!("{}-{}.cwasm", digest.hex(), self.engine.hash()))
    }
}
