//! Reading rows, with errors that say what was expected where.

use std::fmt;

use super::{FromValue, RowSet, Value};

/// An answer did not have the shape that the hook expected: a server of an unknown version, most
/// likely. Becomes [`HookError::Internal`](crate::HookError::Internal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowError {
    /// There is no row.
    NoRow,
    /// There are more rows than the host's limit, so that what is there proves nothing.
    Truncated,
    /// There is no such column.
    NoColumn {
        /// Its name, or its number from 0.
        column: String,
    },
    /// The value cannot be read as what was asked for.
    WrongType {
        /// The column's name, or its number from 0.
        column: String,
        /// What was asked for.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowError::NoRow => f.write_str("the answer has no row"),
            RowError::Truncated => f.write_str(
                "the answer was cut at the host's limit: raise the limit of rows or bytes",
            ),
            RowError::NoColumn { column } => {
                f.write_str("the answer has no column ")?;
                f.write_str(column)
            }
            RowError::WrongType { column, expected, found } => {
                for part in ["column ", column, " is ", found, ", not ", expected] {
                    f.write_str(part)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for RowError {}

/// One row of a [`RowSet`].
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    set: &'a RowSet,
    values: &'a [Value],
}

impl RowSet {
    /// The first row.
    ///
    /// # Errors
    /// [`RowError::NoRow`].
    pub fn first(&self) -> Result<Row<'_>, RowError> {
        self.iter().next().ok_or(RowError::NoRow)
    }

    /// All rows that came. Where a missing one matters, ask for [`Self::complete`] first.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|values| Row { set: self, values })
    }

    /// The set itself, if the host did not cut it short.
    ///
    /// # Errors
    /// [`RowError::Truncated`].
    pub fn complete(self) -> Result<Self, RowError> {
        if self.truncated { Err(RowError::Truncated) } else { Ok(self) }
    }
}

impl Row<'_> {
    /// The value in the column `name`; upper and lower case are the same, as for MySQL.
    ///
    /// # Errors
    /// [`RowError::NoColumn`], [`RowError::WrongType`].
    pub fn get<T: FromValue>(&self, name: &str) -> Result<T, RowError> {
        let mut columns = self.set.columns.iter();
        let index = columns.position(|column| column.name.eq_ignore_ascii_case(name));
        let value = index.and_then(|index| self.values.get(index));
        read(value, || name.into())
    }

    /// The value in the column with the number `index`, from 0.
    ///
    /// # Errors
    /// [`RowError::NoColumn`], [`RowError::WrongType`].
    pub fn at<T: FromValue>(&self, index: usize) -> Result<T, RowError> {
        read(self.values.get(index), || {
            let column = self.set.columns.get(index);
            column.map_or_else(|| index.to_string(), |column| column.name.clone())
        })
    }
}

fn read<T: FromValue>(value: Option<&Value>, column: impl Fn() -> String) -> Result<T, RowError> {
    let Some(value) = value else {
        return Err(RowError::NoColumn { column: column() });
    };
    T::from_value(value).ok_or_else(|| RowError::WrongType {
        column: column(),
        expected: T::EXPECTED,
        found: kind(value),
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Boolean(_) => "a boolean",
        Value::Int64(_) | Value::Uint64(_) => "an integer",
        Value::Float64(_) => "a float",
        Value::Text(_) => "a text",
        Value::Binary(_) => "bytes",
        Value::Decimal(_) => "a decimal",
        Value::Temporal(_) => "a time",
        Value::Other(_) => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Column;

    fn status() -> RowSet {
        let column = |name: &str| Column { name: name.into(), db_type: String::new() };
        RowSet {
            columns: vec![column("File"), column("Position")],
            rows: vec![vec!["bin.000004".into(), 328_u64.into()]],
            truncated: false,
        }
    }

    #[test]
    fn a_column_is_found_by_its_name_in_any_case() {
        let status = status();
        let row = status.first().unwrap();
        assert_eq!(row.get::<u64>("position"), Ok(328));
        assert_eq!(row.get::<String>("FILE").unwrap(), "bin.000004");
    }

    #[test]
    fn errors_name_the_column_and_what_is_there() {
        let status = status();
        let row = status.first().unwrap();
        let text = |error: RowError| error.to_string();
        assert_eq!(text(row.get::<u64>("Gtid").unwrap_err()), "the answer has no column Gtid");
        assert_eq!(
            text(row.at::<u64>(0).unwrap_err()),
            "column File is a text, not an integer that is not negative"
        );
        assert_eq!(text(row.at::<u64>(7).unwrap_err()), "the answer has no column 7");
    }

    #[test]
    fn an_answer_that_was_cut_is_not_complete() {
        let cut = RowSet { truncated: true, ..status() };
        assert_eq!(cut.complete(), Err(RowError::Truncated));
    }
}
