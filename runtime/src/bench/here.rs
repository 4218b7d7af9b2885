//! This machine's own plan and hooks, with a provider that takes no snapshot: everything up to it is
//! done, really, and undone; the hooks are told that no snapshot was made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::BenchError;
use super::document::{
    BenchDocument, BenchFileSystem, Load, Machine, Measure, Method, Place, SCHEMA_VERSION, Set,
};
use super::machine::this_machine;
use super::writers::Writers;
use crate::exit_code::ExitCode;
use crate::manifest::{Manifest, StepResult};
use crate::provider::{
    CreatedGroup, Disk, GroupRequest, Member, PreparedGroup, Provider, ProviderError,
};
use crate::report::{RunRecord, Watch, hold, window};
use crate::sequence::{self, Cause, Failure, Request, Step};
use crate::time::{Deadline, monotonic_ns};

/// What the provider is called, and what its refusal is told by.
const NO_SNAPSHOT: &str = "bench";

/// Between two runs: production shall breathe, and a superblock be as cold as before any run.
pub const PAUSE: Duration = Duration::from_millis(500);

/// Runs on this machine, measured.
#[derive(Debug)]
pub struct Here {
    started: String,
    machine: Machine,
    probes: Vec<PathBuf>,
    writers: Option<Writers>,
    file_systems: Vec<BenchFileSystem>,
    values: BTreeMap<Measure, Vec<u64>>,
    rounds: usize,
    notes: Vec<String>,
}

/// Why a round has no figures.
#[derive(Debug)]
pub enum HereError {
    /// The run failed before it came to the snapshot; what it had done is undone.
    Run(Box<Failure>),
    /// The probes failed.
    Bench(BenchError),
}

impl From<BenchError> for HereError {
    fn from(error: BenchError) -> Self {
        Self::Bench(error)
    }
}

impl Here {
    /// Begins, with a writer in each of these directories: what a client feels there is measured. Its
    /// file has no name, and is gone with it.
    ///
    /// # Errors
    /// If nothing can be written in one of them.
    pub fn begin(probes: Vec<PathBuf>) -> Result<Self, BenchError> {
        let writers = (!probes.is_empty()).then(|| Writers::start(probes.clone())).transpose()?;
        Ok(Self {
            started: jiff::Timestamp::now().to_string(),
            machine: this_machine(),
            probes,
            writers,
            file_systems: Vec::new(),
            values: BTreeMap::new(),
            rounds: 0,
            notes: Vec::new(),
        })
    }

    /// Does all of `request` but the snapshot: hooks prepare and quiesce, file systems are rehearsed,
    /// frozen and thawed, hooks are released and told that the snapshot failed. No record of the run is
    /// kept, and no metric counts it.
    ///
    /// # Errors
    /// If the run fails for any other reason. What it had done is undone, or named in the failure.
    pub async fn round(&mut self, mut request: Request) -> Result<(), HereError> {
        request.provider = Arc::new(NoSnapshot { disks_of: request.provider });
        request.require = None;
        let watch = Watch::over(&mut request);
        let began_ns = monotonic_ns();
        let result = sequence::run(request).await;
        let ended_ns = monotonic_ns();
        let record = watch.record(&result);
        match result {
            Err(failure) if is_ours(&failure) => {}
            Err(failure) => return Err(HereError::Run(Box::new(failure))),
            Ok(_) => {
                let why = "the run did not ask the provider for a snapshot";
                return Err(BenchError::Spoiled(why.to_owned()).into());
            }
        }
        let stall = self.writers.as_ref().map(|it| it.longest(began_ns, ended_ns)).transpose()?;
        self.add(&record, stall);
        Ok(())
    }

