//! What is asked of an installation, and what is recorded of it.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::files::{read_if_there, read_once};
use crate::hook::description::Description;
use crate::hook::digest::Digest;

/// The longest component that is installed, in bytes; CPython's is 18 MB.
pub const LONGEST_COMPONENT: u64 = 256 << 20;

/// The longest signature, in bytes; a minisign signature has about 300.
const LONGEST_SIGNATURE: u64 = 64 << 10;

/// The form of a record. 1 was before signatures.
pub(super) const RECORD_VERSION: u32 = 2;

/// The first that is read of a record.
#[derive(Deserialize)]
pub(super) struct Form {
    pub(super) record_version: u32,
}

impl Form {
    /// Why it cannot be read.
    pub(super) fn says(&self) -> String {
        match self.record_version {
            1 => "the hook was installed before signatures were checked".into(),
            other => format!("its form is version {other}"),
        }
    }
}

/// What to install, where it came from, who signed it, and which exceptions the operator makes.
#[derive(Clone, Debug)]
pub struct InstallRequest {
    /// The component.
    pub module: Vec<u8>,
    /// Where it came from; recorded.
    pub source: Source,
    /// Every signature that came with it.
    pub signatures: Vec<DetachedSignature>,
    /// The exceptions.
    pub policy: InstallPolicy,
}

/// A signature that came with a component: the text of a minisign signature file.
#[derive(Clone, PartialEq, Eq)]
pub struct DetachedSignature {
    /// Its bytes, as they came.
    pub bytes: Vec<u8>,
    /// Where it came from, for messages: a file, a referrer's digest.
    pub from: String,
}

/// Exceptions that the operator makes for one installation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstallPolicy {
    /// Install what no trusted key has signed for that name; recorded, and told in every manifest.
    /// Excuses neither a signature that does not verify nor a revocation.
    pub allow_unsigned: bool,
    /// Install a lower version than the highest one that was ever installed under that name, or
    /// another component of that same version.
    pub downgrade: bool,
}

/// Where a component came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A registry: `oci://host/repository:tag@sha256:…`.
    Registry(String),
    /// A bundle: one file with module, signature and grant template.
    Bundle(PathBuf),
}

/// The trusted key whose signature an installation was accepted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// The operator's name for the key: its file in `keys.d` without `.pub`.
    pub name: String,
    /// The key's id, 16 hexadecimal digits, as `minisign` prints it.
    pub id: String,
    /// The day (UTC) from which on nothing is installed with this key, if there is one: `2027-01-31`.
    pub expires: Option<String>,
}

/// A tool that a component says it was made with: its section `producers`. Nobody checks that it is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// What it was for: `language`, `processed-by`, `sdk`.
    pub role: String,
    /// Its name.
    pub name: String,
    /// Its version; may be empty.
    pub version: String,
}

/// An installed component, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    pub(super) record_version: u32,
    /// The version of the contract that it is built for.
    pub contract: String,
    /// What it says about itself.
    pub description: Description,
    /// What it imports, by name.
    pub imports: Vec<String>,
    /// What it was made with.
    pub toolchain: Vec<Tool>,
    /// The component's digest.
    pub digest: Digest,
    /// The component's size, in bytes.
    pub bytes: u64,
    /// The digest of the image that was compiled from it here.
    pub image_digest: Digest,
    /// The image's size, in bytes.
    pub image_bytes: u64,
    /// The engine that the image is for.
    pub engine: String,
    /// When it was installed; RFC 3339, UTC.
    pub installed: String,
    /// Where it came from.
    pub source: Source,
    /// Whose signature it was accepted for.
    pub signed_by: Option<Signer>,
    /// Without a signer: why there is none, in words. The operator allowed it.
    pub allowed_unsigned: Option<String>,
}

impl InstallRequest {
    /// A file, with the signature `FILE.minisig` if that lies beside it, and no exceptions.
    ///
    /// # Errors
    /// If the file, or a signature that is there, cannot be read or is too long.
    pub fn from_file(file: &Path) -> Result<Self, StoreError> {
        let signature = signature_beside(file);
        let signatures = match read_if_there(&signature, LONGEST_SIGNATURE)? {
            Some(bytes) => vec![DetachedSignature::new(bytes, &signature)],
            None => Vec::new(),
        };
        Ok(Self { signatures, ..Self::unsigned_file(file)? })
    }

    /// A file with a signature that lies elsewhere.
    ///
    /// # Errors
    /// If one of them cannot be read or is too long.
    pub fn from_files(file: &Path, signature: &Path) -> Result<Self, StoreError> {
        let bytes = read_once(signature, LONGEST_SIGNATURE)?;
        let signatures = vec![DetachedSignature::new(bytes, signature)];
        Ok(Self { signatures, ..Self::unsigned_file(file)? })
    }

    /// The same with these exceptions.
    #[must_use]
    pub fn with_policy(self, policy: InstallPolicy) -> Self {
        Self { policy, ..self }
    }

    fn unsigned_file(file: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            module: read_once(file, LONGEST_COMPONENT)?,
            source: Source::File(file.to_owned()),
            signatures: Vec::new(),
            policy: InstallPolicy::default(),
        })
    }
}

/// The name of the signature that is looked for beside a file: `FILE.minisig`.
#[must_use]
pub fn signature_beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

impl DetachedSignature {
    fn new(bytes: Vec<u8>, file: &Path) -> Self {
        Self { bytes, from: file.display().to_string() }
    }
}

impl fmt::Debug for DetachedSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedSignature").field("from", &self.from).finish_non_exhaustive()
    }
}

impl Installed {
    /// On whose word it was installed, for people: `signed by acme (key …)`, or `not signed: why`.
    #[must_use]
    pub fn on_whose_word(&self) -> String {
        match (&self.signed_by, &self.allowed_unsigned) {
            (Some(signer), _) => format!("signed by {signer}"),
            (None, why) => {
                let why = why.as_deref().unwrap_or("no reason was recorded");
                format!("NOT vouched for by a trusted key, and allowed so: {why}")
            }
        }
    }
}

impl fmt::Display for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Description { name, version, .. } = &self.description;
        write!(f, "hook {name} {version} ({})", self.digest)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(file) | Source::Bundle(file) => file.display().fmt(f),
            Source::Registry(reference) => f.write_str(reference),
        }
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (key {})", self.name, self.id)
    }
}
