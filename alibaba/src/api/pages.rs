//! Lists come in pages; the last has no token for a next one.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::de::DeserializeOwned;

use crate::client::{Call, EcsClient, Params, Patience};
use crate::error::EcsError;

/// No list of ours is longer.
const MOST_PAGES: usize = 500;

/// One page of a list.
pub(super) trait Page: DeserializeOwned {
    type Item;
    /// Its items, and the token of the next page: `None`, or empty, on the last one.
    fn open(self) -> (Vec<Self::Item>, Option<String>);
}

/// All pages of a list.
pub(super) async fn all<P: Page>(
    client: &EcsClient,
    action: &'static str,
    params: Params,
    deadline: Instant,
) -> Result<Vec<P::Item>, EcsError> {
    let mut items = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next: Option<String> = None;
    loop {
        let mut params = params.clone();
        params.extend(next.iter().map(|token| ("NextToken".to_owned(), token.clone())));
        let page: P =
            client.call(Call { action, params, patience: Patience::Read }, deadline).await?;
        let (more, token) = page.open();
        items.extend(more);
        let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(items) };
        if !seen.insert(token.clone()) {
            return Err(EcsError::Endless {
                action,
                problem: "a page names an earlier one as its next",
            });
        }
        if seen.len() >= MOST_PAGES {
            return Err(EcsError::Endless { action, problem: "it has 500 pages and goes on" });
        }
        next = Some(token);
    }
}
