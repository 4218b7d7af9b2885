//! `stillpoint sentinel`: the service.

use stillpoint::exit_code::ExitCode;
use stillpoint::guard::{self, ServiceError};
use stillpoint::paths::Paths;

use super::{CommandError, Outcome};

/// Serves until it is told to stop.
pub fn run(paths: &Paths) -> Outcome {
    guard::serve(paths).map_err(|error| {
        let (code, hint) = match &error {
            ServiceError::Served { .. } => {
                (ExitCode::InProgress, Some("systemctl status stillpoint-sentinel".to_owned()))
            }
            ServiceError::Journal(journal) => (journal.exit_code(), journal.hint()),
            _ => (ExitCode::Precondition, None),
        };
        CommandError::new(code, error).hint(hint)
    })?;
    Ok(ExitCode::Ok)
}
