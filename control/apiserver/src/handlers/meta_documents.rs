//! Discovery and OpenAPI documents.

use axum::response::Response;
use http::{HeaderMap, StatusCode};

use crate::answer::{self, Result};
use crate::discovery;
use crate::negotiate::{self, OpenApiForm};
use crate::openapi;
use crate::route::Route;
use crate::server::Shared;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The document of a path, if there is one.
pub(super) fn document(
    shared: &Shared,
    route: &Route,
    headers: &HeaderMap,
) -> Result<Option<Response>> {
    let address = shared.config.advertise_address.to_string();
    let aggregated = negotiate::aggregated_discovery(headers);
    let document = match route {
        Route::CoreVersions | Route::Groups if aggregated => {
            let document = discovery::aggregated(*route == Route::CoreVersions);
            let body = document.to_string().into();
            return Ok(Some(answer::bytes(StatusCode::OK, AGGREGATED, body)));
        }
        Route::CoreVersions => Some(discovery::core_versions(&address)),
        Route::Groups => Some(discovery::groups()),
        Route::Group(name) => discovery::group(name),
        Route::Resources { group, version } => discovery::resources(group, version),
        Route::OpenApiV2 => {
            let (media, body) = match negotiate::openapi_v2(headers)? {
                OpenApiForm::Json => ("application/json", openapi::v2::json().to_string().into()),
                OpenApiForm::Protobuf => (
                    negotiate::OPENAPI_V2_PROTOBUF,
                    openapi::v2::protobuf().into(),
                ),
            };
            return Ok(Some(answer::bytes(StatusCode::OK, media, body)));
        }
        Route::OpenApi => Some(openapi::root()),
        Route::OpenApiDocument { group, version } => {
            let document = openapi::document(group, version);
            return Ok(document
                .map(|document| answer::json_bytes(StatusCode::OK, document.body.clone().into())));
        }
        _ => None,
    };
    Ok(document.map(|document| answer::json(StatusCode::OK, &document)))
}
