//! Service + slices + node → rules.
//!
//! One Service at a time, so that the cost of a change is the Service it touches. Nothing here fails: what cannot be
//! used is left out and becomes a [`Diagnostic`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::desired::{Desired, HealthCheck, PortRule, ServiceRules};
use crate::inputs::{EndpointSlice, Family, Inputs, ObjectKey, Protocol, Service, ServicePort};
use crate::settings::NodeSettings;

mod balance;
mod check;
mod endpoints;
mod frontends;
mod lifeline;
#[cfg(test)]
mod tests;

use endpoints::{Endpoints, Place};
use frontends::External;
pub use lifeline::keep_lifeline;

/// Something in an object that we could not use as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub object: ObjectKey,
    /// JSON path, as `spec.ports[0].port`.
    pub field: String,
    /// What it means for traffic.
    pub consequence: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.consequence)
    }
}

/// Derives the rules of one Service on a node; `None` when the Service is not there. The diagnostics are those of the
/// Service and its slices, the source's findings among them; a key without a namespace has those of a node.
pub fn derive_service(
    inputs: &Inputs,
    key: &ObjectKey,
    settings: &NodeSettings,
) -> (Option<ServiceRules>, Vec<Diagnostic>) {
    let mut diagnostics: Vec<Diagnostic> = inputs.findings(key).cloned().collect();
    let Some(service) = inputs.services.get(key) else {
        return (None, diagnostics);
    };
    let node = inputs.nodes.get(&settings.name);
    let place = Place {
        node: &settings.name,
        zone: node.and_then(|node| node.zone.as_deref()),
    };
    let cluster_ips = check::cluster_ips(service, &mut diagnostics);
    let usable_ports = check::ports(service, &mut diagnostics);
    let external = External::of(service, settings, &mut diagnostics);
    let slices: Vec<&EndpointSlice> = inputs.slices.get(key).into_iter().flatten().collect();
    for slice in &slices {
        check::slice(slice, &mut diagnostics);
    }
    let source_ranges: BTreeMap<Family, _> = cluster_ips
        .keys()
        .map(|&family| {
            let ranges = frontends::source_ranges(service, family, node, &mut diagnostics);
            (family, ranges)
        })
        .collect();

    let mut ports = Vec::with_capacity(usable_ports.len() * cluster_ips.len());
    for port in usable_ports {
        for (&family, &cluster_ip) in &cluster_ips {
            let endpoints = Endpoints::join(&slices, port, family, place);
            let mut rule = port_rule(service, port, family);
            rule.frontends = frontends::of_port(port, cluster_ip, &external);
            rule.source_ranges = source_ranges.get(&family).cloned().unwrap_or_default();
            choose(&mut rule, &endpoints);
            ports.push(rule);
        }
    }
    let health_check = service.health_check_node_port.map(|port| HealthCheck {
        port,
        local_ready: endpoints::local_ready(&slices, place),
    });
    let rules = ServiceRules {
        algorithm: balance::algorithm(service, &ports, settings, &mut diagnostics),
        ports,
        health_check,
    };
    (Some(rules), diagnostics)
}

/// Derives every Service.
pub fn derive_all(inputs: &Inputs, settings: &NodeSettings) -> (Desired, Vec<Diagnostic>) {
    let mut desired = Desired::default();
    let diagnostics = desired.update(inputs, inputs.services.keys(), settings);
    (desired, diagnostics)
}

/// The rule of a port, without who may come, and where to.
fn port_rule(service: &Service, port: &ServicePort, family: Family) -> PortRule {
    PortRule {
        port_name: port.name.clone(),
        protocol: port.protocol,
        family,
        frontends: Vec::new(),
        lingering: Vec::new(),
        cluster: Vec::new(),
        local: Vec::new(),
        any_endpoints: false,
        internal_policy: service.internal_policy,
        external_policy: service.external_policy,
        affinity: service.affinity,
        source_ranges: Vec::new(),
    }
}

/// Who answers at a port. The set `local` is made only where some packet can meet it: most Services have no use for it,
/// and on a node with their endpoints it is as large as the other.
fn choose(rule: &mut PortRule, endpoints: &Endpoints) {
    rule.cluster = endpoints.cluster();
    if rule.uses_local() {
        rule.local = endpoints.local();
    }
    if rule.protocol == Protocol::Udp {
        rule.lingering = endpoints.lingering([&rule.cluster, &rule.local]);
    }
    rule.any_endpoints = endpoints.any();
}

/// Addresses that can stand in a rule: of the right family, and neither unspecified, loopback nor multicast (which
/// the API server refuses too, but manifests may hold).
fn usable(ip: IpAddr, family: Family) -> bool {
    Family::of(ip) == family && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}
