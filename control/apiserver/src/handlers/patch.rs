//! PATCH in its JSON forms.

use std::sync::{Arc, OnceLock};

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::{Call, write};
use crate::answer::{Result, json as answer, warn};
use crate::decode;
use crate::objects;
use crate::patch::{self, PatchType};
use crate::query::WriteOptions;
use crate::schema;
use crate::status::Status;

pub(super) async fn patch(call: Call, body: Bytes) -> Result<Response> {
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    let (patch_type, patch) = read(&call, &body)?;
    let kind = call.kind;
    let warnings = Arc::new(OnceLock::new());
    let found = warnings.clone();
    let change = Box::new(move |old: &Value| {
        let mut new = patch::apply(kind, patch_type, old, &patch)?;
        // What the patch asks for, in the form in which upstream complains about it.
        let asked = match patch_type {
            PatchType::Strategic => patch::go_text(&patch),
            PatchType::Json | PatchType::Merge => new.to_string(),
        };
        let unknown = schema::decode(kind, &mut new, options.validation)
            .map_err(|error| Status::invalid_patch(asked, &error.to_string()))?;
        found.get_or_init(|| unknown);
        Ok(new)
    });
    let shared = &call.shared;
    let (target, mode) = (call.target(), write::mode(&call));
    let patched = objects::update(
        &shared.store,
        &shared.ranges,
        target,
        mode,
        change,
        options.dry_run,
    )
    .await?;
    let mut response = answer(StatusCode::OK, &patched);
    warn(&mut response, warnings.get().map_or(&[], Vec::as_slice));
    Ok(response)
}

/// The patch in the body, and how its media type says to read it.
pub(super) fn read(call: &Call, body: &[u8]) -> Result<(PatchType, Value)> {
    let media = decode::content_type(&call.headers).unwrap_or_default();
    let patch_type = PatchType::from_content_type(media)
        .ok_or_else(|| Status::unsupported_media_type(&patch::ACCEPTED))?;
    let patch = decode::json(body)?;
    Ok((patch_type, patch))
}
