use serde_json::{Value, json};

use super::super::prepare;
use super::super::value::{carry, child, int, list, list_mut, remove, text};

/// Fields that mean something for some types only: (field, is it for this spec?).
type Dependent = (&'static str, fn(&Value) -> bool);

const DEPENDENT: &[Dependent] = &[
    ("clusterIP", is_clustered),
    ("clusterIPs", is_clustered),
    ("ipFamilies", is_clustered),
    ("ipFamilyPolicy", is_clustered),
    ("internalTrafficPolicy", is_clustered),
    ("healthCheckNodePort", has_health_check),
    ("externalTrafficPolicy", is_external),
    ("allocateLoadBalancerNodePorts", is_load_balancer),
    ("loadBalancerClass", is_load_balancer),
];

pub(super) fn create(object: &mut Value) {
    object["status"] = json!({ "loadBalancer": {} });
    let spec = child(object, "spec");
    let ip = text(spec, "/clusterIP").to_owned();
    if !ip.is_empty() && list(spec, "/clusterIPs").is_empty() {
        spec["clusterIPs"] = json!([ip]);
    }
}

pub(super) fn update(new: &mut Value, old: &Value) {
    prepare::status_update(new, old);
    let old = old.get("spec").unwrap_or(&Value::Null);
    let spec = child(new, "spec");
    carry_allocated(spec, old);
    follow_cluster_ip(spec, old);
    drop_dependent(spec, old);
    if is_clustered(spec) {
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if spec.get(key).is_none() && text(spec, "/clusterIP") == text(old, "/clusterIP") {
                carry(spec, old, key);
            }
        }
    }
}

/// `patchAllocatedValues`: what the client left out stays as allocated.
fn carry_allocated(spec: &mut Value, old: &Value) {
    if is_clustered(spec) && is_clustered(old) {
        if text(spec, "/clusterIP").is_empty() {
            carry(spec, old, "clusterIP");
        }
        if list(spec, "/clusterIPs").is_empty()
            && text(spec, "/clusterIP") == text(old, "/clusterIP")
        {
            carry(spec, old, "clusterIPs");
        }
    }
    if has_node_ports(spec) && has_node_ports(old) {
        let key = |port: &Value| (int(port, "/port"), text(port, "/protocol").to_owned());
        for port in list_mut(spec, "/ports") {
            if int(port, "/nodePort").unwrap_or(0) == 0
                && let Some(before) = list(old, "/ports")
                    .iter()
                    .find(|before| key(before) == key(port))
                && let Some(node_port) = before.get("nodePort")
            {
                port["nodePort"] = node_port.clone();
            }
        }
    }
    if has_health_check(spec)
        && has_health_check(old)
        && int(spec, "/healthCheckNodePort").unwrap_or(0) == 0
    {
        carry(spec, old, "healthCheckNodePort");
    }
}

/// `normalizeClusterIPs`: a client that knows only `clusterIP` and changes it means `clusterIPs` too.
fn follow_cluster_ip(spec: &mut Value, old: &Value) {
    let ip = text(spec, "/clusterIP").to_owned();
    if ip != text(old, "/clusterIP") && spec.get("clusterIPs") == old.get("clusterIPs")
        || list(spec, "/clusterIPs").is_empty()
    {
        if ip.is_empty() {
            remove(spec, "clusterIPs");
        } else {
            spec["clusterIPs"] = json!([ip]);
        }
    }
}

/// `dropTypeDependentFields`: a change of type wipes what the old type needed, unless the client changed it as well.
fn drop_dependent(spec: &mut Value, old: &Value) {
    for (key, applies) in DEPENDENT {
        if applies(old) && !applies(spec) && spec.get(key) == old.get(key) {
            remove(spec, key);
        }
    }
    if has_node_ports(old) && !has_node_ports(spec) {
        let before: Vec<Option<i64>> = list(old, "/ports")
            .iter()
            .map(|p| int(p, "/nodePort"))
            .collect();
        for port in list_mut(spec, "/ports") {
            if before.contains(&int(port, "/nodePort")) {
                remove(port, "nodePort");
            }
        }
    }
}

fn is_clustered(spec: &Value) -> bool {
    matches!(
        text(spec, "/type"),
        "ClusterIP" | "NodePort" | "LoadBalancer"
    )
}

fn is_load_balancer(spec: &Value) -> bool {
    text(spec, "/type") == "LoadBalancer"
}

fn has_node_ports(spec: &Value) -> bool {
    matches!(text(spec, "/type"), "NodePort" | "LoadBalancer")
}

fn is_external(spec: &Value) -> bool {
    has_node_ports(spec)
        || text(spec, "/type") == "ClusterIP" && !list(spec, "/externalIPs").is_empty()
}

fn has_health_check(spec: &Value) -> bool {
    is_load_balancer(spec) && text(spec, "/externalTrafficPolicy") == "Local"
}
