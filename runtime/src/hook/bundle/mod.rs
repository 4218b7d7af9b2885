//! One file that carries a hook to machines without a network: `hook.wasm`, `hook.wasm.minisig`,
//! `grant.toml` (what it asks for) and `README.md`.
//!
//! It is a plain tar archive (POSIX ustar), so that `tar xf` and `minisign -Vm hook.wasm` read it
//! without us. We read it strictly: those four regular files, in that order, under those names, and
//! nothing else. Only module and signature are installed. The other two are for people: nothing
//! vouches for them, and no grant is taken from them.

mod tar;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;

use super::description::{Description, Need};
use super::digest::Digest;
use super::oci::{LONGEST_MODULE, LONGEST_SIGNATURE};
use super::{DetachedSignature, InstallPolicy, InstallRequest, Source};

/// The longest text for people, in bytes.
const LONGEST_TEXT: u64 = 1 << 20;

/// What an archive adds to its files at most: headers, padding, and tar's own block of 10 KiB.
const LONGEST_OVERHEAD: u64 = 64 << 10;

const LONGEST_BUNDLE: u64 =
    LONGEST_MODULE + LONGEST_SIGNATURE + 2 * LONGEST_TEXT + LONGEST_OVERHEAD;

const README: &str = "README.md";
const GRANT: &str = "grant.toml";
const MODULE: &str = "hook.wasm";
const SIGNATURE: &str = "hook.wasm.minisig";

/// The files of a bundle, in their order: name, bound in bytes, whether it must be there.
const MEMBERS: [(&str, u64, bool); 4] = [
    (README, LONGEST_TEXT, true),
    (GRANT, LONGEST_TEXT, true),
    (MODULE, LONGEST_MODULE, true),
    (SIGNATURE, LONGEST_SIGNATURE, false),
];

/// A hook and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The module.
    pub module: Vec<u8>,
    /// Its minisign signature.
    pub signature: Option<Vec<u8>>,
    /// The grant file that `hook grant` would print for it. Never installed.
    pub grant: String,
    /// What it is and how to install it.
    pub readme: String,
}

/// A bundle cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is something else, or somebody changed it.
    #[error("{} is not a bundle: {problem}", path.display())]
    NotABundle {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// What is to be bundled is too long.
    #[error("{what} is longer than {limit} bytes")]
    TooLong {
        /// What.
        what: &'static str,
        /// The limit, in bytes.
        limit: u64,
    },
}

impl BundleError {
    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            BundleError::NotABundle { .. } => {
                Some("get it again from whoever made it with `stillpoint hook bundle`".into())
            }
            BundleError::Read { .. } | BundleError::TooLong { .. } => None,
        }
    }
}

impl Bundle {
    /// Whether a file is meant as a bundle: by its name.
    #[must_use]
    pub fn is_meant(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "bundle")
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// If it cannot be read, or holds anything but what a bundle holds.
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let failed = |source| BundleError::Read { path: path.to_owned(), source };
        let bytes = read_whole(path).map_err(failed)?;
        Self::parse(&bytes)
            .map_err(|problem| BundleError::NotABundle { path: path.to_owned(), problem })
    }

    /// What the store is asked for, if this was read from `path`: no exceptions yet.
    #[must_use]
    pub fn into_request(self, path: &Path) -> InstallRequest {
        let from = format!("{SIGNATURE} in {}", path.display());
        let signature = self.signature.map(|bytes| DetachedSignature { bytes, from });
        InstallRequest {
            module: self.module,
            source: Source::Bundle(path.to_owned()),
            signatures: signature.into_iter().collect(),
            policy: InstallPolicy::default(),
        }
    }

    /// The bytes of the file: the same for the same content, whoever makes it and when.
    ///
    /// # Errors
    /// If a part is longer than is read.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let signature = self.signature.as_deref();
        let parts = [
            Some(self.readme.as_bytes()),
            Some(self.grant.as_bytes()),
            Some(self.module.as_slice()),
            signature,
        ];
        let mut archive = tar::Writer::default();
        for ((what, limit, _), part) in MEMBERS.into_iter().zip(parts) {
            let Some(bytes) = part else { continue };
            if bytes.len() as u64 > limit {
                return Err(BundleError::TooLong { what, limit });
            }
            archive.add(what, bytes);
        }
        Ok(archive.finish())
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut archive = tar::Reader::new(bytes);
        let mut parts: [Option<&[u8]>; 4] = [None; 4];
        let mut members = MEMBERS.iter().zip(&mut parts);
        while let Some((name, content)) = archive.next()? {
            let ((_, limit, _), part) = members
                .by_ref()
                .find(|((expected, ..), _)| *expected == name)
                .ok_or_else(|| format!("`{name}` does not belong there"))?;
            if content.len() as u64 > *limit {
                return Err(format!("`{name}` is longer than {limit} bytes"));
            }
            *part = Some(content);
        }
        let missing = MEMBERS.iter().zip(&parts).find(|((.., must), part)| *must && part.is_none());
        if let Some(((name, ..), _)) = missing {
            return Err(format!("`{name}` is missing, or not in its place"));
        }
        let [readme, grant, module, signature] = parts.map(|part| part.map(<[u8]>::to_vec));
        Ok(Self {
            module: module.unwrap_or_default(),
            signature,
            grant: text(GRANT, grant)?,
            readme: text(README, readme)?,
        })
    }
}

