//! The endpoints that a Service should have.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;

/// Endpoints that can share slices: one address type, one set of ports.
#[derive(Debug, PartialEq)]
pub(super) struct Set {
    pub address_type: &'static str,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

/// Whether a Pod can be an endpoint at all: it has an address and has not ended.
pub(super) fn belongs(pod: &Pod) -> bool {
    !pods::is_finished(pod) && pod_ips(pod).next().is_some()
}

/// All endpoints of a Service, by address type and ports. Named target ports may differ from Pod to Pod, which is
/// why one Service can have several sets. An address type without endpoints yields one empty set.
pub(super) fn sets(
    service: &Service,
    spec: &ServiceSpec,
    pods: &[&Arc<Pod>],
    zone: impl Fn(&str) -> Option<String>,
) -> Vec<Set> {
    let mut sets = Vec::new();
    for address_type in address_types(spec) {
        let v6 = address_type == "IPv6";
        let mut by_ports: BTreeMap<String, Set> = BTreeMap::new();
        for pod in pods {
            let Some(ip) = pod_ips(pod).find(|ip| ip.is_ipv6() == v6) else {
                continue;
            };
            let ports = ports(spec, pod);
            let set = by_ports.entry(port_key(&ports)).or_insert_with(|| Set {
                address_type,
                ports,
                endpoints: Vec::new(),
            });
            set.endpoints.push(endpoint(service, spec, pod, ip, &zone));
        }
        if by_ports.is_empty() {
            sets.push(Set {
                address_type,
                ports: Vec::new(),
                endpoints: Vec::new(),
            });
        }
        sets.extend(by_ports.into_values());
    }
    sets
}

/// The identity of a set of ports.
pub(super) fn port_key(ports: &[EndpointPort]) -> String {
    let mut keys: Vec<String> = ports
        .iter()
        .map(|p| {
            format!(
                "{}/{}/{}/{}",
                p.name.as_deref().unwrap_or_default(),
                p.protocol.as_deref().unwrap_or("TCP"),
                p.port.unwrap_or(0),
                p.app_protocol.as_deref().unwrap_or_default()
            )
        })
        .collect();
    keys.sort();
    keys.join(",")
}

/// Whether the Service has no cluster IP by wish.
pub(super) fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn address_types(spec: &ServiceSpec) -> Vec<&'static str> {
    let name = |family: &str| if family == "IPv6" { "IPv6" } else { "IPv4" };
    if let Some(families) = spec.ip_families.as_ref().filter(|f| !f.is_empty()) {
        return families.iter().map(|family| name(family)).collect();
    }
    let ip = spec
        .cluster_ip
        .as_deref()
        .and_then(|ip| ip.parse::<IpAddr>().ok());
    vec![if ip.is_some_and(|ip| ip.is_ipv6()) {
        "IPv6"
    } else {
        "IPv4"
    }]
}

fn pod_ips(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let status = pod.status.as_ref();
    let several = status
        .and_then(|s| s.pod_ips.as_ref())
        .into_iter()
        .flatten();
    let one = status.and_then(|s| s.pod_ip.as_deref()).into_iter();
    several
        .map(|ip| ip.ip.as_str())
        .chain(one)
        .filter_map(|ip| ip.parse().ok())
}

fn ports(spec: &ServiceSpec, pod: &Pod) -> Vec<EndpointPort> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                protocol: Some(protocol(port).to_owned()),
                port: Some(target(port, pod)?),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The port of a Pod that a Service port leads to; `None` if the Pod has none of that name.
fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        // 0 is how a target port that was never set can arrive.
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let mut ports = spec
        .containers
        .iter()
        .flat_map(|c| c.ports.iter().flatten());
    ports
        .find(|p| {
            p.name.as_deref() == Some(name)
                && p.protocol.as_deref().unwrap_or("TCP") == protocol(port)
        })
        .map(|p| p.container_port)
}

fn endpoint(
    service: &Service,
    spec: &ServiceSpec,
    pod: &Pod,
    ip: IpAddr,
    zone: impl Fn(&str) -> Option<String>,
) -> Endpoint {
    let node = pods::node_name(pod);
    let serving = pods::is_ready(pod);
    let terminating = pods::is_terminating(pod);
    let always_ready = spec.publish_not_ready_addresses == Some(true);
    let ready = always_ready || (serving && !terminating);
    let zone = node.and_then(zone);
    let pod_spec = pod.spec.as_ref();
    let subdomain = pod_spec.and_then(|s| s.subdomain.as_deref());
    let hostname = pod_spec
        .and_then(|s| s.hostname.clone())
        .filter(|_| subdomain.is_some() && subdomain == service.metadata.name.as_deref());
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname.filter(|name| !name.is_empty()),
        node_name: node.map(str::to_owned),
        hints: hints(spec, node, zone.as_deref()).filter(|_| ready),
        zone,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// Where `trafficDistribution` (KEP-4444, KEP-3015) wants an endpoint to be used: in its own zone, or on its own node
/// and else in its zone. A proxy heeds hints only while every ready endpoint has one.
fn hints(spec: &ServiceSpec, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let per_node = match spec.traffic_distribution.as_deref()? {
        "PreferSameNode" => true,
        // The older name says the same.
        "PreferSameZone" | "PreferClose" => false,
        _ => return None,
    };
    let zones = zone.map(|name| vec![ForZone { name: name.into() }]);
    let nodes = node
        .filter(|_| per_node)
        .map(|name| vec![ForNode { name: name.into() }]);
    (zones.is_some() || nodes.is_some()).then_some(EndpointHints {
        for_nodes: nodes,
        for_zones: zones,
    })
}
