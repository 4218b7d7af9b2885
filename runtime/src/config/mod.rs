//! Files in `/etc/stillpoint` → validated configuration. Unknown keys are errors that name file,
//! line and column; everything is read and checked before anything is touched.

pub mod alibaba;
pub mod connections;
pub mod grants;
pub mod metrics;
pub mod read;
pub mod verify;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::consistency::Level;
use crate::paths::Paths;

pub use alibaba::AlibabaConfig;
pub use metrics::MetricsConfig;
pub use read::ConfigError;
pub use verify::VerifyConfig;

/// `stillpoint.toml`: provider, scope, deadlines, scripts. All of it has defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// What makes the snapshot.
    pub provider: ProviderConfig,
    /// What is in the snapshot.
    pub snapshot: SnapshotConfig,
    /// How long each step may take.
    pub deadlines: Deadlines,
    /// Legacy scripts.
    pub scripts: ScriptsConfig,
    /// For Prometheus.
    pub metrics: MetricsConfig,
    /// Verifying snapshots.
    pub verify: VerifyConfig,
}

/// `[provider]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ProviderConfig {
    /// Which provider.
    pub kind: ProviderKind,
    /// Settings of the provider `reflink`.
    pub reflink: ReflinkConfig,
    /// Settings of the provider `alibaba`.
    pub alibaba: AlibabaConfig,
}

/// The providers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// Clones of the image files under loop devices, on XFS or btrfs.
    #[default]
    Reflink,
    /// Snapshot-consistent groups of Alibaba Cloud ECS.
    Alibaba,
}

/// `[provider.reflink]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ReflinkConfig {
    /// Where clones go; on the same file system as the images. Default: `.stillpoint` beside each image.
    pub directory: Option<PathBuf>,
}

/// `[snapshot]`: which disks, and what level must be reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SnapshotConfig {
    /// Only the disks under these mount points. Empty: all that the provider lists.
    pub mounts: Vec<PathBuf>,
    /// Only these disks: the provider's ids, or device nodes. Empty: all that the provider lists.
    pub disks: Vec<String>,
    /// Not these disks. File systems on them are not frozen.
    pub exclude_disks: Vec<String>,
    /// Mount points of types that cannot be frozen (vfat…) and that must not lower the level.
    pub accept_unfrozen: Vec<PathBuf>,
    /// Fail rather than reach less than this level.
    pub require: Option<Level>,
    /// Freeze file systems. Without it the level is `crash`.
    pub freeze: bool,
    /// Raise the kernel's `rcu_expedited` for the run (and put it back): shortens the window.
    pub expedite_rcu: bool,
    /// Repeat the rehearsal until the freeze: shortens the window.
    pub keep_warm: bool,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self {
            mounts: Vec::new(),
            disks: Vec::new(),
            exclude_disks: Vec::new(),
            accept_unfrozen: Vec::new(),
            require: None,
            freeze: true,
            expedite_rcu: true,
            keep_warm: true,
        }
    }
}

/// `[scripts]`: the legacy pair. Used only when no hook is configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ScriptsConfig {
    /// Look for the scripts at all.
    pub enabled: bool,
    /// Run before the freeze.
    pub pre: PathBuf,
    /// Run after the thaw, and as the undo of a pre-freeze script that failed.
    pub post: PathBuf,
    /// Longest run time of each.
    #[serde(deserialize_with = "duration::parse")]
    pub timeout: Duration,
}

impl Default for ScriptsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            pre: "/tmp/prescript.sh".into(),
            post: "/tmp/postscript.sh".into(),
            timeout: Duration::from_secs(1800),
        }
    }
}

/// `[deadlines]`: text such as `10s`, `500ms`, `2m`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Deadlines {
    /// Hooks' `prepare`, and the provider's.
    #[serde(deserialize_with = "duration::parse")]
    pub prepare: Duration,
    /// Writing out dirty data in small steps, before `sync`: then that has the rest.
    #[serde(deserialize_with = "duration::parse")]
    pub flush: Duration,
    /// Flushing what is left, before anything is locked.
    #[serde(deserialize_with = "duration::parse")]
    pub sync: Duration,
    /// Hooks' `pre-freeze`.
    #[serde(deserialize_with = "duration::parse")]
    pub quiesce: Duration,
    /// From before the first freeze to the thaw; at most 30 s.
    #[serde(deserialize_with = "duration::window")]
    pub freeze: Duration,
    /// Hooks' `confirm`.
    #[serde(deserialize_with = "duration::parse")]
    pub confirm: Duration,
    /// Hooks' `post-thaw` and `finish`, each.
    #[serde(deserialize_with = "duration::parse")]
    pub release: Duration,
    /// Waiting for the members of the group, when nothing is held any more.
    #[serde(deserialize_with = "duration::parse")]
    pub settle: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            prepare: Duration::from_secs(30),
            flush: Duration::from_secs(10),
            sync: Duration::from_secs(60),
            quiesce: Duration::from_secs(20),
            freeze: Duration::from_secs(10),
            confirm: Duration::from_secs(5),
            release: Duration::from_secs(10),
            settle: Duration::from_secs(600),
        }
    }
}

/// Longest window that may be configured: half of what the kernel's hung-task detector allows, by far.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(30);

impl Config {
    /// Reads `stillpoint.toml`; all defaults if there is none.
    ///
    /// # Errors
    /// If the file is not owned by root, can be written by others, is not TOML, has an unknown key
    /// or a value out of range. Names file, line and column.
    pub fn load(paths: &Paths) -> Result<Self, ConfigError> {
        match read::read_toml(&Self::path(paths)) {
            Ok((_, config)) => Ok(config),
            Err(error) if error.is_not_found() => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// The file that [`Config::load`] reads.
    #[must_use]
    pub fn path(paths: &Paths) -> PathBuf {
        paths.config().join("stillpoint.toml")
    }
}

/// Durations as people write them.
mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub(super) fn parse<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        super::read::parse_duration(&text).map_err(D::Error::custom)
    }

    pub(super) fn window<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let window = parse(from)?;
        if window > super::LONGEST_WINDOW {
            return Err(D::Error::custom(format!(
                "{window:?} is longer than {:?}: file systems are never frozen longer",
                super::LONGEST_WINDOW
            )));
        }
        Ok(window)
    }
}
