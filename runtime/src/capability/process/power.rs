//! May this program run with these arguments and this text? Both sides must say so, for each of the
//! three. Pure, so that every branch of it can be tested; fails closed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::GrantedProgram;
use super::arguments::Arguments;

/// One program, as far as hook and operator agree on it.
#[derive(Debug, Default)]
pub(crate) struct ProgramPower {
    /// What the operator grants; `None` if nothing.
    pub(crate) granted: Option<Arc<GrantedProgram>>,
    /// What the hook asks for; `None` if it did not ask for the program.
    asked: Option<Asked>,
}

/// What a hook's `describe` asks for.
#[derive(Debug, Default)]
struct Asked {
    arguments: BTreeSet<Arguments>,
    stdin: BTreeSet<String>,
}

/// Which of the two keys is missing, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The operator's file does not have it.
    Grant(Part),
    /// The hook's `describe` does not have it.
    Request(Part),
}

/// What was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Program,
    Arguments,
    Stdin,
}

impl ProgramPower {
    /// Adds what the hook asks for. Argument lists that cannot be read are never matched.
    pub(crate) fn ask(&mut self, arguments: &[Vec<String>], stdin: &[String]) {
        let asked = self.asked.get_or_insert_default();
        asked.arguments.extend(arguments.iter().filter_map(|words| Arguments::parse(words).ok()));
        asked.stdin.extend(stdin.iter().cloned());
    }

    /// What runs, if both sides agree to all of it. An empty standard input needs no grant.
    pub(crate) fn agreed(
        &self,
        arguments: &[String],
        stdin: &[u8],
    ) -> Result<&Arc<GrantedProgram>, Missing> {
        let granted = self.granted.as_ref().ok_or(Missing::Grant(Part::Program))?;
        let asked = self.asked.as_ref().ok_or(Missing::Request(Part::Program))?;
        if !granted.grant.arguments.iter().any(|list| list.matches(arguments)) {
            return Err(Missing::Grant(Part::Arguments));
        }
        if !asked.arguments.iter().any(|list| list.matches(arguments)) {
            return Err(Missing::Request(Part::Arguments));
        }
        if stdin.is_empty() {
            return Ok(granted);
        }
        if !has(&granted.grant.stdin, stdin) {
            return Err(Missing::Grant(Part::Stdin));
        }
        if !has(&asked.stdin, stdin) {
            return Err(Missing::Request(Part::Stdin));
        }
        Ok(granted)
    }
}

/// Whole texts, byte for byte.
fn has(texts: &BTreeSet<String>, given: &[u8]) -> bool {
    texts.iter().any(|text| text.as_bytes() == given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::grants::ProgramGrant;

    const LOCK: &str = "ALTER DATABASE BEGIN BACKUP;\nEXIT\n";

    /// Granted are `-S /` and `{uint}`, and the script; asked for are `-S /` and `{name}`, and it.
    fn power(granted_stdin: &[&str], asked_stdin: &[&str]) -> ProgramPower {
        let mut power = ProgramPower::default();
        let lists: &[&[&str]] = &[&["-S", "/"], &["{uint}"], &["only-granted"]];
        let mut grant = ProgramGrant::of_test("/usr/bin/true", lists);
        grant.stdin = granted_stdin.iter().map(ToString::to_string).collect();
        power.granted = Some(GrantedProgram::open(&grant).unwrap().into());
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        power.ask(
            &[words(&["-S", "/"]), words(&["{name}"]), words(&["only-asked"]), words(&["{bad}"])],
            &words(asked_stdin),
        );
        power
    }

    fn asked(power: &ProgramPower, arguments: &[&str], stdin: &str) -> Result<(), Missing> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        power.agreed(&arguments, stdin.as_bytes()).map(drop)
    }

    #[test]
    fn what_both_sides_name_is_allowed() {
        let power = power(&[LOCK], &[LOCK]);
        assert_eq!(asked(&power, &["-S", "/"], ""), Ok(()));
        assert_eq!(asked(&power, &["-S", "/"], LOCK), Ok(()));
        // A number that is a name as well is what both patterns stand for.
        assert_eq!(asked(&power, &["7"], ""), Ok(()));
    }

    #[test]
    fn a_program_that_one_side_does_not_name_is_denied() {
        let mut only_asked = power(&[LOCK], &[LOCK]);
        only_asked.granted = None;
        assert_eq!(asked(&only_asked, &["-S", "/"], ""), Err(Missing::Grant(Part::Program)));
        let mut only_granted = power(&[LOCK], &[LOCK]);
        only_granted.asked = None;
        assert_eq!(asked(&only_granted, &["-S", "/"], ""), Err(Missing::Request(Part::Program)));
        let neither = ProgramPower::default();
        assert_eq!(asked(&neither, &["-S", "/"], ""), Err(Missing::Grant(Part::Program)));
    }

    #[test]
    fn arguments_that_one_side_does_not_name_are_denied() {
        let power = power(&[LOCK], &[LOCK]);
        for arguments in [&["only-asked"][..], &["-S"], &["-S", "/", "x"], &[], &["name"]] {
            let denied = Err(Missing::Grant(Part::Arguments));
            assert_eq!(asked(&power, arguments, ""), denied, "{arguments:?}");
        }
        for arguments in [&["only-granted", ""][..], &["{uint}"]] {
            let denied = Err(Missing::Grant(Part::Arguments));
            assert_eq!(asked(&power, arguments, ""), denied, "{arguments:?}");
        }
        let mut only_granted = power;
        only_granted.asked = Some(Asked::default());
        for arguments in [&["only-granted"][..], &["-S", "/"], &["7"]] {
            let denied = Err(Missing::Request(Part::Arguments));
            assert_eq!(asked(&only_granted, arguments, ""), denied, "{arguments:?}");
        }
    }

    #[test]
    fn a_text_that_one_side_does_not_name_byte_for_byte_is_denied() {
        let both = power(&[LOCK], &[LOCK]);
        for text in
            ["EXIT\n", &format!("{LOCK}\n"), &LOCK.to_lowercase(), &LOCK.replace('\n', "\r\n"), " "]
        {
            let denied = Err(Missing::Grant(Part::Stdin));
            assert_eq!(asked(&both, &["-S", "/"], text), denied, "{text:?}");
        }
        let not_asked = power(&[LOCK], &[]);
        assert_eq!(asked(&not_asked, &["-S", "/"], LOCK), Err(Missing::Request(Part::Stdin)));
        let not_granted = power(&[], &[LOCK]);
        assert_eq!(asked(&not_granted, &["-S", "/"], LOCK), Err(Missing::Grant(Part::Stdin)));
        assert_eq!(
            both.agreed(&["-S".into(), "/".into()], b"\xff").map(drop),
            Err(Missing::Grant(Part::Stdin))
        );
    }
}
