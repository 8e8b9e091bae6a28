use serde_json::Value;

use super::super::FieldError;
use super::names;

/// A map of labels: keys and values.
pub(crate) fn label_map(labels: Option<&Value>, field: &str, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        errors.extend(FieldError::invalid_by(
            field,
            key.as_str(),
            names::qualified(key),
        ));
        let value = value.as_str().unwrap_or_default();
        errors.extend(FieldError::invalid_by(
            field,
            value,
            names::label_value(value),
        ));
    }
}

/// A `LabelSelector`: `matchLabels` and `matchExpressions`.
pub(crate) fn label_selector(selector: &Value, field: &str, errors: &mut Vec<FieldError>) {
    label_map(
        selector.get("matchLabels"),
        &format!("{field}.matchLabels"),
        errors,
    );
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    for (i, expression) in expressions.into_iter().flatten().enumerate() {
        let field = format!("{field}.matchExpressions[{i}]");
        let operator = expression
            .get("operator")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let values = expression
            .get("values")
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        match operator {
            "In" | "NotIn" if values == 0 => errors.push(FieldError::required(
                format!("{field}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if values > 0 => errors.push(FieldError::forbidden(
                format!("{field}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                errors.push(FieldError::invalid(
                    format!("{field}.operator"),
                    other,
                    "not a valid selector operator",
                ));
            }
        }
        let key = expression
            .get("key")
            .and_then(Value::as_str)
            .unwrap_or_default();
        errors.extend(FieldError::invalid_by(
            format!("{field}.key"),
            key,
            names::qualified(key),
        ));
    }
}
