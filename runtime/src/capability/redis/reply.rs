//! An answer of Redis as rows: one value is one row of one column, a list is a row for each element, and
//! names with values are two columns. A list in a list has no such form, and is refused.

use redis::Value as Reply;

use crate::capability::sql::{Answer, Column, SqlError, Value};

/// So much of an answer is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

/// The answer as rows, up to the limits. `pairs`: a list of names and values, in turn.
///
/// # Errors
/// [`SqlError::Unsupported`] for an answer that is no table.
pub(super) fn answer(reply: Reply, pairs: bool, most: Most) -> Result<Answer, SqlError> {
    match reply {
        Reply::Map(entries) => {
            let rows =
                entries.into_iter().map(|(key, value)| Ok(vec![scalar(key)?, scalar(value)?]));
            table(&PAIR, rows.collect::<Result<_, _>>()?, most)
        }
        Reply::Array(items) | Reply::Set(items) if pairs => table(&PAIR, in_pairs(items)?, most),
        Reply::Array(items) | Reply::Set(items) => {
            let rows = items.into_iter().map(|item| Ok(vec![scalar(item)?]));
            table(&[("value", "array")], rows.collect::<Result<_, _>>()?, most)
        }
        Reply::Attribute { data, .. } => answer(*data, pairs, most),
        one => {
            let column = [("value", kind(&one))];
            let affected = match one {
                Reply::Int(number) => u64::try_from(number).unwrap_or(0),
                _ => 0,
            };
            Ok(Answer { affected, ..table(&column, vec![vec![scalar(one)?]], most)? })
        }
    }
}

/// The columns of names and values.
const PAIR: [(&str, &str); 2] = [("name", "bulk-string"), ("value", "bulk-string")];

fn in_pairs(items: Vec<Reply>) -> Result<Vec<Vec<Value>>, SqlError> {
    let mut rows = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let Some(name) = items.next() {
        let value = items.next().ok_or_else(|| {
            SqlError::Unsupported("the server's answer has a name without a value".into())
        })?;
        rows.push(vec![scalar(name)?, scalar(value)?]);
    }
    Ok(rows)
}

fn table(
    columns: &[(&str, &str)],
    mut rows: Vec<Vec<Value>>,
    most: Most,
) -> Result<Answer, SqlError> {
    let mut bytes = 0;
    let fit = rows.iter().take(most.rows).take_while(|row| {
        bytes += row.iter().map(Value::size).sum::<usize>();
        bytes <= most.bytes
    });
    let fit = fit.count();
    let truncated = fit < rows.len();
    rows.truncate(fit);
    let column =
        |(name, kind): &(&str, &str)| Column { name: (*name).into(), db_type: (*kind).into() };
    Ok(Answer { columns: columns.iter().map(column).collect(), rows, truncated, affected: 0 })
}

fn scalar(reply: Reply) -> Result<Value, SqlError> {
    Ok(match reply {
        Reply::Nil => Value::Null,
        Reply::Okay => Value::Text("OK".into()),
        Reply::SimpleString(text) | Reply::VerbatimString { text, .. } => Value::Text(text),
        Reply::BulkString(bytes) => text_or_bytes(bytes),
        Reply::Int(number) => Value::Int64(number),
        Reply::Double(number) => Value::Float64(number),
        Reply::Boolean(flag) => Value::Boolean(flag),
        _ => {
            return Err(SqlError::Unsupported(
                "the server's answer is a list in a list, which has no rows".into(),
            ));
        }
    })
}

fn text_or_bytes(bytes: Vec<u8>) -> Value {
    match String::from_utf8(bytes) {
        Ok(text) => Value::Text(text),
        Err(not_text) => Value::Binary(not_text.into_bytes()),
    }
}

/// What the protocol calls it.
fn kind(reply: &Reply) -> &'static str {
    match reply {
        Reply::Nil => "null",
        Reply::Okay | Reply::SimpleString(_) => "simple-string",
        Reply::BulkString(_) => "bulk-string",
        Reply::VerbatimString { .. } => "verbatim-string",
        Reply::Int(_) => "integer",
        Reply::Double(_) => "double",
        Reply::Boolean(_) => "boolean",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Most = Most { rows: 100, bytes: 10_000 };

    fn bulk(text: &str) -> Reply {
        Reply::BulkString(text.into())
    }

    fn rows(reply: Reply, pairs: bool) -> Vec<Vec<Value>> {
        answer(reply, pairs, PLENTY).unwrap().rows
    }

    #[test]
    fn one_value_is_one_row_of_one_column() {
        for (reply, value) in [
            (Reply::Okay, Value::Text("OK".into())),
            (Reply::SimpleString("PONG".into()), Value::Text("PONG".into())),
            (bulk("# Server\r\n"), Value::Text("# Server\r\n".into())),
            (Reply::BulkString(vec![0xff]), Value::Binary(vec![0xff])),
            (Reply::Int(-1), Value::Int64(-1)),
            (Reply::Nil, Value::Null),
            (Reply::Double(0.5), Value::Float64(0.5)),
            (Reply::Boolean(true), Value::Boolean(true)),
        ] {
            assert_eq!(rows(reply, false), [[value]]);
        }
    }

    #[test]
    fn a_list_is_a_row_for_each_and_names_with_values_are_two_columns() {
        let list = || Reply::Array(vec![bulk("dir"), bulk("/data")]);
        let text = |text: &str| Value::Text(text.into());
        assert_eq!(rows(list(), false), [[text("dir")], [text("/data")]]);
        assert_eq!(rows(list(), true), [[text("dir"), text("/data")]]);
        let map = Reply::Map(vec![(bulk("dir"), bulk("/data"))]);
        assert_eq!(rows(map, false), [[text("dir"), text("/data")]]);
        assert!(rows(Reply::Array(Vec::new()), true).is_empty());
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let nested = Reply::Array(vec![Reply::Array(vec![])]);
        let refused = answer(nested, false, PLENTY).unwrap_err();
        assert!(matches!(refused, SqlError::Unsupported(_)), "{refused:?}");
        let odd = Reply::Array(vec![bulk("dir")]);
        assert!(answer(odd, true, PLENTY).is_err());
    }

    #[test]
    fn an_answer_is_cut_at_the_limits() {
        let list = || Reply::Array(vec![bulk("aaaa"), bulk("bbbb"), bulk("cccc")]);
        for (most, kept) in [
            (Most { rows: 2, bytes: 100 }, 2),
            (Most { rows: 9, bytes: 7 }, 1),
            (Most { rows: 9, bytes: 3 }, 0),
            (Most { rows: 3, bytes: 12 }, 3),
        ] {
            let cut = answer(list(), false, most).unwrap();
            assert_eq!((cut.rows.len(), cut.truncated), (kept, kept < 3), "{most:?}");
        }
    }
}
