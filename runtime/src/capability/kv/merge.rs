//! After an agent died: what it left on tmpfs goes to disk, before anybody reads the state.

use std::fs;
use std::path::Path;

use crate::config::grants::is_hook_name;
use crate::paths::Paths;
use crate::time::Deadline;

use super::file;
use super::state::newest;
use super::states::places;
use super::worker::Worker;

/// What came of a merge, in words.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    /// What was brought to disk.
    pub(crate) done: Vec<String>,
    /// What could not be, and stays where it is.
    pub(crate) left: Vec<String>,
}

/// Merges what is on tmpfs into the files on disk, for every hook that has something there, granted
/// or not. To be called with the run's lock held. A hook whose state could not be brought to disk is
/// told when it asks for it.
pub(crate) async fn merge(paths: &Paths, deadline: Deadline) -> Merged {
    let (disk, memory) = (paths.state(), paths.state_in_memory());
    let hooks = hooks_in(&memory);
    let worker = Worker::default();
    let mut merged = Merged::default();
    for hook in hooks {
        let places = places(&hook, &disk, &memory);
        let name = hook.clone();
        let job = worker.run(deadline, move || {
            let (content, ahead) = newest(&places, &name)?;
            if ahead {
                file::write(&places.disk, &name, &content)?;
            }
            file::remove(&places.memory)?;
            Ok::<bool, file::StateError>(ahead)
        });
        let stays = match job.await {
            Ok(Ok(ahead)) => {
                let line = format!("the last state of hook {hook} was written to disk");
                merged.done.extend(ahead.then_some(line));
                continue;
            }
            Ok(Err(error)) => {
                let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                format!("{}{hint}", error.words())
            }
            Err(error) => error.to_string(),
        };
        merged.left.push(format!("the last state of hook {hook} is not on disk: {stays}"));
    }
    merged
}

/// Names of hooks that have a file there.
fn hooks_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut hooks: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".kv").map(str::to_owned))
        .filter(|name| is_hook_name(name))
        .collect();
    hooks.sort();
    hooks
}
