//! Files that are there whole or not at all, also after a power cut.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Writes `path`, mode 0600: as `partial` in the same directory first, which is then renamed. A
/// `partial` that a death left is replaced; one that was not finished is removed. Two writers at once
/// need two names for it.
///
/// # Errors
/// If any step fails; then `path` is as it was, or, if only its directory could not be synced, new.
pub(crate) fn write_whole(partial: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with_mode(partial, path, bytes, 0o600)
}

/// As [`write_whole`], mode 0644 whatever the umask is: for a reader that is not root.
///
/// # Errors
/// As [`write_whole`].
pub(crate) fn write_whole_for_all(partial: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with_mode(partial, path, bytes, 0o644)
}

fn write_with_mode(partial: &Path, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    remove_if_there(partial)?;
    let written = write_and_rename(partial, path, bytes, mode);
    if written.is_err() {
        let _ = fs::remove_file(partial);
    }
    written
}

fn write_and_rename(partial: &Path, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial)?;
    if mode != 0o600 {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(partial, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes the names in a directory last.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes a file; one that is not there is no error.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
