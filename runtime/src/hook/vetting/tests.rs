//! Who vouches for what: for each that is accepted, its twin that is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::{Date, date};

use super::*;

const TODAY: Date = date(2026, 11, 20);
const MODULE: &[u8] = b"module";

/// An operator's files in a directory of their own.
struct Operator {
    _root: tempfile::TempDir,
    paths: Paths,
}

impl Operator {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        fs::create_dir_all(paths.keys()).unwrap();
        Self { _root: root, paths }
    }

    /// Trusts a new key under this name.
    fn trusts(&self, name: &str, limits: &str) -> SecretKey {
        let (secret, public) = new_key();
        self.write(&format!("keys.d/{name}.pub"), &public.to_text().unwrap());
        self.write(&format!("keys.d/{name}.toml"), limits);
        secret
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.paths.config().join(file), text).unwrap();
    }

    fn vetting(&self) -> Vetting {
        Vetting { today: TODAY, ..Vetting::load(&self.paths).unwrap() }
    }

    fn problem(&self) -> String {
        Vetting::load(&self.paths).unwrap_err().to_string()
    }

    /// On whose word a hook called `name` with these signatures is accepted.
    fn word(&self, name: &str, signatures: &[DetachedSignature]) -> Result<Signer, VettingError> {
        let vetting = self.vetting();
        Ok(vetting.vouched(MODULE, signatures)?.for_name(name)?.0)
    }
}

fn new_key() -> (SecretKey, PublicKey) {
    let (text, public) = SecretKey::generate(None).unwrap();
    (SecretKey::parse(&text, None).unwrap(), public)
}

fn signed(key: &SecretKey, module: &[u8]) -> DetachedSignature {
    let text = key.sign(module, "hook.wasm").unwrap();
    DetachedSignature { bytes: text.into_bytes(), from: "hook.wasm.minisig".into() }
}

fn untrusted(result: Result<Signer, VettingError>, words: &str) {
    match result {
        Err(error @ VettingError::Untrusted { .. }) => {
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.hint().contains("--allow-unsigned"));
        }
        other => panic!("not untrusted: {other:?}"),
    }
}

#[test]
fn a_trusted_key_vouches_and_an_unknown_one_does_not() {
    let operator = Operator::new();
    let key = operator.trusts("acme", "hooks = [\"db\"]");
    let signer = operator.word("db", &[signed(&key, MODULE)]).unwrap();
    assert_eq!((signer.name.as_str(), signer.expires), ("acme", None));
    assert_eq!(signer.id, key.public().unwrap().id().to_string());

    let (stranger, public) = new_key();
    let refused = operator.word("db", &[signed(&stranger, MODULE)]);
    untrusted(refused, &format!("signed with key {}, which is not trusted", public.id()));
    untrusted(operator.word("db", &[]), "nobody signed it");
}

#[test]
fn a_key_vouches_within_its_scope_and_not_beside_it() {
    for (scope, inside, outside) in [
        ("db", &["db"][..], &["db2", "d", "db-", "xdb"][..]),
        ("acme-*", &["acme-", "acme-db"], &["acme", "acmedb", "x-acme-db"]),
        ("*", &["db", "acme-db"], &[]),
    ] {
        let operator = Operator::new();
        let key = operator.trusts("acme", &format!("hooks = [\"never\", \"{scope}\"]"));
        let signature = [signed(&key, MODULE)];
        for name in inside {
            assert!(operator.word(name, &signature).is_ok(), "{scope} {name}");
        }
        for name in outside {
            untrusted(
                operator.word(name, &signature),
                &format!("may sign never, {scope}, and this is `{name}`"),
            );
        }
    }
}

#[test]
fn a_scope_is_a_name_or_a_beginning_and_nothing_more() {
    for wrong in ["*-db", "a*b", "**", "a?", "[a-z]", "A", "", "../db", "a b"] {
        let operator = Operator::new();
        operator.trusts("acme", &format!("hooks = [\"db\", \"{wrong}\"]"));
        let problem = operator.problem();
        assert!(problem.contains("acme.toml:1:16: ") && problem.contains(wrong), "{problem}");
    }
}

