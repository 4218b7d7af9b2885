//! Files of the store: read once and bounded, written whole or not at all, for root alone.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::error::StoreError;
use crate::config::read::{ConfigError, OPEN_TO_OTHERS, read_trusted};
use crate::durable;

/// Reads a file that the operator names. Anybody's file will do: what counts is its digest.
pub(super) fn read_once(file: &Path, longest: u64) -> Result<Vec<u8>, StoreError> {
    let failed = |source| StoreError::Read { path: file.to_owned(), source };
    let mut bytes = Vec::new();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(file)
        .map_err(failed)?;
    if !opened.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    opened.take(longest + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > longest {
        let longer = format!("it is longer than {longest} bytes");
        return Err(failed(io::Error::other(longer)));
    }
    Ok(bytes)
}

/// A directory that only root can enter.
pub(super) fn private_directory(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if !metadata.is_dir() || metadata.uid() != 0 {
        return Err(StoreError::File(ConfigError::Untrusted {
            path: path.to_owned(),
            problem: "it is not a directory of root".into(),
            hint: format!("move {} away", path.display()),
        }));
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)
}

/// Writes a file that is there whole or not at all, mode 0600.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let failed = |source| StoreError::Write { path: path.to_owned(), source };
    let partial = path.with_extension(format!("{}.partial", uuid::Uuid::new_v4()));
    durable::write_whole(&partial, path, bytes).map_err(failed)
}

pub(super) fn remove_file(path: &Path) -> Result<(), StoreError> {
    durable::remove_if_there(path)
        .map_err(|source| StoreError::Write { path: path.to_owned(), source })
}

/// As [`read_once`]; `None` if the file is not there.
pub(super) fn read_if_there(file: &Path, longest: u64) -> Result<Option<Vec<u8>>, StoreError> {
    match read_once(file, longest) {
        Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// A file that only root can write; `None` if it is not there.
pub(super) fn read_root_file_if_there(
    path: &Path,
    longest: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    match read_trusted(path, OPEN_TO_OTHERS, longest) {
        Err(error) if error.is_not_found() => Ok(None),
        other => Ok(other.map(Some)?),
    }
}
