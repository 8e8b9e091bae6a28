//! HTTP answers: JSON bodies and `Status` errors.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use seaway_store::{ReadError, StoreError};
use serde_json::Value;

use crate::status::Status;

/// A failed request. Boxed: a `Status` is far larger than what most functions answer.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Failure(Box<Status>);

/// What handlers give back.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn status(&self) -> &Status {
        &self.0
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
    }
}

impl From<Box<Status>> for Failure {
    fn from(status: Box<Status>) -> Self {
        Self(status)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed => Status::unavailable("the server is shutting down").into(),
            error => Status::internal(error).into(),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted { .. } => Status::expired_list().into(),
            ReadError::Future { asked, current } => {
                Status::too_large_resource_version(asked, current).into()
            }
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Status::internal(error).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.0.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(code, &self.0.body());
        if let Some(seconds) = self.0.retry_after() {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

pub(crate) fn json(code: StatusCode, body: &Value) -> Response {
    json_bytes(code, body.to_string().into())
}

pub(crate) fn json_bytes(code: StatusCode, body: Bytes) -> Response {
    bytes(code, "application/json", body)
}

pub(crate) fn text(code: StatusCode, body: impl Into<Bytes>) -> Response {
    bytes(code, "text/plain; charset=utf-8", body.into())
}

pub(crate) fn bytes(code: StatusCode, content_type: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Adds `Warning: 299 - "text"` headers (RFC 9110 leaves the agent out as `-`); kubectl prints each once.
pub(crate) fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
