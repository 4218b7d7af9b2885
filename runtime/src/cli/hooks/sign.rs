//! `stillpoint hook keygen`, `hook sign` and `hook verify`.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use stillpoint::exit_code::ExitCode;
use stillpoint::hook::vetting::{PublicKey, SecretKey, Signature, Vetting, VettingError};
use stillpoint::hook::{Digest, InstallRequest, StoreError, signature_beside};
use stillpoint::output::json::{SCHEMA_VERSION, VerifiedSigner, VerifyDocument};
use stillpoint::paths::Paths;

use super::super::args::Global;
use super::super::{CommandError, Outcome, print, print_json, setup};
use super::args::{Keygen, Sign, Verify};
use super::{secret, store_error};

/// Makes a key pair. The secret half never exists outside of its file, and is never overwritten.
pub fn keygen(args: &Keygen) -> Outcome {
    let password = match args.no_password {
        true => None,
        false => Some(new_password(args.password_file.as_deref())?),
    };
    let (text, public) = SecretKey::generate(password.as_ref()).map_err(failed)?;
    let public_text = public.to_text().map_err(failed)?;
    secret::write_new(&args.secret, &text)?;
    write_public(&args.public, &public_text)?;
    print(&format!(
        "key {}: secret half in {}, public half in {}\n\
         where its signatures are to be trusted, put the public half into keys.d, and beside it what it may sign\n",
        public.id(),
        args.secret.display(),
        args.public.display()
    ));
    Ok(ExitCode::Ok)
}

fn new_password(file: Option<&Path>) -> Result<zeroize::Zeroizing<String>, CommandError> {
    let first = secret::password(file, "Password for the new key: ")?;
    if file.is_none() && secret::password(None, "Again: ")? != first {
        return Err(CommandError::new(ExitCode::Parameters, anyhow!("the two are not the same")));
    }
    if first.is_empty() {
        let error = anyhow!("an empty password protects nothing");
        return Err(CommandError::new(ExitCode::Parameters, error)
            .hint("if nobody is there to type one: --no-password".to_owned()));
    }
    Ok(first)
}

/// Signs a component as `minisign -S` does.
pub fn sign(args: &Sign) -> Outcome {
    let request = InstallRequest::from_file(&args.module).map_err(store_error)?;
    let module = &request.module;
    if !module.starts_with(b"\0asm") {
        let error = anyhow!("{} is not WebAssembly", args.module.display());
        return Err(CommandError::new(ExitCode::Parameters, error)
            .hint("give the .wasm component that is to be installed".to_owned()));
    }
    let key = secret::key(&args.key, args.password_file.as_deref())?;
    let name = args.module.file_name().unwrap_or_default().to_string_lossy();
    let text = key.sign(module, &name).map_err(failed)?;
    let output = args.output.clone().unwrap_or_else(|| signature_beside(&args.module));
    write_public(&output, &text)?;
    let id = key.public().map_err(failed)?.id();
    print(&format!("{} signs {} with key {id}\n", output.display(), Digest::of(module)));
    Ok(ExitCode::Ok)
}

/// Says who signed a component: one of those that are trusted here, or the key that is named.
pub fn verify(global: &Global, paths: &Paths, args: &Verify) -> Outcome {
    let request = match &args.signature {
        Some(signature) => InstallRequest::from_files(&args.module, signature),
        None => InstallRequest::from_file(&args.module),
    }
    .map_err(store_error)?;
    let signers = match &args.key {
        Some(key) => vec![signed_with(key, &request).map_err(|error| refused(&request, error))?],
        None => trusted(paths, &request)?,
    };
    let document = VerifyDocument {
        schema_version: SCHEMA_VERSION,
        digest: Digest::of(&request.module).to_string(),
        signers,
    };
    if global.json {
        print_json(&document);
    } else {
        print(&told(&args.module, &document));
    }
    Ok(ExitCode::Ok)
}

fn trusted(paths: &Paths, request: &InstallRequest) -> Result<Vec<VerifiedSigner>, CommandError> {
    let vetting = Vetting::load(paths).map_err(setup::config_error)?;
    let keys = vetting.signers(&request.module, &request.signatures);
    let keys = keys.map_err(|source| {
        store_error(StoreError::NotAccepted { what: request.source.to_string(), source })
    })?;
    Ok(keys
        .into_iter()
        .map(|key| VerifiedSigner {
            name: Some(key.name().to_owned()),
            id: key.id().to_string(),
            hooks: Some(key.hooks()),
            expires: key.expires(),
        })
        .collect())
}

/// Against one key, whoever trusts it.
fn signed_with(file: &Path, request: &InstallRequest) -> anyhow::Result<VerifiedSigner> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| anyhow!(error).context(format!("{} cannot be read", file.display())))?;
    let key = PublicKey::parse(&text).map_err(|why| anyhow!("{}: {why}", file.display()))?;
    let signature =
        request.signatures.first().ok_or_else(|| anyhow!("there is no signature beside it"))?;
    let bad = |problem| VettingError::BadSignature { from: signature.from.clone(), problem };
    let parsed = Signature::parse(&signature.bytes).map_err(bad)?;
    key.verify(&request.module, &parsed).map_err(bad)?;
    Ok(VerifiedSigner { name: None, id: key.id().to_string(), hooks: None, expires: None })
}

fn refused(request: &InstallRequest, error: anyhow::Error) -> CommandError {
    let error = error.context(format!("{} is not verified", request.source));
    CommandError::new(ExitCode::Precondition, error)
}

fn told(module: &Path, document: &VerifyDocument) -> String {
    let mut out = String::new();
    for signer in &document.signers {
        out.push_str(&format!("{} is signed ", module.display()));
        match (&signer.name, &signer.hooks) {
            (Some(name), Some(hooks)) => {
                out.push_str(&format!(
                    "by {name} (key {}), trusted for {}",
                    signer.id,
                    hooks.join(", ")
                ));
            }
            _ => out.push_str(&format!("with key {}", signer.id)),
        }
        if let Some(day) = &signer.expires {
            out.push_str(&format!(", until {day}"));
        }
        out.push('\n');
    }
    out.push_str(&format!("  {}\n", document.digest));
    out
}

/// A file for everybody to read.
fn write_public(file: &PathBuf, text: &str) -> Result<(), CommandError> {
    std::fs::write(file, text).map_err(|error| {
        let error = anyhow!(error).context(format!("{} cannot be written", file.display()));
        CommandError::new(ExitCode::Precondition, error)
    })
}

fn failed(error: stillpoint::hook::vetting::KeyError) -> CommandError {
    CommandError::new(ExitCode::Unknown, error)
}
