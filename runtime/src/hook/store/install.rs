//! Installing: whose word, compile, whose word for that name, is it a way forward, keep.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use super::error::StoreError;
use super::files::{private_directory, read_root_file_if_there, remove_file, write_whole};
use super::record::{InstallRequest, Installed, RECORD_VERSION, Signer, Source};
use super::{HookStore, LONGEST_RECORD};
use crate::file_lock::FileLock;
use crate::hook::compile::Compiled;
use crate::hook::digest::Digest;
use crate::hook::since_v0_1_0;
use crate::hook::vetting::{Versions, Vetting, VettingError, Vouched};

/// On whose word a component is installed.
struct Word {
    source: Source,
    signed_by: Option<Signer>,
    allowed_unsigned: Option<String>,
    /// The signature that counts, to be kept.
    signature: Option<Vec<u8>>,
}

impl HookStore {
    /// Checks who vouches for a component, compiles it in a child without privileges, asks it there what
    /// it is, and keeps it. Takes seconds for interpreters.
    ///
    /// Installing what is installed already compiles it again; it stays installed on the word that it
    /// was installed on, unless a better one comes with it.
    ///
    /// # Errors
    /// If nobody vouches for it, or it is not a hook, with the remedy in [`StoreError::hint`]; then
    /// nothing is kept.
    pub async fn install(&self, request: InstallRequest) -> Result<Installed, StoreError> {
        let digest = Digest::of(&request.module);
        let before = self.installed_before(&digest)?;
        let vetting = Vetting::load(&self.paths)?;
        let refused = |source| StoreError::NotAccepted { what: request.source.to_string(), source };
        let vouched = vetting.vouched(&request.module, &request.signatures).map_err(refused)?;
        if vouched.by_nobody() && before.is_none() && !request.policy.allow_unsigned {
            return Err(refused(vouched.untrusted()));
        }
        let compiled = self.compile(&request.module, &request.source).await?;
        let name = &compiled.facts.description.name;
        let word = word(vouched, name, &request, before.as_ref()).map_err(refused)?;
        vetting.check(&digest, word.signed_by.as_ref()).map_err(refused)?;
        self.keep(&request, digest, compiled, word, before.is_some())
    }

    /// What is installed already as these very bytes. What cannot be read is as if it were not there.
    fn installed_before(&self, digest: &Digest) -> Result<Option<Installed>, StoreError> {
        match self.read_record(&self.record_path(digest)) {
            Ok(installed) => Ok(Some(installed)),
            Err(StoreError::File(error)) if error.is_not_found() => Ok(None),
            Err(StoreError::Record { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    pub(in crate::hook) async fn compile(
        &self,
        module: &[u8],
        source: &Source,
    ) -> Result<Compiled, StoreError> {
        let compiled = self.compiler.compile(module, self.engine.hash()).await;
        compiled.map_err(|error| StoreError::not_compiled(&source.to_string(), error))
    }

    fn keep(
        &self,
        request: &InstallRequest,
        digest: Digest,
        compiled: Compiled,
        word: Word,
        again: bool,
    ) -> Result<Installed, StoreError> {
        let Compiled { facts, image } = compiled;
        let installed = Installed {
            record_version: RECORD_VERSION,
            contract: since_v0_1_0::built_for(&facts.imports).into(),
            description: facts.description,
            imports: facts.imports,
            toolchain: facts.toolchain,
            digest,
            bytes: request.module.len() as u64,
            image_digest: Digest::of(&image),
            image_bytes: image.len() as u64,
            engine: self.engine.hash().into(),
            installed: jiff::Timestamp::now().to_string(),
            source: word.source,
            signed_by: word.signed_by,
            allowed_unsigned: word.allowed_unsigned,
        };
        private_directory(&self.paths.hooks())?;
        private_directory(&self.paths.images())?;
        let _one_at_a_time = self.lock()?;
        let versions = self.forward(&installed, again || request.policy.downgrade)?;
        write_whole(&self.component_path(&digest), &request.module)?;
        write_whole(&self.image_path(&digest), &image)?;
        match &word.signature {
            Some(signature) => write_whole(&self.signature_path(&digest), signature)?,
            None if installed.signed_by.is_none() => remove_file(&self.signature_path(&digest))?,
            None => {}
        }
        write_whole(&self.paths.versions(), &json(&versions, &self.paths.versions())?)?;
        // The record last: it vouches for the rest.
        let record = self.record_path(&digest);
        write_whole(&record, &json(&installed, &record)?)?;
        Ok(installed)
    }

    /// The versions with this one remembered, if it is a way forward or `anyway`.
    fn forward(&self, installed: &Installed, anyway: bool) -> Result<Versions, StoreError> {
        let mut versions = self.versions()?;
        let (name, version) = (&installed.description.name, &installed.description.version);
        if !anyway {
            versions.check(name, version, &installed.digest).map_err(|source| {
                StoreError::NotAccepted { what: installed.source.to_string(), source }
            })?;
        }
        versions.remember(name, version, installed.digest);
        Ok(versions)
    }

    /// What was ever installed. A file that cannot be understood is an error: nothing may go back
    /// because it was lost.
    fn versions(&self) -> Result<Versions, StoreError> {
        let path = self.paths.versions();
        match read_root_file_if_there(&path, LONGEST_RECORD)? {
            None => Ok(Versions::default()),
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| StoreError::Record { path, problem: error.to_string() }),
        }
    }

    /// Two installations do not write at the same time.
    fn lock(&self) -> Result<FileLock, StoreError> {
        let path = self.paths.versions().with_extension("lock");
        let failed = |source| StoreError::Write { path: path.clone(), source };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed)?;
        FileLock::wait(file).map_err(failed)
    }
}

/// On whose word a component of this name is installed: a trusted key's; else the word that it was
/// installed on before; else the operator's exception.
fn word(
    vouched: Vouched<'_>,
    name: &str,
    request: &InstallRequest,
    before: Option<&Installed>,
) -> Result<Word, VettingError> {
    let source = request.source.clone();
    match (vouched.for_name(name), before) {
        (Ok((signer, signature)), _) => Ok(Word {
            source,
            signed_by: Some(signer),
            allowed_unsigned: None,
            signature: Some(signature.bytes.clone()),
        }),
        (Err(VettingError::Untrusted { .. }), Some(before)) => Ok(Word {
            source: before.source.clone(),
            signed_by: before.signed_by.clone(),
            allowed_unsigned: before.allowed_unsigned.clone(),
            signature: None,
        }),
        (Err(VettingError::Untrusted { why, .. }), None) if request.policy.allow_unsigned => {
            Ok(Word { source, signed_by: None, allowed_unsigned: Some(why), signature: None })
        }
        (Err(other), _) => Err(other),
    }
}

fn json(value: &impl serde::Serialize, path: &std::path::Path) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| StoreError::Record { path: path.to_owned(), problem: error.to_string() })
}
