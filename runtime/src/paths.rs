//! Where files live. One root, so that a second installation, or a test, is a matter of one option.

use std::path::{Path, PathBuf};

/// The directories of one installation, all under one root (`/` unless told otherwise).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self::under("/")
    }
}

impl Paths {
    /// The directories under `root`.
    #[must_use]
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `etc/stillpoint`: configuration, owned by root.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("etc/stillpoint")
    }

    /// `etc/stillpoint/hooks.d`: one grant file for each hook.
    #[must_use]
    pub fn grants(&self) -> PathBuf {
        self.config().join("hooks.d")
    }

    /// `etc/stillpoint/keys.d`: keys whose signatures are trusted, and for which hooks.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.config().join("keys.d")
    }

    /// `etc/stillpoint/revoked.toml`: components and keys that are trusted no longer.
    #[must_use]
    pub fn revoked(&self) -> PathBuf {
        self.config().join("revoked.toml")
    }

    /// `var/lib/stillpoint/versions.json`: the highest version of each hook that was ever installed.
    #[must_use]
    pub fn versions(&self) -> PathBuf {
        self.root.join("var/lib/stillpoint/versions.json")
    }

    /// `var/lib/stillpoint/hooks`: installed components, `<sha256>.wasm` and `<sha256>.json`.
    #[must_use]
    pub fn hooks(&self) -> PathBuf {
        self.root.join("var/lib/stillpoint/hooks")
    }

    /// `var/lib/stillpoint/state`: what hooks keep from run to run, `<hook>.kv`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("var/lib/stillpoint/state")
    }

    /// `var/cache/stillpoint`: images compiled here, never accepted from outside.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("var/cache/stillpoint")
    }

    /// `var/lib/stillpoint/manifests`: manifests of groups that lie elsewhere, `<group>.json`.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.root.join("var/lib/stillpoint/manifests")
    }

    /// `var/lib/stillpoint/runs`: what came of the latest runs, one file each.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.root.join("var/lib/stillpoint/runs")
    }

    /// `var/lib/stillpoint/metrics.json`: what is counted from run to run.
    #[must_use]
    pub fn counters(&self) -> PathBuf {
        self.root.join("var/lib/stillpoint/metrics.json")
    }

    /// `run/stillpoint/runs`: the same, of runs after which the disk may be frozen.
    #[must_use]
    pub fn runs_in_memory(&self) -> PathBuf {
        self.run().join("runs")
    }

    /// `run/stillpoint`: lock and journal; on tmpfs, because it is written while others are frozen.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run/stillpoint")
    }

    /// `run/stillpoint/kv`: changes to hooks' state that are not on a disk yet.
    #[must_use]
    pub fn state_in_memory(&self) -> PathBuf {
        self.run().join("kv")
    }
}
