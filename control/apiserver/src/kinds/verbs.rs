//! Lists of verbs, in discovery's alphabetical order.

pub(super) const STANDARD: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Namespaces go one by one.
pub(super) const SINGLE_DELETE: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];

pub(super) const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];

/// For kinds that clients list but that nothing in this server acts upon.
pub(super) const READ_ONLY: &[&str] = &["get", "list", "watch"];
