//! Create, replace, bind.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::Call;
use crate::answer::{Result, json as answer, warn};
use crate::decode;
use crate::kinds::Kind;
use crate::meta;
use crate::objects::{self, UpdateMode};
use crate::query::{FieldValidation, WriteOptions};
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
    let kind = call.kind;
    let mut object = decode::body(&call.headers, body)?
        .ok_or_else(|| Status::bad_request("the body is empty"))?;
    check_kind(kind, &mut object)?;
    let warnings = check_fields(kind, &mut object, options.validation)?;
    Ok((object, warnings))
}

/// A body may leave out its kind; another kind's body is refused.
fn check_kind(kind: &Kind, object: &mut Value) -> Result<()> {
    let Some(map) = object.as_object_mut() else {
        return Err(Status::bad_request("the body is not a JSON object").into());
    };
    let api_version = kind.api_version();
    let found = |map: &serde_json::Map<String, Value>, key: &str| {
        map.get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (found_version, found_kind) = (found(map, "apiVersion"), found(map, "kind"));
    if !found_kind.is_empty() && found_kind != kind.kind
        || !found_version.is_empty() && found_version != api_version
    {
        return Err(Status::bad_request(format!(
            "the API version in the data ({found_version}) and kind ({found_kind}) do not match the expected \
             {api_version}, Kind={}",
            kind.kind
        ))
        .into());
    }
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), kind.kind.into());
    Ok(())
}

fn check_fields(
    _kind: &Kind,
    _object: &mut Value,
    _validation: FieldValidation,
) -> Result<Vec<String>> {
    Ok(Vec::new())
}
