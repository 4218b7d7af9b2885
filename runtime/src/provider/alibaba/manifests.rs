//! The whole manifests, on this instance: a tag has no room for one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::exit::fail;
use super::settings::AlibabaSettings;
use crate::durable;
use crate::exit_code::ExitCode;
use crate::file_lock::FileLock;
use crate::manifest::Manifest;
use crate::provider::ProviderError;

/// The longest manifest that is read, in bytes.
const LONGEST: u64 = 16 << 20;

/// The directory of the manifests, `<group>.json`.
#[derive(Clone, Debug)]
pub(super) struct Manifests {
    directory: PathBuf,
}

impl Manifests {
    pub(super) fn of(settings: &AlibabaSettings) -> Self {
        Self { directory: settings.manifests.clone() }
    }

    /// Writes it whole or not at all.
    pub(super) async fn write(&self, manifest: &Manifest) -> Result<(), ProviderError> {
        let path = self.path(&manifest.group)?;
        let text = serde_json::to_vec_pretty(manifest).map_err(|error| {
            fail(ExitCode::Tags, "the manifest cannot be written as JSON").because(error)
        })?;
        blocking(move || write(&path, &text).map_err(|error| cannot("write", &path, error))).await
    }

    /// The manifest of a group, if it was made by this instance and is readable.
    pub(super) async fn read(&self, group: &str) -> Option<Manifest> {
        let path = self.path(group).ok()?;
        let read = blocking(move || {
            if fs::metadata(&path).map_err(|error| cannot("read", &path, error))?.len() > LONGEST {
                return Err(fail(ExitCode::Unknown, "a manifest is too long"));
            }
            fs::read(&path).map_err(|error| cannot("read", &path, error))
        });
        serde_json::from_slice(&read.await.ok()?).ok()
    }

    /// Removes the manifest of a group that is gone.
    pub(super) async fn remove(&self, group: &str) -> Result<(), ProviderError> {
        let path = self.path(group)?;
        blocking(move || {
            let lock = path.with_extension("lock");
            for path in [lock, path] {
                durable::remove_if_there(&path).map_err(|error| cannot("remove", &path, error))?;
            }
            Ok(())
        })
        .await
    }

    /// The lock of a group's copies, as long as they are being attached, looked at or removed; `None` if
    /// somebody else has it. It ends with the process that holds it, however that ends.
    pub(super) async fn lock(&self, group: &str) -> Result<Option<FileLock>, ProviderError> {
        let path = self.path(group)?.with_extension("lock");
        blocking(move || {
            let file = open_lock(&path).map_err(|error| cannot("lock", &path, error))?;
            match FileLock::try_new(file) {
                Ok(lock) => Ok(Some(lock)),
                Err((_, TryLockError::WouldBlock)) => Ok(None),
                Err((_, TryLockError::Error(error))) => Err(cannot("lock", &path, error)),
            }
        })
        .await
    }

    /// An id becomes the name of a file only if it looks like an id.
    fn path(&self, group: &str) -> Result<PathBuf, ProviderError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if group.is_empty() || group.len() > 128 || !group.chars().all(fits) {
            return Err(fail(
                ExitCode::Parameters,
                format!("\"{}\" is not the id of a group", group.escape_debug()),
            )
            .hint("an id looks like ssg-bp170v57ca9j01jb0000; `stillpoint list` shows them"));
        }
        Ok(self.directory.join(format!("{group}.json")))
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    make_directory_of(path)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(nix::libc::O_NOFOLLOW).open(path)
}

fn make_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    make_directory_of(path)?;
    durable::write_whole(&path.with_extension("json.unfinished"), path, text)
}

fn cannot(what: &str, path: &Path, error: io::Error) -> ProviderError {
    fail(ExitCode::Tags, format!("cannot {what} {}", path.display())).because(error)
}

/// Runs `work`, which waits for a disk, away from the thread that must not wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
) -> Result<T, ProviderError> {
    // A thread of its own: the runtime panics where no thread can be had.
    let (tell, told) = tokio::sync::oneshot::channel();
    let name = "provider".to_owned();
    let started = std::thread::Builder::new().name(name).spawn(move || drop(tell.send(work())));
    if let Err(error) = started {
        return Err(fail(ExitCode::Unknown, "cannot start a thread").because(error));
    }
    told.await.unwrap_or_else(|lost| {
        Err(fail(ExitCode::Unknown, "a task of the provider ended early").because(lost))
    })
}
