//! Programs as one of a hook's powers: what runs, and if nothing does, the line to add.

use std::sync::Arc;

use super::GrantedProgram;
use super::power::{Missing, Part};
use super::section::argument_line;
use crate::capability::template::quoted;
use crate::capability::{
    Denial, LONGEST_NAME, LONGEST_STATEMENT, Powers, PowersError, not_declared, shortened,
};
use crate::hook::text::clean;

/// How many words of refused arguments are shown.
const MOST_WORDS_SHOWN: usize = 16;

impl Powers {
    /// A program that the hook cannot work without is granted, and is there.
    pub(in crate::capability) fn check_program(
        &self,
        command: &str,
        reason: &str,
    ) -> Result<(), PowersError> {
        let granted = self.programs.get(command).and_then(|power| power.granted.as_deref());
        let (problem, hint) = match granted {
            Some(GrantedProgram { file: Some(_), .. }) => return Ok(()),
            Some(GrantedProgram { grant, file: None, .. }) => (
                format!("program `{command}`: there is no {}", grant.path.display()),
                format!("install it, or correct `path` at {}", grant.path_at),
            ),
            None => (
                format!("program `{command}` is not granted"),
                format!("add to {}: {}", self.grant_file.display(), program_section(command, "…")),
            ),
        };
        let message = format!("{problem}, and it cannot work without ({reason})");
        Err(PowersError::Missing(message, hint))
    }

    /// What to run for a command, these arguments, and this standard input, if both sides agree on
    /// all of it.
    pub(crate) fn program(
        &self,
        command: &str,
        arguments: &[String],
        stdin: &[u8],
    ) -> Result<&Arc<GrantedProgram>, Denial> {
        let missing = match self.programs.get(command) {
            Some(power) => match power.agreed(arguments, stdin) {
                Ok(program) => return Ok(program),
                Err(missing) => missing,
            },
            None => Missing::Grant(Part::Program),
        };
        Err(self.program_denied(missing, command, arguments, stdin))
    }

    fn program_denied(
        &self,
        missing: Missing,
        command: &str,
        arguments: &[String],
        stdin: &[u8],
    ) -> Denial {
        let command = clean(command, LONGEST_NAME);
        let words = arguments.iter().take(MOST_WORDS_SHOWN).map(|word| shortened(word));
        let line = argument_line(&words.collect::<Vec<_>>());
        let text = String::from_utf8_lossy(stdin.get(..LONGEST_STATEMENT).unwrap_or(stdin));
        let (part, what) = match missing {
            Missing::Grant(part) | Missing::Request(part) => (
                part,
                match part {
                    Part::Program => format!("program `{command}`"),
                    Part::Arguments => format!(
                        "program `{command}` with the arguments {}",
                        clean(line.trim_end_matches(','), LONGEST_STATEMENT)
                    ),
                    Part::Stdin => format!(
                        "program `{command}` with the standard input `{}`",
                        clean(&text, LONGEST_STATEMENT)
                    ),
                },
            ),
        };
        if missing == Missing::Request(part) {
            return not_declared(&what);
        }
        let file = self.grant_file.display();
        let of = format!("of [[program]] command = \"{command}\" in {file}");
        let hint = match part {
            Part::Program => format!("add to {file}: {}", program_section(&command, &line)),
            Part::Arguments => format!("add to `arguments` {of}: {line}"),
            Part::Stdin => format!("add to `stdin` {of}: {},", quoted(&text)),
        };
        Denial { message: format!("{what} is not granted"), hint }
    }
}

fn program_section(command: &str, arguments: &str) -> String {
    let arguments = arguments.trim_end_matches(',');
    format!("[[program]] command = \"{command}\", path = \"/…\", arguments = [{arguments}]")
}

#[cfg(test)]
#[path = "denial_tests.rs"]
mod tests;
