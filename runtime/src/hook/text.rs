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
            hidden if is_hidden(hidden) => continue,
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

/// What a terminal acts on, or does not show: control characters, what changes the direction of what
/// follows, what has no width, tags. A text with one of these is not what it looks like.
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// `text` with each hidden character but line ends written out, as `\u{1b}`: for what must be shown
/// whole, and for whatever else might reach a terminal.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => shown.push('\n'),
            hidden if is_hidden(hidden) => shown.extend(hidden.escape_unicode()),
            plain => shown.push(plain),
        }
    }
    shown
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
    fn what_has_no_width_is_gone_or_written_out() {
        assert_eq!(clean("a\u{200b}b\u{feff}c\u{e0041}d\u{2028}e\u{ad}f", 99), "abcdef");
        assert_eq!(visible("a\u{200b}b\n\u{1b}[2J"), "a\\u{200b}b\n\\u{1b}[2J");
        assert_eq!(visible("äöü → 数"), "äöü → 数");
    }

    #[test]
    fn text_is_cut_at_its_bound() {
        assert_eq!(clean("äöüß", 2), "äö…");
        assert_eq!(clean("äö", 2), "äö");
    }
}
