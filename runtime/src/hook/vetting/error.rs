//! Why a component is not accepted.

use std::path::PathBuf;

use super::super::digest::Digest;
use crate::config::read::Location;

/// Why a component is not accepted. Nothing was kept, and nothing runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VettingError {
    /// No trusted key vouches for it.
    #[error("no trusted key vouches for it: {why}")]
    Untrusted {
        /// Why none does.
        why: String,
        /// Where trusted keys are.
        keys: PathBuf,
    },
    /// A signature is there and does not verify.
    #[error("{from} is not a signature of it: {problem}")]
    BadSignature {
        /// Where the signature came from.
        from: String,
        /// What is wrong.
        problem: String,
    },
    /// The operator revoked it, or the key that vouches for it.
    #[error("{what} is revoked ({location})")]
    Revoked {
        /// `its digest`, or which key.
        what: String,
        /// Where.
        location: Location,
    },
    /// A higher version was installed.
    #[error("{name} {version} is a way back: {highest} was installed already")]
    Lower {
        /// Which hook.
        name: String,
        /// The version that was to be installed.
        version: String,
        /// The highest that ever was.
        highest: String,
    },
    /// A version is one component, for ever.
    #[error("{name} {version} was installed already, and was another component: {digest}")]
    SameVersion {
        /// Which hook.
        name: String,
        /// The version.
        version: String,
        /// The component that was installed with it.
        digest: Digest,
    },
    /// Which of two versions is higher cannot be told.
    #[error(
        "version `{version}` of {name} cannot be compared with `{highest}`, which was installed already"
    )]
    NotComparable {
        /// Which hook.
        name: String,
        /// The version that was to be installed.
        version: String,
        /// The one that was.
        highest: String,
    },
}

impl VettingError {
    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            VettingError::Untrusted { keys, .. } => format!(
                "have it signed (`stillpoint hook sign`, or minisign) by a key in {}; or, if you vouch for it yourself, give --allow-unsigned, which is recorded and told in every manifest",
                keys.display()
            ),
            VettingError::BadSignature { .. } => "get component and signature again from their author, and compare digests; --allow-unsigned does not excuse this".into(),
            VettingError::Revoked { location, .. } => format!(
                "install a version that is not revoked; if the revocation is wrong, take it out of {}",
                location.path.display()
            ),
            VettingError::Lower { .. } => "give --downgrade if you mean to go back".into(),
            VettingError::SameVersion { .. } => {
                "ask its author for a version of its own, or give --downgrade to replace it".into()
            }
            VettingError::NotComparable { .. } => {
                "versions are compared as 1.2.3; give --downgrade to install it all the same".into()
            }
        }
    }
}
