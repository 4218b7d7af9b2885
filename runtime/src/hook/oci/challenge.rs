//! `WWW-Authenticate`: how a registry asks who we are (RFC 9110, and docker's token protocol).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password.
    Basic,
    /// A token of this service.
    Bearer { realm: String, service: Option<String> },
    /// Something else.
    Other(String),
}

/// The challenge that suits us best: a token, then name and password.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let asked: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .collect();
    let bearer = asked.iter().find(|one| matches!(one, Challenge::Bearer { .. }));
    let basic = asked.iter().find(|one| matches!(one, Challenge::Basic));
    bearer.or(basic).or(asked.first()).cloned()
}

/// All challenges of one header: `Scheme key="value", key=value, Scheme …`.
fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for part in split_outside_quotes(text) {
        let part = part.trim();
        let (head, value) = part.split_once('=').map_or((part, None), |(k, v)| (k, Some(v)));
        // `Scheme key` before the `=`: a new challenge begins.
        let key = match head.trim().split_once(char::is_whitespace) {
            Some((scheme, key)) => {
                found.push((scheme.to_ascii_lowercase(), Vec::new()));
                key.trim()
            }
            None if value.is_none() && !part.is_empty() => {
                found.push((part.to_ascii_lowercase(), Vec::new()));
                continue;
            }
            None => head.trim(),
        };
        if let (Some((_, pairs)), Some(value)) = (found.last_mut(), value) {
            pairs.push((key.to_ascii_lowercase(), unquoted(value.trim())));
        }
    }
    found.into_iter().map(|(scheme, pairs)| meant(scheme, &pairs)).collect()
}

fn meant(scheme: String, pairs: &[(String, String)]) -> Challenge {
    let value = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone());
    match (scheme.as_str(), value("realm")) {
        ("basic", _) => Challenge::Basic,
        ("bearer", Some(realm)) => Challenge::Bearer { realm, service: value("service") },
        _ => Challenge::Other(scheme),
    }
}

/// At commas that are not between quotes.
fn split_outside_quotes(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

fn unquoted(text: &str) -> String {
    let Some(inside) = text.strip_prefix('"') else { return text.into() };
    let mut value = String::new();
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        challenge(&headers)
    }

    #[test]
    fn what_registries_send_is_understood() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) })
        };
        assert_eq!(asked(&[r#"Basic realm="Registry Realm""#]), Some(Challenge::Basic));
        assert_eq!(
            asked(&[
                r#"Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:a/b:pull,push""#
            ]),
            bearer("https://auth.example.com/token", Some("registry.example.com"))
        );
        assert_eq!(
            asked(&[r#"Basic realm="a, b", Bearer realm="https://t/x\"y", error=invalid_token"#]),
            bearer("https://t/x\"y", None)
        );
        assert_eq!(asked(&["Negotiate", "Basic realm=x"]), Some(Challenge::Basic));
        assert_eq!(asked(&["Negotiate"]), Some(Challenge::Other("negotiate".into())));
        assert_eq!(asked(&["Bearer service=x"]), Some(Challenge::Other("bearer".into())));
        assert_eq!(asked(&[]), None);
        for odd in ["", ",", "=", "\"", "Bearer realm=\"\\", ",,=,\",\" x=,"] {
            asked(&[odd]);
        }
    }
}
