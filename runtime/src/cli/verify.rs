//! `stillpoint verify`.

use stillpoint::config::Config;
use stillpoint::hook::CancelToken;
use stillpoint::output::verified;
use stillpoint::paths::Paths;
use stillpoint::verify::{self, Request, Verification, VerifyError};

use super::args::{Global, Verify};
use super::snapshot::stop_on_signals;
use super::{CommandError, Outcome, print, print_json, setup};

/// Verifies one snapshot.
pub fn run(global: &Global, paths: &Paths, args: &Verify) -> Outcome {
    let config = setup::config(paths)?;
    let mut request = request(&config, paths, &args.id)?;
    request.queries.clone_from(&args.queries);
    request.config.deadline = args.deadline.unwrap_or(request.config.deadline);
    request.config.memory_bytes = args.memory.map_or(request.config.memory_bytes, |mib| mib << 20);
    let verified = setup::block_on(async {
        request.stop = stop_on_signals()?;
        verify::verify(&request).await.map_err(verify_error)
    })?;
    let verification = verified?;
    if global.json {
        print_json(&verification);
    } else {
        tell(&verification);
    }
    Ok(verification.verdict.exit_code())
}

/// What the configuration says about verifying this snapshot.
pub fn request(config: &Config, paths: &Paths, id: &str) -> Result<Request, CommandError> {
    Ok(Request {
        provider: setup::provider(config, paths)?,
        group: id.to_owned(),
        config: config.verify.clone(),
        queries: Vec::new(),
        stop: CancelToken::never(),
    })
}

/// For people.
pub fn tell(verification: &Verification) {
    print(&verified::verification(verification));
}

pub fn verify_error(error: VerifyError) -> CommandError {
    let hint = error.hint();
    CommandError::new(error.exit_code(), error).hint(hint)
}
