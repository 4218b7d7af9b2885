//! `stillpoint hook list` and `hook remove`.

use stillpoint::exit_code::ExitCode;
use stillpoint::hook::Installed;
use stillpoint::paths::Paths;

use super::super::args::Global;
use super::super::{Outcome, print, print_json};
use super::{open_store, store_error};

pub fn run(global: &Global, paths: &Paths) -> Outcome {
    let installed = open_store(paths)?.list().map_err(store_error)?;
    if global.json {
        print_json(&installed);
    } else if installed.is_empty() {
        print("no hooks are installed\n");
    }
    if !global.json {
        for hook in &installed {
            print(&format!("{}\n", line(hook)));
        }
    }
    Ok(ExitCode::Ok)
}

fn line(hook: &Installed) -> String {
    let description = &hook.description;
    format!(
        "{} {}  {}  {}  {}",
        description.name,
        description.version,
        hook.digest,
        hook.on_whose_word(),
        description.summary
    )
}

pub fn remove(global: &Global, paths: &Paths, hook: &str) -> Outcome {
    let removed = open_store(paths)?.remove(hook).map_err(store_error)?;
    if global.json {
        print_json(&removed);
    } else {
        print(&format!("{} is removed\n", line(&removed)));
    }
    Ok(ExitCode::Ok)
}
