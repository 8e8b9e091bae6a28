//! `SetDefaults_Pod`, `_PodSpec`, `_Container`, `_Probe` and their parts.

use serde_json::{Value, json};

use super::super::value::{child, default, default_zero, list_mut, map, remove, text};

/// Where a container writes its last words.
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";
/// Mode of files in volumes made from objects.
const FILE_MODE: i64 = 0o644;

pub(super) fn pod(object: &mut Value) {
    let pod_spec = child(object, "spec");
    default(pod_spec, "enableServiceLinks", true);
    spec(pod_spec);
}

/// The template of a Deployment or ReplicaSet.
pub(in super::super) fn template(template: &mut Value) {
    spec(child(template, "spec"));
}

fn spec(spec: &mut Value) {
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "schedulerName", "default-scheduler");
    child(spec, "securityContext");
    service_account(spec);
    let host_network = super::flag(spec, "/hostNetwork");
    for pointer in ["/initContainers", "/containers", "/ephemeralContainers"] {
        for one in list_mut(spec, pointer) {
            container(one, host_network);
        }
    }
    for volume in list_mut(spec, "/volumes") {
        fill_volume(volume);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are kept equal.
fn service_account(spec: &mut Value) {
    let (new, old) = (
        text(spec, "/serviceAccountName").to_owned(),
        text(spec, "/serviceAccount").to_owned(),
    );
    if !new.is_empty() {
        spec["serviceAccount"] = new.into();
    } else if !old.is_empty() {
        spec["serviceAccountName"] = old.into();
    }
}

fn container(container: &mut Value, host_network: bool) {
    let policy = pull_policy(text(container, "/image"));
    default(container, "imagePullPolicy", policy);
    default(
        container,
        "terminationMessagePath",
        TERMINATION_MESSAGE_PATH,
    );
    default(container, "terminationMessagePolicy", "File");
    for port in list_mut(container, "/ports") {
        default(port, "protocol", "TCP");
        if host_network {
            let number = port
                .get("containerPort")
                .cloned()
                .unwrap_or_else(|| json!(0));
            default_zero(port, "hostPort", number);
        }
    }
    for variable in list_mut(container, "/env") {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            default(reference, "apiVersion", "v1");
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(one) = container.get_mut(key) {
            probe(one);
        }
    }
    for pointer in ["/lifecycle/postStart/httpGet", "/lifecycle/preStop/httpGet"] {
        if let Some(action) = container.pointer_mut(pointer) {
            http_get(action);
        }
    }
    let resources = child(container, "resources");
    // What is limited but not requested is requested in full.
    for (name, limit) in map(resources, "/limits").cloned().into_iter().flatten() {
        default(child(resources, "requests"), &name, limit);
    }
}

fn probe(probe: &mut Value) {
    default_zero(probe, "timeoutSeconds", 1);
    default_zero(probe, "periodSeconds", 10);
    default_zero(probe, "successThreshold", 1);
    default_zero(probe, "failureThreshold", 3);
    if let Some(action) = probe.get_mut("httpGet") {
        http_get(action);
    }
    if let Some(action) = probe.get_mut("grpc")
        && action.get("service").is_none()
    {
        action["service"] = "".into();
    }
}

fn http_get(action: &mut Value) {
    default(action, "path", "/");
    default(action, "scheme", "HTTP");
}

fn fill_volume(volume: &mut Value) {
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(key) {
            default(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = volume.get_mut("hostPath")
        && source.get("type").is_none()
    {
        source["type"] = "".into();
    }
    let has_source = volume
        .as_object()
        .is_some_and(|map| map.keys().any(|key| key != "name"));
    if !has_source {
        volume["emptyDir"] = json!({});
    }
    for reference in list_mut(volume, "/downwardAPI/items") {
        if let Some(field) = reference.get_mut("fieldRef") {
            default(field, "apiVersion", "v1");
        }
    }
    if text(volume, "/emptyDir/medium").is_empty()
        && let Some(source) = volume.get_mut("emptyDir")
    {
        remove(source, "medium");
    }
}

/// An image that may move under the same name is looked up each time.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let moving =
        !image.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    if moving { "Always" } else { "IfNotPresent" }
}
