//! From what the kernel says to what the operator can act on.

use std::io;
use std::path::Path;

use nix::libc;

use super::NAME;
use crate::exit_code::ExitCode;
use crate::plan::PlanError;
use crate::provider::ProviderError;

pub(super) fn fail(code: ExitCode, message: impl Into<String>) -> ProviderError {
    ProviderError::new(NAME, code, message)
}

/// Something could not be done with `path`.
pub(super) fn io_error(
    code: ExitCode,
    what: &str,
    path: &Path,
    source: io::Error,
) -> ProviderError {
    let (code, hint) = advice(code, path, &source);
    let error = fail(code, format!("{what} {}", path.display())).because(source);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn advice(code: ExitCode, path: &Path, source: &io::Error) -> (ExitCode, Option<String>) {
    let place = path.display();
    match source.raw_os_error() {
        Some(libc::ENOSPC) => (
            code,
            Some(format!(
                "the file system of {place} is full: delete old groups or free space there"
            )),
        ),
        Some(libc::EDQUOT) => (
            ExitCode::Quota,
            Some(format!("the disk quota on the file system of {place} is used up")),
        ),
        Some(libc::EXDEV) => (
            code,
            Some(
                "image and clone must be on one file system: set `directory` to a directory there, \
                 or leave it out"
                    .to_owned(),
            ),
        ),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOTTY) => {
            (code, Some(format!("the file system of {place} cannot share extents of this file")))
        }
        Some(libc::EACCES | libc::EPERM) => (code, Some("run it as root".to_owned())),
        Some(libc::EROFS) => {
            (code, Some(format!("the file system of {place} is mounted read-only")))
        }
        Some(libc::EIO) => (code, Some(format!("look for disk errors under {place} in `dmesg`"))),
        _ => (code, None),
    }
}

/// The inventory could not be read, or storage lies on itself.
pub(super) fn plan_error(error: PlanError) -> ProviderError {
    let hint = error.hint();
    let failed = fail(error.exit_code(), "cannot tell what the images lie on").because(error);
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}
