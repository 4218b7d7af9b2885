//! `stillpoint hook grant`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use stillpoint::capability::grant_template;
use stillpoint::config::connections::Connections;
use stillpoint::exit_code::ExitCode;
use stillpoint::paths::Paths;

use super::super::{CommandError, Outcome, print, setup};
use super::args::Grant;
use super::{open_store, store_error};

pub fn run(paths: &Paths, args: &Grant) -> Outcome {
    let Grant { hook, accept, connections } = args;
    let store = open_store(paths)?;
    let inspection = setup::block_on(async { store.inspect(hook).await })?.map_err(store_error)?;
    let mut targets = Vec::new();
    for pair in connections {
        let Some((asked, target)) = pair.split_once('=') else {
            let error = anyhow::anyhow!("--connection {pair}: write it as NAME=CONNECTION");
            return Err(CommandError::new(ExitCode::Parameters, error));
        };
        targets.push((asked.to_owned(), target.to_owned()));
    }
    let text = grant_template(&inspection.description, &inspection.digest, &targets);
    if !*accept {
        print(&text);
        return Ok(ExitCode::Ok);
    }
    let file = paths.grants().join(format!("{}.toml", inspection.description.name));
    write_grant(&file, &text)?;
    let connections = Connections::load(paths).map_err(setup::config_error)?;
    if let Err(error) = stillpoint::config::grants::HookGrant::load(&file, &connections) {
        let _ = std::fs::remove_file(&file);
        return Err(setup::config_error(error));
    }
    print(&format!("{} grants what {hook} asks for; read it\n", file.display()));
    Ok(ExitCode::Ok)
}

/// A grant file that is there is the operator's: it is never overwritten.
fn write_grant(file: &Path, text: &str) -> Result<(), CommandError> {
    let written = file.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)
            .and_then(|mut open| open.write_all(text.as_bytes()))
    });
    written.map_err(|error| {
        let there = error.kind() == std::io::ErrorKind::AlreadyExists;
        let error = anyhow::Error::new(error).context(format!("{} cannot be written", file.display()));
        let hint = there.then(|| {
            "it is there already: compare it with what `stillpoint hook grant` prints, or remove it".to_owned()
        });
        CommandError::new(ExitCode::Precondition, error).hint(hint)
    })
}
