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

/// Merges what is on tmpfs into the files on disk, for every hook that has something there, granted
/// or not. To be called with the run's lock held. Says in words what was done, and what could not
/// be; that stays where it is, and a hook that asks for it is told.
pub(crate) async fn merge(paths: &Paths, deadline: Deadline) -> Vec<String> {
    let (disk, memory) = (paths.state(), paths.state_in_memory());
    let hooks = hooks_in(&memory);
    if hooks.is_empty() {
        return Vec::new();
    }
    let worker = Worker::default();
    let mut lines = Vec::new();
    for hook in hooks {
        let places = places(&hook, &disk, &memory);
        let name = hook.clone();
        let merged = worker.run(deadline, move || {
            let (content, ahead) = newest(&places, &name)?;
            if ahead {
                file::write(&places.disk, &name, &content)?;
            }
            file::remove(&places.memory)?;
            Ok::<bool, file::StateError>(ahead)
        });
        match merged.await {
            Ok(Ok(true)) => {
                lines.push(format!("the last state of hook {hook} was written to disk"))
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                lines.push(format!("the last state of hook {hook}: {}{hint}", error.words()));
            }
            Err(error) => lines.push(format!("the last state of hook {hook}: {error}")),
        }
    }
    lines
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
