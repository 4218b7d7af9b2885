use super::*;

const FLAGS: [Flag; 3] = [
    Flag { name: "s", kind: Kind::Text, usage: "text" },
    Flag { name: "b", kind: Kind::Boolean, usage: "yes or no" },
    Flag { name: "n", kind: Kind::Integer, usage: "number" },
];

fn parse(words: &[&str]) -> Result<Given, FlagError> {
    Given::parse(&FLAGS, words.iter().map(|word| (*word).to_owned()))
}

fn text(words: &[&str]) -> String {
    match parse(words).unwrap().value("s") {
        Some(Value::Text(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

fn number(word: &str) -> Result<i64, IntegerError> {
    match parse(&["-n", word]) {
        Ok(given) => match given.value("n") {
            Some(Value::Integer(number)) => Ok(*number),
            other => panic!("{other:?}"),
        },
        Err(FlagError::InvalidInteger { why, .. }) => Err(why),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn one_dash_or_two_with_the_value_after_an_equals_sign_or_in_the_next_word() {
    for words in [&["-s=v"][..], &["--s=v"], &["-s", "v"], &["--s", "v"]] {
        assert_eq!(text(words), "v", "{words:?}");
    }
    assert_eq!(text(&["-s=a=b"]), "a=b");
    assert_eq!(text(&["-s="]), "");
    // The next word is the value, whatever it looks like.
    assert_eq!(text(&["-s", "-b"]), "-b");
    assert_eq!(text(&["-s", "--"]), "--");
}

#[test]
fn of_a_repeated_flag_the_last_counts() {
    assert_eq!(text(&["-s=1", "-b", "-s", "2"]), "2");
}

#[test]
fn a_boolean_takes_no_word_after_it() {
    let given = parse(&["-b", "false", "-s=never"]).unwrap();
    assert_eq!(given.value("b"), Some(&Value::Boolean(true)));
    assert_eq!(given.rest, ["false", "-s=never"]);
    for (word, expected) in [("1", true), ("T", true), ("True", true), ("0", false), ("f", false)] {
        let given = parse(&[&format!("-b={word}")]).unwrap();
        assert_eq!(given.value("b"), Some(&Value::Boolean(expected)), "{word}");
    }
}

#[test]
fn flags_end_at_two_dashes_at_one_dash_and_at_any_other_word() {
    for (words, rest) in [
        (&["-s=v", "--", "-b"][..], &["-b"][..]),
        (&["-s=v", "-", "-b"], &["-", "-b"]),
        (&["-s=v", "word", "-b"], &["word", "-b"]),
        (&["-s=v", "", "-b"], &["", "-b"]),
    ] {
        let given = parse(words).unwrap();
        assert_eq!(given.rest, rest);
        assert_eq!(given.value("b"), None);
    }
}

#[test]
fn errors_are_in_the_words_of_go() {
    for (words, message) in [
        (&["-x"][..], "flag provided but not defined: -x"),
        (&["--S=1"], "flag provided but not defined: -S"),
        (&["-s"], "flag needs an argument: -s"),
        (&["---s"], "bad flag syntax: ---s"),
        (&["-=v"], "bad flag syntax: -=v"),
        (&["--=v"], "bad flag syntax: --=v"),
        (&["-b=yes"], "invalid boolean value \"yes\" for -b: parse error"),
        (&["-b="], "invalid boolean value \"\" for -b: parse error"),
        (&["-n=3s"], "invalid value \"3s\" for flag -n: parse error"),
        (
            &["-n=9223372036854775808"],
            "invalid value \"9223372036854775808\" for flag -n: value out of range",
        ),
    ] {
        assert_eq!(parse(words).unwrap_err().to_string(), message, "{words:?}");
    }
    // The first error counts, and what comes before it has been read.
    assert!(matches!(parse(&["-b=x", "-h"]), Err(FlagError::InvalidBoolean { .. })));
    for words in [["-h"], ["--help"], ["-help"], ["-h=1"]] {
        assert_eq!(parse(&words).unwrap_err(), FlagError::HelpRequested);
    }
}

#[test]
fn numbers_are_those_of_strconv_with_base_0() {
    for (word, value) in [
        ("30", 30),
        ("+30", 30),
        ("-1", -1),
        ("0", 0),
        ("00", 0),
        ("010", 8),
        ("0o17", 15),
        ("0O17", 15),
        ("0x1F", 31),
        ("0X_1f", 31),
        ("0b101", 5),
        ("1_000", 1000),
        ("0_7", 7),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
        ("\"30\"", 30),
    ] {
        assert_eq!(number(word), Ok(value), "{word}");
    }
    for word in
        ["", "-", "+", "3s", "30.0", "08", "0x", "0b", "0b2", "_1", "1_", "1__0", "0x_", " 1", "٣"]
    {
        assert_eq!(number(word), Err(IntegerError::Syntax), "{word:?}");
    }
    for word in [
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "0xfffffffffffffffff",
    ] {
        assert_eq!(number(word), Err(IntegerError::Range), "{word:?}");
    }
}

#[test]
fn one_pair_of_double_quotes_around_a_value_is_not_part_of_it() {
    assert_eq!(text(&["-s=\"v\""]), "v");
    assert_eq!(text(&["-s=\"\""]), "");
    assert_eq!(text(&["-s", "\"a b\""]), "a b");
    for word in ["\"", "\"v", "v\"", "a\"b", "'v'"] {
        assert_eq!(text(&["-s", word]), word);
    }
}

/// Whatever the words are: an answer, and no word is both a value and left over.
#[test]
fn any_words_are_answered() {
    let pieces = ["-", "--", "=", "s", "b", "n", "h", "1", "0x", "_", "\"", "", " ", "é", "\u{0}"];
    let mut state: u64 = 0x5eed;
    let mut random = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..20_000 {
        let words: Vec<String> = (0..random(5))
            .map(|_| (0..random(6)).map(|_| pieces[random(pieces.len())]).collect())
            .collect();
        if let Ok(given) = Given::parse(&FLAGS, words.clone()) {
            assert!(words.ends_with(&given.rest), "{words:?}: {given:?}");
            assert!(given.flags.len() + given.rest.len() <= words.len(), "{words:?}: {given:?}");
        }
    }
}
