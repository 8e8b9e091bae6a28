//! The three kinds of patches that a client computes: JSON patch (RFC 6902), merge patch (RFC 7386) and Kubernetes'
//! strategic merge patch. Pure: a patch and an object make another object.

mod directives;
mod go_text;
mod order;
mod strategic;

use serde_json::Value;

use crate::kinds::Kind;
use crate::schema;
use crate::status::{Details, Status};

pub use go_text::go_text;

/// How a PATCH body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
}

/// What a server that has all three says it accepts.
pub const ACCEPTED: [&str; 3] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

impl PatchType {
    /// By the media type, without parameters. Server-side apply is not among them.
    pub fn from_content_type(essence: &str) -> Option<Self> {
        match essence {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            _ => None,
        }
    }
}

/// The patched object. For subresources with a body of their own (Scale), `schema` is that body's type.
pub fn apply(
    kind: &Kind,
    patch_type: PatchType,
    current: &Value,
    patch: &Value,
) -> Result<Value, Status> {
    apply_to_type(schema::of(kind), patch_type, current, patch)
}

/// As [`apply`], with the type given; without one, strategic merge falls back to merging maps and replacing lists.
pub fn apply_to_type(
    def: Option<&schema::TypeDef>,
    patch_type: PatchType,
    current: &Value,
    patch: &Value,
) -> Result<Value, Status> {
    let mut patched = current.clone();
    match patch_type {
        PatchType::Json => {
            let operations: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
            json_patch::patch(&mut patched, &operations)
                .map_err(|error| unprocessable(&error.to_string()))?;
        }
        PatchType::Merge => {
            require_object(patch)?;
            json_patch::merge(&mut patched, patch);
        }
        PatchType::Strategic => {
            require_object(patch)?;
            patched = strategic::merge(&patched, patch, def)
                .map_err(|error| Status::bad_request(error.to_string()))?;
        }
    }
    Ok(patched)
}

fn require_object(patch: &Value) -> Result<(), Status> {
    if patch.is_object() {
        return Ok(());
    }
    Err(Status::bad_request(
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
    ))
}

/// 422, as upstream answers operations that cannot be carried out (a failed `test`, a missing path).
fn unprocessable(error: &str) -> Status {
    Status {
        code: 422,
        reason: "Invalid",
        message: format!("the server rejected our request due to an error in our request: {error}"),
        details: Some(Box::new(Details::default())),
        continue_token: None,
    }
}

#[cfg(test)]
mod tests;
