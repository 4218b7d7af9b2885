//! `stillpoint hook install`.

use std::path::Path;

use anyhow::anyhow;
use stillpoint::exit_code::ExitCode;
use stillpoint::hook::bundle::Bundle;
use stillpoint::hook::oci::Reference;
use stillpoint::hook::{InstallPolicy, InstallRequest, Source, StoreError};
use stillpoint::paths::Paths;

use super::super::args::Global;
use super::super::{CommandError, Outcome, print, print_json, setup};
use super::args::Install;
use super::{bundle, open_store, registry, store_error};

pub fn run(global: &Global, paths: &Paths, args: &Install) -> Outcome {
    let policy = InstallPolicy { allow_unsigned: args.allow_unsigned, downgrade: args.downgrade };
    let request = request(global, args)?.with_policy(policy);
    let store = open_store(paths)?;
    let installed =
        setup::block_on(async { store.install(request).await })?.map_err(store_error)?;
    if global.json {
        print_json(&installed);
        return Ok(ExitCode::Ok);
    }
    let name = &installed.description.name;
    // With the digest of what the tag pointed at: what another machine is to be told to install.
    let from = match &installed.source {
        Source::Registry(reference) => format!("from {reference}\n"),
        Source::File(_) | Source::Bundle(_) => String::new(),
    };
    print(&format!(
        "{} {} is installed as {}, {}\n{from}\
         nothing is granted yet: `stillpoint hook grant {name}` prints what it asks for and why,\n\
         `stillpoint hook grant {name} --accept` grants all of it\n",
        name,
        installed.description.version,
        installed.digest,
        installed.on_whose_word()
    ));
    Ok(ExitCode::Ok)
}

/// What the argument names: a place in a registry, a bundle, or a file.
fn request(global: &Global, args: &Install) -> Result<InstallRequest, CommandError> {
    let source = &args.source;
    let reference = source.to_str().filter(|text| Reference::is_meant(text));
    if args.signature.is_some() && (reference.is_some() || Bundle::is_meant(source)) {
        let error = anyhow!("--signature is for .wasm files: {} brings its own", source.display());
        return Err(CommandError::new(ExitCode::Parameters, error));
    }
    match reference {
        Some(text) => registry::pull(global, text, &args.registry),
        None if Bundle::is_meant(source) => bundle::open(source),
        None => file(source, args.signature.as_deref()).map_err(store_error),
    }
}

/// A file brings the signature that lies beside it, or the one that is named.
pub fn file(module: &Path, signature: Option<&Path>) -> Result<InstallRequest, StoreError> {
    match signature {
        Some(signature) => InstallRequest::from_files(module, signature),
        None => InstallRequest::from_file(module),
    }
}