fn text(name: &str, bytes: Option<Vec<u8>>) -> Result<String, String> {
    String::from_utf8(bytes.unwrap_or_default()).map_err(|_| format!("`{name}` is not UTF-8"))
}

/// Anybody's file will do: what counts is the signature in it.
fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST_BUNDLE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST_BUNDLE {
        return Err(io::Error::other(format!("it is longer than {LONGEST_BUNDLE} bytes")));
    }
    Ok(bytes)
}

/// The README of a bundle: what is in it, how to check and install it, what it asks for; and then
/// what its author has to say.
#[must_use]
pub fn readme(
    description: &Description,
    digest: &Digest,
    signed: bool,
    of_author: Option<&str>,
) -> String {
    let Description { name, version, summary, .. } = description;
    let signature = if signed {
        "`hook.wasm.minisig`: its signature, as minisign makes them"
    } else {
        "no signature: `hook install` refuses it unless it is told `--allow-unsigned`"
    };
    let mut text = format!(
        "# {name} {version}\n\n{summary}\n\n\
         - `hook.wasm`: the hook, {digest}\n\
         - {signature}\n\
         - `grant.toml`: what it asks for, as a grant file to read before it is installed\n\n\
         ## Check it by hand\n\n\
         This file is a tar archive.\n\n    \
         tar xf {name}-{version}.bundle\n    \
         minisign -Vm hook.wasm -p /etc/stillpoint/keys.d/PUBLISHER.pub\n\n\
         ## Install it\n\n    \
         stillpoint hook install {name}-{version}.bundle\n    \
         stillpoint hook grant {name}              # what it asks for, and why\n    \
         stillpoint hook grant {name} --accept     # grants it\n\n\
         Installing grants nothing, and takes nothing from `grant.toml`: only the module is signed.\n\n\
         ## What it asks for\n\n"
    );
    for need in &description.needs {
        text.push_str(&asked(need));
    }
    if let Some(own) = of_author {
        text.push_str(&format!("\n## From its author\n\n{own}"));
    }
    text
}

fn asked(need: &Need) -> String {
    let must = |required: &bool| if *required { "required" } else { "optional" };
    match need {
        Need::Sql { connection, statements, reason, required, .. } => format!(
            "- connection `{connection}`, {} statements ({}): {reason}\n",
            statements.len(),
            must(required)
        ),
        Need::Program { command, reason, required, .. } => {
            format!("- program `{command}` ({}): {reason}\n", must(required))
        }
        Need::Kv { bytes, reason, required } => {
            format!("- {bytes} bytes of durable state ({}): {reason}\n", must(required))
        }
        Need::Wasi { imports } => format!("- minimal WASI: {}\n", imports.join(", ")),
        Need::Other { what } => format!("- {what}\n"),
    }
}

#[cfg(test)]
mod tests;
