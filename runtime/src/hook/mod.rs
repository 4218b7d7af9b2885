//! What quiesces an application: a WebAssembly component, or a pair of legacy scripts.
//!
//! ```text
//! InstallRequest::from_file(file)   oci::pull(…).into_request()   Bundle::read(…).into_request()
//! HookStore::new(&paths)            the engine; touches no file
//!   .install(request)               check, compile, describe, keep   (slow: never in a snapshot)
//!   .list() .inspect(x) .remove(x)
//!   .load(&grant, &connections, &run)  ->  Box<dyn Hook>, everything checked, nothing touched
//! ```
//!
//! A [`RunContext`] is made once for a run and given to every hook of it: it has the run's
//! [`HookLogs`] (drained or forwarded when no file system is frozen), the
//! [`SessionRegistry`](crate::capability::registry::SessionRegistry) with which the host closes
//! sessions without the guest, and the [`CancelToken`] that asks hooks to unwind.

use std::fmt;
use std::path::{Path, PathBuf};

pub mod build;
pub mod bundle;
pub mod cancel;
pub(crate) mod compile;
mod component;
mod cpu;
pub mod description;
pub mod digest;
mod engine;
#[cfg(fuzzing)]
pub mod fuzzing;
mod host;
pub mod inspection;
mod limiter;
mod load;
mod logs;
pub mod oci;
pub mod scaffold;
mod schema;
mod since_v0_1_0;
mod store;
pub mod testkit;
pub(crate) mod text;
mod toolchain;
pub mod vetting;
mod wasi;
mod wasm;

pub use cancel::{CancelSource, CancelToken};
pub use compile::{CompileError, CompileLimits, Compiler};
pub use description::{Description, Need};
pub use digest::Digest;
pub use engine::EngineError;
pub use host::RunContext;
pub use inspection::Inspection;
pub use load::HookLoadError;
pub use logs::{DrainedLog, HookLogs, LogLevel, LogLine};
pub use store::{
    DetachedSignature, HookStore, InstallPolicy, InstallRequest, Installed, Portrait, Signer,
    Source, StoreError, Tool, signature_beside,
};

use async_trait::async_trait;

use crate::config::grants::SettingPlaces;
use crate::consistency::Level;
use crate::manifest::MetadataEntry;
use crate::time::Deadline;

/// A phase of a hook's life, in order. `finish` always runs last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// What it is and what it asks for. No import may be called.
    Describe,
    /// Settings are checked; no target is contacted.
    Validate,
    /// Before anything is held: versions, long queries, paths.
    Prepare,
    /// Quiesce.
    PreFreeze,
    /// After the thaw: prove that it was quiesced all the time.
    Confirm,
    /// Release.
    PostThaw,
    /// Clean up; also on a fresh instance.
    Finish,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Describe => "describe",
            Phase::Validate => "validate",
            Phase::Prepare => "prepare",
            Phase::PreFreeze => "pre-freeze",
            Phase::Confirm => "confirm",
            Phase::PostThaw => "post-thaw",
            Phase::Finish => "finish",
        })
    }
}

/// On whose word a hook was installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// The trusted key that signed it.
    pub signed_by: Option<Signer>,
    /// Without one: why there is none. The operator allowed it.
    pub allowed_unsigned: Option<String>,
}

/// What a hook's `prepare` found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Paths whose file systems must be in the snapshot.
    pub paths: Vec<PathBuf>,
    /// One line for people.
    pub summary: String,
}

/// What a hook's `pre-freeze` reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Quiesced {
    /// The level that the hook says it reached.
    pub level: Level,
    /// What it saved for whoever restores: binlog position, GTID, LSN.
    pub metadata: Vec<MetadataEntry>,
}

/// What became of the snapshot, told to `post-thaw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The point in time was fixed.
    Captured,
    /// The provider failed.
    Failed,
    /// The run was given up before the snapshot.
    Aborted,
}

/// One application's hook in one run. Every method returns by its deadline plus a short grace,
/// whatever the application or the hook does; and dropping a hook closes every session it opened,
/// so that a lock lives at most as long as this value.
#[async_trait]
pub trait Hook: Send + fmt::Debug {
    /// The operator's name for it: the name of its grant file.
    fn name(&self) -> &str;

