//! Command lines as Go's package `flag` reads them, because the plug-in that this one stands in for
//! is a Go program: `-x=v`, `--x=v`, `-x v` (not for a boolean); the first word that is no flag, or
//! `--`, ends the flags; of a flag that is given twice the last one counts. Pure.

use std::collections::VecDeque;

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// `1 t T true TRUE True`, `0 f F false FALSE False`; without a value it is true.
    Boolean,
    /// A whole number of 64 bits: decimal, `0x…`, `0o…` or `0…`, `0b…`, with `_` between digits.
    Integer,
}

/// A flag that is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Its name, without dashes. Case counts.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What it is for.
    pub usage: &'static str,
}

/// A value that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a [`Kind::Text`].
    Text(String),
    /// Of a [`Kind::Boolean`].
    Boolean(bool),
    /// Of a [`Kind::Integer`].
    Integer(i64),
}

/// The flags of a command line, in order, and the words that were left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Name and value of each; a name may be there more than once.
    pub flags: Vec<(&'static str, Value)>,
    /// What came after the last flag.
    pub rest: Vec<String>,
}

/// Why a command line cannot be read; the words are those of Go's package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// `-h` or `-help`: not an error of the caller's.
    #[error("help requested")]
    HelpRequested,
    /// `-=x`, `---x`.
    #[error("bad flag syntax: {word}")]
    BadSyntax {
        /// The whole word.
        word: String,
    },
    /// There is no such flag.
    #[error("flag provided but not defined: -{name}")]
    NotDefined {
        /// Its name.
        name: String,
    },
    /// It is the last word and has no value.
    #[error("flag needs an argument: -{name}")]
    NeedsArgument {
        /// Its name.
        name: &'static str,
    },
    /// Not one of the words for true and false.
    #[error("invalid boolean value {value:?} for -{name}: parse error")]
    InvalidBoolean {
        /// Its name.
        name: &'static str,
        /// What was given.
        value: String,
    },
    /// Not a whole number of 64 bits.
    #[error("invalid value {value:?} for flag -{name}: {why}")]
    InvalidInteger {
        /// Its name.
        name: &'static str,
        /// What was given.
        value: String,
        /// Why not.
        why: IntegerError,
    },
}

/// Why a text is not a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntegerError {
    /// It is none.
    #[error("parse error")]
    Syntax,
    /// It does not fit into 64 bits.
    #[error("value out of range")]
    Range,
}

impl Given {
    /// Reads `words` by the flags that are defined.
    ///
    /// # Errors
    /// The first one; what comes after it is not looked at.
    pub fn parse(
        defined: &[Flag],
        words: impl IntoIterator<Item = String>,
    ) -> Result<Self, FlagError> {
        let mut words: VecDeque<String> = words.into_iter().collect();
        let mut flags = Vec::new();
        while let Some(word) = next_flag(&mut words)? {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let flag = find(defined, name)?;
            let value = match value {
                None if flag.kind == Kind::Boolean => "true".to_owned(),
                Some(value) => value,
                None => words.pop_front().ok_or(FlagError::NeedsArgument { name: flag.name })?,
            };
            flags.push((flag.name, read(flag, unquoted(&value))?));
        }
        Ok(Self { flags, rest: words.into() })
    }

    /// The value of a flag: of the last one, if it was given more than once.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.flags.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value)
    }
}

/// Takes the next word and cuts its dashes off; `None`, and the word stays, if it is no flag.
fn next_flag(words: &mut VecDeque<String>) -> Result<Option<String>, FlagError> {
    let Some(rest) = words.front().and_then(|word| word.strip_prefix('-')) else { return Ok(None) };
    if rest.is_empty() {
        return Ok(None);
    }
    let name = rest.strip_prefix('-').unwrap_or(rest).to_owned();
    let ends_the_flags = rest == "-";
    let Some(word) = words.pop_front() else { return Ok(None) };
    if ends_the_flags {
        return Ok(None);
    }
    if name.is_empty() || name.starts_with(['-', '=']) {
        return Err(FlagError::BadSyntax { word });
    }
    Ok(Some(name))
}

fn find<'a>(defined: &'a [Flag], name: &str) -> Result<&'a Flag, FlagError> {
    defined.iter().find(|flag| flag.name == name).ok_or_else(|| match name {
        "h" | "help" => FlagError::HelpRequested,
        _ => FlagError::NotDefined { name: name.to_owned() },
    })
}

/// Without one pair of double quotes around all of it: the documented command line has them, and
/// whoever hands it on without a shell hands them on, too. No value has quotes of its own there.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

fn read(flag: &Flag, value: &str) -> Result<Value, FlagError> {
    let name = flag.name;
    match flag.kind {
        Kind::Text => Ok(Value::Text(value.to_owned())),
        Kind::Boolean => match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Boolean(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Boolean(false)),
            _ => Err(FlagError::InvalidBoolean { name, value: value.to_owned() }),
        },
        Kind::Integer => integer(value)
            .map(Value::Integer)
            .map_err(|why| FlagError::InvalidInteger { name, value: value.to_owned(), why }),
    }
}

/// As Go's `strconv.ParseInt(text, 0, 64)`.
fn integer(text: &str) -> Result<i64, IntegerError> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = radix(digits);
    let mut magnitude: u64 = 0;
    for digit in digits.chars().filter(|&c| c != '_') {
        let digit = digit.to_digit(radix).ok_or(IntegerError::Syntax)?;
        magnitude = magnitude
            .checked_mul(u64::from(radix))
            .and_then(|shifted| shifted.checked_add(u64::from(digit)))
            .ok_or(IntegerError::Range)?;
    }
    if text.is_empty() || !underscores_are_between_digits(text) {
        return Err(IntegerError::Syntax);
    }
    let signed = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    i64::try_from(signed).map_err(|_| IntegerError::Range)
}

/// The base that the first characters name, and the digits after them. A lone `0` is octal, and so
/// is `0x` without a digit: not a number then.
fn radix(digits: &str) -> (u32, &str) {
    match digits.as_bytes() {
        [b'0', b'b' | b'B', _, ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', _, ..] => (8, &digits[2..]),
        [b'0', b'x' | b'X', _, ..] => (16, &digits[2..]),
        [b'0', ..] => (8, &digits[1..]),
        _ => (10, digits),
    }
}

/// A `_` needs a digit, or the base's prefix, before it, and a digit after it.
fn underscores_are_between_digits(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (has_prefix, digits) = match text.as_bytes() {
        [b'0', b'b' | b'B' | b'o' | b'O' | b'x' | b'X', ..] => (true, &text[2..]),
        _ => (false, text),
    };
    let mut after_digit = has_prefix;
    let mut after_underscore = false;
    for character in digits.chars() {
        let underscore = character == '_';
        if underscore && !after_digit {
            return false;
        }
        after_digit = !underscore;
        after_underscore = underscore;
    }
    !digits.is_empty() && !after_underscore
}

#[cfg(test)]
#[path = "flags_tests.rs"]
mod tests;
