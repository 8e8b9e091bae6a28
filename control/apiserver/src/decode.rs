//! Request bodies into JSON values. Pure.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::status::Status;

/// Largest body that is read.
pub(crate) const MAX_BODY: usize = 3 << 20;
/// Largest object that is stored, as etcd's default request limit has it.
pub(crate) const MAX_OBJECT: usize = 3 << 19;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const ACCEPTED: [&str; 2] = ["application/json", "application/yaml"];

/// The media type without its parameters; none when the header is missing (kubectl's scale PUT).
pub(crate) fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default().trim();
    (!essence.is_empty()).then_some(essence)
}

/// The body of a create, update or delete. An empty body is none.
pub(crate) fn body(headers: &HeaderMap, bytes: &[u8]) -> Result<Option<Value>, Status> {
    if bytes.is_empty() {
        return Ok(None);
    }
    match content_type(headers) {
        None | Some("application/json") => json(bytes).map(Some),
        Some("application/yaml" | "application/x-yaml" | "text/yaml") => yaml(bytes).map(Some),
        Some(PROTOBUF) => Err(protobuf()),
        // curl's default for -d; upstream refuses it too.
        Some(_) => Err(Status::unsupported_media_type(&ACCEPTED)),
    }
}

/// JSON as Kubernetes reads it: a syntax error is the client's.
pub(crate) fn json(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes).map_err(|error| {
        Status::bad_request(format!(
            "couldn't get version/kind; json parse error: {error}"
        ))
    })
}

/// YAML, one document.
pub(crate) fn yaml(bytes: &[u8]) -> Result<Value, Status> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Status::bad_request("error converting YAML to JSON: the body is not UTF-8"))?;
    serde_saphyr::from_str(text)
        .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))
}

/// What typed clients (kubectl's `create deployment`, Go controllers) send, and we cannot read.
fn protobuf() -> Status {
    let mut status = Status::unsupported_media_type(&ACCEPTED);
    status.message = "this server does not read protobuf bodies (application/vnd.kubernetes.protobuf), which kubectl's \
                      typed commands such as `kubectl create deployment NAME` send; write the object as YAML and use \
                      `kubectl create -f FILE` or `kubectl apply -f FILE`"
        .into();
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn headers(content_type: &str) -> HeaderMap {
        [(CONTENT_TYPE, content_type.parse().unwrap())]
            .into_iter()
            .collect()
    }

    #[test]
    fn bodies() {
        let object = Some(json!({"kind": "Pod"}));
        assert_eq!(
            body(&HeaderMap::new(), br#"{"kind":"Pod"}"#).unwrap(),
            object
        );
        assert_eq!(
            body(
                &headers("application/json; charset=utf-8"),
                br#"{"kind":"Pod"}"#
            )
            .unwrap(),
            object
        );
        assert_eq!(
            body(&headers("application/yaml"), b"kind: Pod\n").unwrap(),
            object
        );
        assert_eq!(body(&HeaderMap::new(), b"").unwrap(), None);
        assert_eq!(body(&HeaderMap::new(), b"{").unwrap_err().code, 400);
        assert_eq!(
            body(&headers("application/yaml"), b"a: [")
                .unwrap_err()
                .code,
            400
        );
        let refused = body(&headers(PROTOBUF), b"k8s\0").unwrap_err();
        assert_eq!(refused.code, 415);
        assert!(refused.message.contains("kubectl create -f FILE"));
    }
}
