//! Reads a `KubeProxyConfiguration` file: every field is known, or it is an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::duration;
use super::schema::{FIELDS, Field, Here, Kind};

pub(super) const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
pub(super) const KIND: &str = "KubeProxyConfiguration";

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("{} is not YAML: {cause}", path.display())]
    Syntax { path: PathBuf, cause: String },
    /// Every problem of the file, not only the first.
    #[error("{}: {}", path.display(), problems.join("; "))]
    Content {
        path: PathBuf,
        problems: Vec<String>,
    },
}

/// The text of the file.
pub(super) fn read(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(|cause| FileError::Read {
        path: path.to_owned(),
        cause,
    })
}

/// The fields that mean something here, checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ConfigFile {
    values: BTreeMap<&'static str, Value>,
    /// Fields that are set and mean nothing here, with what to do about them.
    pub(super) notes: Vec<String>,
}

impl ConfigFile {
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        let document: Value = serde_saphyr::from_str(text).map_err(|cause| FileError::Syntax {
            path: path.to_owned(),
            cause: cause.to_string(),
        })?;
        let mut file = Self::default();
        let mut problems = Vec::new();
        if document.is_object() {
            file.take("", &document, &mut problems);
            file.check_header(&mut problems);
        } else {
            problems.push(format!("expected an object of kind {KIND}"));
        }
        if problems.is_empty() {
            Ok(file)
        } else {
            Err(FileError::Content {
                path: path.to_owned(),
                problems,
            })
        }
    }

    fn check_header(&self, problems: &mut Vec<String>) {
        for (field, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            match self.text(field) {
                Some(found) if found == expected => {}
                Some(found) => {
                    problems.push(format!("{field} is {found:?}, expected {expected:?}"));
                }
                None => {
                    problems.push(format!("{field} is missing, expected {expected:?}"));
                }
            }
        }
    }

    /// Takes everything below `path` in.
    fn take(&mut self, path: &str, value: &Value, problems: &mut Vec<String>) {
        if let Some(field) = FIELDS.iter().find(|field| field.path == path) {
            self.take_field(field, value, problems);
            return;
        }
        let below = |field: &&Field| {
            path.is_empty()
                || field
                    .path
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('.'))
        };
        if !FIELDS.iter().any(|field| below(&field)) {
            problems.push(unknown(path));
            return;
        }
        match value {
            Value::Null => {}
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    self.take(&path, value, problems);
                }
            }
            _ => problems.push(format!("{path} must be an object")),
        }
    }

    fn take_field(&mut self, field: &'static Field, value: &Value, problems: &mut Vec<String>) {
        if value.is_null() {
            return;
        }
        if let Some(expected) = mismatch(field.kind, value) {
            problems.push(format!("{} is {value}, expected {expected}", field.path));
            return;
        }
        match field.here {
            Here::Used => {
                self.values.insert(field.path, value.clone());
            }
            Here::Named { default, advice } => {
                if !is_default(field, value, default) {
                    self.notes
                        .push(format!("{} ({value}) {advice}", field.path));
                }
            }
        }
    }

    /// A string that is set; the empty one is not.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.values
            .get(path)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    pub(super) fn flag(&self, path: &str) -> Option<bool> {
        self.values.get(path).and_then(Value::as_bool)
    }

    pub(super) fn int(&self, path: &str) -> Option<i64> {
        self.values.get(path).and_then(Value::as_i64)
    }

    pub(super) fn span(&self, path: &str) -> Option<Duration> {
        self.text(path).and_then(duration::parse)
    }

    pub(super) fn list(&self, path: &str) -> Vec<&str> {
        let list = self.values.get(path).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    /// Feature gates that are set.
    pub(super) fn gates(&self) -> impl Iterator<Item = (&str, bool)> {
        self.values
            .get("featureGates")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(name, on)| Some((name.as_str(), on.as_bool()?)))
    }
}

fn unknown(path: &str) -> String {
    let near = FIELDS
        .iter()
        .find(|field| field.path.eq_ignore_ascii_case(path));
    match near {
        Some(field) => format!("{path} is no field of {KIND}; is {} meant?", field.path),
        None => format!("{path} is no field of {KIND}"),
    }
}

/// What was expected, if the value is something else.
fn mismatch(kind: Kind, value: &Value) -> Option<String> {
    let fits = match kind {
        Kind::Bool => value.is_boolean(),
        Kind::Int(least, most) => value.as_i64().is_some_and(|n| (least..=most).contains(&n)),
        Kind::Number => value.is_number(),
        Kind::Text => value.is_string(),
        Kind::Span => value.as_str().is_some_and(|t| duration::parse(t).is_some()),
        Kind::List => value
            .as_array()
            .is_some_and(|list| list.iter().all(Value::is_string)),
        Kind::Gates => value
            .as_object()
            .is_some_and(|gates| gates.values().all(Value::is_boolean)),
        Kind::Object => true,
    };
    (!fits).then(|| match kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::Int(least, most) => format!("a whole number from {least} to {most}"),
        Kind::Number => "a number".to_owned(),
        Kind::Text => "a string".to_owned(),
        Kind::Span => "a duration such as 30s or 1h0m0s".to_owned(),
        Kind::List => "a list of strings".to_owned(),
        Kind::Gates => "feature names, each with true or false".to_owned(),
        Kind::Object => String::new(),
    })
}

/// Whether a field that means nothing here says what kube-proxy would do anyway.
fn is_default(field: &Field, value: &Value, default: &str) -> bool {
    // Zero is a bit like any other; elsewhere kube-proxy reads it as "not set".
    let zero_is_unset = !field.path.ends_with("masqueradeBit");
    let zero = match value {
        Value::Bool(on) => !on,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => {
            text.is_empty() || duration::parse(text).is_some_and(|d| d.is_zero())
        }
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null => true,
    };
    if zero && zero_is_unset {
        return true;
    }
    match value {
        Value::String(text) => {
            text == default
                || (duration::parse(text).is_some()
                    && duration::parse(text) == duration::parse(default))
        }
        // A number of nanoseconds, as logging.flushFrequency may be written.
        Value::Number(n) if n.as_u64() == Some(5_000_000_000) => default == "5s",
        Value::Number(n) => default.parse().ok() == n.as_f64(),
        Value::Bool(on) => default.parse() == Ok(*on),
        _ => false,
    }
}
