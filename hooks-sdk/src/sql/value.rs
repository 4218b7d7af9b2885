//! Values into and out of the contract's [`Value`].

use super::Value;

/// What a [`Value`] can be read as.
///
/// Reading is as lenient as servers are various: a number may come as its text (`SHOW` statements
/// give texts only), and a text may come as bytes. It never loses anything: a number that does not
/// fit, or bytes that are not UTF-8, are refused.
pub trait FromValue: Sized {
    /// What is expected, for the error's text.
    const EXPECTED: &'static str;

    /// The value, or `None` if it is not one of these.
    fn from_value(value: &Value) -> Option<Self>;
}

/// The text of a value that is one.
fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) | Value::Decimal(text) | Value::Temporal(text) | Value::Other(text) => {
            Some(text)
        }
        Value::Binary(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

impl FromValue for String {
    const EXPECTED: &'static str = "a text";

    fn from_value(value: &Value) -> Option<Self> {
        text(value).map(Into::into)
    }
}

impl FromValue for Vec<u8> {
    const EXPECTED: &'static str = "bytes";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Binary(bytes) => Some(bytes.clone()),
            other => text(other).map(|text| text.as_bytes().to_vec()),
        }
    }
}

impl FromValue for i64 {
    const EXPECTED: &'static str = "an integer";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Int64(number) => Some(*number),
            Value::Uint64(number) => i64::try_from(*number).ok(),
            Value::Boolean(flag) => Some(i64::from(*flag)),
            other => text(other)?.parse().ok(),
        }
    }
}

impl FromValue for u64 {
    const EXPECTED: &'static str = "an integer that is not negative";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Int64(number) => u64::try_from(*number).ok(),
            Value::Uint64(number) => Some(*number),
            Value::Boolean(flag) => Some(u64::from(*flag)),
            other => text(other)?.parse().ok(),
        }
    }
}

impl FromValue for bool {
    const EXPECTED: &'static str = "a yes or no";

    /// MySQL has 0 and 1, ON and OFF, YES and NO for it.
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Boolean(flag) => Some(*flag),
            Value::Int64(0) | Value::Uint64(0) => Some(false),
            Value::Int64(1) | Value::Uint64(1) => Some(true),
            other => {
                let text = text(other)?;
                let is = |words: [&str; 4]| words.iter().any(|w| text.eq_ignore_ascii_case(w));
                match () {
                    () if is(["1", "on", "yes", "true"]) => Some(true),
                    () if is(["0", "off", "no", "false"]) => Some(false),
                    () => None,
                }
            }
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            other => T::from_value(other).map(Some),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.into())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Int64(number)
    }
}
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Uint64(number)
    }
}
impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Value::Boolean(flag)
    }
}
impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Value::Binary(bytes)
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_may_come_as_its_text() {
        assert_eq!(u64::from_value(&Value::Text("328".into())), Some(328));
        assert_eq!(i64::from_value(&Value::Binary(b"-4".to_vec())), Some(-4));
        assert_eq!(u64::from_value(&Value::Text("-4".into())), None);
    }

    #[test]
    fn a_number_that_does_not_fit_is_refused() {
        assert_eq!(i64::from_value(&Value::Uint64(u64::MAX)), None);
        assert_eq!(u64::from_value(&Value::Int64(-1)), None);
    }

    #[test]
    fn null_is_only_read_by_an_option() {
        assert_eq!(String::from_value(&Value::Null), None);
        assert_eq!(Option::<String>::from_value(&Value::Null), Some(None));
    }

    #[test]
    fn on_off_yes_no_are_a_bool_and_nothing_else_is() {
        for (text, expected) in [("ON", Some(true)), ("No", Some(false)), ("2", None)] {
            assert_eq!(bool::from_value(&Value::Text(text.into())), expected);
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_no_text() {
        assert_eq!(String::from_value(&Value::Binary(vec![0xff])), None);
    }
}
