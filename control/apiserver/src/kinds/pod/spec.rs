use serde_json::Value;

use super::super::validation::{label_map, names, non_negative};
use super::super::value::{int, list, text};
use super::{FieldError, containers};

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];

/// `ValidatePodTemplateSpec`.
pub(in super::super) fn template(template: &Value, field: &str, errors: &mut Vec<FieldError>) {
    label_map(
        template.pointer("/metadata/labels"),
        &format!("{field}.labels"),
        errors,
    );
    pod(
        template.get("spec").unwrap_or(&Value::Null),
        &format!("{field}.spec"),
        errors,
    );
}

/// `ValidatePodSpec`, for the fields that the node agent acts on.
pub(super) fn pod(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let volumes = volumes(spec, field, errors);
    let mut seen = Vec::new();
    let main = list(spec, "/containers");
    if main.is_empty() {
        errors.push(FieldError::required(format!("{field}.containers"), ""));
    }
    containers::containers(
        main,
        &volumes,
        &format!("{field}.containers"),
        &mut seen,
        errors,
    );
    let init = list(spec, "/initContainers");
    containers::containers(
        init,
        &volumes,
        &format!("{field}.initContainers"),
        &mut seen,
        errors,
    );
    one_of(spec, field, "restartPolicy", RESTART_POLICIES, errors);
    one_of(spec, field, "dnsPolicy", DNS_POLICIES, errors);
    non_negative(
        spec.get("terminationGracePeriodSeconds"),
        &format!("{field}.terminationGracePeriodSeconds"),
        errors,
    );
    if let Some(seconds) =
        int(spec, "/activeDeadlineSeconds").filter(|s| !(1..=i64::from(i32::MAX)).contains(s))
    {
        let detail = format!("must be between 1 and {}, inclusive", i32::MAX);
        errors.push(FieldError::invalid(
            format!("{field}.activeDeadlineSeconds"),
            seconds,
            detail,
        ));
    }
    label_map(
        spec.get("nodeSelector"),
        &format!("{field}.nodeSelector"),
        errors,
    );
    for (key, check) in [
        (
            "serviceAccountName",
            names::subdomain as fn(&str) -> names::Complaints,
        ),
        ("nodeName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
    ] {
        let value = spec.get(key).and_then(Value::as_str).unwrap_or_default();
        if !value.is_empty() {
            errors.extend(FieldError::invalid_by(
                format!("{field}.{key}"),
                value,
                check(value),
            ));
        }
    }
    tolerations(spec, field, errors);
    host_ports(spec, field, errors);
}

fn volumes<'a>(spec: &'a Value, field: &str, errors: &mut Vec<FieldError>) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for (i, volume) in list(spec, "/volumes").iter().enumerate() {
        let field = format!("{field}.volumes[{i}]");
        let name = text(volume, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        } else {
            names::unique(
                name,
                names::label,
                &format!("{field}.name"),
                &mut seen,
                errors,
            );
        }
        let sources = volume
            .as_object()
            .map_or(0, |map| map.keys().filter(|key| *key != "name").count());
        if sources > 1 {
            errors.push(FieldError::forbidden(
                &field,
                "may not specify more than 1 volume type",
            ));
        }
    }
    seen
}

fn tolerations(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
    for (i, toleration) in list(spec, "/tolerations").iter().enumerate() {
        let field = format!("{field}.tolerations[{i}]");
        let (key, operator) = (text(toleration, "/key"), text(toleration, "/operator"));
        if !key.is_empty() {
            errors.extend(FieldError::invalid_by(
                format!("{field}.key"),
                key,
                names::qualified(key),
            ));
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(
                format!("{field}.operator"),
                operator,
                detail,
            ));
        }
        let value = text(toleration, "/value");
        match operator {
            "" | "Equal" => {
                errors.extend(FieldError::invalid_by(
                    format!("{field}.operator"),
                    value,
                    names::label_value(value),
                ));
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(
                    format!("{field}.operator"),
                    operator,
                    detail,
                ));
            }
            "Exists" => {}
            other => {
                errors.push(FieldError::not_supported(
                    format!("{field}.operator"),
                    other,
                    &["Equal", "Exists"],
                ));
            }
        }
        let effect = text(toleration, "/effect");
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.push(FieldError::not_supported(
                format!("{field}.effect"),
                effect,
                EFFECTS,
            ));
        }
        if int(toleration, "/tolerationSeconds").is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(
                format!("{field}.effect"),
                effect,
                detail,
            ));
        }
    }
}

/// A container port of a pod in the node's network is the node's port.
fn host_ports(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    if !super::flag(spec, "/hostNetwork") {
        return;
    }
    for (i, container) in list(spec, "/containers").iter().enumerate() {
        for (j, port) in list(container, "/ports").iter().enumerate() {
            let (inside, outside) = (int(port, "/containerPort"), int(port, "/hostPort"));
            if inside != outside {
                let field = format!("{field}.containers[{i}].ports[{j}].containerPort");
                let detail = "must match `hostPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(field, inside.unwrap_or(0), detail));
            }
        }
    }
}

fn one_of(spec: &Value, field: &str, key: &str, supported: &[&str], errors: &mut Vec<FieldError>) {
    let value = spec.get(key).and_then(Value::as_str).unwrap_or_default();
    if value.is_empty() {
        errors.push(FieldError::required(format!("{field}.{key}"), ""));
    } else if !supported.contains(&value) {
        errors.push(FieldError::not_supported(
            format!("{field}.{key}"),
            value,
            supported,
        ));
    }
}
