use serde_json::Value;

use super::super::FieldError;

/// Counts and durations.
pub(crate) fn non_negative(value: Option<&Value>, field: &str, errors: &mut Vec<FieldError>) {
    if let Some(number) = value.and_then(Value::as_i64).filter(|n| *n < 0) {
        errors.push(FieldError::invalid(
            field,
            number,
            "must be greater than or equal to 0",
        ));
    }
}

/// A transport port.
pub(crate) fn port_number(number: i64, field: &str, errors: &mut Vec<FieldError>) {
    if !(1..=65535).contains(&number) {
        errors.push(FieldError::invalid(
            field,
            number,
            "must be between 1 and 65535, inclusive",
        ));
    }
}

/// `TCP`, `UDP` or `SCTP`; `Required` when empty.
pub(crate) fn protocol(text: &str, field: &str, errors: &mut Vec<FieldError>) {
    if text.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if !matches!(text, "TCP" | "UDP" | "SCTP") {
        errors.push(FieldError::not_supported(
            field,
            text,
            &["SCTP", "TCP", "UDP"],
        ));
    }
}
