//! Discovery and OpenAPI documents.

use axum::response::Response;
use http::HeaderMap;

use crate::route::Route;
use crate::server::Shared;

/// The document of a path, if there is one.
pub(super) fn document(_shared: &Shared, _route: &Route, _headers: &HeaderMap) -> Option<Response> {
    None
}
