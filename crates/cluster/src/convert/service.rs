//! Service → [`seaway_model::Service`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnetwork::IpNetwork;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use seaway_model::ownership::ALGORITHM_ANNOTATION;
use seaway_model::{Algorithm, Family, ObjectKey, Service, ServicePort, TrafficPolicy};

use super::names::is_label;
use super::{Report, has_label, port_number, protocol};
use crate::intern::Interner;
use crate::ip::{parse_cidr, parse_ip};
use crate::wire;

const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// API default of `sessionAffinityConfig.clientIP.timeoutSeconds`: three hours.
const DEFAULT_AFFINITY_SECONDS: i64 = 10_800;

/// Longest affinity that the API accepts: one day.
const MAX_AFFINITY_SECONDS: i64 = 86_400;

pub(super) fn convert(
    key: &ObjectKey,
    service: &wire::Service,
    names: &mut Interner,
    report: &mut Report,
) -> Option<Service> {
    let spec = &service.spec;
    let headless = spec.cluster_ip.as_deref() == Some("None")
        || spec.cluster_ips.first().is_some_and(|ip| ip == "None");
    if has_label(&service.metadata, PROXY_NAME_LABEL)
        || spec.type_.as_deref() == Some("ExternalName")
        || headless
    {
        return None;
    }
    let cluster_ips = cluster_ips(spec, report);
    if cluster_ips.is_empty() {
        return None;
    }
    let load_balanced = spec.type_.as_deref() == Some("LoadBalancer");
    let external_policy = external_policy(spec, report);
    // The field outlives a change of type; only a LoadBalancer with policy Local is checked there.
    let checked = load_balanced && external_policy == TrafficPolicy::Local;
    let health_check_node_port = checked
        .then(|| health_check_node_port(spec, report))
        .flatten();
    Some(Service {
        key: key.clone(),
        cluster_ips,
        ports: ports(spec, names, report),
        internal_policy: policy(
            spec.internal_traffic_policy.as_deref(),
            "spec.internalTrafficPolicy",
            report,
        ),
        external_policy,
        affinity: affinity(spec, report),
        load_balancer_ips: load_balancer_ips(&service.status, report),
        external_ips: addresses(&spec.external_ips, "spec.externalIPs", report),
        source_ranges: source_ranges(spec, report),
        health_check_node_port,
        algorithm: algorithm(&service.metadata, report),
    })
}

fn algorithm(metadata: &ObjectMeta, report: &mut Report) -> Option<Algorithm> {
    let text = metadata.annotations.as_ref()?.get(ALGORITHM_ANNOTATION)?;
    let algorithm = Algorithm::parse(text.trim());
    if algorithm.is_none() {
        report.add(
            format!("metadata.annotations[{ALGORITHM_ANNOTATION}]"),
            format!("{text:?} is neither random nor maglev: the node's default is used"),
        );
    }
    algorithm
}

fn cluster_ips(spec: &wire::ServiceSpec, report: &mut Report) -> Vec<IpAddr> {
    let single: Vec<String> = spec.cluster_ip.iter().cloned().collect();
    let (field, texts) = if spec.cluster_ips.is_empty() {
        ("spec.clusterIP", &single)
    } else {
        ("spec.clusterIPs", &spec.cluster_ips)
    };
    let mut ips: Vec<IpAddr> = Vec::with_capacity(texts.len());
    // An empty one is not allocated yet; the Service comes again when it is.
    for text in texts.iter().filter(|text| !text.is_empty()) {
        match parse_ip(text) {
            Some(ip) if ips.iter().any(|other| Family::of(*other) == Family::of(ip)) => {
                report.add(
                    field,
                    format!("{ip} is the second address of its family: not served"),
                );
            }
            Some(ip) => ips.push(ip),
            None => report.add(field, format!("{text:?} is not an IP address: not served")),
        }
    }
    ips
}

fn ports(spec: &wire::ServiceSpec, names: &mut Interner, report: &mut Report) -> Vec<ServicePort> {
    let mut ports = Vec::with_capacity(spec.ports.len());
    for (i, port) in spec.ports.iter().enumerate() {
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            let name = port.protocol.as_deref().unwrap_or_default();
            report.add(
                format!("spec.ports[{i}].protocol"),
                format!("{name:?} is not known: the port is not served"),
            );
            continue;
        };
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() && !is_label(name) {
            report.add(
                format!("spec.ports[{i}].name"),
                format!("{name:?} is not a DNS label: the port is not served"),
            );
            continue;
        }
        let Some(number) = port_number(port.port) else {
            report.add(
                format!("spec.ports[{i}].port"),
                "must be between 1 and 65535: the port is not served",
            );
            continue;
        };
        let node_port = port.node_port.filter(|node_port| *node_port != 0);
        if node_port.is_some_and(|node_port| port_number(node_port).is_none()) {
            report.add(
                format!("spec.ports[{i}].nodePort"),
                "must be between 1 and 65535: not served on nodes",
            );
        }
        ports.push(ServicePort {
            name: names.get(name),
            protocol,
            port: number,
            node_port: node_port.and_then(port_number),
        });
    }
    ports
}

