//! Text that a guest or a server wrote, made fit for a terminal: one line, no escapes, bounded.

/// The longest text of a guest in an error, in characters.
pub(crate) const LONGEST_MESSAGE: usize = 2000;

/// `text` on one line, without terminal escapes, control characters and characters that change the
/// direction of what follows; at most `most` characters, then `…`.
pub(crate) fn clean(text: &str, most: usize) -> String {
    let mut cleaned = String::new();
    let mut kept = 0;
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let character = match character {
            '\u{1b}' => {
                skip_escape(&mut rest);
                continue;
            }
            '\n' | '\t' => ' ',
            hidden if hidden.is_control() || changes_direction(hidden) => continue,
            visible => visible,
        };
        if kept == most {
            cleaned.push('…');
            break;
        }
        cleaned.push(character);
        kept += 1;
    }
    cleaned
}

/// Skips what follows ESC: a control sequence up to its final byte, a string up to BEL or ESC, or
/// one character.
fn skip_escape(rest: &mut std::str::Chars<'_>) {
    match rest.next() {
        Some('[') => {
            rest.by_ref().find(|c| ('\u{40}'..='\u{7e}').contains(c));
        }
        Some(']' | 'P' | 'X' | '^' | '_') => skip_string(rest),
        _ => {}
    }
}

/// Ends with BEL, or with ESC and one more character.
fn skip_string(rest: &mut std::str::Chars<'_>) {
    if rest.by_ref().find(|c| matches!(c, '\u{7}' | '\u{1b}')) == Some('\u{1b}') {
        rest.next();
    }
}

/// True for characters that change the direction of what follows.
pub(crate) fn changes_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_control_characters_are_gone_and_lines_are_joined() {
        assert_eq!(clean("a\u{1b}[31mred\u{1b}[0m\nb\r\u{7}c", 99), "ared bc");
        assert_eq!(clean("t\u{1b}]0;title\u{7}x\u{1b}]8;;u\u{1b}\\y\u{9b}z\u{202e}", 99), "txyz");
    }

    #[test]
    fn text_is_cut_at_its_bound() {
        assert_eq!(clean("äöüß", 2), "äö…");
        assert_eq!(clean("äö", 2), "äö");
    }
}
