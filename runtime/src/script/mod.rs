//! Legacy scripts: `/tmp/prescript.sh` before the freeze, `/tmp/postscript.sh` after the thaw.
//!
//! They run as root and lie where everybody can write, so both are checked before the first runs
//! ([`ScriptPair::check`]), by descriptor, and the descriptors stay open: what was checked is what
//! runs, whatever its path names by then. `$0` is therefore `/proc/self/fd/N`; the path is in
//! `STILLPOINT_SCRIPT`.
//!
//! | | |
//! |---|---|
//! | must be | a regular file of root's, mode exactly 0700, one link, at most 1 MiB, no symbolic link on the way, no process that has it open for writing, `#!` with an interpreter that only root can change, not on a `noexec` mount; directories above it root's, and sticky where others may write |
//! | runs in | its own cgroup and session, in `/`, stdin empty, with `PATH`, `HOME`, `USER`, `LOGNAME`, `STILLPOINT_SCRIPT`, `STILLPOINT_PHASE`, and for the second `STILLPOINT_OUTCOME` (`captured`, `failed`, `aborted`) |
//! | output | the last 64 KiB of each stream are kept, the rest is read and counted |
//! | time-out | SIGTERM to everything in the cgroup, 2 s later SIGKILL; nothing survives, `setsid` included |
//! | leaves behind | what the first script leaves in the background (a client that holds a lock) lives until the second has run, then it is killed; what the second leaves (a service that it started) lives on, but for a time-out |

mod cgroup;
mod check;
mod problem;
mod recover;
mod ring;
mod run;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::cgroup::Survivor;
use crate::consistency::Level;
use crate::hook::{Hook, HookFailure, HookFailureKind, Outcome, Phase, Prepared, Quiesced};
use crate::manifest::{MetadataEntry, MetadataValue};
use crate::time::Deadline;

pub use check::SIZE_LIMIT;
pub use problem::{Role, ScriptProblem, Violation};
pub use recover::{Recovered, recover};
pub use run::{OUTPUT_LIMIT, ScriptEnd, ScriptOutput};

use cgroup::{Cgroup, Part};
use check::CheckedScript;
use run::Ended;

/// What the pair is called in journal, manifest and errors.
pub const NAME: &str = "scripts";

/// How long `finish` waits for what the pre-freeze script left in the background.
const LEFTOVER_GRACE: Duration = Duration::from_secs(5);

/// How many lines of a failed script's output its error quotes.
const QUOTED_LINES: usize = 5;

/// Which scripts, and how long each may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptSettings {
    /// Runs before the freeze.
    pub pre: PathBuf,
    /// Runs after the thaw.
    pub post: PathBuf,
    /// For each of them.
    pub timeout: Duration,
}

impl Default for ScriptSettings {
    /// As the vendor's documents have it: `/tmp/prescript.sh`, `/tmp/postscript.sh`, 1800 s.
    fn default() -> Self {
        Self {
            pre: PathBuf::from("/tmp/prescript.sh"),
            post: PathBuf::from("/tmp/postscript.sh"),
            timeout: Duration::from_secs(1800),
        }
    }
}

/// Both scripts, checked and held open, as a hook.
#[derive(Debug)]
pub struct ScriptPair {
    pre: CheckedScript,
    post: CheckedScript,
    timeout: Duration,
    digest: String,
    /// The pre-freeze script's, from `prepare` to `finish`.
    pre_cgroup: Option<Cgroup>,
    post_cgroup: Option<Cgroup>,
    pre_run: Option<Ended>,
    post_run: Option<Ended>,
}

