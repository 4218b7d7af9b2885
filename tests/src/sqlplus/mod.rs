//! A **stand-in** for Oracle's `sqlplus` with a database behind it. No Oracle server can be had in
//! tests: what this proves is what the hook does with the answers that Oracle's documents describe, not
//! that a server gives them. `docs/oracle.md` has the check list for a real one.
//!
//! The database lives in a file, which every run of the stand-in reads and writes whole, so that what
//! was done by a run that is killed stays done.

pub mod model;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use model::Database;

/// The variable that names the database's file to the stand-in.
pub const STATE_VARIABLE: &str = "STAND_IN_DATABASE";

/// The file of a database.
#[derive(Clone, Debug)]
pub struct StateFile(PathBuf);

impl StateFile {
    /// In this directory, which is opened to everybody: the stand-in runs as nobody.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(directory: &Path, database: &Database) -> Result<Self> {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777))?;
        let file = Self::at(directory.join("database.json"));
        file.write(database)?;
        Ok(file)
    }

    /// One that is there.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What the database is now.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> Result<Database> {
        let text = fs::read(&self.0).with_context(|| format!("{}", self.0.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{}", self.0.display()))
    }

    /// Replaces it whole, so that nobody reads a half.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, database: &Database) -> Result<()> {
        let new = self.0.with_extension("new");
        // One of another user's would be in the way.
        let _ = fs::remove_file(&new);
        let mut text = Vec::new();
        serde_json::to_writer_pretty(&mut text, database)?;
        fs::write(&new, text).with_context(|| format!("{}", new.display()))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o666))?;
        fs::rename(&new, &self.0)?;
        Ok(())
    }

    /// Changes it, as the server's other users do.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn change(&self, change: impl FnOnce(&mut Database)) -> Result<()> {
        let mut database = self.read()?;
        change(&mut database);
        self.write(&database)
    }
}

/// The stand-in, installed where only root writes.
///
/// # Errors
/// If it was not built, or cannot be copied.
pub fn install(directory: &Path) -> Result<PathBuf> {
    install_program("stand_in_sqlplus", directory)
}

/// A program of this package, installed where only root writes.
///
/// # Errors
/// If it was not built, or cannot be copied.
pub fn install_program(name: &str, directory: &Path) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let built = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("no {name} beside the tests: cargo build -p stillpoint-tests --bins")
        })?;
    let path = directory.join(name);
    fs::create_dir_all(directory)?;
    let mut from = File::open(built)?;
    let mut to = File::create(&path)?;
    std::io::copy(&mut from, &mut to)?;
    to.set_permissions(fs::Permissions::from_mode(0o755))?;
    to.sync_all()?;
    Ok(path)
}
