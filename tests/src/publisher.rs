//! Who makes hooks for others: has a key of minisign's own making, signs with minisign, and pushes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::run;
use crate::lab::Lab;
use crate::stillpoint::Stillpoint;

/// A publisher with a key.
#[derive(Debug)]
pub struct Publisher {
    stillpoint: Stillpoint,
    directory: PathBuf,
    name: String,
}

/// A hook in a registry.
#[derive(Clone, Debug)]
pub struct Published {
    /// Where, with tag and digest of the manifest.
    pub reference: String,
    /// The digest of the module.
    pub digest: String,
}

impl Published {
    /// The digest of the manifest.
    #[must_use]
    pub fn manifest(&self) -> &str {
        self.reference.split_once('@').map_or("", |(_, digest)| digest)
    }

    /// The reference without the digest: what the tag points at decides.
    #[must_use]
    pub fn tag(&self) -> &str {
        self.reference.split('@').next().unwrap_or_default()
    }
}

impl Publisher {
    /// A publisher with a new key.
    ///
    /// # Errors
    /// If minisign is missing or fails.
    pub fn new(lab: &Lab, stillpoint: Stillpoint, name: &str) -> Result<Self> {
        let directory = lab.scratch(&format!("publisher-{name}"))?;
        let own = Self { stillpoint, directory, name: name.to_owned() };
        let (public, secret) = (own.public(), own.secret());
        run(
            "minisign",
            [Path::new("-G"), "-W".as_ref(), "-p".as_ref(), &public, "-s".as_ref(), &secret],
        )
        .context("minisign is missing? apt-get install minisign")?;
        Ok(own)
    }

    fn public(&self) -> PathBuf {
        self.directory.join("key.pub")
    }

    fn secret(&self) -> PathBuf {
        self.directory.join("key.sec")
    }

    /// The key's id, as minisign prints it.
    ///
    /// # Errors
    /// If the key cannot be read.
    pub fn key_id(&self) -> Result<String> {
        let text = fs::read_to_string(self.public())?;
        let line = text.lines().next().context("an empty key")?;
        Ok(line.split_whitespace().last().context("no id")?.to_owned())
    }

    /// Puts its key into `keys.d` of an installation; `terms` is what it may sign, as TOML.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn trusted_by(&self, operator: &Stillpoint, terms: &str) -> Result<()> {
        let key = fs::read_to_string(self.public())?;
        operator.write_config(&format!("keys.d/{}.pub", self.name), &key)?;
        operator.write_config(&format!("keys.d/{}.toml", self.name), terms)
    }

    /// A file with this module, not signed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn file(&self, name: &str, module: &[u8]) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, module)?;
        Ok(path)
    }

    /// A file with this module, and beside it its signature, made by minisign.
    ///
    /// # Errors
    /// If it cannot be written or signed.
    pub fn signed(&self, name: &str, module: &[u8]) -> Result<PathBuf> {
        let path = self.file(name, module)?;
        let secret = self.secret();
        run("minisign", [Path::new("-S"), "-s".as_ref(), &secret, "-m".as_ref(), &path])?;
        Ok(path)
    }

    /// Lets minisign check a file against the signature that lies beside it.
    ///
    /// # Errors
    /// If minisign does not accept it.
    pub fn verified_by_minisign(&self, file: &Path) -> Result<()> {
        let public = self.public();
        run("minisign", [Path::new("-V"), "-p".as_ref(), &public, "-m".as_ref(), file]).map(drop)
    }

    /// Pushes a file with the signature that lies beside it.
    ///
    /// # Errors
    /// If it is refused.
    pub fn push(&self, file: &Path, reference: &str) -> Result<Published> {
        let run = self.stillpoint.run_json([
            Path::new("hook"),
            Path::new("push"),
            file,
            Path::new(reference),
        ])?;
        let document = run.succeeded()?.json()?;
        let text = |key: &str| -> Result<String> {
            Ok(document.get(key).and_then(|v| v.as_str()).context("no reference")?.to_owned())
        };
        Ok(Published { reference: text("reference")?, digest: text("digest")? })
    }

    /// Signs and pushes.
    ///
    /// # Errors
    /// If one is refused.
    pub fn publish(&self, name: &str, module: &[u8], reference: &str) -> Result<Published> {
        self.push(&self.signed(name, module)?, reference)
    }
}