    fn add(&mut self, record: &RunRecord, stall: Option<u64>) {
        let measured = [
            (Measure::Window, window(record).map(|span| span.length())),
            (Measure::Hold, hold(record).map(|span| span.length())),
            (Measure::Quiesce, quiesce(record)),
            (Measure::Stall, stall),
        ];
        for (measure, value) in measured {
            if let Some(value) = value {
                self.values.entry(measure).or_default().push(value);
            }
        }
        self.rounds += 1;
        self.file_systems = record
            .file_systems()
            .iter()
            .map(|fs| BenchFileSystem {
                name: fs.mount_point.display().to_string(),
                fs_type: fs.fs_type.clone(),
                image: None,
            })
            .collect();
        for warning in record.warnings() {
            let note = format!("warning: {warning}");
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    /// What was measured so far.
    #[must_use]
    pub fn document(mut self) -> BenchDocument {
        let count = self.file_systems.len();
        let sets = self.values.into_iter().map(|(measure, values)| {
            Set::new(measure, Method::Stillpoint, Load::AsItIs, count, values)
        });
        let sets = sets.collect();
        self.notes.push(
            "No snapshot was taken: a real run is longer by the provider's call, and the hold by \
             the hooks' proof (confirm). The hold is counted from the moment in which the first \
             hook was asked."
                .to_owned(),
        );
        if !self.probes.is_empty() {
            let names: Vec<String> =
                self.probes.iter().map(|probe| probe.display().to_string()).collect();
            self.notes
                .push(format!("The longest write is that of probes in {}.", names.join(", ")));
        }
        BenchDocument {
            schema_version: SCHEMA_VERSION,
            stillpoint: env!("CARGO_PKG_VERSION").to_owned(),
            place: Place::Here,
            started: self.started,
            seed: 0,
            rounds: self.rounds,
            machine: self.machine,
            file_systems: self.file_systems,
            sets,
            ratios: Vec::new(),
            notes: self.notes,
        }
    }
}

/// It came to the snapshot, nothing but our refusal ended it, and everything runs again.
fn is_ours(failure: &Failure) -> bool {
    let refused = matches!(&failure.cause, Cause::Provider(error) if error.provider == NO_SNAPSHOT);
    refused
        && failure.during == Step::Snapshot
        && failure.state.maybe_frozen.is_empty()
        && failure.state.not_released.is_empty()
}

/// How long the quiescing took as a whole; `None` without hooks.
fn quiesce(record: &RunRecord) -> Option<u64> {
    let step = record.steps().iter().find(|step| {
        step.step == Step::Quiesce.to_string()
            && step.subject.is_none()
            && step.result == StepResult::Done
    })?;
    Some(step.ended_ns.saturating_sub(step.began_ns))
}

/// Knows the disks that the configured provider knows, and takes no snapshot of them: it fails, so
/// that hooks are told the truth. One that was told of a snapshot might throw away what only that
/// makes superfluous, as logs.
#[derive(Debug)]
struct NoSnapshot {
    disks_of: Arc<dyn Provider>,
}

#[async_trait]
impl Provider for NoSnapshot {
    fn name(&self) -> &str {
        NO_SNAPSHOT
    }

    async fn disks(&self) -> Result<Vec<Disk>, ProviderError> {
        self.disks_of.disks().await
    }

    async fn prepare(
        &self,
        _request: GroupRequest,
        _deadline: Deadline,
    ) -> Result<Box<dyn PreparedGroup>, ProviderError> {
        Ok(Box::new(Nothing))
    }
}

#[derive(Debug)]
struct Nothing;

impl Nothing {
    fn refusal() -> ProviderError {
        ProviderError::new(NO_SNAPSHOT, ExitCode::Ok, "no snapshot is taken, as was asked for")
    }
}

#[async_trait]
impl PreparedGroup for Nothing {
    async fn create(&mut self, _deadline: Deadline) -> Result<CreatedGroup, ProviderError> {
        Err(Self::refusal())
    }

    async fn settle(&mut self, _deadline: Deadline) -> Result<Vec<Member>, ProviderError> {
        Err(Self::refusal())
    }

    async fn record(&mut self, _manifest: &Manifest) -> Result<(), ProviderError> {
        Err(Self::refusal())
    }

    async fn discard(&mut self) -> Result<(), ProviderError> {
        Ok(())
    }
}
