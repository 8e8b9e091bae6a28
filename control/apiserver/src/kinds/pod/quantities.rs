//! Resource amounts: `250m`, `64Mi`, `1e3`.

use serde_json::Value;

use super::super::value::map;
use super::FieldError;

const SYNTAX: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Binary and decimal suffixes, each with its power of two or ten.
const BINARY: &[(&str, i32)] = &[
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];
const DECIMAL: &[(&str, i32)] = &[
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

/// `resources.limits` and `requests`: syntax, sign, and no request above its limit.
pub(super) fn resources(container: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for kind in ["limits", "requests"] {
        for (name, amount) in map(container, &format!("/resources/{kind}"))
            .into_iter()
            .flatten()
        {
            let field = format!("{field}.resources.{kind}[{name}]");
            match parse(amount) {
                None => errors.push(FieldError::invalid(field, amount.clone(), SYNTAX)),
                Some(number) if number < 0.0 => {
                    errors.push(FieldError::invalid(
                        field,
                        amount.clone(),
                        "must be greater than or equal to 0",
                    ));
                }
                Some(_) => {}
            }
        }
    }
    let limits = map(container, "/resources/limits");
    for (name, request) in map(container, "/resources/requests").into_iter().flatten() {
        let Some(limit) = limits.and_then(|limits| limits.get(name)) else {
            continue;
        };
        if let (Some(wanted), Some(most)) = (parse(request), parse(limit))
            && wanted > most
        {
            let shown = limit
                .as_str()
                .map_or_else(|| limit.to_string(), str::to_owned);
            let detail = format!("must be less than or equal to {name} limit of {shown}");
            errors.push(FieldError::invalid(
                format!("{field}.resources.requests"),
                request.clone(),
                detail,
            ));
        }
    }
}

/// Good enough to compare two amounts; the text itself is what is stored.
fn parse(amount: &Value) -> Option<f64> {
    let text = match amount {
        Value::String(text) => text.as_str(),
        Value::Number(number) => return number.as_f64(),
        _ => return None,
    };
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let number: f64 = digits.parse().ok()?;
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some(number * 2f64.powi(*power));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some(number * 10f64.powi(*power));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some(number * 10f64.powi(exponent))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts() {
        let cases = [
            (json!("250m"), Some(0.25)),
            (json!("1Ki"), Some(1024.0)),
            (json!("1e3"), Some(1000.0)),
            (json!("2E"), Some(2e18)),
            (json!(2), Some(2.0)),
            (json!("1.5"), Some(1.5)),
            (json!("lots"), None),
            (json!(""), None),
            (json!("1mi"), None),
        ];
        for (amount, expected) in cases {
            assert_eq!(parse(&amount), expected, "{amount}");
        }
    }

    #[test]
    fn a_request_may_not_exceed_its_limit() {
        let container = json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "500m"}}});
        let mut errors = Vec::new();
        resources(&container, "c", &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "c.resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 500m"
        );
    }
}