fn policy(value: Option<&str>, field: &str, report: &mut Report) -> TrafficPolicy {
    match value {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            report.add(field, format!("{other:?} is not known: read as Cluster"));
            TrafficPolicy::Cluster
        }
    }
}

/// The field means nothing while only the cluster IP is served, and outlives a change of type.
fn external_policy(spec: &wire::ServiceSpec, report: &mut Report) -> TrafficPolicy {
    let policy = policy(
        spec.external_traffic_policy.as_deref(),
        "spec.externalTrafficPolicy",
        report,
    );
    let exposed = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
        || !spec.external_ips.is_empty();
    if exposed {
        policy
    } else {
        TrafficPolicy::Cluster
    }
}

fn health_check_node_port(spec: &wire::ServiceSpec, report: &mut Report) -> Option<u16> {
    let port = spec.health_check_node_port.and_then(port_number);
    if port.is_none() {
        report.add(
            "spec.healthCheckNodePort",
            "not a port: the load balancer cannot learn which nodes have endpoints",
        );
    }
    port
}

fn affinity(spec: &wire::ServiceSpec, report: &mut Report) -> Option<Duration> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => None,
        Some("ClientIP") => {
            let given = spec.session_affinity_config.client_ip.timeout_seconds;
            let seconds = match given {
                Some(seconds) if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) => {
                    report.add(
                        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                        format!("must be between 1 and 86400: {DEFAULT_AFFINITY_SECONDS} is used"),
                    );
                    DEFAULT_AFFINITY_SECONDS
                }
                other => other.unwrap_or(DEFAULT_AFFINITY_SECONDS),
            };
            Some(Duration::from_secs(seconds.unsigned_abs()))
        }
        Some(other) => {
            report.add(
                "spec.sessionAffinity",
                format!("{other:?} is not known: no affinity"),
            );
            None
        }
    }
}

/// KEP-1860: with `ipMode: Proxy` the load balancer rewrites the destination itself, and a short cut inside the
/// cluster would bypass what it adds.
fn load_balancer_ips(status: &wire::ServiceStatus, report: &mut Report) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    for (i, ingress) in status.load_balancer.ingress.iter().enumerate() {
        let text = match ingress.ip.as_deref() {
            Some(text) if !text.is_empty() && ingress.ip_mode.as_deref() != Some("Proxy") => text,
            _ => continue,
        };
        match parse_ip(text) {
            Some(ip) => ips.push(ip),
            None => report.add(
                format!("status.loadBalancer.ingress[{i}].ip"),
                format!("{text:?} is not an IP address: not served"),
            ),
        }
    }
    ips
}

fn addresses(texts: &[String], field: &str, report: &mut Report) -> Vec<IpAddr> {
    let mut ips = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        match parse_ip(text) {
            Some(ip) => ips.push(ip),
            None => report.add(
                format!("{field}[{i}]"),
                format!("{text:?} is not an IP address: not served"),
            ),
        }
    }
    ips
}

/// What is not readable must not turn into "everyone": a prefix that lets nobody in stands for it, of both families
/// if the text does not show which one is meant.
fn source_ranges(spec: &wire::ServiceSpec, report: &mut Report) -> Vec<IpNetwork> {
    let mut ranges = Vec::with_capacity(spec.load_balancer_source_ranges.len());
    for (i, text) in spec.load_balancer_source_ranges.iter().enumerate() {
        match parse_cidr(text.trim()) {
            Some(range) => ranges.push(range),
            None => {
                ranges.extend(match (text.contains('.'), text.contains(':')) {
                    (true, false) => vec![closed(Ipv4Addr::UNSPECIFIED)],
                    (false, true) => vec![closed(Ipv6Addr::UNSPECIFIED)],
                    _ => vec![closed(Ipv4Addr::UNSPECIFIED), closed(Ipv6Addr::UNSPECIFIED)],
                });
                report.add(
                    format!("spec.loadBalancerSourceRanges[{i}]"),
                    format!("{text:?} is not a prefix: nobody is let in by it"),
                );
            }
        }
    }
    ranges
}

/// Matches no packet that can arrive: the unspecified address as a source.
fn closed(unspecified: impl Into<IpAddr>) -> IpNetwork {
    IpNetwork::from(unspecified.into())
}
