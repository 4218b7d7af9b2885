//! `stillpoint hook build`.

use std::path::{Path, PathBuf};

use stillpoint::exit_code::ExitCode;
use stillpoint::hook::build::{self, BuildError, Made, Project};
use stillpoint::hook::{Digest, InstallPolicy, InstallRequest, Portrait, Source};
use stillpoint::paths::Paths;

use super::super::args::Global;
use super::super::{CommandError, Outcome, print, print_json, setup};
use super::args::Build;
use super::{open_store, store_error};

/// Builds, checks as an installation does, and only then writes `NAME.wasm`.
pub fn run(global: &Global, paths: &Paths, args: &Build) -> Outcome {
    let made = made(&args.project).map_err(refused)?;
    let built = build::component(&made, args.stub_wasi).map_err(refused)?;
    let portrait = portrait(paths, &made.file, &built.bytes)?;
    let name = &portrait.description.name;
    let beside = if args.project.is_dir() { &*args.project } else { Path::new(".") };
    let output = args.output.clone().unwrap_or_else(|| beside.join(format!("{name}.wasm")));
    write(&output, &built.bytes)?;
    let tools: Vec<String> = portrait
        .toolchain
        .iter()
        .map(|tool| format!("{} {}", tool.name, tool.version).trim().to_owned())
        .collect();
    let digest = Digest::of(&built.bytes);
    if global.json {
        print_json(&serde_json::json!({
            "schema_version": stillpoint::output::json::SCHEMA_VERSION,
            "file": output.display().to_string(),
            "name": name,
            "version": portrait.description.version,
            "digest": digest.to_string(),
            "bytes": built.bytes.len(),
            "imports": portrait.imports,
            "made_with": tools,
            "stubbed": built.stubbed,
        }));
        return Ok(ExitCode::Ok);
    }
    let mut text = format!(
        "{} {}: {}\n  file       {}, {} bytes\n  digest     {digest}\n  made with  {}\n",
        name,
        portrait.description.version,
        portrait.description.summary,
        output.display(),
        built.bytes.len(),
        tools.join(", "),
    );
    if !built.stubbed.is_empty() {
        text.push_str(&format!("  stubbed    WASI's {}\n", built.stubbed.join(", ")));
    }
    let foreign: Vec<&str> = portrait
        .imports
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with("wasi:"))
        .collect();
    if !foreign.is_empty() {
        text.push_str(&format!(
            "note: it imports {}, and runs only with `wasi = \"minimal\"` in its grant\n",
            foreign.join(", ")
        ));
    }
    text.push_str(&format!("next: stillpoint hook inspect {}\n", output.display()));
    print(&text);
    Ok(ExitCode::Ok)
}

fn made(project: &Path) -> Result<Made, BuildError> {
    match project.is_file() {
        true => Made::of_file(project),
        false => Project::at(project)?.make(),
    }
}

/// What it is, by the very check of an installation.
fn portrait(paths: &Paths, file: &Path, component: &[u8]) -> Result<Portrait, CommandError> {
    let request = InstallRequest {
        module: component.to_vec(),
        source: Source::File(file.to_owned()),
        signatures: Vec::new(),
        policy: InstallPolicy::default(),
    };
    let store = open_store(paths)?;
    setup::block_on(async { store.portrait(&request).await })?.map_err(store_error)
}

/// Whole or not at all.
fn write(output: &Path, component: &[u8]) -> Result<(), CommandError> {
    let mut partial = output.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    std::fs::write(&partial, component).and_then(|()| std::fs::rename(&partial, output)).map_err(
        |error| {
            let error =
                anyhow::Error::new(error).context(format!("cannot write {}", output.display()));
            CommandError::new(ExitCode::Parameters, error)
                .hint("name another place: stillpoint hook build --output FILE".to_owned())
        },
    )
}

fn refused(error: BuildError) -> CommandError {
    let hint = error.hint();
    CommandError::new(ExitCode::Parameters, error).hint(hint)
}
