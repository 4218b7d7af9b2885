//! File systems run again. Prove, release, and then, with nothing held any more, settle.

use crate::consistency::{level_after, level_of_disk};
use crate::exit_code::ExitCode;
use crate::failpoint::reach_step;
use crate::guard::Thaw;
use crate::manifest::{DiskRecord, Manifest, SCHEMA_VERSION, StepResult, Timings};
use crate::provider::{CreatedGroup, Member};
use crate::time::Deadline;

use super::failure::SnapshotState;
use super::frozen::Request;
use super::prepared::{disarm, discard};
use super::{Cause, Failure, MachineState, Rehearsed, Step, spans};

/// File systems run; applications are still quiesced.
#[derive(Debug)]
#[must_use = "applications are waiting"]
pub struct Thawed {
    pub(super) held: Rehearsed,
    pub(super) created: CreatedGroup,
    pub(super) request: Request,
    pub(super) thaw: Option<Thaw>,
}

/// Nothing is held any more.
#[derive(Debug)]
#[must_use = "the snapshot is not recorded yet"]
pub struct Released {
    held: Rehearsed,
    created: CreatedGroup,
    request: Request,
    thaw: Option<Thaw>,
    hold_ns: Option<u64>,
    state: MachineState,
    exit_code: ExitCode,
}

/// A snapshot was made.
#[derive(Debug)]
pub struct Report {
    /// What was done, and how consistent the result is.
    pub manifest: Manifest,
    /// `Ok`, or the code of what went wrong after the snapshot without making it unusable.
    pub exit_code: ExitCode,
    /// What went wrong after the snapshot.
    pub problems: Vec<String>,
    /// The state the machine is in now.
    pub state: MachineState,
}

impl Thawed {
    /// Lets each hook prove that it was quiesced all the time, then releases in reverse. Neither
    /// can fail the run: what cannot be proved lowers the level, what cannot be released is told.
    pub async fn release(self) -> Released {
        let Self { mut held, created, request, thaw } = self;
        let run = &mut held.run;
        let none = held.hooks.is_empty();
        let deadlines = &run.request.deadlines;
        let (confirm, release) = (deadlines.confirm, deadlines.release);
        run.recorder.announce(Step::Confirm);
        let ended = held.hooks.confirm_and_release(confirm, release, &mut run.reasons).await;
        let unproved = ended.unproved;
        let result = if unproved.is_empty() { StepResult::Done } else { StepResult::Failed };
        run.recorder.hooks_did(Step::Confirm, none, result, &ended.confirms);

        let state = run.note_released(&held.hooks, ended.not_released);
        let released = state.not_released.is_empty();
        let result = if released { StepResult::Done } else { StepResult::UndoFailed };
        run.recorder.announce(Step::Release);
        run.recorder.hooks_did(Step::Release, none, result, &ended.releases);
        reach_step!(Step::Release, "after");

        let hold_ns = held.hooks.hold_ns();
        if let Some(guard) = held.guard.take() {
            disarm(guard, &mut held.run.recorder).await;
        }
        held.run.keep_state().await;
        let exit_code =
            if unproved.is_empty() && released { ExitCode::Ok } else { ExitCode::PostThaw };
        Released { held, created, request, thaw, hold_ns, state, exit_code }
    }
}

