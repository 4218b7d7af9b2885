use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::capability::process::ProgramPower;
use crate::config::grants::{Limits, ProgramGrant};

fn powers(granted: bool, asked: bool) -> Powers {
    let real = fs::canonicalize("/usr/bin/true").unwrap();
    let mut grant = ProgramGrant::of_test(real.to_str().unwrap(), &[&["a"], &["b"]]);
    grant.stdin.extend(["one".to_owned(), "two".to_owned()]);
    let mut power = ProgramPower::default();
    if asked {
        power.ask(&[vec!["a".into()], vec!["c".into()]], &["one".into(), "three".into()]);
    }
    power.granted = granted.then(|| Arc::new(GrantedProgram::open(&grant).unwrap()));
    let mut powers = Powers::none(Limits::default());
    powers.grant_file = "/etc/stillpoint/hooks.d/db.toml".into();
    powers.programs = BTreeMap::from([("probe".to_owned(), power)]);
    powers
}

fn denial(powers: &Powers, command: &str, argument: &str, stdin: &str) -> Denial {
    powers.program(command, &[argument.to_owned()], stdin.as_bytes()).unwrap_err()
}

#[test]
fn what_both_sides_name_is_not_denied() {
    let powers = powers(true, true);
    for stdin in ["", "one"] {
        assert!(powers.program("probe", &["a".to_owned()], stdin.as_bytes()).is_ok());
    }
}

#[test]
fn what_the_operator_did_not_grant_is_denied_with_the_line_to_add() {
    let file = "/etc/stillpoint/hooks.d/db.toml";
    let section = format!(
        "add to {file}: [[program]] command = \"probe\", path = \"/…\", arguments = [[\"a\"]]"
    );
    let of = format!("of [[program]] command = \"probe\" in {file}");
    for (denial, message, hint) in [
        (
            denial(&powers(false, true), "probe", "a", ""),
            "program `probe` is not granted",
            section.clone(),
        ),
        (
            denial(&powers(false, false), "probe", "a", ""),
            "program `probe` is not granted",
            section,
        ),
        (
            denial(&powers(true, true), "probe", "c", ""),
            "program `probe` with the arguments [\"c\"] is not granted",
            format!("add to `arguments` {of}: [\"c\"],"),
        ),
        (
            denial(&powers(true, true), "probe", "a", "three\n"),
            "program `probe` with the standard input `three ` is not granted",
            format!("add to `stdin` {of}: \"three\\n\","),
        ),
    ] {
        assert_eq!((denial.message.as_str(), denial.hint), (message, hint));
    }
    let unknown = denial(&powers(true, true), "\u{1b}[31mrm", "-rf", "");
    assert_eq!(unknown.message, "program `rm` is not granted");
    assert!(unknown.hint.contains("command = \"rm\"") && unknown.hint.ends_with("[[\"-rf\"]]"));
}

#[test]
fn what_the_hook_did_not_ask_for_is_denied_whatever_is_granted() {
    for (denial, what) in [
        (denial(&powers(true, false), "probe", "a", ""), "program `probe`"),
        (
            denial(&powers(true, true), "probe", "b", ""),
            "program `probe` with the arguments [\"b\"]",
        ),
        (
            denial(&powers(true, true), "probe", "a", "two"),
            "program `probe` with the standard input `two`",
        ),
    ] {
        assert_eq!(denial.message, format!("{what} is not in what the hook's `describe` asks for"));
        assert!(denial.hint.contains("the hook's author must add it"));
    }
}

#[test]
fn a_denial_is_bounded_whatever_the_guest_sent() {
    let many = vec!["x".repeat(1 << 20); 1000];
    let denial = powers(true, true).program("probe", &many, &[b'\n'; 1 << 20]).unwrap_err();
    assert!(denial.message.len() < 4096 && denial.hint.len() < 100_000);
}

#[test]
fn a_program_that_a_hook_needs_must_be_granted_and_there() {
    use crate::hook::Need;
    let need = |required| Need::Program {
        command: "probe".into(),
        arguments: vec![vec!["a".into()]],
        stdin_scripts: Vec::new(),
        reason: "to lock".into(),
        required,
    };
    let missing = |mut powers: Powers| match powers.add_need(&need(true)) {
        Err(PowersError::Missing(message, hint)) => Some((message, hint)),
        _ => None,
    };
    assert_eq!(missing(powers(true, false)), None);
    let (message, hint) = missing(powers(false, false)).unwrap();
    assert_eq!(message, "program `probe` is not granted, and it cannot work without (to lock)");
    assert!(hint.contains("[[program]] command = \"probe\""), "{hint}");
    let mut absent = powers(true, false);
    let grant = ProgramGrant::of_test("/usr/bin/no-such-program", &[&["a"]]);
    absent.programs.get_mut("probe").unwrap().granted =
        Some(Arc::new(GrantedProgram::open(&grant).unwrap()));
    let (message, hint) = missing(absent).unwrap();
    assert!(
        message.starts_with("program `probe`: there is no /usr/bin/no-such-program"),
        "{message}"
    );
    assert!(hint.contains("hooks.d/db.toml:1:1"), "{hint}");
    // Its twins: what a hook can do without.
    for granted in [true, false] {
        assert!(powers(granted, false).add_need(&need(false)).is_ok());
    }
}
