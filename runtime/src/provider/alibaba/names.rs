//! What ECS takes as a name, and the token of a run.

use sha2::{Digest, Sha256};

use super::exit::fail;
use crate::exit_code::ExitCode;
use crate::provider::{GroupRequest, ProviderError};

/// Longest token, in ASCII characters.
const LONGEST_TOKEN: usize = 64;

/// Checks name and description before anything is held: in the window it would be too late.
pub(super) fn check(request: &GroupRequest) -> Result<(), ProviderError> {
    let wrong = |what: &str, rule: &str| {
        fail(ExitCode::Precondition, format!("ECS does not take the {what}: {rule}"))
            .hint(format!("give the snapshot another {what}"))
    };
    if let Some(rule) = broken_rule_of_name(&request.name) {
        return Err(wrong(&format!("name \"{}\"", request.name), rule));
    }
    let length = request.description.chars().count();
    if length != 0 && !(2..=256).contains(&length) {
        return Err(wrong("description", "it has fewer than 2 or more than 256 characters"));
    }
    if is_link(&request.description) {
        return Err(wrong("description", "it begins with http:// or https://"));
    }
    Ok(())
}

fn broken_rule_of_name(name: &str) -> Option<&'static str> {
    if !(2..=128).contains(&name.chars().count()) {
        return Some("it has fewer than 2 or more than 128 characters");
    }
    if is_link(name) {
        return Some("it begins with http:// or https://");
    }
    if !name.chars().next().is_some_and(char::is_alphabetic) {
        return Some("it does not begin with a letter");
    }
    let fits = |c: char| c.is_alphanumeric() || "._-:".contains(c);
    (!name.chars().all(fits)).then_some("only letters, digits and . _ - : are allowed")
}

fn is_link(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// The idempotency token of a run: its id, or what fits of one that an embedding program chose.
pub(super) fn token(run_id: &str) -> String {
    if run_id.len() <= LONGEST_TOKEN && run_id.chars().all(|c| c.is_ascii_graphic()) {
        return run_id.to_owned();
    }
    let digest = Sha256::digest(run_id.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_ecs_takes() {
        for good in ["LinuxApp1", "Created_At_202510271347", "a.b-c:d", "快照1"] {
            assert_eq!(broken_rule_of_name(good), None, "{good}");
        }
        for bad in ["", "x", "1st", "_x", "two words", "http://x", &"x".repeat(129)] {
            assert!(broken_rule_of_name(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_the_run_and_never_longer_than_ecs_takes() {
        let run = "8d6b1a52-0a35-4c39-9f0e-7e2d7e1f4f10";
        assert_eq!(token(run), run);
        let long = token(&"x".repeat(65));
        assert_eq!(long.len(), 64);
        assert_ne!(long, token(&"x".repeat(66)));
    }
}
