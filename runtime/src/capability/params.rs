//! Parameters of granted statements: each of the type that the operator granted, and as many.

use super::sql::{Refusal, SqlError, Value};
use super::statement::{GrantedStatement, ParamType};

/// Each parameter must be of the granted type. A whole number fits either type that can hold it.
pub(super) fn check_params(granted: &GrantedStatement, params: &[Value]) -> Result<(), Refusal> {
    let text = &granted.text;
    if granted.params.len() != params.len() {
        return Err(SqlError::Denied(format!(
            "statement `{text}` is granted with {} parameters, not {}",
            granted.params.len(),
            params.len()
        ))
        .into());
    }
    for (at, (wanted, value)) in granted.params.iter().zip(params).enumerate() {
        if !fits(*wanted, value) {
            return Err(Refusal {
                error: SqlError::Denied(format!(
                    "parameter {} of `{text}` is granted as {wanted}, not as {}",
                    at + 1,
                    type_name(value)
                )),
                hint: Some(format!(
                    "set its type in `params` of the statement in the grant file to \"{}\"",
                    type_name(value)
                )),
            });
        }
    }
    Ok(())
}

fn fits(wanted: ParamType, value: &Value) -> bool {
    match (wanted, value) {
        (ParamType::Int, Value::Uint64(number)) => i64::try_from(*number).is_ok(),
        (ParamType::Uint, Value::Int64(number)) => *number >= 0,
        (wanted, value) => type_name(value) == wanted.to_string(),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Boolean(_) => "bool",
        Value::Int64(_) => "int",
        Value::Uint64(_) => "uint",
        Value::Float64(_) => "float",
        Value::Text(_) => "text",
        Value::Binary(_) => "binary",
        Value::Decimal(_) => "decimal, which cannot be a parameter",
        Value::Temporal(_) => "temporal, which cannot be a parameter",
        Value::Other(_) => "other, which cannot be a parameter",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_granted_type_is_sent_and_its_twin_of_another_is_not() {
        use ParamType as Type;
        let whole = |number: i64| Value::Int64(number);
        for (granted, allowed, denied) in [
            (Type::Null, Value::Null, whole(0)),
            (Type::Bool, Value::Boolean(true), whole(1)),
            (Type::Int, whole(-5), Value::Uint64(u64::MAX)),
            (Type::Int, Value::Uint64(5), Value::Text("5".into())),
            (Type::Uint, Value::Uint64(5), whole(-5)),
            (Type::Uint, whole(5), Value::Null),
            (Type::Float, Value::Float64(0.5), whole(1)),
            (Type::Text, Value::Text("x".into()), Value::Binary(b"x".to_vec())),
            (Type::Binary, Value::Binary(b"x".to_vec()), Value::Text("x".into())),
            (Type::Text, Value::Text("5".into()), Value::Decimal("5".into())),
            (Type::Text, Value::Text("now".into()), Value::Temporal("now".into())),
            (Type::Text, Value::Text("?".into()), Value::Other("?".into())),
        ] {
            let statement = GrantedStatement { text: "SET x = ?".into(), params: vec![granted] };
            assert!(
                check_params(&statement, std::slice::from_ref(&allowed)).is_ok(),
                "{allowed:?}"
            );
            let refusal = check_params(&statement, std::slice::from_ref(&denied)).unwrap_err();
            let said = refusal.error.to_string();
            assert!(said.contains(&format!("is granted as {granted}")), "{said}");
            assert!(refusal.hint.is_some(), "{said}");
        }
    }

    #[test]
    fn as_many_values_as_were_granted_and_neither_more_nor_fewer() {
        let statement =
            GrantedStatement { text: "SET x = ?".into(), params: vec![ParamType::Uint] };
        assert!(check_params(&statement, &[Value::Uint64(1)]).is_ok());
        for wrong in [&[][..], &[Value::Uint64(1), Value::Uint64(1)]] {
            let said = check_params(&statement, wrong).unwrap_err().error.to_string();
            assert!(said.contains("is granted with 1 parameters"), "{said}");
        }
    }
}
