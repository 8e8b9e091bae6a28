//! Create, replace, bind.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::Call;
use crate::answer::{Result, json as answer, warn};
use crate::decode;
use crate::meta;
use crate::objects::{self, UpdateMode};
use crate::query::WriteOptions;
use crate::schema;
use crate::status::Status;

pub(super) async fn create(call: Call, body: Bytes) -> Result<Response> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let (object, warnings) = read(&call, &body, options)?;
    let namespace = call.namespace.clone().unwrap_or_default();
    if !matches!(meta::namespace(&object), "") && meta::namespace(&object) != namespace {
        return Err(Status::namespace_mismatch().into());
    }
    let shared = &call.shared;
    let created = objects::create(
        &shared.store,
        &shared.ranges,
        call.kind,
        namespace,
        object,
        options.dry_run,
    )
    .await?;
    let mut response = answer(StatusCode::CREATED, &created);
    warn(&mut response, &warnings);
    Ok(response)
}

pub(super) async fn update(call: Call, body: Bytes) -> Result<Response> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let (mut object, warnings) = read(&call, &body, options)?;
    let target = call.target();
    if meta::name(&object).is_empty() {
        meta::metadata_mut(&mut object).insert("name".into(), target.name.as_str().into());
    }
    let shared = &call.shared;
    let change = Box::new(move |_: &Value| Ok(object));
    let updated = objects::update(
        &shared.store,
        &shared.ranges,
        target,
        mode(&call),
        change,
        options.dry_run,
    )
    .await?;
    let mut response = answer(StatusCode::OK, &updated);
    warn(&mut response, &warnings);
    Ok(response)
}

pub(super) async fn bind(call: Call, body: Bytes) -> Result<Response> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let binding = decode::body(&call.headers, &body)?
        .ok_or_else(|| Status::bad_request("the body is empty"))?;
    objects::bind(&call.shared.store, call.target(), binding, options.dry_run).await?;
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Ok(answer(StatusCode::CREATED, &body))
}

pub(super) fn mode(call: &Call) -> UpdateMode {
    match call.subresource.map(|subresource| subresource.name) {
        Some("status") => UpdateMode::Status,
        Some("finalize") => UpdateMode::Finalize,
        _ => UpdateMode::Main,
    }
}

/// The object in the body, of the path's kind, and what to warn about.
fn read(call: &Call, body: &[u8], options: WriteOptions) -> Result<(Value, Vec<String>)> {
    let mut object = decode::body(&call.headers, body)?
        .ok_or_else(|| Status::bad_request("the body is empty"))?;
    let warnings = schema::decode(call.kind, &mut object, options.validation)
        .map_err(|error| error.into_status(call.kind))?;
    Ok((object, warnings))
}
