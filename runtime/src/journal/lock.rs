//! One run at a time, and the agent's part of the journal.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::file_lock::FileLock;
use crate::script::ScriptSettings;
use crate::time::Deadline;

use super::{
    BegunHook, HookEntry, JournalError, LeftHook, ProcessId, RunRecord, boot_id, prepare_directory,
};

/// How long a start waits for a recovery that is at work. Scripts may take longer; then the start is
/// refused, and told why.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// What the run's id of a recovery begins with.
const RECOVERY: &str = "recovery-of-";

/// The run's id of the recovery that a sentinel starts.
pub(crate) fn recovery_of(run_id: &str) -> String {
    format!("{RECOVERY}{run_id}")
}

/// Who holds the lock: the content of the lock file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Holder {
    run_id: String,
    pid: u32,
    since: String,
}

/// The lock of a run, held until it is dropped, or its process is gone. It is never inherited.
#[derive(Debug)]
#[must_use = "the run is locked only as long as this lives"]
pub struct RunLock {
    _file: FileLock,
    run_dir: PathBuf,
    record: RunRecord,
}

impl RunLock {
    /// Locks `run_dir` for a run. What an earlier run left there is not touched: look at it with
    /// [`crate::freeze::recover`] before the first [`RunLock::hook_begun`].
    ///
    /// # Errors
    /// [`JournalError::RunInProgress`] names the run that holds it.
    pub fn acquire(run_dir: &Path, run_id: &str) -> Result<Self, JournalError> {
        prepare_directory(run_dir)?;
        let path = run_dir.join("lock");
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(JournalError::file("open", &path))?;
        let mut file = match FileLock::try_new(file) {
            Ok(file) => file,
            Err((file, TryLockError::WouldBlock)) => return Err(in_progress(file)),
            Err((_, TryLockError::Error(error))) => {
                return Err(JournalError::file("lock", &path)(error));
            }
        };
        let record = RunRecord {
            run_id: run_id.to_owned(),
            agent: ProcessId::myself(),
            started: jiff::Timestamp::now().to_string(),
            boot_id: boot_id()?,
            hooks: Vec::new(),
            earlier: Vec::new(),
            scripts: None,
        };
        write_holder(&mut file, &record).map_err(JournalError::file("write", &path))?;
        Ok(Self { _file: file, run_dir: run_dir.to_owned(), record })
    }

    /// As [`RunLock::acquire`]; if the sentinel of a run that died has it, waits for it up to 30 s.
    ///
    /// # Errors
    /// As [`RunLock::acquire`].
    pub async fn acquire_after_recovery(
        run_dir: &Path,
        run_id: &str,
    ) -> Result<Self, JournalError> {
        Self::acquire_while(run_dir, run_id, RECOVERY_PATIENCE, is_recovery).await
    }

    /// As [`RunLock::acquire`], trying for this long.
    pub(crate) async fn acquire_within(
        run_dir: &Path,
        run_id: &str,
        limit: Duration,
    ) -> Result<Self, JournalError> {
        Self::acquire_while(run_dir, run_id, limit, |_, _| true).await
    }

