//! The highest version of each hook that was ever installed, also of those that were removed since: who
//! can hand an old, signed, faulty module to an operator must not bring it back.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::VettingError;
use crate::hook::digest::Digest;

/// What was installed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::hook) struct Versions(BTreeMap<String, Highest>);

/// The highest version of one hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Highest {
    version: String,
    /// The component that was last installed as that version.
    digest: Digest,
}

impl Versions {
    /// Is this a way forward?
    pub(in crate::hook) fn check(
        &self,
        name: &str,
        version: &str,
        digest: &Digest,
    ) -> Result<(), VettingError> {
        let Some(highest) = self.0.get(name) else { return Ok(()) };
        let (name, version) = (name.to_owned(), version.to_owned());
        match compare(&version, &highest.version) {
            Some(Ordering::Greater) => Ok(()),
            Some(Ordering::Equal) if *digest == highest.digest => Ok(()),
            Some(Ordering::Equal) => {
                Err(VettingError::SameVersion { name, version, digest: highest.digest })
            }
            Some(Ordering::Less) => {
                Err(VettingError::Lower { name, version, highest: highest.version.clone() })
            }
            None => {
                Err(VettingError::NotComparable { name, version, highest: highest.version.clone() })
            }
        }
    }

    /// Remembers what is installed now. A way back, or to another component of the same version, is the
    /// operator's will; the highest version stays what it was.
    pub(in crate::hook) fn remember(&mut self, name: &str, version: &str, digest: Digest) {
        let lower = self
            .0
            .get(name)
            .is_some_and(|highest| compare(version, &highest.version).is_some_and(Ordering::is_lt));
        if !lower {
            self.0.insert(name.to_owned(), Highest { version: version.to_owned(), digest });
        }
    }
}

/// By the rules of semantic versions, where `1.2` is `1.2.0`. What comes after `+` does not count.
fn compare(one: &str, other: &str) -> Option<Ordering> {
    if one == other {
        return Some(Ordering::Equal);
    }
    Some(parse(one)?.cmp_precedence(&parse(other)?))
}

fn parse(version: &str) -> Option<semver::Version> {
    let end = version.find(['-', '+']).unwrap_or(version.len());
    let (numbers, rest) = version.split_at(end);
    let missing = ".0".repeat(2_usize.saturating_sub(numbers.matches('.').count()));
    semver::Version::parse(&format!("{numbers}{missing}{rest}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(version: &str) -> Versions {
        let mut versions = Versions::default();
        versions.remember("db", version, Digest::of(b"db"));
        versions
    }

    #[test]
    fn forward_is_free_and_back_is_not() {
        for (there, asked) in
            [("1.2.3", "1.2.4"), ("1.9.0", "1.10.0"), ("1.0.0-rc.1", "1.0.0"), ("1.2", "1.2.1")]
        {
            let other = Digest::of(b"other");
            assert_eq!(installed(there).check("db", asked, &other), Ok(()), "{there} {asked}");
            assert!(
                matches!(
                    installed(asked).check("db", there, &other),
                    Err(VettingError::Lower { .. })
                ),
                "{asked} {there}"
            );
        }
    }

    #[test]
    fn a_version_is_one_component() {
        let versions = installed("1.2.3");
        assert_eq!(versions.check("db", "1.2.3", &Digest::of(b"db")), Ok(()));
        for same in ["1.2.3", "1.2.3+build.2"] {
            let refused = versions.check("db", same, &Digest::of(b"other"));
            assert!(matches!(refused, Err(VettingError::SameVersion { .. })), "{refused:?}");
        }
        assert_eq!(versions.check("other", "0.0.1", &Digest::of(b"other")), Ok(()));
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let versions = installed("2026a");
        assert_eq!(versions.check("db", "2026a", &Digest::of(b"db")), Ok(()));
        let refused = versions.check("db", "2026b", &Digest::of(b"other"));
        assert!(matches!(refused, Err(VettingError::NotComparable { .. })), "{refused:?}");
    }

    #[test]
    fn the_highest_stays_what_it_was_after_a_way_back() {
        let mut versions = installed("2.0.0");
        versions.remember("db", "1.0.0", Digest::of(b"old"));
        let refused = versions.check("db", "1.5.0", &Digest::of(b"old"));
        assert!(matches!(refused, Err(VettingError::Lower { .. })), "{refused:?}");
    }
}
