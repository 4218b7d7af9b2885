//! Grant matching: two statements are the same only if nothing but white space outside quotes and
//! comments differs, judged by a second, slower reader that shares no code with the first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint::capability::statement::{Placeholder, fold, placeholders};

fuzz_target!(|text: &str| {
    if text.contains(BLANK) {
        return;
    }
    let (granted, sent) = text.split_once('\u{1}').unwrap_or((text, ""));
    let same = fold(granted) == fold(sent);
    let expected = tokens(granted) == tokens(sent);
    assert_eq!(same, expected, "{granted:?} and {sent:?}");
    if same {
        for style in [Placeholder::Question, Placeholder::Numbered] {
            assert_eq!(placeholders(granted, style), placeholders(sent, style));
        }
    }
    let padded = format!(" \t{granted}\n ");
    if !ends_open(granted) {
        assert_eq!(fold(&padded), fold(granted), "{granted:?}");
    }
});

/// What a statement is made of: each piece as it is, white space between pieces as one blank.
fn tokens(statement: &str) -> String {
    let mut out = String::new();
    let mut state = State::Plain;
    let characters: Vec<char> = statement.chars().collect();
    let mut at = 0;
    while at < characters.len() {
        let character = characters[at];
        let verbatim = !matches!(state, State::Plain);
        let taken = state.step(&characters[at..]);
        if !verbatim && matches!(state, State::Plain) && character.is_ascii_whitespace() {
            if !out.ends_with(BLANK) {
                out.push(BLANK);
            }
        } else {
            out.extend(&characters[at..at + taken]);
        }
        at += taken;
    }
    out.trim_matches(BLANK).to_owned()
}

/// A blank that stands for white space between pieces: no statement has it.
const BLANK: char = '\u{10ffff}';

fn ends_open(statement: &str) -> bool {
    let mut state = State::Plain;
    let characters: Vec<char> = statement.chars().collect();
    let mut at = 0;
    while at < characters.len() {
        at += state.step(&characters[at..]);
    }
    !matches!(state, State::Plain) || statement.ends_with("--")
}

/// Where in a statement a reader is.
enum State {
    Plain,
    Quoted(char),
    Line,
    Comment,
    /// In a PostgreSQL quote, until this tag.
    Dollar(Vec<char>),
}

impl State {
    /// Reads on; how many characters that took.
    fn step(&mut self, rest: &[char]) -> usize {
        let (character, next) = (rest[0], rest.get(1).copied());
        if let State::Dollar(tag) = self {
            let length = tag.len();
            let ends = rest.starts_with(tag);
            if ends {
                *self = State::Plain;
            }
            return if ends { length } else { 1 };
        }
        match (&self, character) {
            (State::Plain, '$') => {
                let digits = rest[1..].iter().take_while(|c| c.is_ascii_digit()).count();
                if digits > 0 {
                    return 1 + digits;
                }
                let name = rest[1..].iter().take_while(|c| is_of_a_word(**c)).count();
                if rest.get(1 + name) == Some(&'$') {
                    *self = State::Dollar(rest[..name + 2].to_vec());
                    return name + 2;
                }
            }
            (State::Plain, letter) if letter.is_alphabetic() || letter == '_' => {
                return rest.iter().take_while(|c| is_of_a_word(**c) || **c == '$').count();
            }
            (State::Plain, '\'' | '"' | '`') => *self = State::Quoted(character),
            (State::Plain, '#') => *self = State::Line,
            (State::Plain, '-')
                if next == Some('-') && rest.get(2).is_none_or(char::is_ascii_whitespace) =>
            {
                *self = State::Line;
            }
            (State::Plain, '/') if next == Some('*') => {
                *self = State::Comment;
                return 2;
            }
            (State::Quoted(quote), '\\') if *quote != '`' && next.is_some() => return 2,
            (State::Quoted(quote), _) if character == *quote && next == Some(*quote) => return 2,
            (State::Quoted(quote), _) if character == *quote => *self = State::Plain,
            (State::Line, '\n') => *self = State::Plain,
            (State::Comment, '*') if next == Some('/') => {
                *self = State::Plain;
                return 2;
            }
            _ => {}
        }
        1
    }
}

fn is_of_a_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}
