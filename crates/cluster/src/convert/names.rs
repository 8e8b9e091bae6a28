//! Names as an API server lets them be. Manifest files may hold others, and names go on into rules, metrics and logs:
//! one rule with a line break in its comment would keep iptables from taking any.

use super::{ObjectRef, Report};

/// Longest DNS label and longest DNS name (RFC 1123, as the API reads it).
const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

/// Whether the object can be spoken of; says so if not.
pub(super) fn check(object: &ObjectRef, report: &mut Report) -> bool {
    let (namespace, name, fits) = match object {
        ObjectRef::Service(key) => (Some(key.namespace()), key.name(), is_label(key.name())),
        ObjectRef::Slice(key) => (Some(key.namespace()), key.name(), is_subdomain(key.name())),
        ObjectRef::Node(name) => (None, &**name, is_subdomain(name)),
    };
    let before = report.diagnostics.len();
    if let Some(namespace) = namespace.filter(|namespace| !is_label(namespace)) {
        report.add(
            "metadata.namespace",
            format!("{namespace:?} is not a DNS label: the object is ignored"),
        );
    }
    if !fits {
        report.add(
            "metadata.name",
            format!("{name:?} is not a DNS name: the object is ignored"),
        );
    }
    report.diagnostics.len() == before
}

/// As the API wants names of namespaces, Services and ports.
pub(super) fn is_label(text: &str) -> bool {
    text.len() <= LABEL_MAX && is_word(text)
}

/// As the API wants names of slices and nodes: words with dots between them, each of any length.
fn is_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN_MAX && text.split('.').all(is_word)
}

/// Lower case letters, digits, and dashes between them.
fn is_word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = "a".repeat(64);
        for (text, label, subdomain) in [
            ("web", true, true),
            ("1-a", true, true),
            ("web.example", false, true),
            ("-web", false, false),
            ("web-", false, false),
            ("Web", false, false),
            ("a\nb", false, false),
            ("a..b", false, false),
            ("", false, false),
            (&long, false, true),
        ] {
            assert_eq!(
                (is_label(text), is_subdomain(text)),
                (label, subdomain),
                "{text:?}"
            );
        }
    }
}
