//! Values of rows and parameters in a script. Plain TOML where TOML has the type, else a table that
//! names it: `{ uint = 7 }`, `{ decimal = "1.50" }`, `{ null = true }`.

use toml::Value as Toml;

use crate::capability::sql::Value;
use crate::hook::digest::hex;

/// A value, from TOML.
///
/// # Errors
/// In words.
pub(super) fn read(value: &Toml) -> Result<Value, String> {
    Ok(match value {
        Toml::String(text) => Value::Text(text.clone()),
        Toml::Integer(number) => Value::Int64(*number),
        Toml::Float(number) => Value::Float64(*number),
        Toml::Boolean(flag) => Value::Boolean(*flag),
        Toml::Table(table) => {
            let mut entries = table.iter();
            match (entries.next(), entries.next()) {
                (Some((kind, value)), None) => typed(kind, value)?,
                _ => return Err(format!("`{value}` is not one value: {FORMS}")),
            }
        }
        other => return Err(format!("`{other}` is not a value of a row: {FORMS}")),
    })
}

const FORMS: &str = "write text, a number, true or false, { uint = 7 }, { decimal = \"1.50\" }, { temporal = \"2026-11-20\" }, { binary = \"00ff\" }, { other = \"…\" } or { null = true }";

fn typed(kind: &str, value: &Toml) -> Result<Value, String> {
    let wrong = || format!("`{kind} = {value}` is not a value of a row: {FORMS}");
    let text = || value.as_str().map(str::to_owned).ok_or_else(wrong);
    Ok(match kind {
        "null" => Value::Null,
        "uint" => Value::Uint64(match value {
            Toml::Integer(number) => u64::try_from(*number).map_err(|_| wrong())?,
            Toml::String(digits) => digits.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }),
        "decimal" => Value::Decimal(text()?),
        "temporal" => Value::Temporal(text()?),
        "other" => Value::Other(text()?),
        "binary" => Value::Binary(bytes(&text()?).ok_or_else(wrong)?),
        _ => return Err(wrong()),
    })
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<Vec<u8>>>()
        .filter(|_| digits.len().is_multiple_of(2))
}

/// The same value as TOML.
pub(super) fn written(value: &Value) -> Toml {
    let table =
        |kind: &str, value: Toml| Toml::Table([(kind.to_owned(), value)].into_iter().collect());
    match value {
        Value::Null => table("null", Toml::Boolean(true)),
        Value::Boolean(flag) => Toml::Boolean(*flag),
        Value::Int64(number) => Toml::Integer(*number),
        Value::Uint64(number) => table(
            "uint",
            i64::try_from(*number).map_or_else(|_| Toml::String(number.to_string()), Toml::Integer),
        ),
        Value::Float64(number) => Toml::Float(*number),
        Value::Text(text) => Toml::String(text.clone()),
        Value::Binary(bytes) => table("binary", Toml::String(hex(bytes))),
        Value::Decimal(text) => table("decimal", Toml::String(text.clone())),
        Value::Temporal(text) => table("temporal", Toml::String(text.clone())),
        Value::Other(text) => table("other", Toml::String(text.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_as_it_was() {
        let all = [
            Value::Null,
            Value::Boolean(true),
            Value::Int64(i64::MIN),
            Value::Uint64(u64::MAX),
            Value::Uint64(7),
            Value::Float64(-0.5),
            Value::Text("a \"b\"\n".into()),
            Value::Binary(vec![0, 255]),
            Value::Decimal("1.50".into()),
            Value::Temporal("2026-11-20".into()),
            Value::Other("?".into()),
        ];
        for value in all {
            assert_eq!(read(&written(&value)).unwrap(), value);
        }
    }

    #[test]
    fn what_is_no_value_is_refused_in_words() {
        for text in
            ["v = { uint = -1 }", "v = { binary = \"0\" }", "v = { date = \"x\" }", "v = []"]
        {
            let table: toml::Table = text.parse().unwrap();
            assert!(read(&table["v"]).unwrap_err().contains("not a value"), "{text}");
        }
    }
}