impl Released {
    /// Waits for the members and writes the manifest. Nothing is held any more.
    ///
    /// # Errors
    /// If the members do not come, or the level that is required was not reached: the group is
    /// removed then.
    pub async fn settle(mut self) -> Result<Report, Failure> {
        if let Err(cause) = self.held.run.check_level() {
            return Err(self.discard(Step::Confirm, cause).await);
        }
        let run = &mut self.held.run;
        let running = run.recorder.begin(Step::Settle, None);
        let deadline = Deadline::after(run.request.deadlines.settle);
        let members = match self.held.group.settle(deadline).await {
            Ok(members) => members,
            Err(error) => {
                run.recorder.failed(running, error.to_string());
                return Err(self.discard(Step::Settle, error.into()).await);
            }
        };
        run.recorder.done(running, None);
        self.state.snapshot = SnapshotState::Kept(self.created.id.clone());
        let manifest = self.manifest(members);
        let mut problems = self.state.not_released.clone();
        problems.extend(
            manifest
                .reasons
                .iter()
                .filter(|_| self.exit_code != ExitCode::Ok)
                .map(ToString::to_string),
        );
        let mut exit_code = self.exit_code;
        if let Some(shortfall) = self.held.group.shortfall() {
            problems.push(shortfall.to_string());
            exit_code = shortfall.exit_code;
        }
        if let Err(error) = self.held.group.record(&manifest).await {
            problems.push(format!("the manifest or the tags could not be kept: {error}"));
            exit_code = ExitCode::Tags;
        }
        let read_only = |thaw: &Thaw| thaw.file_systems.iter().any(|fs| fs.turned_read_only);
        if self.thaw.as_ref().is_some_and(read_only) {
            problems.extend(read_only_problems(&manifest));
            exit_code = ExitCode::CannotThaw;
        }
        spans::succeeded(self.held.run.recorder.span(), &manifest);
        Ok(Report { manifest, exit_code, problems, state: self.state })
    }

    async fn discard(mut self, during: Step, cause: Cause) -> Failure {
        self.state.snapshot = discard(&mut *self.held.group, true).await;
        self.held.run.fail(during, cause, self.state)
    }

    fn manifest(&self, members: Vec<Member>) -> Manifest {
        let Rehearsed { run, plan, hooks, .. } = &self.held;
        let disks = plan.disks.iter().map(|disk| DiskRecord {
            id: disk.id.clone(),
            node: disk.node.clone(),
            level: level_of_disk(&run.reasons, &disk.id),
            member: members.iter().find(|member| member.disk == disk.id).cloned(),
        });
        let file_systems = run.file_systems.clone();
        let window_ns = match (
            file_systems.iter().map(|fs| fs.freeze_began_ns).min(),
            file_systems.iter().map(|fs| fs.thawed_ns).max(),
        ) {
            (Some(first), Some(last)) => last.saturating_sub(first),
            _ => 0,
        };
        Manifest {
            schema_version: SCHEMA_VERSION,
            stillpoint: env!("CARGO_PKG_VERSION").to_owned(),
            run_id: run.request.context.run_id.clone(),
            name: run.request.name.clone(),
            description: run.request.description.clone(),
            started: run.started.to_string(),
            provider: run.request.provider.name().to_owned(),
            group: self.created.id.clone(),
            level: level_after(&run.reasons),
            reasons: run.reasons.clone(),
            disks: disks.collect(),
            file_systems,
            skipped: plan.skipped.clone(),
            hooks: hooks.records(),
            steps: run.recorder.steps().to_vec(),
            timings: Timings {
                window_ns,
                provider_ns: self.request.fixed_ns.saturating_sub(self.request.sent_ns),
                hold_ns: self.hold_ns,
                total_ns: run.recorder.elapsed_ns(),
            },
            output_dropped_bytes: run.dropped_output,
            warnings: run.recorder.warnings().to_vec(),
            verified: None,
        }
    }
}

/// What an operator must hear first: a file system that cannot be written to any more, or that could
/// not be looked at after the thaw.
fn read_only_problems(manifest: &Manifest) -> impl Iterator<Item = String> {
    let turned = manifest.file_systems.iter().filter(|fs| !fs.writable_after);
    turned.map(|fs| {
        format!(
            "{} turned read-only, or its mount options could not be read after the thaw: see \
             `grep {} /proc/self/mountinfo` and `dmesg`; a btrfs has to be unmounted and mounted again",
            fs.mount_point.display(),
            fs.mount_point.display()
        )
    })
}
