//! Whole statements: what the operator wrote, and how a hook's text is compared with it.
//!
//! White space is folded outside quotes and comments, nothing else. A mistake here could only pick
//! the wrong one of the operator's own statements: what is sent is always the operator's text.

use std::fmt;

use serde::Deserialize;

/// The type of one parameter of a granted statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParamType {
    /// SQL NULL.
    Null,
    /// True or false.
    Bool,
    /// A whole number, −2⁶³ to 2⁶³−1.
    Int,
    /// A whole number, 0 to 2⁶⁴−1.
    Uint,
    /// A floating-point number.
    Float,
    /// Text.
    Text,
    /// Bytes.
    Binary,
}

impl fmt::Display for ParamType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParamType::Null => "null",
            ParamType::Bool => "bool",
            ParamType::Int => "int",
            ParamType::Uint => "uint",
            ParamType::Float => "float",
            ParamType::Text => "text",
            ParamType::Binary => "binary",
        })
    }
}

/// A statement that the operator granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedStatement {
    /// What is sent.
    pub text: String,
    /// One for each `?`; if there are any, the statement is prepared.
    pub params: Vec<ParamType>,
}

/// A statement with white space folded: equal forms are the same statement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Folded(String);

/// One piece of a statement's text.
enum Piece<'a> {
    /// One or more white-space characters.
    Space,
    /// A `?` that stands for a parameter.
    Placeholder,
    /// Anything that is taken as it is: one character, or a whole quote or comment.
    Verbatim(&'a str),
}

/// The statement with white space folded to one blank, and none at either end.
#[must_use]
pub fn fold(statement: &str) -> Folded {
    let mut folded = String::with_capacity(statement.len());
    let mut space = false;
    for piece in Pieces(statement) {
        let text = match piece {
            Piece::Space => {
                space = true;
                continue;
            }
            Piece::Placeholder => "?",
            Piece::Verbatim(text) => text,
        };
        // Between two pieces; at either end there is none, and a quote keeps its own.
        if space && !folded.is_empty() {
            folded.push(' ');
        }
        space = false;
        folded.push_str(text);
    }
    Folded(folded)
}

/// How many parameters a statement has: each `?` outside quotes and comments.
#[must_use]
pub fn placeholders(statement: &str) -> usize {
    Pieces(statement).filter(|piece| matches!(piece, Piece::Placeholder)).count()
}

struct Pieces<'a>(&'a str);

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let rest = self.0;
        let first = rest.chars().next()?;
        let (length, piece): (usize, fn(&'a str) -> Piece<'a>) = match first {
            '?' => (1, |_| Piece::Placeholder),
            '\'' | '"' | '`' => (quoted_length(rest, first), Piece::Verbatim),
            '#' => (line_length(rest), Piece::Verbatim),
            '-' if is_line_comment(rest) => (line_length(rest), Piece::Verbatim),
            '/' if rest.starts_with("/*") => (comment_length(rest), Piece::Verbatim),
            space if space.is_ascii_whitespace() => (space_length(rest), |_| Piece::Space),
            other => (other.len_utf8(), Piece::Verbatim),
        };
        let (taken, left) = rest.split_at(length);
        self.0 = left;
        Some(piece(taken))
    }
}

/// Up to and with the closing quote; a doubled quote, and in strings a backslash, continue it.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' && quote != '`' {
            characters.next();
        } else if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return at + quote.len_utf8();
        }
    }
    text.len()
}

/// `--` begins a comment only before white space or the end (MySQL's rule).
fn is_line_comment(text: &str) -> bool {
    text.strip_prefix("--")
        .is_some_and(|rest| rest.chars().next().is_none_or(|next| next.is_ascii_whitespace()))
}

fn line_length(text: &str) -> usize {
    text.find('\n').map_or(text.len(), |newline| newline + 1)
}

fn comment_length(text: &str) -> usize {
    text.get(2..).and_then(|inner| inner.find("*/")).map_or(text.len(), |end| end + 4)
}

fn space_length(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_whitespace()).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_outside_quotes_does_not_matter() {
        assert_eq!(fold("  FLUSH\n\tTABLES  WITH READ LOCK "), fold("FLUSH TABLES WITH READ LOCK"));
    }

    #[test]
    fn white_space_inside_quotes_and_comments_matters() {
        for (left, right) in [
            ("SELECT 'a  b'", "SELECT 'a b'"),
            ("SELECT \"a  b\"", "SELECT \"a b\""),
            ("SELECT `a  b`", "SELECT `a b`"),
            ("SELECT 'it''s  b'", "SELECT 'it''s b'"),
            ("SELECT 'it\\'s  b'", "SELECT 'it\\'s b'"),
            ("SELECT /* a  b */ 1", "SELECT /* a b */ 1"),
            ("SELECT 1 -- a\n, 2", "SELECT 1 -- a , 2"),
            ("SELECT 1 # a\n, 2", "SELECT 1 # a , 2"),
        ] {
            assert_ne!(fold(left), fold(right), "{left}");
        }
    }

    #[test]
    fn case_and_a_trailing_semicolon_matter() {
        assert_ne!(fold("unlock tables"), fold("UNLOCK TABLES"));
        assert_ne!(fold("UNLOCK TABLES;"), fold("UNLOCK TABLES"));
    }

    #[test]
    fn placeholders_in_quotes_and_comments_are_not_parameters() {
        assert_eq!(placeholders("SET SESSION lock_wait_timeout = ?"), 1);
        assert_eq!(placeholders("SELECT '?', \"?\", `?`, ? /* ? */ -- ?"), 1);
        assert_eq!(placeholders("SELECT 5--?"), 1);
        assert_eq!(placeholders("SELECT 'open ? "), 0);
    }

    #[test]
    fn text_beyond_ascii_is_kept_as_it_is() {
        assert_eq!(fold("SELECT 'ä\u{a0}ö'  ,é"), fold("SELECT 'ä\u{a0}ö' ,é"));
    }

    #[test]
    fn a_division_is_no_comment_and_a_backslash_continues_no_name() {
        assert_eq!(fold("SELECT 4 /  2"), fold("SELECT 4 / 2"));
        assert_ne!(fold("SELECT 4 /*  */ 2"), fold("SELECT 4 /* */ 2"));
        assert_eq!(fold("SELECT `a\\`  , 1"), fold("SELECT `a\\` , 1"));
        assert_ne!(fold("SELECT 'a\\'  , 1"), fold("SELECT 'a\\' , 1"));
    }

    #[test]
    fn white_space_at_the_end_of_an_open_quote_or_a_comment_is_its_own() {
        assert_ne!(fold("SELECT 'a "), fold("SELECT 'a"));
        assert_ne!(fold("SELECT 1 -- a "), fold("SELECT 1 -- a"));
        assert_eq!(fold(" SELECT 1 \n "), fold("SELECT 1"));
        assert_eq!(fold(" \t"), fold(""));
    }
}
