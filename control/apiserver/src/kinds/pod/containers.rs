use serde_json::Value;

use super::super::validation::{names, port_number, protocol};
use super::super::value::{int, list, map, text};
use super::{FieldError, probes};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// Validates one list of containers; names must differ across all lists (`seen`).
pub(super) fn containers<'a>(
    containers: &'a [Value],
    volumes: &[&str],
    field: &str,
    seen: &mut Vec<&'a str>,
    errors: &mut Vec<FieldError>,
) {
    for (i, container) in containers.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let name = text(container, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        } else {
            names::unique(name, names::label, &format!("{field}.name"), seen, errors);
        }
        let image = text(container, "/image");
        if image.is_empty() {
            errors.push(FieldError::required(format!("{field}.image"), ""));
        } else if image.trim() != image {
            let detail = "must not have leading or trailing whitespace";
            errors.push(FieldError::invalid(format!("{field}.image"), image, detail));
        }
        let policy = text(container, "/imagePullPolicy");
        if !PULL_POLICIES.contains(&policy) {
            errors.push(FieldError::not_supported(
                format!("{field}.imagePullPolicy"),
                policy,
                PULL_POLICIES,
            ));
        }
        let message_policy = text(container, "/terminationMessagePolicy");
        if !matches!(message_policy, "File" | "FallbackToLogsOnError") {
            let supported = &["FallbackToLogsOnError", "File"];
            let field = format!("{field}.terminationMessagePolicy");
            errors.push(FieldError::not_supported(field, message_policy, supported));
        }
        probes::probes(container, &field, errors);
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = container.pointer(&format!("/lifecycle/{hook}")) {
                probes::handler(handler, &format!("{field}.lifecycle.{hook}"), errors);
            }
        }
        ports(container, &field, errors);
        environment(container, &field, errors);
        mounts(container, volumes, &field, errors);
        super::quantities::resources(container, &field, errors);
    }
}

fn ports(container: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let mut names_seen: Vec<&str> = Vec::new();
    for (i, port) in list(container, "/ports").iter().enumerate() {
        let field = format!("{field}.ports[{i}]");
        let name = text(port, "/name");
        if !name.is_empty() {
            names::unique(
                name,
                names::port_name,
                &format!("{field}.name"),
                &mut names_seen,
                errors,
            );
        }
        match int(port, "/containerPort").unwrap_or(0) {
            0 => errors.push(FieldError::required(format!("{field}.containerPort"), "")),
            number => port_number(number, &format!("{field}.containerPort"), errors),
        }
        if let Some(number) = int(port, "/hostPort").filter(|n| *n != 0) {
            port_number(number, &format!("{field}.hostPort"), errors);
        }
        protocol(
            text(port, "/protocol"),
            &format!("{field}.protocol"),
            errors,
        );
    }
}

fn environment(container: &Value, field: &str, errors: &mut Vec<FieldError>) {
    const SOURCES: [&str; 4] = [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
    ];
    for (i, variable) in list(container, "/env").iter().enumerate() {
        let field = format!("{field}.env[{i}]");
        let name = text(variable, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        } else {
            errors.extend(FieldError::invalid_by(
                format!("{field}.name"),
                name,
                names::env_name(name),
            ));
        }
        let Some(source) = map(variable, "/valueFrom") else {
            continue;
        };
        let field = format!("{field}.valueFrom");
        let given = SOURCES
            .iter()
            .filter(|key| source.contains_key(**key))
            .count();
        let complaint = if !text(variable, "/value").is_empty() {
            "may not be specified when `value` is not empty"
        } else if given == 0 {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        } else if given > 1 {
            "may not have more than one field specified at a time"
        } else {
            continue;
        };
        errors.push(FieldError::invalid(field, "", complaint));
    }
}

fn mounts(container: &Value, volumes: &[&str], field: &str, errors: &mut Vec<FieldError>) {
    let mut paths: Vec<&str> = Vec::new();
    for (i, mount) in list(container, "/volumeMounts").iter().enumerate() {
        let field = format!("{field}.volumeMounts[{i}]");
        let name = text(mount, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        } else if !volumes.contains(&name) {
            errors.push(FieldError::not_found(format!("{field}.name"), name));
        }
        let path = text(mount, "/mountPath");
        if path.is_empty() {
            errors.push(FieldError::required(format!("{field}.mountPath"), ""));
        } else if paths.contains(&path) {
            errors.push(FieldError::invalid(
                format!("{field}.mountPath"),
                path,
                "must be unique",
            ));
        }
        paths.push(path);
    }
}
