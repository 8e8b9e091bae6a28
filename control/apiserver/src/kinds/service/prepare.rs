use serde_json::{Value, json};

use super::super::prepare;
use super::super::value::{child, default, int, list, remove, text};

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

/// The Service wants a virtual address (headless ones are not asked here: their clusterIP is `None`).
pub fn needs_cluster_ip(service: &Value) -> bool {
    is_clustered(&service["spec"]) && text(service, "/spec/clusterIP") != "None"
}

/// The Service wants a port on every node for each of its ports.
pub fn needs_node_ports(service: &Value) -> bool {
    match text(service, "/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => {
            service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false))
        }
        _ => false,
    }
}

/// The Service wants a port on which nodes say whether they have local endpoints.
pub fn needs_health_check_port(service: &Value) -> bool {
    has_health_check(&service["spec"])
}

pub(super) fn create(object: &mut Value) {
    object["status"] = json!({ "loadBalancer": {} });
    let spec = child(object, "spec");
    let ip = text(spec, "/clusterIP").to_owned();
    if !ip.is_empty() && list(spec, "/clusterIPs").is_empty() {
        spec["clusterIPs"] = json!([ip]);
    }
    families(spec);
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
                super::super::value::carry(spec, old, key);
            }
        }
        families(spec);
    }
}

/// `patchAllocatedValues`: what the client left out stays as allocated.
fn carry_allocated(spec: &mut Value, old: &Value) {
    if is_clustered(spec) && is_clustered(old) {
        if text(spec, "/clusterIP").is_empty() {
            super::super::value::carry(spec, old, "clusterIP");
        }
        if list(spec, "/clusterIPs").is_empty()
            && text(spec, "/clusterIP") == text(old, "/clusterIP")
        {
            super::super::value::carry(spec, old, "clusterIPs");
        }
    }
    if has_node_ports(spec) && has_node_ports(old) {
        let key = |port: &Value| (int(port, "/port"), text(port, "/protocol").to_owned());
        for port in super::super::value::list_mut(spec, "/ports") {
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
        super::super::value::carry(spec, old, "healthCheckNodePort");
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
        for port in super::super::value::list_mut(spec, "/ports") {
            if before.contains(&int(port, "/nodePort")) {
                remove(port, "nodePort");
            }
        }
    }
}

/// One family unless the client says otherwise: that of the address given, else IPv4.
fn families(spec: &mut Value) {
    if !is_clustered(spec) {
        return;
    }
    if list(spec, "/ipFamilies").is_empty() {
        let family = |ip: &str| if ip.contains(':') { "IPv6" } else { "IPv4" };
        let from_ips: Vec<Value> = list(spec, "/clusterIPs")
            .iter()
            .filter_map(Value::as_str)
            .map(|ip| family(ip).into())
            .collect();
        spec["ipFamilies"] = if from_ips.is_empty() {
            json!(["IPv4"])
        } else {
            from_ips.into()
        };
    }
    let policy = if list(spec, "/ipFamilies").len() > 1 {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    default(spec, "ipFamilyPolicy", policy);
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
