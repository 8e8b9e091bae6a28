//! What containers ask for and are limited to.

use serde_json::Value;

use super::super::value::map;
use super::FieldError;
use crate::quantity;

/// `resources.limits` and `requests`: no negative ones, and no request above its limit.
pub(super) fn resources(container: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for kind in ["limits", "requests"] {
        for (name, value) in map(container, &format!("/resources/{kind}"))
            .into_iter()
            .flatten()
        {
            let field = format!("{field}.resources.{kind}[{name}]");
            if amount(value).is_some_and(|number| number < 0.0) {
                errors.push(FieldError::invalid(
                    field,
                    value.clone(),
                    "must be greater than or equal to 0",
                ));
            }
        }
    }
    let limits = map(container, "/resources/limits");
    for (name, request) in map(container, "/resources/requests").into_iter().flatten() {
        let Some(limit) = limits.and_then(|limits| limits.get(name)) else {
            continue;
        };
        if let (Some(wanted), Some(most)) = (amount(request), amount(limit))
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

/// Decoding has refused what does not parse.
fn amount(value: &Value) -> Option<f64> {
    quantity::parse(value.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
