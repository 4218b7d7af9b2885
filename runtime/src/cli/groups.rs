//! `stillpoint list`, `restore`, `detach`, `delete`.

use stillpoint::exit_code::ExitCode;
use stillpoint::output::human;
use stillpoint::paths::Paths;

use super::args::Global;
use super::{CommandError, Outcome, print, print_json, provider_error, setup};

/// The snapshots there are.
pub fn list(global: &Global, paths: &Paths) -> Outcome {
    let provider = setup::provider(&setup::config(paths)?, paths)?;
    let groups = setup::block_on(async { provider.list().await })?.map_err(provider_error)?;
    if global.json {
        print_json(&groups);
    } else if groups.is_empty() {
        print("no snapshots\n");
    } else {
        for group in &groups {
            let line = human::group_line(&group.id, group.manifest.as_deref(), group.members.len());
            print(&format!("{line}\n"));
        }
    }
    Ok(ExitCode::Ok)
}

/// The manifest of one of them.
pub fn show(global: &Global, paths: &Paths, id: &str) -> Outcome {
    let provider = setup::provider(&setup::config(paths)?, paths)?;
    let groups = setup::block_on(async { provider.list().await })?.map_err(provider_error)?;
    let Some(group) = groups.into_iter().find(|group| group.id == id) else {
        let error = anyhow::anyhow!("there is no snapshot {id}");
        return Err(CommandError::new(ExitCode::Parameters, error)
            .hint("`stillpoint list` shows those there are".to_owned()));
    };
    match &group.manifest {
        Some(manifest) if global.json => print_json(manifest),
        Some(manifest) => print(&human::manifest(manifest)),
        None => {
            let error =
                anyhow::anyhow!("{id} has no manifest: the run that made it did not end well");
            return Err(CommandError::new(ExitCode::SnapshotState, error)
                .hint(format!("do not use it; `stillpoint delete {id}` removes it")));
        }
    }
    Ok(ExitCode::Ok)
}

/// Attaches a writable copy of each member.
pub fn restore(global: &Global, paths: &Paths, id: &str) -> Outcome {
    let provider = setup::provider(&setup::config(paths)?, paths)?;
    let copies =
        setup::block_on(async { provider.attach_copy(id).await })?.map_err(provider_error)?;
    if global.json {
        print_json(&copies);
        return Ok(ExitCode::Ok);
    }
    for copy in &copies {
        print(&format!("{}  is a writable copy of {}\n", copy.node.display(), copy.disk));
    }
    print(&format!(
        "mount what you need of them; XFS beside its original wants -o nouuid\n\
         when you are done: unmount, then `stillpoint detach {id}`\n"
    ));
    Ok(ExitCode::Ok)
}

/// Detaches the copies of a group and deletes them.
pub fn detach(global: &Global, paths: &Paths, id: &str) -> Outcome {
    let provider = setup::provider(&setup::config(paths)?, paths)?;
    setup::block_on(async { provider.detach_copy(id).await })?.map_err(provider_error)?;
    done(global, &format!("the copies of {id} are detached and deleted"))
}

/// Deletes a group with all its members.
pub fn delete(global: &Global, paths: &Paths, id: &str) -> Outcome {
    let provider = setup::provider(&setup::config(paths)?, paths)?;
    setup::block_on(async { provider.delete(id).await })?.map_err(provider_error)?;
    done(global, &format!("{id} is deleted"))
}

fn done(global: &Global, what: &str) -> Outcome {
    if global.json {
        print_json(&serde_json::json!({ "schema_version": 1, "exit_code": 0, "done": what }));
    } else {
        print(&format!("{what}\n"));
    }
    setup::ok()
}
