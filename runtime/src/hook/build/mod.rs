//! `stillpoint hook build`: from a project, or a module that any tool made, to a component that is checked
//! as an installation checks it.
//!
//! ```text
//! Project::at(directory)   which language, by its build file
//!   .make()                its own tool builds          (Made: bytes, and who made them)
//! Made::of_file(path)      or: somebody built already
//! component(&made, …)      core module → component, imports and exports checked, tool chain recorded
//! ```

mod error;
mod languages;
mod stub;
#[cfg(test)]
mod tests;
mod tool;
mod wrap;

use std::path::{Path, PathBuf};

pub use error::BuildError;
pub use languages::{Kind, Project};
pub use wrap::{Built, component};

/// The longest module or component that is read, in bytes.
const LONGEST: u64 = super::store::LONGEST_COMPONENT;

/// What a language's tool made: a core module or a component.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The file.
    pub file: PathBuf,
    /// Of which kind the project is; none for a file that was given.
    pub kind: Option<Kind>,
    /// What made it, and in which version.
    pub tools: Vec<(String, String)>,
}

impl Made {
    /// A module or component that was built already.
    ///
    /// # Errors
    /// If it cannot be read, or is too long to be a hook.
    pub fn of_file(file: &Path) -> Result<Self, BuildError> {
        Ok(Self { bytes: read(file)?, file: file.to_owned(), kind: None, tools: Vec::new() })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, BuildError> {
    let failed = |source| BuildError::Read { file: file.to_owned(), source };
    let length = std::fs::metadata(file).map_err(failed)?.len();
    if length > LONGEST {
        return Err(BuildError::TooLong { file: file.to_owned(), length });
    }
    std::fs::read(file).map_err(failed)
}
