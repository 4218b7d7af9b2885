//! `stillpoint hook bundle`, and `hook install` from a bundle.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use stillpoint::capability::grant_template;
use stillpoint::exit_code::ExitCode;
use stillpoint::hook::bundle::{Bundle, BundleError, readme};
use stillpoint::hook::{Digest, HookStore, InstallRequest};
use stillpoint::output::json::{BundleDocument, SCHEMA_VERSION};
use stillpoint::paths::Paths;

use super::super::args::Global;
use super::super::{CommandError, Outcome, print, print_json, setup};
use super::args;
use super::{install, open_store, store_error};

/// What is in a bundle, ready to be installed.
pub fn open(path: &Path) -> Result<InstallRequest, CommandError> {
    Ok(Bundle::read(path).map_err(bundle_error)?.into_request(path))
}

/// Makes a bundle.
pub fn run(global: &Global, paths: &Paths, args: &args::Bundle) -> Outcome {
    let store = open_store(paths)?;
    let request = request(&store, args)?;
    let portrait =
        setup::block_on(async { store.portrait(&request).await })?.map_err(store_error)?;
    let description = &portrait.description;
    let digest = Digest::of(&request.module);
    let signature = request.signatures.into_iter().next().map(|signature| signature.bytes);
    let signed = signature.is_some();
    let of_author = args.readme.as_deref().map(read_text).transpose()?;
    let bundle = Bundle {
        module: request.module,
        signature,
        grant: grant_template(description, &digest, &[]),
        readme: readme(description, &digest, signed, of_author.as_deref()),
    };
    let name = format!("{}-{}.bundle", description.name, description.version);
    let output = args.output.clone().unwrap_or_else(|| PathBuf::from(name));
    std::fs::write(&output, bundle.to_bytes().map_err(bundle_error)?)
        .map_err(|error| of_file(&output, error, "written"))?;
    let document = BundleDocument {
        schema_version: SCHEMA_VERSION,
        file: output.display().to_string(),
        digest: digest.to_string(),
        signed,
    };
    match global.json {
        true => print_json(&document),
        false => print(&told(&document)),
    }
    Ok(ExitCode::Ok)
}

/// A file, or, if there is none of that name, an installed hook.
fn request(store: &HookStore, args: &args::Bundle) -> Result<InstallRequest, CommandError> {
    if args.hook.exists() || args.signature.is_some() {
        return install::file(&args.hook, args.signature.as_deref()).map_err(store_error);
    }
    let name = args.hook.to_string_lossy();
    let file = store.installed_file(&name).map_err(store_error)?;
    InstallRequest::from_file(&file).map_err(store_error)
}

fn told(document: &BundleDocument) -> String {
    let BundleDocument { file, digest, .. } = document;
    let signed = match document.signed {
        true => "signed",
        false => {
            "NOT signed: `hook install` will refuse it; sign it (`hook sign`), and bundle it again"
        }
    };
    format!("{file} holds {digest}, {signed}\nto install it: stillpoint hook install {file}\n")
}

fn read_text(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|error| of_file(path, error, "read"))
}

fn of_file(path: &Path, error: std::io::Error, done: &str) -> CommandError {
    let error = anyhow!(error).context(format!("{} cannot be {done}", path.display()));
    CommandError::new(ExitCode::Precondition, error)
}

fn bundle_error(error: BundleError) -> CommandError {
    let hint = error.hint();
    CommandError::new(ExitCode::Parameters, error).hint(hint)
}
