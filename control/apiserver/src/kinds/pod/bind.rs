use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::value::{child, list_mut, map, text};
use super::POD;
use crate::meta;
use crate::status::Status;

/// `POST pods/{name}/binding`: puts the pod on a node, once.
pub fn bind(pod: &mut Value, binding: &Value, now: Timestamp) -> Result<(), Status> {
    let name = meta::name(pod).to_owned();
    let node = text(binding, "/target/name");
    if node.is_empty() {
        let error = super::FieldError::required("target.name", "");
        return Err(Status::invalid(&POD, &name, &[error]));
    }
    let already = text(pod, "/spec/nodeName");
    if !already.is_empty() {
        let why = format!("pod {name} is already assigned to node \"{already}\"");
        return Err(Status::conflict(&POD, &name, &why));
    }
    if meta::is_terminating(pod) {
        let why = format!("pod {name} is being deleted, cannot be assigned to a host");
        return Err(Status::conflict(&POD, &name, &why));
    }
    child(pod, "spec")["nodeName"] = node.into();
    if let Some(annotations) = map(binding, "/metadata/annotations") {
        let target = child(child(pod, "metadata"), "annotations");
        for (key, value) in annotations {
            target[key] = value.clone();
        }
    }
    set_scheduled(pod, now);
    Ok(())
}

fn set_scheduled(pod: &mut Value, now: Timestamp) {
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": meta::format_time(now),
    });
    let known = list_mut(pod, "/status/conditions")
        .iter_mut()
        .find(|c| text(c, "/type") == "PodScheduled");
    if let Some(known) = known {
        *known = condition;
        return;
    }
    let status = child(pod, "status");
    match status.get_mut("conditions").and_then(Value::as_array_mut) {
        Some(conditions) => conditions.push(condition),
        None => status["conditions"] = Value::Array(vec![condition]),
    }
}