#[test]
fn a_key_vouches_until_its_day_and_not_from_it_on() {
    for (expires, in_time) in [("2026-11-21", true), ("2026-11-20", false), ("2020-01-01", false)] {
        let operator = Operator::new();
        let key = operator.trusts("acme", &format!("hooks = [\"db\"]\nexpires = {expires}"));
        let word = operator.word("db", &[signed(&key, MODULE)]);
        match in_time {
            true => assert_eq!(word.unwrap().expires.as_deref(), Some(expires)),
            false => untrusted(word, &format!("expired on {expires}")),
        }
    }
}

#[test]
fn a_signature_of_something_else_is_bad_whoever_made_it() {
    let operator = Operator::new();
    let key = operator.trusts("acme", "hooks = [\"db\"]");
    let good = signed(&key, MODULE);
    let other = signed(&key, b"modulf");
    let damaged = DetachedSignature { bytes: b"junk".to_vec(), from: "junk.minisig".into() };
    for bad in [&other, &damaged] {
        for signatures in [vec![bad.clone()], vec![good.clone(), bad.clone()]] {
            let error = operator.word("db", &signatures).unwrap_err();
            assert!(matches!(error, VettingError::BadSignature { .. }), "{error}");
            assert!(error.to_string().starts_with(&bad.from), "{error}");
        }
    }
}

#[test]
fn a_key_of_the_same_id_is_not_the_key() {
    let operator = Operator::new();
    let key = operator.trusts("acme", "hooks = [\"db\"]");
    // The id is in the clear, and whoever makes a key can give it any.
    let bytes = |key: &PublicKey| {
        let text = key.to_text().unwrap();
        STANDARD.decode(text.lines().nth(1).unwrap()).unwrap()
    };
    let (_, other) = new_key();
    let mixed = [&bytes(&key.public().unwrap())[..10], &bytes(&other)[10..]].concat();
    operator.write("keys.d/acme.pub", &format!("comment\n{}\n", STANDARD.encode(mixed)));
    let error = operator.word("db", &[signed(&key, MODULE)]).unwrap_err();
    assert!(matches!(error, VettingError::BadSignature { .. }), "{error}");
}

