//! PATCH in its JSON forms.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;

use super::{Call, write};
use crate::answer::{Result, json as answer};
use crate::decode;
use crate::objects;
use crate::query::WriteOptions;
use crate::status::Status;

pub(super) async fn patch(call: Call, body: Bytes) -> Result<Response> {
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    let change = change(&call, &body)?;
    let shared = &call.shared;
    let patched = objects::update(
        &shared.store,
        &shared.ranges,
        call.target(),
        write::mode(&call),
        change,
        options.dry_run,
    )
    .await?;
    Ok(answer(StatusCode::OK, &patched))
}

/// What the body does to an object, by the patch's media type.
pub(super) fn change(call: &Call, body: &Bytes) -> Result<objects::Change> {
    let media =
        decode::content_type(&call.headers).unwrap_or("application/strategic-merge-patch+json");
    let patch = decode::json(body)?;
    match media {
        "application/merge-patch+json" => Ok(Box::new(move |old| {
            let mut new = old.clone();
            json_patch::merge(&mut new, &patch);
            Ok(new)
        })),
        _ => Err(Status::unsupported_media_type(&[]).into()),
    }
}
