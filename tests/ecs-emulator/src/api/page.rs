//! Lists, page by page.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::api::error::ApiError;
use crate::api::parameters::Parameters;

/// How a list may be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// If nothing is asked for, or less than the least.
    pub(super) default: usize,
    pub(super) least: usize,
    pub(super) most: usize,
    /// What the scenario allows on top of that.
    pub(super) cap: usize,
}

/// A part of a list.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// Of the next page; empty on the last.
    pub(super) next_token: String,
    pub(super) total: usize,
}

/// The part of `items` that is asked for by NextToken and MaxResults, or by PageNumber and PageSize.
pub(super) fn turn<T>(
    items: Vec<T>,
    parameters: &Parameters,
    sizes: Sizes,
) -> Result<Page<T>, ApiError> {
    let max_results = parameters.number("MaxResults")?;
    let page_size = parameters.number("PageSize")?;
    let page_number = parameters.number("PageNumber")?.unwrap_or(1);
    let list = fingerprint(parameters);
    let asked = max_results.or(page_size).unwrap_or(sizes.default);
    let size = if asked < sizes.least { sizes.default } else { asked };
    let size = size.min(sizes.most).min(sizes.cap).max(1);
    let start = match parameters.optional("NextToken") {
        Some(token) => position(token, &list)?,
        None => page_number.saturating_sub(1).saturating_mul(size),
    };
    let total = items.len();
    let end = start.saturating_add(size);
    let next_token = if end < total { format!("{list}{end:08x}") } else { String::new() };
    let items = items.into_iter().skip(start).take(size).collect();
    Ok(Page { items, next_token, total })
}

/// A token is good for the list that it was given for, and for no other.
fn position(token: &str, list: &str) -> Result<usize, ApiError> {
    token
        .strip_prefix(list)
        .and_then(|position| usize::from_str_radix(position, 16).ok())
        .ok_or_else(|| ApiError::invalid("NextToken", "it is not of this list"))
}

fn fingerprint(parameters: &Parameters) -> String {
    let paging = ["NextToken", "MaxResults", "PageNumber", "PageSize"];
    let mut meaning: BTreeMap<_, _> = parameters.meaning();
    meaning.retain(|name, _| !paging.contains(&name.as_str()));
    let digest = Sha256::digest(format!("{meaning:?}").as_bytes());
    digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}