#[test]
fn what_is_revoked_is_refused_by_digest_by_key_name_and_by_key_id() {
    let operator = Operator::new();
    let key = operator.trusts("acme", "hooks = [\"db\"]");
    let signature = [signed(&key, MODULE)];
    let id = key.public().unwrap().id().to_string();
    let digest = Digest::of(MODULE);
    for (revoked, words) in [
        (format!("digests = [\"{digest}\"]"), "its digest sha256:"),
        ("keys = [\"acme\"]".to_owned(), "the key `acme`"),
        (format!("keys = [\"{id}\"]"), "the key `acme`"),
        (format!("keys = [\"{}\"]", id.to_lowercase()), "the key `acme`"),
    ] {
        operator.write("revoked.toml", &revoked);
        let error = operator.word("db", &signature).unwrap_err();
        assert!(matches!(error, VettingError::Revoked { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains(words) && said.contains("revoked.toml:1:"), "{said}");
    }
    let other =
        format!("digests = [\"{}\"]\nkeys = [\"other\", \"0123456789ABCDEF\"]", Digest::of(b""));
    operator.write("revoked.toml", &other);
    assert!(operator.word("db", &signature).is_ok());
}

#[test]
fn a_revocation_counts_for_expired_keys_and_for_keys_that_are_not_there_any_more() {
    let operator = Operator::new();
    let key = operator.trusts("acme", "hooks = [\"db\"]\nexpires = 2020-01-01");
    let signature = [signed(&key, MODULE)];
    operator.write("revoked.toml", &format!("keys = [\"{}\"]", key.public().unwrap().id()));
    let error = operator.word("db", &signature).unwrap_err();
    assert!(matches!(error, VettingError::Revoked { .. }), "{error}");
    fs::remove_file(operator.paths.keys().join("acme.pub")).unwrap();
    let error = operator.word("db", &signature).unwrap_err();
    assert!(matches!(error, VettingError::Revoked { .. }), "{error}");
    operator.write("revoked.toml", "");
    untrusted(operator.word("db", &signature), "not trusted");
}

#[test]
fn one_key_under_two_names_may_sign_what_either_may() {
    let operator = Operator::new();
    let key = operator.trusts("acme", "hooks = [\"db\"]");
    operator.write("keys.d/other.pub", &key.public().unwrap().to_text().unwrap());
    operator.write("keys.d/other.toml", "hooks = [\"web\"]");
    let signature = [signed(&key, MODULE)];
    assert_eq!(operator.word("db", &signature).unwrap().name, "acme");
    assert_eq!(operator.word("web", &signature).unwrap().name, "other");
    untrusted(operator.word("mail", &signature), "may sign db, and this is `mail`");
}

#[test]
fn one_good_key_is_enough_beside_a_revoked_and_an_unknown_one() {
    let operator = Operator::new();
    let (good, bad) =
        (operator.trusts("good", "hooks = [\"db\"]"), operator.trusts("bad", "hooks = [\"db\"]"));
    let (stranger, _) = new_key();
    operator.write("revoked.toml", "keys = [\"bad\"]");
    let all = [signed(&bad, MODULE), signed(&stranger, MODULE), signed(&good, MODULE)];
    assert_eq!(operator.word("db", &all).unwrap().name, "good");
    let error = operator.word("db", &all[..2]).unwrap_err();
    assert!(matches!(error, VettingError::Revoked { .. }), "{error}");
}

#[test]
fn a_wrong_file_is_named_with_line_and_column() {
    for (file, text, place, word) in [
        ("keys.d/acme.toml", "hook = [\"db\"]", "acme.toml:1:1", "hook"),
        ("keys.d/acme.toml", "hooks = []", "acme.toml:1:9", "no hook"),
        ("keys.d/acme.toml", "hooks = [\"db\"]\nexpires = \"2027-01-01\"", "acme.toml:2:11", ""),
        ("keys.d/acme.toml", "hooks = [\"db\"]\nexpires = 12:00:00", "acme.toml:2:11", "not a day"),
        (
            "keys.d/acme.toml",
            "hooks = [\"db\"]\nexpires = 2027-01-01T00:00:00Z",
            "acme.toml:2:11",
            "not a day",
        ),
        ("keys.d/acme.toml", "hooks = [\"db\"]\nexpires = 2027-13-01", "acme.toml:2:", ""),
        ("keys.d/acme.pub", "comment\nRWxx\n", "acme.pub:2:1", "not a minisign public key"),
        ("keys.d/acme.pub", "", "acme.pub:1:1", "not a minisign public key"),
        ("keys.d/Acme.pub", "comment\n", "Acme.pub:1:1", "cannot be a key's name"),
        ("revoked.toml", "digests = [\n  \"sha256:12\"]", "revoked.toml:2:3", "sha256:12"),
        ("revoked.toml", "keys = [\"no/name\"]", "revoked.toml:1:9", "no/name"),
        ("revoked.toml", "digest = []", "revoked.toml:1:1", "digest"),
    ] {
        let operator = Operator::new();
        operator.trusts("acme", "hooks = [\"db\"]");
        operator.write(file, text);
        let problem = operator.problem();
        assert!(problem.contains(place) && problem.contains(word), "{file} {text:?}: {problem}");
    }
}

#[test]
fn a_key_without_limits_is_trusted_for_nothing() {
    let operator = Operator::new();
    operator.trusts("acme", "hooks = [\"db\"]");
    fs::remove_file(operator.paths.keys().join("acme.toml")).unwrap();
    let error = Vetting::load(&operator.paths).unwrap_err();
    assert!(error.to_string().contains("acme.toml is missing"), "{error}");
    assert!(error.hint().unwrap().contains("hooks = ["), "{error:?}");
}

#[test]
fn files_that_others_may_write_are_not_believed() {
    for file in ["keys.d", "keys.d/acme.pub", "keys.d/acme.toml", "revoked.toml"] {
        let operator = Operator::new();
        operator.trusts("acme", "hooks = [\"db\"]");
        operator.write("revoked.toml", "");
        operator.vetting();
        let path = operator.paths.config().join(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let problem = operator.problem();
        assert!(problem.contains("is not trusted"), "{file}: {problem}");
    }
}

#[test]
fn nothing_is_trusted_and_nothing_revoked_where_there_are_no_files() {
    let operator = Operator::new();
    fs::remove_dir(operator.paths.keys()).unwrap();
    untrusted(operator.word("db", &[]), "nobody signed it");
}
