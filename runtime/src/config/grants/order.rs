//! The order in which hooks are quiesced: each after the ones that its grant names.

use std::collections::BTreeSet;

use toml::Spanned;

use super::HookGrant;
use crate::config::read::{ConfigError, Document};

pub(super) fn check(
    grants: &[HookGrant],
    documents: &[(Document, Vec<Spanned<String>>)],
) -> Result<(), ConfigError> {
    let names: BTreeSet<&str> = grants.iter().map(|grant| grant.name.as_str()).collect();
    for (document, after) in documents {
        if let Some(unknown) = after.iter().find(|name| !names.contains(name.get_ref().as_str())) {
            let known = names.iter().copied().collect::<Vec<_>>().join(", ");
            return Err(document.invalid(
                unknown.span(),
                format!("there is no hook `{}`; there are: {known}", unknown.get_ref()),
            ));
        }
    }
    let mut ordered: BTreeSet<&str> = BTreeSet::new();
    loop {
        let ready =
            |grant: &&HookGrant| grant.after.iter().all(|name| ordered.contains(name.as_str()));
        let next: Vec<&str> = grants
            .iter()
            .filter(|grant| !ordered.contains(grant.name.as_str()))
            .filter(ready)
            .map(|grant| grant.name.as_str())
            .collect();
        if next.is_empty() {
            break;
        }
        ordered.extend(next);
    }
    let stuck = grants.iter().position(|grant| !ordered.contains(grant.name.as_str()));
    match stuck.and_then(|at| documents.get(at)) {
        None => Ok(()),
        Some((document, after)) => {
            let span = after.first().map_or(0..0, Spanned::span);
            let circle: Vec<_> = names.difference(&ordered).copied().collect();
            Err(document.invalid(span, format!("hooks wait for each other: {}", circle.join(", "))))
        }
    }
}
