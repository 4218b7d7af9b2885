//! `stillpoint hook push`, and `hook install` from a registry.

use std::collections::BTreeMap;

use stillpoint::exit_code::ExitCode;
use stillpoint::hook::oci::{self, Access, Artifact, Attached, OciError, Pushed, Reference};
use stillpoint::hook::{Description, Digest, InstallRequest, Portrait};
use stillpoint::output::json::{PushDocument, SCHEMA_VERSION};
use stillpoint::paths::Paths;

use super::super::args::Global;
use super::super::progress::Transfers;
use super::super::{CommandError, Outcome, print, print_json, setup};
use super::args::{Push, Registry};
use super::{install, open_store, store_error};

/// What is in a registry, ready to be installed.
pub fn pull(
    global: &Global,
    reference: &str,
    registry: &Registry,
) -> Result<InstallRequest, CommandError> {
    let reference: Reference = reference.parse().map_err(oci_error)?;
    let transfers = Transfers::shown(!global.quiet && !global.json);
    let watch = transfers.watch();
    let pulled = setup::block_on(async { oci::pull(&reference, &access(registry), &watch).await });
    transfers.finish();
    Ok(pulled?.map_err(oci_error)?.into_request())
}

/// Puts a component into a registry, with its signature if it has one. It is asked what it is first:
/// what is no hook here is none elsewhere.
pub fn push(global: &Global, paths: &Paths, args: &Push) -> Outcome {
    let reference: Reference = args.reference.parse().map_err(oci_error)?;
    let request = install::file(&args.module, args.signature.as_deref()).map_err(store_error)?;
    let store = open_store(paths)?;
    let portrait =
        setup::block_on(async { store.portrait(&request).await })?.map_err(store_error)?;
    let digest = Digest::of(&request.module);
    let artifact = artifact(request, &portrait);
    let transfers = Transfers::shown(!global.quiet && !global.json);
    let (access, watch) = (access(&args.registry), transfers.watch());
    let pushed = setup::block_on(async { oci::push(&artifact, &reference, &access, &watch).await });
    transfers.finish();
    let pushed = pushed?.map_err(oci_error)?;
    match global.json {
        true => print_json(&document(&pushed, &digest)),
        false => print(&told(&portrait.description, &pushed)),
    }
    Ok(ExitCode::Ok)
}

fn access(registry: &Registry) -> Access {
    let mut access = Access::default();
    access.plain_http = registry.plain_http;
    access.ca_file = registry.ca_file.clone();
    access
}

fn artifact(request: InstallRequest, portrait: &Portrait) -> Artifact {
    let Description { name, version, summary, .. } = &portrait.description;
    let shown = [("title", name), ("version", version), ("description", summary)];
    Artifact {
        module: request.module,
        signature: request.signatures.into_iter().next().map(|signature| signature.bytes),
        annotations: shown
            .into_iter()
            .map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.clone()))
            .collect::<BTreeMap<_, _>>(),
        imports: portrait.imports.clone(),
        exports: portrait.exports.clone(),
    }
}

fn document(pushed: &Pushed, digest: &Digest) -> PushDocument {
    PushDocument {
        schema_version: SCHEMA_VERSION,
        reference: pushed.reference.to_string(),
        digest: digest.to_string(),
        signature: pushed.signature.map(|attached| match attached {
            Attached::Referrer => "referrer",
            Attached::Tag => "tag",
        }),
    }
}

fn told(description: &Description, pushed: &Pushed) -> String {
    let Description { name, version, .. } = description;
    let reference = &pushed.reference;
    let signature = match pushed.signature {
        Some(Attached::Referrer) => "its signature is attached to it",
        Some(Attached::Tag) => {
            "its signature is attached to it, under a tag: this registry keeps no referrers"
        }
        None => {
            "it is NOT signed: `hook install` will refuse it; sign it (`hook sign`), and push it again"
        }
    };
    format!(
        "{name} {version} is at {reference}\n{signature}\n\
         to install it: stillpoint hook install {reference}\n"
    )
}

pub fn oci_error(error: OciError) -> CommandError {
    let code = match error.is_of_parameters() {
        true => ExitCode::Parameters,
        false => ExitCode::Precondition,
    };
    let hint = error.hint();
    CommandError::new(code, error).hint(hint)
}
