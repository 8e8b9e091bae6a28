//! Discovery and OpenAPI documents.

use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::answer;
use crate::discovery;
use crate::negotiate;
use crate::openapi;
use crate::route::Route;
use crate::server::Shared;

/// The document of a path, if there is one.
pub(super) fn document(shared: &Shared, route: &Route, headers: &HeaderMap) -> Option<Response> {
    let address = shared.config.advertise_address.to_string();
    let aggregated = negotiate::aggregated_discovery(headers);
    let document = match route {
        Route::CoreVersions | Route::Groups if aggregated => {
            let document = discovery::aggregated(*route == Route::CoreVersions);
            let mut response = answer::json(StatusCode::OK, &document);
            let media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
            return Some(response);
        }
        Route::CoreVersions => discovery::core_versions(&address),
        Route::Groups => discovery::groups(),
        Route::Group(name) => discovery::group(name)?,
        Route::Resources { group, version } => discovery::resources(group, version)?,
        Route::OpenApi => openapi::root(),
        Route::OpenApiDocument { group, version } => {
            let document = openapi::document(group, version)?;
            return Some(answer::json_bytes(
                StatusCode::OK,
                document.body.clone().into(),
            ));
        }
        _ => return None,
    };
    Some(answer::json(StatusCode::OK, &document))
}
