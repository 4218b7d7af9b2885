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
    /// One for each parameter; if there are any, the statement is prepared.
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
    Question,
    /// `$1`: the parameter of this number.
    Numbered(&'a str),
    /// Anything that is taken as it is: one character, a word, or a whole quote or comment.
    Verbatim(&'a str),
}

/// How an engine's texts write their parameters. Each has its own way, because what is sent is the
/// operator's text as it is: the host rewrites nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `?`: MySQL, Redis.
    Question,
    /// `$1`, `$2`: PostgreSQL, where `?` is an operator.
    Numbered,
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Placeholder::Question => "?",
            Placeholder::Numbered => "$n",
        })
    }
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
            Piece::Question => "?",
            Piece::Numbered(text) | Piece::Verbatim(text) => text,
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

/// How many parameters a statement has outside quotes and comments: each `?`, or the highest `$n`.
#[must_use]
pub fn placeholders(statement: &str, style: Placeholder) -> usize {
    let pieces = Pieces(statement);
    match style {
        Placeholder::Question => pieces.filter(|piece| matches!(piece, Piece::Question)).count(),
        Placeholder::Numbered => pieces.filter_map(number).max().unwrap_or(0),
    }
}

fn number(piece: Piece<'_>) -> Option<usize> {
    let Piece::Numbered(text) = piece else { return None };
    // The protocol has 16 bits for it.
    Some(text.strip_prefix('$')?.parse().unwrap_or(u16::MAX).into())
}

struct Pieces<'a>(&'a str);

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let rest = self.0;
        let first = rest.chars().next()?;
        let (length, piece): (usize, fn(&'a str) -> Piece<'a>) = match first {
            '?' => (1, |_| Piece::Question),
            '$' => return Some(self.dollar()),
            '\'' | '"' | '`' => (quoted_length(rest, first), Piece::Verbatim),
            '#' => (line_length(rest), Piece::Verbatim),
            '-' if is_line_comment(rest) => (line_length(rest), Piece::Verbatim),
            '/' if rest.starts_with("/*") => (comment_length(rest), Piece::Verbatim),
            space if space.is_ascii_whitespace() => (space_length(rest), |_| Piece::Space),
            // A word may have dollars in it.
            letter if is_word(letter) => (word_length(rest), Piece::Verbatim),
            other => (other.len_utf8(), Piece::Verbatim),
        };
        let (taken, left) = rest.split_at(length);
        self.0 = left;
        Some(piece(taken))
    }
}

impl<'a> Pieces<'a> {
    /// `$1`, or a PostgreSQL quote (`$$ … $$`, `$tag$ … $tag$`), or just a dollar.
    fn dollar(&mut self) -> Piece<'a> {
        let rest = self.0;
        let digits = rest[1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - 1);
        let (length, piece): (usize, fn(&'a str) -> Piece<'a>) = match dollar_quote_length(rest) {
            _ if digits > 0 => (1 + digits, Piece::Numbered),
            Some(length) => (length, Piece::Verbatim),
            None => (1, Piece::Verbatim),
        };
        let (taken, left) = rest.split_at(length);
        self.0 = left;
        piece(taken)
    }
}

fn is_word(character: char) -> bool {
    character.is_alphabetic() || character == '_'
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$'))).unwrap_or(text.len())
}

/// Up to and with the closing tag, which is the opening one again.
fn dollar_quote_length(text: &str) -> Option<usize> {
    let name = text[1..].find('$')?;
    let tag = text.get(..name + 2)?;
    if !tag[1..=name].chars().all(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let inner = &text[tag.len()..];
    Some(inner.find(tag).map_or(text.len(), |end| tag.len() + end + tag.len()))
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
    fn numbered_parameters_are_counted_by_the_highest_outside_quotes_and_words() {
        let count = |text| placeholders(text, Placeholder::Numbered);
        assert_eq!(count("SELECT set_config('statement_timeout', $1, false)"), 1);
        assert_eq!(count("SELECT $2, $1, $2, '{\"a\":1}'::jsonb ? 'a'"), 2);
        assert_eq!(count("SELECT $12"), 12);
        assert_eq!(count("SELECT '$1', \"$2\", $$ $3 $$, $q$ $4 $$ $q$, a$5, $ /* $6 */"), 0);
        assert_eq!(count("SELECT $99999999999999999999999"), 65_535);
        assert_eq!(placeholders("SELECT $1", Placeholder::Question), 0);
    }

    #[test]
    fn white_space_in_a_dollar_quote_matters() {
        assert_eq!(fold("SELECT  $1,  a$b  , $"), fold("SELECT $1, a$b , $"));
        assert_ne!(fold("SELECT $$a  b$$"), fold("SELECT $$a b$$"));
        assert_ne!(fold("SELECT $t$a  b$t$"), fold("SELECT $t$a b$t$"));
        assert_ne!(fold("SELECT $$a  "), fold("SELECT $$a "));
        assert_eq!(fold("SELECT $é-$  x"), fold("SELECT $é-$ x"));
    }

    #[test]
    fn placeholders_in_quotes_and_comments_are_not_parameters() {
        let placeholders = |text| placeholders(text, Placeholder::Question);
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
