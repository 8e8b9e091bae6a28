//! `/log`: what a container wrote, streamed from the agent of its node.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use super::Call;
use crate::answer::{Failure, Result};
use crate::kinds;
use crate::objects::{ObjectRef, load};
use crate::status::Status;

/// Query parameters that the agent understands too (`PodLogOptions`).
const PASSED_ON: [&str; 8] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
];

pub(super) async fn log(call: Call) -> Result<Response> {
    let target = call.target();
    let pod = read(&call, &target)?;
    let container = container(&target, &pod, call.query.get("container"))?;
    let node = pod
        .pointer("/spec/nodeName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if node.is_empty() {
        let why = format!("pod {} does not have a host assigned", target.name);
        return Err(Status::bad_request(why).into());
    }
    let kind =
        kinds::find("", "v1", "nodes").ok_or_else(|| Status::internal("no kind for nodes"))?;
    let node = read(
        &call,
        &ObjectRef {
            kind,
            namespace: String::new(),
            name: node.into(),
        },
    )?;
    let parameters: Vec<String> = call
        .query
        .pairs()
        .iter()
        .filter(|(key, _)| PASSED_ON.contains(&key.as_str()))
        .map(|(key, value)| format!("{key}={}", encode(value)))
        .collect();
    let path = format!(
        "/containerLogs/{}/{}/{container}?{}",
        target.namespace,
        target.name,
        parameters.join("&")
    );
    let answer = call
        .shared
        .agents
        .get(&node, &path)
        .await
        .map_err(Status::from)?;
    let code = answer.status();
    let body = Body::new(answer.into_body());
    if code != StatusCode::OK {
        return Err(refused(code, body).await);
    }
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn read(call: &Call, target: &ObjectRef) -> Result<Value> {
    load(target.kind, &target.stored(&call.shared.store)?.value)
}

/// The container asked for, or the only one.
fn container(target: &ObjectRef, pod: &Value, wanted: Option<&str>) -> Result<String> {
    let names = |pointer: &str| -> Vec<&str> {
        let containers = pod.pointer(pointer).and_then(Value::as_array);
        containers
            .into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str())
            .collect()
    };
    let (main, init) = (names("/spec/containers"), names("/spec/initContainers"));
    let pod = &target.name;
    match (wanted, main.as_slice()) {
        (Some(wanted), _) if main.iter().chain(&init).any(|name| *name == wanted) => {
            Ok(wanted.to_owned())
        }
        (Some(wanted), _) => Err(Status::bad_request(format!(
            "container {wanted} is not valid for pod {pod}"
        ))
        .into()),
        (None, [only]) => Ok((*only).to_owned()),
        (None, names) => {
            let mut why = format!(
                "a container name must be specified for pod {pod}, choose one of: [{}]",
                names.join(" ")
            );
            if !init.is_empty() {
                let init = init.join(" ");
                why.push_str(&format!(" or one of the init containers: [{init}]"));
            }
            Err(Status::bad_request(why).into())
        }
    }
}

/// Percent-encoding of everything but RFC 3986's unreserved characters.
fn encode(value: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    value.bytes().map(encode).collect()
}

/// The agent's own words.
async fn refused(code: StatusCode, body: Body) -> Failure {
    const LIMIT: usize = 4096;
    let text = axum::body::to_bytes(body, LIMIT).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    match code {
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Status::bad_request(text).into(),
        _ => Status::internal(format!("the node's agent answered {code}: {text}")).into(),
    }
}
