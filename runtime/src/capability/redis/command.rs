//! A statement for Redis is one command line, which is split here and nowhere else: at white space, with
//! no quotes and no escapes. A `?` is one argument, given beside the text and never a part of it. ADR 19
//! says why.

use crate::capability::sql::{SqlError, Value};
use crate::capability::statement::ParamType;

/// What a word may have beside letters and digits. No quotes, no escapes, no patterns.
const PUNCTUATION: &str = "-_.:/@=+,";

/// Commands after which a connection does not answer one command with one answer any more, or is
/// another user's. Also what only the host does.
const REFUSED: [&str; 11] = [
    "AUTH",
    "HELLO",
    "MONITOR",
    "PSUBSCRIBE",
    "PSYNC",
    "QUIT",
    "REPLCONF",
    "RESET",
    "SSUBSCRIBE",
    "SUBSCRIBE",
    "SYNC",
];

/// The same, of `CLIENT`.
const REFUSED_OF_CLIENT: [&str; 3] = ["CACHING", "REPLY", "TRACKING"];

/// Commands whose second word is a command, too, and so is never a parameter.
const CONTAINERS: [&str; 17] = [
    "ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "FUNCTION", "LATENCY", "MEMORY",
    "MODULE", "OBJECT", "PUBSUB", "SCRIPT", "SENTINEL", "SLOWLOG", "XGROUP", "XINFO",
];

/// Checks a statement of a grant file, with the types of its parameters.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn check(text: &str, params: &[ParamType]) -> Result<(), String> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    for word in &words {
        check_word(word)?;
    }
    let command = words.first().map(|word| word.to_ascii_uppercase()).unwrap_or_default();
    let second = words.get(1).map(|word| word.to_ascii_uppercase());
    if command == "?" {
        return Err("the command itself cannot be a parameter".into());
    }
    if CONTAINERS.contains(&command.as_str()) && second.as_deref() == Some("?") {
        return Err(format!("what {command} does cannot be a parameter"));
    }
    let of_client = second.filter(|second| REFUSED_OF_CLIENT.contains(&second.as_str()));
    if let Some(second) = of_client.filter(|_| command == "CLIENT") {
        return Err(format!(
            "CLIENT {second} cannot be granted: it changes how the server answers"
        ));
    }
    if REFUSED.contains(&command.as_str()) {
        return Err(format!(
            "{command} cannot be granted: it changes how the server answers, or as whom"
        ));
    }
    match params.iter().find(|param| matches!(param, ParamType::Null | ParamType::Bool)) {
        Some(param) => Err(format!("an argument of Redis cannot be of type {param}")),
        None => Ok(()),
    }
}

fn check_word(word: &str) -> Result<(), String> {
    if word == "?" {
        return Ok(());
    }
    let odd = |c: &char| !c.is_ascii_alphanumeric() && !PUNCTUATION.contains(*c);
    match word.chars().find(odd) {
        Some('?') => Err(format!("a `?` must stand alone, not in `{word}`")),
        Some(odd) => Err(format!(
            "`{}` cannot be in a command line for Redis: there are no quotes and no escapes; give \
             such a value as a parameter (`?`)",
            odd.escape_debug()
        )),
        // The text is folded like SQL, where this begins a comment.
        None if word.ends_with("--") => Err(format!("a word cannot end in `--`: `{word}`")),
        None => Ok(()),
    }
}

/// The arguments of a granted statement: its words, and a value for each `?`.
///
/// # Errors
/// [`SqlError::Unsupported`] for a value that cannot be an argument, or if there are not as many as `?`.
pub(super) fn arguments(text: &str, params: &[Value]) -> Result<Vec<Vec<u8>>, SqlError> {
    let unfit = || SqlError::Unsupported(format!("the parameters do not fit `{text}`"));
    let mut params = params.iter();
    let arguments = text
        .split_ascii_whitespace()
        .map(|word| match word {
            "?" => argument(params.next().ok_or_else(unfit)?),
            word => Ok(word.as_bytes().to_vec()),
        })
        .collect::<Result<Vec<_>, SqlError>>()?;
    if params.next().is_some() {
        return Err(unfit());
    }
    Ok(arguments)
}

