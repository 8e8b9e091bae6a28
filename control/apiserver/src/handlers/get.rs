//! One object.

use axum::response::Response;
use http::StatusCode;

use super::{Call, layout};
use crate::answer::{Result, json, json_bytes};
use crate::negotiate::{self, Form};
use crate::objects::{load, load_bytes};
use crate::table;

pub(super) fn get(call: &Call) -> Result<Response> {
    let form = negotiate::form(&call.headers)?;
    let record = call.target().stored(&call.shared.store)?;
    if form == Form::Object {
        return Ok(json_bytes(
            StatusCode::OK,
            load_bytes(call.kind, &record.value)?,
        ));
    }
    let object = load(call.kind, &record.value)?;
    let body = match form {
        Form::Table => layout(call)?.single(&object),
        _ => table::partial(&object, "v1"),
    };
    Ok(json(StatusCode::OK, &body))
}
