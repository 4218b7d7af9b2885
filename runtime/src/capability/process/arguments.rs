//! Argument lists, word by word. A word of a list is exact text, or has one typed placeholder in it.
//! There is no wildcard: nothing that a hook puts in a placeholder can be an option, a path, more than
//! one word, or nothing at all.
//!
//! | | stands for |
//! |---|---|
//! | `{uint}` | a whole number, 0 to 2⁶⁴−1, in its shortest form |
//! | `{name}` | 1 to 64 ASCII letters, digits, `_` and `-`, the first not a `-` |

use std::fmt;

/// The longest text that stands in a `{name}`, in bytes.
const LONGEST_NAME: usize = 64;

/// An argument list as operator or hook write it: what it stands for is the lists that it
/// [`matches`](Arguments::matches).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arguments(Vec<Word>);

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Exact(String),
    Typed { before: String, placeholder: Placeholder, after: String },
}

/// What may stand for what varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Placeholder {
    Uint,
    Name,
}

impl Arguments {
    /// Reads a list of words.
    ///
    /// # Errors
    /// In words: a placeholder that does not exist, more than one in a word, one that could become
    /// an option, or a character that no argument can have.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, String> {
        words.iter().map(|word| Word::parse(word.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// True if each word of `given` is what stands here.
    #[must_use]
    pub fn matches(&self, given: &[String]) -> bool {
        self.0.len() == given.len()
            && self.0.iter().zip(given).all(|(word, given)| word.matches(given))
    }
}

impl Word {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("an argument cannot have a NUL character".to_owned());
        }
        let Some((before, name, after)) = split_at_placeholder(text) else {
            return Ok(Word::Exact(text.to_owned()));
        };
        let placeholder = Placeholder::named(name).ok_or_else(|| {
            format!("there is no placeholder `{{{name}}}`; there are {ALL_NAMES}")
        })?;
        if split_at_placeholder(after).is_some() {
            return Err(format!("`{text}` has more than one placeholder"));
        }
        if before.starts_with('-') && !before.contains('=') {
            return Err(format!(
                "`{text}` could become any option: write `--option={{{name}}}`, or the value as a word of its own"
            ));
        }
        Ok(Word::Typed { before: before.to_owned(), placeholder, after: after.to_owned() })
    }

    fn matches(&self, given: &str) -> bool {
        match self {
            Word::Exact(text) => given == text,
            Word::Typed { before, placeholder, after } => given
                .strip_prefix(before.as_str())
                .and_then(|rest| rest.strip_suffix(after.as_str()))
                .is_some_and(|value| placeholder.allows(value)),
        }
    }
}

const ALL_NAMES: &str = "{uint} and {name}";

impl Placeholder {
    fn named(name: &str) -> Option<Self> {
        match name {
            "uint" => Some(Placeholder::Uint),
            "name" => Some(Placeholder::Name),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Placeholder::Uint => "uint",
            Placeholder::Name => "name",
        }
    }

    fn allows(self, value: &str) -> bool {
        match self {
            // The shortest form only: to some programs 010 is eight.
            Placeholder::Uint => {
                value.parse::<u64>().is_ok_and(|number| number.to_string() == value)
            }
            Placeholder::Name => {
                let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                (1..=LONGEST_NAME).contains(&value.len())
                    && !value.starts_with('-')
                    && value.chars().all(in_name)
            }
        }
    }
}

/// What is before the first placeholder, its name, and what is after it. Braces around anything but
/// a lower-case word (`{}`, `{print $1}`, JSON) are text.
fn split_at_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices('{').find_map(|(open, brace)| {
        let inside = text.get(open + brace.len()..).unwrap_or_default();
        let (name, after) = inside.split_once('}')?;
        let is_word = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase());
        is_word.then(|| (text.get(..open).unwrap_or_default(), name, after))
    })
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Exact(text) => f.write_str(text),
            Word::Typed { before, placeholder, after } => {
                write!(f, "{before}{{{}}}{after}", placeholder.name())
            }
        }
    }
}

