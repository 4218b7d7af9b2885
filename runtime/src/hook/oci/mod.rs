//! Hooks in OCI registries: [`pull`] and [`push`].
//!
//! ```text
//! registry/repository:tag ──▶ manifest ── layer application/wasm ──▶ the module
//!                                ▲
//!                                └ subject ── manifest of artifact type …hook.minisig.v1 ──▶ its signature
//! ```
//!
//! The signature is found by the referrers API, and, in registries that have none, by the tag
//! `sha256-<digest of the manifest>`, as OCI's distribution specification has it. It is attached
//! before the tag is set: a tag never points at a hook whose signature is still on its way.
//!
//! A registry is not trusted with anything: what it sends is bounded, is compared with the digests
//! by which it was asked for, and is installed only if its signature holds. The client is our own,
//! on `reqwest`: see docs/adr/0007.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

mod challenge;
mod credentials;
mod error;
mod manifest;
mod reference;
mod repository;
mod transport;

#[cfg(test)]
mod tests;

pub use credentials::Looked;
pub use error::OciError;
pub use reference::Reference;

use super::digest::Digest;
use super::{DetachedSignature, InstallPolicy, InstallRequest, Source};
use repository::Repository;
use transport::{Limits, Right, Transport};

/// The longest module that is pulled or pushed, in bytes: the longest that is installed.
pub(super) const LONGEST_MODULE: u64 = 256 << 20;

/// The longest signature, in bytes. A minisign signature with its comments has 200 to 8400.
pub(super) const LONGEST_SIGNATURE: u64 = 16 << 10;

/// How to get at a registry.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Talk plain http to a registry on another machine. Never with credentials.
    pub plain_http: bool,
    /// Trust this authority (PEM), besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Docker's `config.json`; by default where `docker login` writes it.
    pub docker_config: Option<PathBuf>,
    limits: Limits,
}

/// A hook, as it came from a registry. Its digests were checked; its signatures were not.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The module.
    pub module: Vec<u8>,
    /// All signatures that are attached to it.
    pub signatures: Vec<DetachedSignature>,
    /// Where it was, with the digest of its manifest.
    pub reference: Reference,
}

impl Pulled {
    /// What the store is asked for: no exceptions yet.
    #[must_use]
    pub fn into_request(self) -> InstallRequest {
        InstallRequest {
            module: self.module,
            source: Source::Registry(self.reference.to_string()),
            signatures: self.signatures,
            policy: InstallPolicy::default(),
        }
    }
}

/// A hook to push.
#[derive(Clone, Debug, Default)]
pub struct Artifact {
    /// The module.
    pub module: Vec<u8>,
    /// Its minisign signature.
    pub signature: Option<Vec<u8>>,
    /// What the registry shows of it: `org.opencontainers.image.title` and the like.
    pub annotations: BTreeMap<String, String>,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// The interfaces that it exports.
    pub exports: Vec<String>,
}

/// What was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Where, with the digest of the manifest.
    pub reference: Reference,
    /// Where the signature is, if there was one.
    pub signature: Option<Attached>,
}

/// How a signature was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The registry keeps track of what refers to a manifest.
    Referrer,
    /// It does not: an index under the tag `sha256-<digest>` does.
    Tag,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// What is transferred.
    pub what: &'static str,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Whoever wants to know how far a transfer is. Told often, so it must not block.
#[derive(Clone)]
pub struct Watch(Arc<dyn Fn(Transfer) + Send + Sync>);

impl Watch {
    /// Tells `watcher`.
    pub fn new(watcher: impl Fn(Transfer) + Send + Sync + 'static) -> Self {
        Self(Arc::new(watcher))
    }

    /// Tells nobody.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    fn tell(&self, transfer: Transfer) {
        (self.0)(transfer);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// Gets a hook and what is attached to it.
///
/// # Errors
/// See [`OciError`]; the next step is in [`OciError::hint`].
pub async fn pull(
    reference: &Reference,
    access: &Access,
    watch: &Watch,
) -> Result<Pulled, OciError> {
    let mut repository = Repository::open(reference, access, Right::Pull).await?;
    let (digest, manifest) = repository.manifest(reference).await?;
    let module = repository.module(reference, &manifest, watch).await?;
    let signatures = repository.signatures(&digest).await?;
    Ok(Pulled { module, signatures, reference: reference.pinned(digest) })
}

/// Puts a hook and its signature into a registry, and then sets the tag. What is there already is
/// not sent again.
///
/// # Errors
/// See [`OciError`]; the next step is in [`OciError::hint`].
pub async fn push(
    artifact: &Artifact,
    reference: &Reference,
    access: &Access,
    watch: &Watch,
) -> Result<Pushed, OciError> {
    if reference.digest().is_some() {
        return Err(OciError::PushToDigest { reference: reference.to_string() });
    }
    let mut repository = Repository::open(reference, access, Right::Push).await?;
    let manifest = repository.send_hook(artifact, watch).await?;
    let signature = match &artifact.signature {
        None => None,
        Some(signature) => Some(repository.attach(&manifest, signature).await?),
    };
    repository.tag(&manifest, &reference.asked()).await?;
    let digest = Digest::of(&manifest);
    Ok(Pushed { reference: reference.pinned(digest), signature })
}

/// Opens the connection, with the credentials that docker has for the registry.
impl Repository {
    async fn open(reference: &Reference, access: &Access, right: Right) -> Result<Self, OciError> {
        let file = access.docker_config.clone().unwrap_or_else(credentials::usual_file);
        let found = credentials::look_up(&file, reference.registry())?;
        let how = (access.plain_http, access.ca_file.as_deref());
        let transport = Transport::connect(reference, right, found, how, access.limits).await?;
        Ok(Repository::new(transport))
    }
}