impl ScriptPair {
    /// Checks both; `None` if neither is there. Nothing is run.
    ///
    /// # Errors
    /// If one of the pair is missing or one breaks a rule.
    pub fn check(settings: &ScriptSettings) -> Result<Option<Self>, ScriptProblem> {
        let pre =
            check::check(&settings.pre).map_err(|found| found.at(Role::Pre, &settings.pre))?;
        let post =
            check::check(&settings.post).map_err(|found| found.at(Role::Post, &settings.post))?;
        match (pre, post) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Violation::Missing.at(Role::Pre, &settings.pre)),
            (Some(_), None) => Err(Violation::Missing.at(Role::Post, &settings.post)),
            (Some(pre), Some(post)) => {
                for script in [&pre, &post] {
                    tracing::info!(path = %script.path.display(), sha256 = %script.sha256, "script checked");
                }
                Ok(Some(Self {
                    digest: format!("sha256:{}", pre.sha256),
                    pre,
                    post,
                    timeout: settings.timeout,
                    pre_cgroup: None,
                    post_cgroup: None,
                    pre_run: None,
                    post_run: None,
                }))
            }
        }
    }

    /// How this script ended and what it wrote, if it was run.
    #[must_use]
    pub fn report(&self, role: Role) -> Option<(ScriptEnd, ScriptOutput)> {
        let run = match role {
            Role::Pre => self.pre_run.as_ref(),
            Role::Post => self.post_run.as_ref(),
        };
        run.map(|run| (run.end.clone(), run.output()))
    }

    /// Bytes of output that were read and not kept.
    #[must_use]
    pub fn output_dropped(&self) -> u64 {
        [&self.pre_run, &self.post_run].into_iter().flatten().map(|run| run.output().dropped).sum()
    }

    fn digest_entry(role: Role, script: &CheckedScript) -> MetadataEntry {
        let key = match role {
            Role::Pre => "pre-script-sha256",
            Role::Post => "post-script-sha256",
        };
        MetadataEntry { key: key.to_owned(), value: MetadataValue::Text(script.sha256.clone()) }
    }
}

#[async_trait]
impl Hook for ScriptPair {
    fn name(&self) -> &str {
        NAME
    }

    fn version(&self) -> Option<&str> {
        None
    }

    /// Of the pre-freeze script; the metadata has both.
    fn digest(&self) -> Option<String> {
        Some(self.digest.clone())
    }

    async fn prepare(&mut self, _deadline: Deadline) -> Result<Prepared, HookFailure> {
        // Also those in which only a process was left that could not be killed then.
        for line in recover::end_remains().await {
            tracing::warn!("an agent died: {line}");
        }
        self.pre_cgroup = Some(new_cgroup(Part::Pre)?);
        self.post_cgroup = Some(new_cgroup(Part::Post)?);
        Ok(Prepared {
            paths: Vec::new(),
            summary: format!(
                "scripts {} and {}",
                self.pre.path.display(),
                self.post.path.display()
            ),
        })
    }

    async fn pre_freeze(&mut self, deadline: Deadline) -> Result<Quiesced, HookFailure> {
        let step = Step { role: Role::Pre, phase: Phase::PreFreeze, script: &self.pre };
        if step.changed() {
            let failure = step.failure(HookFailureKind::Host, "was edited after it was checked");
            return Err(hinted(failure, "run again: it is checked anew"));
        }
        let cgroup = step.cgroup(self.pre_cgroup.as_ref())?;
        let environment = [("STILLPOINT_PHASE", "pre-freeze")];
        let run = step.run(cgroup, &environment, self.timeout, deadline).await?;
        let verdict = step.judge(&run);
        self.pre_run = Some(run);
        verdict.map(|()| Quiesced {
            level: Level::Application,
            metadata: vec![
                Self::digest_entry(Role::Pre, &self.pre),
                Self::digest_entry(Role::Post, &self.post),
            ],
        })
    }

    /// A script's word is its exit status, and that was given: there is no session to ask.
    async fn confirm(&mut self, _deadline: Deadline) -> Result<(), HookFailure> {
        Ok(())
    }

    async fn post_thaw(
        &mut self,
        outcome: Outcome,
        deadline: Deadline,
    ) -> Result<Vec<MetadataEntry>, HookFailure> {
        let step = Step { role: Role::Post, phase: Phase::PostThaw, script: &self.post };
        if step.changed() {
            // Only root can have written to it, and an application that stays paused is worse.
            tracing::warn!(path = %self.post.path.display(), "edited after it was checked; it runs as it is now");
        }
        let cgroup = step.cgroup(self.post_cgroup.as_ref())?;
        let outcome = match outcome {
            Outcome::Captured => "captured",
            Outcome::Failed => "failed",
            Outcome::Aborted => "aborted",
        };
        let environment = [("STILLPOINT_PHASE", "post-thaw"), ("STILLPOINT_OUTCOME", outcome)];
        let run = step.run(cgroup, &environment, self.timeout, deadline).await?;
        let verdict = step.judge(&run);
        self.post_run = Some(run);
        verdict.map(|()| Vec::new())
    }