impl Arguments {
    /// The words as they were written.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.0.iter().map(Word::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &[&str], given: &[&str]) -> bool {
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        Arguments::parse(pattern).unwrap().matches(&given)
    }

    #[test]
    fn exact_words_are_compared_as_they_are() {
        assert!(allows(&["-S", "/ as sysdba"], &["-S", "/ as sysdba"]));
        assert!(allows(&[], &[]));
        for given in [
            &["-S"][..],
            &["-S", "/ as sysdba", "x"],
            &["-s", "/ as sysdba"],
            &["-S", "/ as  sysdba"],
            &["-S / as sysdba"],
            &["/ as sysdba", "-S"],
            &["-S", "/ as sysdba "],
            &["-S", "/ as sysdba\0"],
            &[],
        ] {
            assert!(!allows(&["-S", "/ as sysdba"], given), "{given:?}");
        }
        assert!(!allows(&[], &[""]));
        assert!(!allows(&[""], &[]));
    }

    #[test]
    fn a_number_is_a_number_in_its_shortest_form() {
        for value in ["0", "7", "18446744073709551615"] {
            assert!(allows(&["{uint}"], &[value]), "{value}");
        }
        for value in [
            "",
            "-7",
            "+7",
            "07",
            "010",
            " 7",
            "7 ",
            "7\n",
            "7.0",
            "0x7",
            "7;reboot",
            "18446744073709551616",
            "٧",
            "{uint}",
        ] {
            assert!(!allows(&["{uint}"], &[value]), "{value:?}");
        }
    }

    #[test]
    fn a_name_is_a_plain_word_that_is_no_option() {
        for value in ["a", "ORCL", "db_1", "db-1", "0", "_x", &"a".repeat(64)] {
            assert!(allows(&["{name}"], &[value]), "{value}");
        }
        for value in [
            "",
            "-",
            "--",
            "-rf",
            "--help",
            "a b",
            " a",
            "a\n",
            "a/b",
            "/",
            "..",
            ".",
            "a.b",
            "a=b",
            "a;b",
            "$(a)",
            "`a`",
            "a\u{301}",
            "ä",
            "a\0",
            "{name}",
            "*",
            "~",
            "@a",
            &"a".repeat(65),
        ] {
            assert!(!allows(&["{name}"], &[value]), "{value:?}");
        }
    }

    #[test]
    fn a_placeholder_may_have_text_around_it_that_stays_as_it_is() {
        assert!(allows(&["--sid={name}"], &["--sid=ORCL"]));
        assert!(allows(&["{name}@main"], &["dump@main"]));
        for given in ["--sid=", "--sid=-x", "--sidORCL", "--sid=a b", "--sid=a=b", "ORCL"] {
            assert!(!allows(&["--sid={name}"], &[given]), "{given}");
        }
        // The text before and the text after must not share characters.
        assert!(!allows(&["a{name}a"], &["a"]));
        assert!(!allows(&["a{name}a"], &["aa"]));
        assert!(allows(&["a{name}a"], &["aba"]));
    }

    #[test]
    fn what_is_no_placeholder_is_text() {
        for text in ["{}", "{print $1}", "{\"a\": 1}", "{", "}", "{Name}", "}{"] {
            assert!(allows(&[text], &[text]), "{text}");
            assert!(!allows(&[text], &["x"]), "{text}");
        }
    }

    #[test]
    fn a_list_that_could_mean_more_than_it_says_is_refused() {
        for (word, problem) in [
            ("{unit}", "there is no placeholder `{unit}`; there are {uint} and {name}"),
            ("-{name}", "could become any option"),
            ("--{name}", "could become any option"),
            ("-n{uint}", "could become any option"),
            ("{name}{name}", "more than one placeholder"),
            ("{name}-{unit}", "more than one placeholder"),
            ("a\0b", "NUL"),
        ] {
            let refusal = Arguments::parse(&["-x", word]).unwrap_err();
            assert!(refusal.contains(problem), "{word:?}: {refusal}");
        }
        assert!(Arguments::parse(&["--sid={name}"]).is_ok());
    }

    #[test]
    fn a_list_is_written_as_it_was_read() {
        let words = ["-S", "--sid={name}", "{uint}", "{}"];
        assert_eq!(Arguments::parse(&words).unwrap().words(), words);
    }
}
