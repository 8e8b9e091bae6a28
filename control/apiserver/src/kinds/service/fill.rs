use serde_json::{Value, json};

use super::super::value::{child, default, list, list_mut, remove, text};

/// Three hours, as upstream.
const AFFINITY_TIMEOUT: i64 = 10_800;

/// `SetDefaults_Service`.
pub(super) fn service(object: &mut Value) {
    let spec = child(object, "spec");
    default(spec, "sessionAffinity", "None");
    default(spec, "type", "ClusterIP");
    match text(spec, "/sessionAffinity") {
        "None" => remove(spec, "sessionAffinityConfig"),
        "ClientIP"
            if spec
                .pointer("/sessionAffinityConfig/clientIP/timeoutSeconds")
                .is_none() =>
        {
            spec["sessionAffinityConfig"] =
                json!({ "clientIP": { "timeoutSeconds": AFFINITY_TIMEOUT } });
        }
        _ => {}
    }
    for port in list_mut(spec, "/ports") {
        default(port, "protocol", "TCP");
        let target = port.get("targetPort");
        if target.is_none_or(|t| t.is_null() || t.as_i64() == Some(0) || t.as_str() == Some("")) {
            port["targetPort"] = port.get("port").cloned().unwrap_or_else(|| json!(0));
        }
    }
    let kind = text(spec, "/type").to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || kind == "ClusterIP" && !list(spec, "/externalIPs").is_empty();
    if external {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
        for ingress in list_mut(object, "/status/loadBalancer/ingress") {
            if !text(ingress, "/ip").is_empty() {
                default(ingress, "ipMode", "VIP");
            }
        }
    }
}
