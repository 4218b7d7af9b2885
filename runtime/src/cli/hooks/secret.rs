//! Secret keys and their passwords: from files that nobody else can read, or from the terminal. Never
//! from arguments or the environment, which others can see.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use stillpoint::exit_code::ExitCode;
use stillpoint::hook::vetting::{KeyError, SecretKey};
use zeroize::Zeroizing;

use super::super::CommandError;

/// The longest key or password file, in bytes.
const LONGEST: u64 = 16 << 10;

/// A secret key from its file; asks for the password if it needs one.
pub fn key(file: &Path, password_file: Option<&Path>) -> Result<SecretKey, CommandError> {
    let text = read(file)?;
    let read = match SecretKey::parse(&text, None) {
        Err(KeyError::Encrypted) => {
            SecretKey::parse(&text, Some(&password(password_file, "Password of the key: ")?))
        }
        other => other,
    };
    read.map_err(|error| {
        CommandError::new(
            ExitCode::Parameters,
            anyhow!(error).context(format!("{} cannot be used", file.display())),
        )
        .hint("a secret key is made with `stillpoint hook keygen` or `minisign -G`".to_owned())
    })
}

/// A password from the first line of a file, else from the terminal.
pub fn password(file: Option<&Path>, prompt: &str) -> Result<Zeroizing<String>, CommandError> {
    let Some(file) = file else {
        return rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| {
            let error = anyhow!(error).context("there is no terminal to ask for the password");
            CommandError::new(ExitCode::Parameters, error)
                .hint("give it in a file that only you can read: --password-file FILE".to_owned())
        });
    };
    let text = read(file)?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

/// A new file that only its owner can read. What is there is never overwritten.
pub fn write_new(file: &Path, text: &str) -> Result<(), CommandError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| open.write_all(text.as_bytes()).and_then(|()| open.sync_all()));
    written.map_err(|error| {
        let there = error.kind() == io::ErrorKind::AlreadyExists;
        let hint = there.then(|| "a secret key is never overwritten: give another name".to_owned());
        unusable(file, anyhow!(error)).hint(hint)
    })
}

fn read(file: &Path) -> Result<Zeroizing<String>, CommandError> {
    read_private(file).map_err(|error| unusable(file, error))
}

fn unusable(file: &Path, error: anyhow::Error) -> CommandError {
    let open = error.downcast_ref::<OpenToOthers>().is_some();
    let hint = open.then(|| format!("chmod 0600 {}", file.display()));
    CommandError::new(
        ExitCode::Parameters,
        error.context(format!("{} cannot be used", file.display())),
    )
    .hint(hint)
}

#[derive(Debug, thiserror::Error)]
#[error("its mode is {0:04o}: others can read the secret in it")]
struct OpenToOthers(u32);

/// All checks are on the descriptor that is read.
fn read_private(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let open = OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    let metadata = open.metadata()?;
    if !metadata.is_file() {
        bail!("it is not a regular file");
    }
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    if mode & 0o077 != 0 {
        return Err(OpenToOthers(mode).into());
    }
    if owner != nix::unistd::geteuid().as_raw() {
        bail!("it belongs to user {owner}");
    }
    let mut text = Zeroizing::new(String::new());
    open.take(LONGEST).read_to_string(&mut text).context("it is not text")?;
    Ok(text)
}
