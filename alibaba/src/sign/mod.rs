//! The two signatures that ECS accepts, as pure functions: [`acs3`], which today's SDKs use, and
//! [`rpc`], version 1. Both are held to vectors made with the vendor's own code, and to the worked
//! examples of its documents.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub mod acs3;
pub mod rpc;

/// The version of the ECS API.
pub const API_VERSION: &str = "2014-05-26";

/// Everything but `A-Z a-z 0-9 - _ . ~`, as RFC 3986 wants it.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A name or value in a query, as both signatures want it.
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Parameters as a query, sorted by name (`DiskId.1`, `DiskId.10`, `DiskId.2`).
#[must_use]
pub fn canonical_query(params: &[(String, String)]) -> String {
    let mut sorted: Vec<_> = params.iter().collect();
    sorted.sort();
    let pairs = sorted.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stay_as_they_are() {
        assert_eq!(encode("Az09-_.~"), "Az09-_.~");
        assert_eq!(encode("a b+c*é/"), "a%20b%2Bc%2A%C3%A9%2F");
    }

    #[test]
    fn parameters_are_sorted_as_text() {
        let params = ["DiskId.2", "DiskId.10", "DiskId.1"].map(|name| (name.into(), "x".into()));
        assert_eq!(canonical_query(&params), "DiskId.1=x&DiskId.10=x&DiskId.2=x");
    }
}
