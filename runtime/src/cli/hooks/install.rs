//! `stillpoint hook install`.

use stillpoint::exit_code::ExitCode;
use stillpoint::hook::{InstallPolicy, InstallRequest, StoreError};
use stillpoint::paths::Paths;

use super::super::args::Global;
use super::super::{Outcome, print, print_json, setup};
use super::args::Install;
use super::{open_store, store_error};

pub fn run(global: &Global, paths: &Paths, args: &Install) -> Outcome {
    let policy = InstallPolicy { allow_unsigned: args.allow_unsigned, downgrade: args.downgrade };
    let request = request(args).map_err(store_error)?.with_policy(policy);
    let store = open_store(paths)?;
    let installed =
        setup::block_on(async { store.install(request).await })?.map_err(store_error)?;
    if global.json {
        print_json(&installed);
        return Ok(ExitCode::Ok);
    }
    let name = &installed.description.name;
    print(&format!(
        "{} {} is installed as {}, {}\n\
         nothing is granted yet: `stillpoint hook grant {name}` prints what it asks for and why,\n\
         `stillpoint hook grant {name} --accept` grants all of it\n",
        name,
        installed.description.version,
        installed.digest,
        installed.on_whose_word()
    ));
    Ok(ExitCode::Ok)
}

/// What the argument names. A file brings the signature that lies beside it, or the one that is named.
fn request(args: &Install) -> Result<InstallRequest, StoreError> {
    match &args.signature {
        Some(signature) => InstallRequest::from_files(&args.file, signature),
        None => InstallRequest::from_file(&args.file),
    }
}
