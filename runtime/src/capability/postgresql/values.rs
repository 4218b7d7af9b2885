//! Values of answers and parameters. Answers come in the server's binary forms; what has no word of
//! its own in the contract is written as the server would write it.

use std::error::Error;

use jiff::civil::{DateTime, date};
use jiff::{SignedDuration, Span};
use tokio_postgres::types::{FromSql, Kind, ToSql, Type};

use crate::capability::sql::Value;
use crate::capability::statement::ParamType;

type Anything = Box<dyn Error + Sync + Send>;

/// A parameter.
pub(super) type Param = Box<dyn ToSql + Sync + Send>;

/// A value of an answer.
pub(super) struct Decoded(pub(super) Value);

impl<'a> FromSql<'a> for Decoded {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Anything> {
        decoded(ty, raw).map(Decoded)
    }

    fn from_sql_null(_ty: &Type) -> Result<Self, Anything> {
        Ok(Decoded(Value::Null))
    }

    fn accepts(ty: &Type) -> bool {
        is_known(ty)
    }
}

/// Whether values of a type can be read.
pub(super) fn is_known(ty: &Type) -> bool {
    match ty.kind() {
        Kind::Enum(_) => true,
        Kind::Domain(inner) => is_known(inner),
        _ => matches!(
            *ty,
            Type::BOOL
                | Type::INT2
                | Type::INT4
                | Type::INT8
                | Type::OID
                | Type::FLOAT4
                | Type::FLOAT8
                | Type::NUMERIC
                | Type::TEXT
                | Type::VARCHAR
                | Type::BPCHAR
                | Type::NAME
                | Type::CHAR
                | Type::UNKNOWN
                | Type::CSTRING
                | Type::VOID
                | Type::JSON
                | Type::JSONB
                | Type::XML
                | Type::BYTEA
                | Type::UUID
                | Type::PG_LSN
                | Type::XID
                | Type::XID8
                | Type::CID
                | Type::DATE
                | Type::TIME
                | Type::TIMESTAMP
                | Type::TIMESTAMPTZ
        ),
    }
}

fn decoded(ty: &Type, raw: &[u8]) -> Result<Value, Anything> {
    if let Kind::Domain(inner) = ty.kind() {
        return decoded(inner, raw);
    }
    Ok(match *ty {
        Type::BOOL => Value::Boolean(bool::from_sql(ty, raw)?),
        Type::INT2 => Value::Int64(i16::from_sql(ty, raw)?.into()),
        Type::INT4 => Value::Int64(i32::from_sql(ty, raw)?.into()),
        Type::INT8 => Value::Int64(i64::from_sql(ty, raw)?),
        Type::OID => Value::Uint64(u32::from_sql(ty, raw)?.into()),
        Type::FLOAT4 => Value::Float64(f32::from_sql(ty, raw)?.into()),
        Type::FLOAT8 => Value::Float64(f64::from_sql(ty, raw)?),
        Type::NUMERIC => Value::Decimal(numeric(raw)?),
        Type::BYTEA => Value::Binary(raw.to_vec()),
        Type::DATE => Value::Temporal(day(i32::from_be_bytes(raw.try_into()?))?),
        Type::TIME => Value::Temporal(time(i64::from_be_bytes(raw.try_into()?))?),
        Type::TIMESTAMP => Value::Temporal(moment(i64::from_be_bytes(raw.try_into()?), "")?),
        Type::TIMESTAMPTZ => Value::Temporal(moment(i64::from_be_bytes(raw.try_into()?), "+00")?),
        Type::PG_LSN => {
            let lsn = u64::from_be_bytes(raw.try_into()?);
            Value::Other(format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF))
        }
        Type::XID | Type::CID => Value::Other(u32::from_be_bytes(raw.try_into()?).to_string()),
        Type::XID8 => Value::Other(u64::from_be_bytes(raw.try_into()?).to_string()),
        Type::UUID => Value::Other(uuid::Uuid::from_slice(raw)?.to_string()),
        Type::VOID => Value::Text(String::new()),
        // A byte for the version of the form comes first.
        Type::JSONB => Value::Text(text(raw.get(1..).unwrap_or_default())?),
        _ => Value::Text(text(raw)?),
    })
}

fn text(raw: &[u8]) -> Result<String, Anything> {
    Ok(std::str::from_utf8(raw)?.to_owned())
}

/// Days from 2000-01-01; the ends of the range mean infinity.
fn day(days: i32) -> Result<String, Anything> {
    Ok(match days {
        i32::MAX => "infinity".into(),
        i32::MIN => "-infinity".into(),
        days => date(2000, 1, 1).checked_add(Span::new().try_days(days)?)?.to_string(),
    })
}

/// Microseconds from midnight; 24:00 exists.
fn time(micros: i64) -> Result<String, Anything> {
    if micros == 86_400_000_000 {
        return Ok("24:00:00".into());
    }
    let moment = after_2000(micros)?;
    Ok(moment.strftime("%H:%M:%S%.f").to_string())
}

/// Microseconds from 2000-01-01 00:00; the ends of the range mean infinity.
fn moment(micros: i64, zone: &str) -> Result<String, Anything> {
    Ok(match micros {
        i64::MAX => "infinity".into(),
        i64::MIN => "-infinity".into(),
        micros => format!("{}{zone}", after_2000(micros)?.strftime("%Y-%m-%d %H:%M:%S%.f")),
    })
}

