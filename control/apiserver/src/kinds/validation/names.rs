//! Syntax of names, from `k8s.io/apimachinery/pkg/util/validation`, messages included.

use std::borrow::Cow;

use crate::kinds::field_error::FieldError;

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;
const PORT_NAME_MAX: usize = 15;

/// What is wrong with a text, in upstream's words; empty when nothing is.
pub(crate) type Complaints = Vec<Cow<'static, str>>;

/// Which syntax the names of a kind's objects follow.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NameRule {
    /// RFC 1123 label: namespaces.
    Label,
    /// RFC 1035 label: Services, whose names become DNS labels.
    Dns1035,
    /// RFC 1123 subdomain: most kinds.
    Subdomain,
}

impl NameRule {
    pub(crate) fn check(self, name: &str) -> Complaints {
        match self {
            Self::Label => label(name),
            Self::Dns1035 => dns1035(name),
            Self::Subdomain => subdomain(name),
        }
    }
}

/// The name of one of a list: by a rule, and no second time.
pub(crate) fn unique<'a>(
    name: &'a str,
    rule: fn(&str) -> Complaints,
    field: &str,
    seen: &mut Vec<&'a str>,
    errors: &mut Vec<FieldError>,
) {
    errors.extend(FieldError::invalid_by(field, name, rule(name)));
    if seen.contains(&name) {
        errors.push(FieldError::duplicate(field, name));
    }
    seen.push(name);
}

pub(crate) fn label(text: &str) -> Complaints {
    let mut complaints = too_long(text, LABEL_MAX);
    if !is_label(text) {
        complaints.push(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                .into(),
        );
    }
    complaints
}

pub(crate) fn dns1035(text: &str) -> Complaints {
    let mut complaints = too_long(text, LABEL_MAX);
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        complaints.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
             validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .into(),
        );
    }
    complaints
}

pub(crate) fn subdomain(text: &str) -> Complaints {
    let mut complaints = too_long(text, SUBDOMAIN_MAX);
    if !text.split('.').all(is_label) {
        complaints.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .into(),
        );
    }
    complaints
}

/// A label key, annotation key or finalizer: `[prefix/]name`.
pub(crate) fn qualified(text: &str) -> Complaints {
    const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                        validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let mut complaints = Complaints::new();
    let name = match text.split_once('/') {
        None => text,
        Some((prefix, name)) if !name.contains('/') => {
            if prefix.is_empty() {
                complaints.push("prefix part must be non-empty".into());
            } else {
                complaints.extend(
                    subdomain(prefix)
                        .iter()
                        .map(|c| Cow::from(format!("prefix part {c}"))),
                );
            }
            name
        }
        Some(_) => {
            let message = format!(
                "a qualified name {NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            );
            return vec![message.into()];
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX {
        complaints.push(format!("name part must be no more than {LABEL_MAX} characters").into());
    }
    if !is_qualified(name) {
        complaints.push(format!("name part {NAME}").into());
    }
    complaints
}

pub(crate) fn label_value(text: &str) -> Complaints {
    let mut complaints = too_long(text, LABEL_MAX);
    if !text.is_empty() && !is_qualified(text) {
        complaints.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
             for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .into(),
        );
    }
    complaints
}

/// The name of a container port, RFC 6335.
pub(crate) fn port_name(text: &str) -> Complaints {
    let mut complaints = too_long(text, PORT_NAME_MAX);
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || !text.chars().all(allowed) {
        complaints
            .push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.contains(|c: char| c.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        complaints.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".into());
    }
    complaints
}

/// A key of a ConfigMap or Secret.
pub(crate) fn config_key(text: &str) -> Complaints {
    let mut complaints = too_long(text, SUBDOMAIN_MAX);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || !text.chars().all(allowed) {
        complaints.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
             'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .into(),
        );
    }
    if text == "." {
        complaints.push("must not be '.'".into());
    } else if text == ".." {
        complaints.push("must not be '..'".into());
    } else if text.starts_with("..") {
        complaints.push("must not start with '..'".into());
    }
    complaints
}

/// The name of an environment variable: printable ASCII without `=`.
pub(crate) fn env_name(text: &str) -> Complaints {
    if !text.is_empty() && text.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        return Complaints::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '=' (e.g. \
         'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is '[ -<>-~]+')"
            .into(),
    ]
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_qualified(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(text.chars().next()) && edge(text.chars().next_back()) && text.chars().all(inner)
}

fn too_long(text: &str, max: usize) -> Complaints {
    if text.len() > max {
        vec![format!("must be no more than {max} characters").into()]
    } else {
        Complaints::new()
    }
}

#[cfg(test)]
mod tests;