    /// What the first script left in the background ends now; what the second left lives on.
    async fn finish(&mut self, deadline: Deadline) -> Result<(), HookFailure> {
        if let Some(cgroup) = self.post_cgroup.take() {
            let services = cgroup.release_members();
            if services > 0 {
                tracing::info!(processes = services, "left running by the post-thaw script");
            }
        }
        let Some(cgroup) = self.pre_cgroup.take() else { return Ok(()) };
        let left = cgroup.members().len();
        if left > 0 {
            tracing::warn!(
                processes = left,
                "left in the background by the pre-freeze script, killed"
            );
        }
        let grace = Deadline::after(LEFTOVER_GRACE).min(deadline);
        let survivors = cgroup.kill(grace).await;
        if survivors.is_empty() {
            return Ok(());
        }
        let step = Step { role: Role::Pre, phase: Phase::Finish, script: &self.pre };
        Err(step.failure(
            HookFailureKind::Host,
            &format!("left processes that cannot be killed yet: {}", in_words(&survivors)),
        ))
    }
}

/// One of the pair, in one phase.
#[derive(Debug)]
struct Step<'a> {
    role: Role,
    phase: Phase,
    script: &'a CheckedScript,
}

impl Step<'_> {
    fn changed(&self) -> bool {
        self.script.current_digest().ok().as_deref() != Some(self.script.sha256.as_str())
    }

    fn cgroup<'c>(&self, cgroup: Option<&'c Cgroup>) -> Result<&'c Cgroup, HookFailure> {
        cgroup.ok_or_else(|| {
            self.failure(HookFailureKind::Host, "was not prepared, so it has no cgroup to run in")
        })
    }

    async fn run(
        &self,
        cgroup: &Cgroup,
        environment: &[(&str, &str)],
        timeout: Duration,
        deadline: Deadline,
    ) -> Result<Ended, HookFailure> {
        let deadline = Deadline::after(timeout).min(deadline);
        run::run(self.script, cgroup, environment, deadline).await.map_err(|error| {
            let what = format!("could not be run: {error}");
            hinted(self.failure(HookFailureKind::Host, &what), &self.by_hand())
        })
    }

    fn by_hand(&self) -> String {
        format!("try it by hand, as root: {}", self.script.path.display())
    }

    fn judge(&self, run: &Ended) -> Result<(), HookFailure> {
        let output = run.output();
        let quoted = match output.last_lines(QUOTED_LINES) {
            lines if lines.is_empty() => "it wrote nothing".to_owned(),
            lines => format!("its last lines: {lines}"),
        };
        let (kind, what) = match &run.end {
            ScriptEnd::Exited(status) if status.success() => return Ok(()),
            ScriptEnd::Exited(status) => (HookFailureKind::Application, ended_with(*status)),
            ScriptEnd::TimedOut { after, survivors } => {
                let killed = format!("was killed after {:.1} s", after.as_secs_f64());
                let left = match survivors.as_slice() {
                    [] => String::new(),
                    some => format!("; cannot be killed yet: {}", in_words(some)),
                };
                (HookFailureKind::Timeout, killed + &left)
            }
        };
        let hint = match kind {
            HookFailureKind::Timeout => {
                "make it quicker, or raise `timeout` under [scripts] in stillpoint.toml (the plug-in: -ScriptTimeoutInSeconds)".to_owned()
            }
            _ => self.by_hand(),
        };
        Err(hinted(self.failure(kind, &format!("{what}; {quoted}")), &hint))
    }

    fn failure(&self, kind: HookFailureKind, what: &str) -> HookFailure {
        HookFailure {
            hook: NAME.to_owned(),
            version: None,
            phase: self.phase,
            kind,
            message: format!("{} {} {what}", self.role, self.script.path.display()),
            hint: None,
        }
    }
}

fn hinted(failure: HookFailure, hint: &str) -> HookFailure {
    HookFailure { hint: Some(hint.to_owned()), ..failure }
}

fn ended_with(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(127), _) => "exited with status 127 (a command was not found)".to_owned(),
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

fn in_words(survivors: &[Survivor]) -> String {
    let each = |survivor: &Survivor| {
        format!("{} {} (state {})", survivor.command, survivor.pid, survivor.state)
    };
    survivors.iter().map(each).collect::<Vec<_>>().join(", ")
}

fn new_cgroup(part: Part) -> Result<Cgroup, HookFailure> {
    Cgroup::create(&cgroup::name_for(part)).map_err(|error| HookFailure {
        hook: NAME.to_owned(),
        version: None,
        phase: Phase::Prepare,
        kind: HookFailureKind::Host,
        message: error.to_string(),
        hint: Some("scripts need a cgroup so that they can be ended; mount cgroup2 on /sys/fs/cgroup, or let the agent's unit make cgroups (Delegate=yes)".to_owned()),
    })
}

/// The path by which an open descriptor can be opened again.
fn fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests;
