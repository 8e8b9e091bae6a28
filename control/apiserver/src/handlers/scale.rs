//! `/scale`: the number of replicas as an `autoscaling/v1 Scale`.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::Call;
use crate::answer::{Result, json as answer};
use crate::decode;
use crate::kinds::FieldError;
use crate::meta;
use crate::objects::{self, Change, UpdateMode, load};
use crate::patch;
use crate::query::WriteOptions;
use crate::selector::LabelSelector;
use crate::status::Status;

pub(super) fn get(call: &Call) -> Result<Response> {
    let record = call.target().stored(&call.shared.store)?;
    Ok(answer(
        StatusCode::OK,
        &scale_of(&load(call.kind, &record.value)?),
    ))
}

pub(super) async fn update(call: Call, body: Bytes) -> Result<Response> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let scale = decode::body(&call.headers, &body)?
        .ok_or_else(|| Status::bad_request("the body is empty"))?;
    write(&call, Box::new(move |_| Ok(scale)), options.dry_run).await
}

pub(super) async fn patch(call: Call, body: Bytes) -> Result<Response> {
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    let (patch_type, patch) = super::patch::read(&call, &body)?;
    let change = Box::new(move |scale: &Value| {
        patch::apply_to_type(None, patch_type, scale, &patch).map_err(Into::into)
    });
    write(&call, change, options.dry_run).await
}

/// Applies a change of the Scale to its workload.
async fn write(call: &Call, change: Change, dry_run: bool) -> Result<Response> {
    let (kind, name) = (call.kind, call.name.clone().unwrap_or_default());
    let change = Box::new(move |old: &Value| {
        let scale = change(&scale_of(old))?;
        let replicas = scale
            .pointer("/spec/replicas")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        if replicas < 0 {
            let detail = "must be greater than or equal to 0";
            let error = FieldError::invalid("spec.replicas", replicas, detail);
            return Err(Status::invalid(kind, &name, &[error]).into());
        }
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(replicas);
        for key in ["resourceVersion", "uid"] {
            if let Some(value) = scale.pointer(&format!("/metadata/{key}")) {
                meta::metadata_mut(&mut new).insert(key.into(), value.clone());
            }
        }
        Ok(new)
    });
    let shared = &call.shared;
    let target = call.target();
    let object = objects::update(
        &shared.store,
        &shared.ranges,
        target,
        UpdateMode::Main,
        change,
        dry_run,
    )
    .await?;
    Ok(answer(StatusCode::OK, &scale_of(&object)))
}

fn scale_of(workload: &Value) -> Value {
    let number = |pointer: &str| {
        workload
            .pointer(pointer)
            .and_then(Value::as_i64)
            .unwrap_or(0)
    };
    let selector = workload
        .pointer("/spec/selector")
        .map(LabelSelector::from_object);
    let selector = selector
        .and_then(std::result::Result::ok)
        .map(|selector| selector.to_string());
    let metadata = workload.get("metadata").cloned().unwrap_or_default();
    let kept = [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ];
    let metadata: serde_json::Map<String, Value> = kept
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), metadata.get(*key)?.clone())))
        .collect();
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": { "replicas": number("/spec/replicas") },
        "status": { "replicas": number("/status/replicas"), "selector": selector.unwrap_or_default() },
    })
}
