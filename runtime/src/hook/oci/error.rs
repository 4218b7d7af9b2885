//! What can go wrong between here and a registry: what failed, why, and the next step. No address in
//! it has a query (they carry signatures), no text in it comes unbounded or uncleaned from a server.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use super::credentials::Looked;
use crate::hook::digest::Digest;

type Cause = Box<dyn Error + Send + Sync>;

/// A hook was not pulled or pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// It is not a reference.
    #[error("{text} is not a place in a registry: {problem}")]
    Reference {
        /// What was given; not repeated if there may be a password in it.
        text: String,
        /// Why.
        problem: String,
    },
    /// Docker's `config.json` cannot be used.
    #[error("{} cannot be used for credentials: {problem}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why; never quotes it.
        problem: String,
        /// The next step.
        hint: String,
    },
    /// The file of `--ca-file`.
    #[error("{} has no certificate that can be used", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The client cannot be made.
    #[error("no client for {registry} can be made")]
    Client {
        /// The registry.
        registry: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// No connection.
    #[error("{registry} cannot be reached")]
    Connect {
        /// The registry.
        registry: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The certificate of the server is not trusted.
    #[error("the certificate of {registry} is not trusted")]
    Tls {
        /// The registry.
        registry: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The server does not speak TLS.
    #[error("{registry} does not speak TLS")]
    NotTls {
        /// The registry.
        registry: String,
    },
    /// A request took too long.
    #[error("{registry} did not answer in time while {doing} (after {:.1} s)", after.as_secs_f64())]
    Timeout {
        /// The registry.
        registry: String,
        /// What was asked.
        doing: String,
        /// How long it had been waited for.
        after: Duration,
    },
    /// The connection broke off.
    #[error("the connection to {registry} broke off while {doing}")]
    Interrupted {
        /// The registry.
        registry: String,
        /// What was asked.
        doing: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// 401 or 403.
    #[error("{registry} refused {doing}: {}{said}", looked.told())]
    Unauthorized {
        /// The registry.
        registry: String,
        /// What was asked.
        doing: String,
        /// Where credentials were looked for.
        looked: Looked,
        /// What the registry said, behind a separator.
        said: String,
    },
    /// Credentials are wanted, and would go over the network in clear.
    #[error(
        "{registry} wants credentials over plain http, where everybody on the way could read them"
    )]
    PlainCredentials {
        /// The registry.
        registry: String,
    },
    /// How the registry wants to be told who we are cannot be followed.
    #[error("{registry} asks for credentials in a way that cannot be followed: {problem}")]
    Challenge {
        /// The registry.
        registry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// 404.
    #[error("{registry} has no {what}")]
    NotFound {
        /// The registry.
        registry: String,
        /// The reference, or the blob.
        what: String,
    },
    /// Any other answer than the one that was hoped for.
    #[error("{registry} answered {status} while {doing}{said}")]
    Refused {
        /// The registry.
        registry: String,
        /// What was asked.
        doing: String,
        /// The status.
        status: u16,
        /// What the registry said, behind a separator.
        said: String,
    },
    /// The registry sends us where we do not go.
    #[error("{registry} sends us to {to} while {doing}: {problem}")]
    Redirect {
        /// The registry.
        registry: String,
        /// What was asked.
        doing: String,
        /// Where, without a query.
        to: String,
        /// Why not.
        problem: &'static str,
    },
    /// More than is taken.
    #[error("{what} is longer than the {limit} bytes that are taken")]
    TooLong {
        /// What.
        what: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Not the bytes that were asked for.
    #[error("{what} is not what it is said to be: its digest is {found}, not {expected}")]
    Changed {
        /// What.
        what: String,
        /// What was asked for, or what the registry says that it sends.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Fewer or more bytes than its manifest says.
    #[error("{what} does not have the {expected} bytes that its manifest says")]
    Size {
        /// What.
        what: String,
        /// What its manifest says.
        expected: u64,
    },
    /// A document that cannot be understood.
    #[error("{what} cannot be understood: {problem}")]
    Document {
        /// What.
        what: String,
        /// Why.
        problem: String,
    },
    /// Something else is there.
    #[error("{reference} is not a hook: {problem}")]
    NotAHook {
        /// Where.
        reference: String,
        /// Why.
        problem: String,
    },
    /// A push to a digest, which is not ours to choose.
    #[error("a hook is pushed to a tag, not to a digest: {reference}")]
    PushToDigest {
        /// Where to.
        reference: String,
    },
}

impl OciError {
    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            OciError::Reference { .. } => {
                "write it as oci://registry.example.com[:port]/repository:tag[@sha256:…]".into()
            }
            OciError::Credentials { hint, .. } => hint.clone(),
            OciError::Authority { .. } => {
                "give the certificate of the authority that signed the registry's, in PEM".into()
            }
            OciError::Client { .. } => {
                "install the package ca-certificates, or give the registry's authority with --ca-file"
                    .into()
            }
            OciError::Connect { .. } => {
                "see that the name and the port are right, and that nothing on the way blocks them".into()
            }
            OciError::Tls { .. } => {
                "if the registry has an authority of its own, give its certificate with --ca-file FILE"
                    .into()
            }
            OciError::NotTls { .. } => {
                "see that the port is right; --plain-http talks to it without TLS".into()
            }
            OciError::Timeout { .. } | OciError::Interrupted { .. } => {
                "run the command again; nothing was installed".into()
            }
            OciError::Unauthorized { registry, looked, .. } => login(registry, looked),
            OciError::PlainCredentials { .. } => {
                "give the registry a certificate (--ca-file trusts an authority of your own)".into()
            }
            OciError::NotFound { .. } => {
                "compare repository, tag and digest with what was pushed; many registries say this, too, of what one may not see without a login".into()
            }
            OciError::Refused { status, .. } => return refused(*status),
            OciError::Redirect { .. } => {
                "the registry, or the proxy before it, must give out https addresses".into()
            }
            OciError::Changed { .. } | OciError::Size { .. } => {
                "somebody changed it, in the registry or on the way: find out who, then push it again"
                    .into()
            }
            OciError::NotAHook { .. } => "push hooks with `stillpoint hook push`".into(),
            OciError::PushToDigest { .. } => "leave the digest out".into(),
            OciError::Challenge { .. } | OciError::TooLong { .. } | OciError::Document { .. } => {
                return None;
            }
        };
        Some(hint)
    }

    /// Whether the argument, or a file that was named, is what is wrong.
    #[must_use]
    pub fn is_of_parameters(&self) -> bool {
        matches!(
            self,
            OciError::Reference { .. }
                | OciError::Credentials { .. }
                | OciError::Authority { .. }
                | OciError::PushToDigest { .. }
        )
    }
}

fn login(registry: &str, looked: &Looked) -> String {
    match looked {
        Looked::Found(_) => format!(
            "see that this user may do it in this repository, or log in again: docker login {registry}"
        ),
        Looked::Helper(..) | Looked::IdentityToken(_) => format!(
            "log in with a directory of its own and without a helper, and name it: DOCKER_CONFIG=/etc/stillpoint/registry docker login {registry}"
        ),
        Looked::NoFile(_) | Looked::NoEntry(_) => {
            format!("log in as the user who runs stillpoint: docker login {registry}")
        }
    }
}

fn refused(status: u16) -> Option<String> {
    let hint = match status {
        413 => "a proxy before the registry limits the size of requests: raise it",
        429 => "the registry limits requests: wait, or log in",
        500.. => "the registry's log says more; run the command again when it is well",
        _ => return None,
    };
    Some(hint.into())
}