    async fn acquire_while(
        run_dir: &Path,
        run_id: &str,
        limit: Duration,
        is_waited_for: fn(&str, u32) -> bool,
    ) -> Result<Self, JournalError> {
        let patience = Deadline::after(limit);
        loop {
            match Self::acquire(run_dir, run_id) {
                Err(JournalError::RunInProgress { run_id, pid, .. })
                    if is_waited_for(&run_id, pid) && !patience.has_passed() =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// The directory that is locked.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// This run, as it stands in the journal.
    #[must_use]
    pub fn record(&self) -> &RunRecord {
        &self.record
    }

    /// Takes over what earlier runs left and could not be finished, and removes what they wrote.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn take_over(&mut self, left: Vec<LeftHook>) -> Result<(), JournalError> {
        self.record.earlier = left;
        self.save()
    }

    /// Which legacy scripts this run has. It is written down with the first hook.
    pub fn scripts_are(&mut self, scripts: &ScriptSettings) {
        self.record.scripts = Some(scripts.clone());
    }

    /// Writes down that a hook is about to act. Call it before the act; a second time is harmless.
    ///
    /// # Errors
    /// If the journal cannot be written; the hook must then not be begun.
    pub fn hook_begun(&mut self, hook: BegunHook) -> Result<(), JournalError> {
        if self.record.hooks.iter().any(|entry| entry.hook.name == hook.name) {
            return Ok(());
        }
        self.record.hooks.push(HookEntry { hook, finished: false });
        self.save()
    }

    /// Writes down that a hook's `finish` has ended. Call it after the act.
    ///
    /// # Errors
    /// If the journal cannot be written: the next run will then finish the hook once more.
    pub fn hook_finished(&mut self, hook: &str) -> Result<(), JournalError> {
        for entry in self.record.hooks.iter_mut().filter(|entry| entry.hook.name == hook) {
            entry.finished = true;
        }
        self.save()
    }

    /// With nothing left to finish, there is no record.
    fn save(&self) -> Result<(), JournalError> {
        if self.record.left_hooks().is_empty() {
            return RunRecord::remove(&self.run_dir);
        }
        self.record.save(&self.run_dir)
    }
}

/// A recovery, or somebody who has not written down yet who he is: the name is that of the dead.
fn is_recovery(run_id: &str, pid: u32) -> bool {
    run_id.starts_with(RECOVERY) || ProcessId::of(pid).is_none()
}

fn write_holder(file: &mut File, record: &RunRecord) -> std::io::Result<()> {
    let holder = Holder {
        run_id: record.run_id.clone(),
        pid: record.agent.pid,
        since: record.started.clone(),
    };
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&serde_json::to_vec(&holder)?)
}

/// Names the holder. If it has locked but not written yet, what is known is that there is one.
fn in_progress(mut file: File) -> JournalError {
    let mut text = String::new();
    let holder = match file.read_to_string(&mut text) {
        Ok(_) => serde_json::from_str(&text).unwrap_or_default(),
        Err(_) => Holder::default(),
    };
    let Holder { run_id, pid, since } = holder;
    JournalError::RunInProgress { run_id, pid, since }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> BegunHook {
        BegunHook { name: name.into(), ..BegunHook::default() }
    }

    #[test]
    fn a_second_run_is_refused_and_told_about_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunLock::acquire(dir.path(), "run-one").unwrap();
        match RunLock::acquire(dir.path(), "run-two").unwrap_err() {
            JournalError::RunInProgress { run_id, pid, since } => {
                assert_eq!(run_id, "run-one");
                assert_eq!(pid, std::process::id());
                assert_eq!(since, first.record().started);
            }
            other => panic!("{other}"),
        }
        drop(first);
        let _third = RunLock::acquire(dir.path(), "run-three").unwrap();
    }

    #[test]
    fn hooks_begun_and_not_finished_are_found_in_reverse_and_released_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut lock = RunLock::acquire(dir.path(), "r").unwrap();
        for hook in ["a", "b", "c"] {
            lock.hook_begun(named(hook)).unwrap();
        }
        lock.hook_begun(named("b")).unwrap();
        lock.hook_finished("b").unwrap();
        drop(lock);
        let left = RunRecord::load(dir.path()).unwrap().unwrap();
        assert_eq!(left.unfinished_hooks().collect::<Vec<_>>(), ["c", "a"]);
    }

    #[test]
    fn a_run_that_released_everything_leaves_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut lock = RunLock::acquire(dir.path(), "r").unwrap();
        lock.hook_begun(named("a")).unwrap();
        lock.hook_finished("a").unwrap();
        drop(lock);
        assert_eq!(RunRecord::load(dir.path()).unwrap(), None);
    }

    #[test]
    fn what_earlier_runs_left_stays_in_the_journal_until_it_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let mut died = RunLock::acquire(dir.path(), "died").unwrap();
        died.hook_begun(named("a")).unwrap();
        died.hook_begun(named("b")).unwrap();
        drop(died);
        let left = RunRecord::load(dir.path()).unwrap().unwrap().left_hooks();
        let names = |left: &[LeftHook]| -> Vec<String> {
            left.iter().map(|left| format!("{} {}", left.run_id, left.hook.name)).collect()
        };
        assert_eq!(names(&left), ["died b", "died a"]);

        let mut next = RunLock::acquire(dir.path(), "next").unwrap();
        next.take_over(left[1..].to_vec()).unwrap();
        next.hook_begun(named("c")).unwrap();
        let now = RunRecord::load(dir.path()).unwrap().unwrap().left_hooks();
        assert_eq!(names(&now), ["next c", "died a"]);
        next.hook_finished("c").unwrap();
        drop(next);
        let now = RunRecord::load(dir.path()).unwrap().unwrap().left_hooks();
        assert_eq!(names(&now), ["died a"]);

        let mut last = RunLock::acquire(dir.path(), "last").unwrap();
        last.take_over(Vec::new()).unwrap();
        assert_eq!(RunRecord::load(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = RunLock::acquire(dir.path(), "r").unwrap_err();
        assert!(matches!(refused, JournalError::DirectoryNotOurs { mode: 0o777, .. }), "{refused}");
    }
}