fn argument(value: &Value) -> Result<Vec<u8>, SqlError> {
    Ok(match value {
        Value::Int64(number) => number.to_string().into_bytes(),
        Value::Uint64(number) => number.to_string().into_bytes(),
        Value::Float64(number) => number.to_string().into_bytes(),
        Value::Text(text) => text.clone().into_bytes(),
        Value::Binary(bytes) => bytes.clone(),
        Value::Null
        | Value::Boolean(_)
        | Value::Decimal(_)
        | Value::Temporal(_)
        | Value::Other(_) => {
            return Err(SqlError::Unsupported("this value cannot be an argument of Redis".into()));
        }
    })
}

/// True if the answer of this command is a list of names and values, in turn.
pub(super) fn answers_pairs(arguments: &[Vec<u8>]) -> bool {
    let is = |at: usize, word: &str| {
        arguments.get(at).is_some_and(|argument| argument.eq_ignore_ascii_case(word.as_bytes()))
    };
    is(0, "CONFIG") && is(1, "GET")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_of_plain_words_are_taken_and_their_twins_are_not() {
        for (taken, refused, why) in [
            ("INFO persistence", "INFO 'persistence'", "no quotes"),
            ("CONFIG GET dir", "CONFIG GET d*", "`*` cannot be in a command line"),
            ("CONFIG GET dir", "CONFIG GET di?", "must stand alone"),
            ("CONFIG GET dir", "CONFIG ? dir", "what CONFIG does cannot be a parameter"),
            ("client pause ? write", "client ?", "what CLIENT does cannot be a parameter"),
            ("CLIENT ID", "CLIENT reply OFF", "CLIENT REPLY cannot be granted"),
            ("GET ?", "? a", "the command itself cannot be a parameter"),
            ("PING", "monitor", "MONITOR cannot be granted"),
            ("INFO", "HELLO 3", "HELLO cannot be granted"),
            ("INFO", "INFO # all", "`#` cannot be"),
            ("INFO", "INFO a--", "cannot end in `--`"),
            ("INFO", "INFO a\\x00", "`\\\\` cannot be"),
            ("INFO", "INFO \u{a0}", "cannot be in a command line"),
            ("INFO", "INFO\u{0}", "cannot be in a command line"),
            ("SET a:b-c_d.e/f@g=h+i 1", "SET a;b 1", "`;` cannot be"),
        ] {
            assert_eq!(check(taken, &[]), Ok(()), "{taken}");
            let said = check(refused, &[]).unwrap_err();
            assert!(said.contains(why), "{refused}: {said}");
        }
    }

    #[test]
    fn a_parameter_is_one_argument_whatever_is_in_it() {
        let nasty = "1 WRITE\r\nFLUSHALL\r\n";
        let sent = arguments("CLIENT  PAUSE ?\tWRITE", &[Value::Text(nasty.into())]).unwrap();
        assert_eq!(sent, [b"CLIENT".as_slice(), b"PAUSE", nasty.as_bytes(), b"WRITE"]);
        assert_eq!(arguments("A ? ?", &[Value::Uint64(7), Value::Int64(-7)]).unwrap()[2], b"-7");
    }

    #[test]
    fn as_many_values_as_there_are_parameters_and_of_types_that_redis_knows() {
        assert!(arguments("GET ?", &[]).is_err());
        assert!(arguments("GET a", &[Value::Uint64(1)]).is_err());
        assert!(arguments("GET ?", &[Value::Null]).is_err());
        assert_eq!(
            check("GET ?", &[ParamType::Null]).unwrap_err(),
            "an argument of Redis cannot be of type null"
        );
        assert_eq!(check("GET ?", &[ParamType::Uint]), Ok(()));
    }

    #[test]
    fn only_config_get_answers_in_pairs() {
        let line = |text: &str| arguments(text, &[]).unwrap();
        assert!(answers_pairs(&line("config get dir")));
        assert!(!answers_pairs(&line("CONFIG SET dir x")));
        assert!(!answers_pairs(&line("GET CONFIG")));
    }
}