    /// Its version, if it has one.
    fn version(&self) -> Option<&str>;

    /// The digest of what runs: `sha256:…` of the component, or of a script.
    fn digest(&self) -> Option<String>;

    /// On whose word it was installed. Nobody's, for scripts.
    fn provenance(&self) -> Provenance {
        Provenance::default()
    }

    /// Where its grants are: such a hook can be loaded again after its agent died, to finish.
    fn grant_file(&self) -> Option<&Path> {
        None
    }

    /// Before anything is held.
    async fn prepare(&mut self, deadline: Deadline) -> Result<Prepared, HookFailure>;

    /// Quiesce. If this fails, the hook has released what it took as far as it could; the caller
    /// calls `post_thaw` and `finish` all the same.
    async fn pre_freeze(&mut self, deadline: Deadline) -> Result<Quiesced, HookFailure>;

    /// After the thaw, before anything is released.
    async fn confirm(&mut self, deadline: Deadline) -> Result<(), HookFailure>;

    /// Release. If the instance is gone (trap, time-out), its sessions are closed already and this
    /// says so by [`HookFailureKind::InstanceGone`].
    async fn post_thaw(
        &mut self,
        outcome: Outcome,
        deadline: Deadline,
    ) -> Result<Vec<MetadataEntry>, HookFailure>;

    /// Clean-up, on the same instance or, if that is gone, on a fresh one. Afterwards no session of
    /// this hook is open, whatever it returns.
    async fn finish(&mut self, deadline: Deadline) -> Result<(), HookFailure>;
}

/// Why a phase of a hook failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HookFailureKind {
    /// Its settings are wrong.
    InvalidSettings,
    /// Its application is not here.
    NotApplicable,
    /// It asked for something that is not granted.
    Denied,
    /// The application cannot be quiesced now; a later run may.
    Busy,
    /// The phase's deadline passed.
    Timeout,
    /// The application answered with an error.
    Application,
    /// The hook itself failed.
    Internal,
    /// It passed a bound of its grant that stops it (memory, processor time, calls), and its
    /// instance is gone.
    Limit,
    /// It trapped, and its instance is gone.
    Trapped,
    /// Its instance is gone since an earlier phase.
    InstanceGone,
    /// The host could not run it (image missing, digest wrong…).
    Host,
}

/// A phase of a hook failed. The text of the guest is always behind the hook's name and version.
#[derive(Clone, Debug, thiserror::Error)]
#[error("hook {hook}{}: {phase}: {message}", version.as_ref().map(|v| format!(" {v}")).unwrap_or_default())]
pub struct HookFailure {
    /// Which hook.
    pub hook: String,
    /// Its version, if known.
    pub version: Option<String>,
    /// In which phase.
    pub phase: Phase,
    /// What sort of failure.
    pub kind: HookFailureKind,
    /// What it said, terminal escapes removed.
    pub message: String,
    /// What the operator can do next: for a denial, the line to add to which file.
    pub hint: Option<String>,
}

/// A hook as the host knows it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The operator's name for it.
    pub(crate) name: String,
    /// The component's version.
    pub(crate) version: String,
    /// The component's digest.
    pub(crate) digest: Digest,
    /// On whose word it was installed.
    pub(crate) provenance: Provenance,
    /// Where its grants are.
    pub(crate) grant_file: PathBuf,
    /// Where its settings are.
    pub(crate) settings_at: SettingPlaces,
}

impl Identity {
    /// For asking a component what it is.
    fn unknown() -> Self {
        Self {
            name: "(not installed)".into(),
            version: String::new(),
            digest: Digest::of(&[]),
            provenance: Provenance::default(),
            grant_file: PathBuf::new(),
            settings_at: SettingPlaces::default(),
        }
    }
}

/// What a guest says when it fails, before its name is put in front.
pub(crate) struct Failed {
    pub(crate) kind: HookFailureKind,
    pub(crate) message: String,
    /// Which of its settings is wrong, as a JSON pointer.
    pub(crate) setting: Option<String>,
}
