use serde_json::Value;

use super::super::validation::{names, non_negative, port_number};
use super::super::value::{int, list, map, text};
use super::FieldError;

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// `livenessProbe`, `readinessProbe`, `startupProbe`.
pub(super) fn probes(container: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get(key) else {
            continue;
        };
        let field = format!("{field}.{key}");
        handler(probe, &field, errors);
        for number in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            non_negative(probe.get(number), &format!("{field}.{number}"), errors);
        }
        let successes = int(probe, "/successThreshold").unwrap_or(1);
        if key != "readinessProbe" && successes != 1 {
            errors.push(FieldError::invalid(
                format!("{field}.successThreshold"),
                successes,
                "must be 1",
            ));
        }
    }
}

/// One action: of a probe or of a lifecycle hook.
pub(super) fn handler(holder: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let given: Vec<&str> = HANDLERS
        .iter()
        .copied()
        .filter(|key| map(holder, &format!("/{key}")).is_some())
        .collect();
    if given.is_empty() {
        errors.push(FieldError::required(field, "must specify a handler type"));
    }
    for extra in given.iter().skip(1) {
        errors.push(FieldError::forbidden(
            format!("{field}.{extra}"),
            "may not specify more than 1 handler type",
        ));
    }
    let Some(kind) = given.first() else { return };
    let action = &holder[*kind];
    let field = format!("{field}.{kind}");
    match *kind {
        "exec" if list(action, "/command").is_empty() => {
            errors.push(FieldError::required(format!("{field}.command"), ""));
        }
        "httpGet" => {
            if text(action, "/path").is_empty() {
                errors.push(FieldError::required(format!("{field}.path"), ""));
            }
            port(action, &field, errors);
            let scheme = text(action, "/scheme");
            if !matches!(scheme, "HTTP" | "HTTPS") {
                errors.push(FieldError::not_supported(
                    format!("{field}.scheme"),
                    scheme,
                    &["HTTP", "HTTPS"],
                ));
            }
        }
        "tcpSocket" | "grpc" => port(action, &field, errors),
        _ => {}
    }
}

fn port(action: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let field = format!("{field}.port");
    match action.get("port") {
        Some(Value::String(name)) => {
            errors.extend(FieldError::invalid_by(
                &field,
                name.as_str(),
                names::port_name(name),
            ));
        }
        number => port_number(number.and_then(Value::as_i64).unwrap_or(0), &field, errors),
    }
}
