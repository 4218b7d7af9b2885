//! Where a hook is in a registry: `oci://registry.example.com[:port]/team/mysql:1.2.0[@sha256:…]`.
//!
//! Nothing is guessed: the registry is always named, and so is a tag or a digest. What `latest`
//! points at is nobody's decision.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::error::OciError;
use crate::hook::digest::Digest;

const SCHEME: &str = "oci://";

/// The longest name of a repository, as registries have it.
const LONGEST_REPOSITORY: usize = 255;

const LONGEST_TAG: usize = 128;

/// A hook's place in a registry. The digest is that of the manifest; if it is given, the tag is only
/// for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Whether an argument is meant as a reference, and not as a file.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Host and port of the registry.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in it.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same place with the digest of what is there.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// What to ask the registry for: the digest, if there is one.
    pub(super) fn asked(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => String::new(),
        }
    }

    /// Host and port to connect to. Docker's own registry is known by another name.
    pub(super) fn host(&self) -> &str {
        match self.registry.as_str() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            host => host,
        }
    }

    /// Whether the registry is on this machine, so that nobody listens on the way.
    pub(super) fn is_loopback(&self) -> bool {
        let host = match self.registry.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.registry.split(':').next().unwrap_or_default(),
        };
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        parse(text).map_err(|problem| OciError::Reference {
            // Before the first slash a careless hand may have put a password.
            text: if problem == CREDENTIALS { "the address".into() } else { format!("`{text}`") },
            problem: problem.into(),
        })
    }
}

const CREDENTIALS: &str = "it has credentials in it; they belong into docker's config.json";

fn parse(text: &str) -> Result<Reference, &'static str> {
    let rest = text.strip_prefix(SCHEME).ok_or("it does not begin with oci://")?;
    let (registry, path) = rest.split_once('/').ok_or("it names no repository")?;
    if registry.contains('@') {
        return Err(CREDENTIALS);
    }
    if !is_registry(registry) {
        return Err("its registry is not a host name with or without a port");
    }
    let (path, digest) = match path.split_once('@') {
        None => (path, None),
        Some((path, digest)) => {
            let digest = digest.parse().map_err(|_| "its digest is not sha256: and 64 digits")?;
            (path, Some(digest))
        }
    };
    let (repository, tag) = match path.split_once(':') {
        None => (path, None),
        Some((repository, tag)) => (repository, Some(tag)),
    };
    if !is_repository(repository) {
        return Err("its repository is not of a-z, 0-9, and single `.`, `_`, `-` between them");
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("its tag is not of letters, digits, `.`, `_` and `-`");
    }
    if tag.is_none() && digest.is_none() {
        return Err("it names neither a tag nor a digest");
    }
    Ok(Reference {
        registry: registry.to_ascii_lowercase(),
        repository: repository.into(),
        tag: tag.map(str::to_owned),
        digest,
    })
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => return address.parse::<Ipv6Addr>().is_ok(),
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => {
                ("v6", port.strip_prefix(':'))
            }
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("443")),
        },
    };
    let port_is_one = port.is_some_and(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0)
    });
    let host_is_one = !host.is_empty()
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
    port_is_one && host_is_one
}

/// Components of lower-case letters and digits, with separators inside: `.`, `_`, `__`, or dashes.
fn is_repository(text: &str) -> bool {
    text.len() <= LONGEST_REPOSITORY && text.split('/').all(is_component)
}

fn is_component(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else {
        return false;
    };
    let separators = text.split(|c: char| c.is_ascii() && inside(c as u8));
    inside(first)
        && inside(last)
        && separators.into_iter().all(|between| {
            matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_reference_is_written_as_it_is_read() {
        for text in [
            "oci://registry.example.com/mysql:1.2.0",
            "oci://registry.example.com:5000/team/hooks/my__sql.x:v1_a-b",
            &format!("oci://127.0.0.1:5055/mysql@{DIGEST}"),
            &format!("oci://[::1]:5055/mysql:1@{DIGEST}"),
            "oci://localhost/a--b:1",
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        let reference: Reference = format!("oci://h/mysql:1@{DIGEST}").parse().unwrap();
        assert_eq!(reference.asked(), DIGEST, "the digest decides, not the tag");
    }

    #[test]
    fn what_is_not_exact_is_refused_with_the_reason() {
        for (text, problem) in [
            ("oci://registry.example.com", "no repository"),
            ("oci://registry.example.com/mysql", "neither a tag nor a digest"),
            ("oci:///mysql:1", "its registry"),
            ("oci://host:99999/mysql:1", "its registry"),
            ("oci://host:/mysql:1", "its registry"),
            ("oci://[::g]/mysql:1", "its registry"),
            ("oci://[::1]5000/mysql:1", "its registry"),
            ("oci://-host/mysql:1", "its registry"),
            ("oci://host/MySQL:1", "its repository"),
            ("oci://host/a//b:1", "its repository"),
            ("oci://host/../b:1", "its repository"),
            ("oci://host/a?x=1:1", "its repository"),
            ("oci://host/a:", "its tag"),
            ("oci://host/a:.x", "its tag"),
            ("oci://host/a:1/../../v2", "its tag"),
            ("oci://host/a:1@sha256:12", "its digest"),
            ("oci://host/a:1@sha512:12", "its digest"),
            ("https://host/a:1", "does not begin"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_in_a_reference_is_refused_and_not_repeated() {
        let error = "oci://me:geheim@host/mysql:1".parse::<Reference>().unwrap_err();
        let told = format!("{error} {error:?} {:?}", error.hint());
        assert!(told.contains("credentials") && !told.contains("geheim"), "{told}");
    }

    #[test]
    fn loopback_is_what_never_leaves_the_machine() {
        let is =
            |text: &str| format!("oci://{text}/a:1").parse::<Reference>().unwrap().is_loopback();
        assert!(is("localhost:5000") && is("127.0.0.1") && is("127.9.9.9:1") && is("[::1]:5000"));
        assert!(
            !is("127.0.0.1.example.com") && !is("10.0.0.1:5000") && !is("localhost.example.com")
        );
    }
}
