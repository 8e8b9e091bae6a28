//! Deletion of objects and collections.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::Call;
use super::list::page;
use crate::answer::{Result, json as answer};
use crate::decode;
use crate::objects::{self, DeleteOptions, ObjectRef};
use crate::query::ListOptions;
use crate::select::Selection;

pub(super) async fn delete(call: Call, body: Bytes) -> Result<Response> {
    let options = options(&call, &body)?;
    let deleted = objects::delete(&call.shared.store, call.target(), options).await?;
    let body = deleted.body(call.kind, call.name.as_deref().unwrap_or_default());
    Ok(answer(StatusCode::OK, &body))
}

/// One commit per object: a collection may be large, and others write in between.
pub(super) async fn delete_collection(call: Call, body: Bytes) -> Result<Response> {
    let options = options(&call, &body)?;
    let list = ListOptions::parse(&call.query)?;
    let selection = Selection::parse(call.kind, &list)?;
    let page = page(&call, &list, &selection).await?;
    let mut items: Vec<Value> = Vec::with_capacity(page.records.len());
    for record in &page.records {
        let (namespace, name) = record.key.rsplit_once('/').unwrap_or(("", &record.key));
        let target = ObjectRef {
            kind: call.kind,
            namespace: namespace.into(),
            name: name.into(),
        };
        match objects::delete(&call.shared.store, target, options.clone()).await {
            Ok(deleted) => items.push(deleted.object),
            // Gone meanwhile: what was asked for.
            Err(failure) if failure.status().code == 404 => {}
            Err(failure) => return Err(failure),
        }
    }
    let body = json!({
        "kind": format!("{}List", call.kind.kind),
        "apiVersion": call.kind.api_version(),
        "metadata": { "resourceVersion": call.shared.store.revision().to_string() },
        "items": items,
    });
    Ok(answer(StatusCode::OK, &body))
}

fn options(call: &Call, body: &[u8]) -> Result<DeleteOptions> {
    let body = decode::body(&call.headers, body)?;
    DeleteOptions::parse(body.as_ref(), &call.query)
}
