//! Content negotiation. Pure.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::status::Status;

/// The form of an answer about resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object or list itself.
    Object,
    /// `meta.k8s.io/v1 Table`
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata`, or its list
    Metadata,
}

/// The form of an OpenAPI v2 document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenApiForm {
    Json,
    /// gnostic's `openapi.v2.Document`
    Protobuf,
}

/// One media type of an Accept header.
struct MediaType<'a> {
    essence: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaType<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        Self {
            essence,
            parameters: parts.filter_map(|part| part.split_once('=')).collect(),
        }
    }

    fn is_json(&self) -> bool {
        matches!(self.essence, "application/json" | "application/*" | "*/*")
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.parameters
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    }
}

/// The first form in the client's list that we can write. Clients list what they want in order and put no weights.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form, Status> {
    let accept = accept(headers);
    if accept.trim().is_empty() {
        return Ok(Form::Object);
    }
    let form = |media: MediaType<'_>| {
        let meta = media.get("g") == Some("meta.k8s.io") && media.get("v") == Some("v1");
        match media.get("as") {
            _ if !media.is_json() => None,
            None => Some(Form::Object),
            Some("Table") if meta => Some(Form::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta => {
                Some(Form::Metadata)
            }
            Some(_) => None,
        }
    };
    accept
        .split(',')
        .find_map(|text| form(MediaType::parse(text)))
        .ok_or_else(|| Status::not_acceptable(&["application/json", "application/yaml"]))
}

/// Whether the client takes aggregated discovery in the version that we write, and prefers it to the legacy lists. A
/// client that offers `v2beta1` only gets the legacy form: an answer in a version it did not ask for breaks it.
pub(crate) fn aggregated_discovery(headers: &HeaderMap) -> bool {
    let accept = accept(headers);
    let first = accept.split(',').map(MediaType::parse).find_map(|media| {
        let aggregated = media.get("g") == Some("apidiscovery.k8s.io")
            && media.get("v") == Some("v2")
            && media.get("as") == Some("APIGroupDiscoveryList");
        match media.get("as") {
            _ if !media.is_json() => None,
            None => Some(false),
            Some(_) if aggregated => Some(true),
            Some(_) => None,
        }
    });
    first.unwrap_or(false)
}

/// Media type of OpenAPI v2 documents in protobuf form.
pub(crate) const OPENAPI_V2_PROTOBUF: &str =
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The name under which kubectl asks for it. With its `@` it is no media type of RFC 9110, and Go refuses it in an answer.
const OPENAPI_V2_PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The form in which the client wants the OpenAPI v2 document.
pub(crate) fn openapi_v2(headers: &HeaderMap) -> Result<OpenApiForm, Status> {
    let accept = accept(headers);
    if accept.trim().is_empty() {
        return Ok(OpenApiForm::Json);
    }
    let form = |media: MediaType<'_>| match media.essence {
        OPENAPI_V2_PROTOBUF | OPENAPI_V2_PROTOBUF_OLD => Some(OpenApiForm::Protobuf),
        _ => media.is_json().then_some(OpenApiForm::Json),
    };
    let accepted = ["application/json", OPENAPI_V2_PROTOBUF];
    accept
        .split(',')
        .find_map(|text| form(MediaType::parse(text)))
        .ok_or_else(|| Status::not_acceptable(&accepted))
}

fn accept(headers: &HeaderMap) -> String {
    let values = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        [(ACCEPT, accept.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn forms() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                     application/json";
        assert_eq!(form(&headers(table)), Ok(Form::Table));
        assert_eq!(
            form(&headers(
                "application/vnd.kubernetes.protobuf,application/json"
            )),
            Ok(Form::Object)
        );
        assert_eq!(
            form(&headers("application/vnd.kubernetes.protobuf, */*")),
            Ok(Form::Object)
        );
        assert_eq!(form(&HeaderMap::new()), Ok(Form::Object));
        let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(form(&headers(metadata)), Ok(Form::Metadata));
        let old = "application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json";
        assert_eq!(form(&headers(old)), Ok(Form::Object));
        assert_eq!(
            form(&headers("application/vnd.kubernetes.protobuf"))
                .unwrap_err()
                .code,
            406
        );
    }

    #[test]
    fn discovery() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        assert!(aggregated_discovery(&headers(&format!(
            "{v2},{beta},application/json"
        ))));
        assert!(!aggregated_discovery(&headers(&format!(
            "{beta},application/json"
        ))));
        assert!(!aggregated_discovery(&headers("application/json")));
        assert!(!aggregated_discovery(&HeaderMap::new()));
    }

    #[test]
    fn openapi_v2_documents() {
        let kubectl = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        let many = format!("text/html, {OPENAPI_V2_PROTOBUF};q=0.9, */*");
        for accept in [kubectl, OPENAPI_V2_PROTOBUF, &many] {
            let form = openapi_v2(&headers(accept));
            assert_eq!(form, Ok(OpenApiForm::Protobuf), "{accept}");
        }
        let json = format!("application/json, {kubectl}");
        for accept in ["application/json", "*/*", &json] {
            let form = openapi_v2(&headers(accept));
            assert_eq!(form, Ok(OpenApiForm::Json), "{accept}");
        }
        assert_eq!(openapi_v2(&HeaderMap::new()), Ok(OpenApiForm::Json));
        assert_eq!(openapi_v2(&headers("text/html")).unwrap_err().code, 406);
    }
}