fn after_2000(micros: i64) -> Result<DateTime, jiff::Error> {
    date(2000, 1, 1).at(0, 0, 0, 0).checked_add(SignedDuration::from_micros(micros))
}

/// Digits to the base 10000: how many, the weight of the first one, sign, digits after the point.
fn numeric(raw: &[u8]) -> Result<String, Anything> {
    let word = |at: usize| -> Result<u16, Anything> {
        let bytes = raw.get(2 * at..2 * at + 2).ok_or("a numeric value is cut short")?;
        Ok(u16::from_be_bytes(bytes.try_into()?))
    };
    let (count, weight, sign, scale) = (word(0)?, word(1)?.cast_signed(), word(2)?, word(3)?);
    let mut written = String::new();
    match sign {
        0x0000 => {}
        0x4000 => written.push('-'),
        0xD000 => return Ok("Infinity".into()),
        0xF000 => return Ok("-Infinity".into()),
        _ => return Ok("NaN".into()),
    }
    // The digit of weight `at`; there are zeros before and after those that are sent.
    let digit = |at: i32| -> Result<u16, Anything> {
        match u16::try_from(i32::from(weight) - at) {
            Ok(index) if index < count => word(4 + usize::from(index)),
            _ => Ok(0),
        }
    };
    let first = i32::from(weight).max(0);
    for at in (0..=first).rev() {
        let digit = digit(at)?;
        written.push_str(&if at == first { digit.to_string() } else { format!("{digit:04}") });
    }
    if scale > 0 {
        written.push('.');
        let mut fraction = String::new();
        for at in 1..=i32::from(scale.div_ceil(4)) {
            fraction.push_str(&format!("{:04}", digit(-at)?));
        }
        written.push_str(&fraction[..usize::from(scale)]);
    }
    Ok(written)
}

/// What is sent, and as which types: those that the operator granted.
///
/// # Errors
/// In words, for a number that PostgreSQL has no type for.
pub(super) fn sent(
    granted: &[ParamType],
    params: &[Value],
) -> Result<(Vec<Type>, Vec<Param>), String> {
    let types = granted.iter().map(|granted| match granted {
        ParamType::Bool => Type::BOOL,
        ParamType::Int | ParamType::Uint => Type::INT8,
        ParamType::Float => Type::FLOAT8,
        ParamType::Binary => Type::BYTEA,
        ParamType::Text | ParamType::Null => Type::TEXT,
    });
    let values = params.iter().map(sent_value);
    Ok((types.collect(), values.collect::<Result<_, _>>()?))
}

fn sent_value(value: &Value) -> Result<Param, String> {
    Ok(match value {
        Value::Null => Box::new(None::<String>),
        Value::Boolean(flag) => Box::new(*flag),
        Value::Int64(number) => Box::new(*number),
        Value::Uint64(number) => Box::new(
            i64::try_from(*number).map_err(|_| format!("{number} is too large a parameter"))?,
        ),
        Value::Float64(number) => Box::new(*number),
        Value::Binary(bytes) => Box::new(bytes.clone()),
        Value::Text(text) | Value::Decimal(text) | Value::Temporal(text) | Value::Other(text) => {
            Box::new(text.clone())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric_of(words: &[u16]) -> String {
        let raw: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        numeric(&raw).unwrap()
    }

    #[test]
    fn numbers_are_written_as_the_server_writes_them() {
        assert_eq!(numeric_of(&[0, 0, 0, 0]), "0");
        assert_eq!(numeric_of(&[1, 0, 0, 1, 1]), "1.0");
        assert_eq!(numeric_of(&[2, 0, 0x4000, 1, 1, 5000]), "-1.5");
        assert_eq!(numeric_of(&[2, 1, 0, 0, 12, 3456]), "123456");
        assert_eq!(numeric_of(&[1, 2, 0, 0, 1]), "100000000");
        assert_eq!(numeric_of(&[1, 0xFFFE, 0, 8, 42]), "0.00000042");
        assert_eq!(numeric_of(&[1, 0, 0, 6, 7]), "7.000000");
        assert_eq!(numeric_of(&[0, 0, 0xC000, 0]), "NaN");
        assert_eq!(numeric_of(&[0, 0, 0xF000, 0]), "-Infinity");
        assert!(numeric(&[0, 1]).is_err());
    }

    #[test]
    fn moments_are_written_in_utc_and_infinity_is_a_word() {
        assert_eq!(moment(0, "+00").unwrap(), "2000-01-01 00:00:00+00");
        assert_eq!(moment(848_512_345_600_000, "").unwrap(), "2026-11-20 17:52:25.6");
        assert_eq!(moment(-1, "").unwrap(), "1999-12-31 23:59:59.999999");
        assert_eq!(moment(i64::MAX, "+00").unwrap(), "infinity");
        assert_eq!(day(-1).unwrap(), "1999-12-31");
        assert_eq!(day(i32::MIN).unwrap(), "-infinity");
        assert_eq!(time(1_500_000).unwrap(), "00:00:01.5");
        assert_eq!(time(86_400_000_000).unwrap(), "24:00:00");
        assert!(moment(i64::MAX - 1, "").is_err());
    }
}
