//! Keys in a strategic merge patch that are instructions, not data.

use serde_json::{Map, Value};

/// `$patch: replace | delete | merge`, inside a map or as an item of a list.
pub(super) const PATCH: &str = "$patch";
/// `$retainKeys: [a, b]`: every other key of the original goes (unions, like a Deployment's strategy).
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
/// `$deleteFromPrimitiveList/finalizers: [x]`
pub(super) const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
/// `$setElementOrder/containers: [{name: a}, {name: b}]`
pub(super) const SET_ORDER: &str = "$setElementOrder/";

/// A strategic merge patch that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MergeError {
    #[error("invalid value for annotation key: Unknown patch type found: {0}")]
    UnknownDirective(String),
    #[error("map: {item} does not contain declared merge key: {key}")]
    MissingKey { item: String, key: &'static str },
    #[error("invalid patch format of {0}")]
    BadFormat(&'static str),
    #[error("the patch's \"{0}\" is not a list")]
    NotAList(String),
}

/// What `$patch` says, if it is there.
pub(super) fn directive(map: &Map<String, Value>) -> Result<Option<Directive>, MergeError> {
    match map.get(PATCH) {
        None => Ok(None),
        Some(Value::String(text)) => match text.as_str() {
            "replace" => Ok(Some(Directive::Replace)),
            "delete" => Ok(Some(Directive::Delete)),
            "merge" => Ok(Some(Directive::Merge)),
            other => Err(MergeError::UnknownDirective(other.to_owned())),
        },
        Some(other) => Err(MergeError::UnknownDirective(other.to_string())),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Directive {
    Replace,
    Delete,
    Merge,
}

/// Applies `$retainKeys` to the original.
pub(super) fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), MergeError> {
    let Some(keys) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let keys = keys.as_array().ok_or(MergeError::BadFormat(RETAIN_KEYS))?;
    let listed = |key: &str| keys.iter().any(|k| k.as_str() == Some(key));
    let unlisted = patch
        .iter()
        .any(|(key, value)| !key.starts_with('$') && !value.is_null() && !listed(key));
    if unlisted {
        return Err(MergeError::BadFormat(RETAIN_KEYS));
    }
    original.retain(|key, _| listed(key));
    Ok(())
}
