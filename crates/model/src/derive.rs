//! Service + slices + node → rules.
//!
//! One Service at a time, so that the cost of a change is the Service it touches. Nothing here fails: what cannot be
//! used is left out and becomes a [`Diagnostic`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::desired::{
    Backend, Desired, Frontend, FrontendAddr, FrontendKind, PortRule, ServiceRules,
};
use crate::inputs::{
    Endpoint, EndpointSlice, Family, Inputs, ObjectKey, Protocol, Service, ServicePort,
};

#[cfg(test)]
mod tests;

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

/// Derives the rules of one Service on the node of that name; `None` when the Service is not there.
pub fn derive_service(
    inputs: &Inputs,
    key: &ObjectKey,
    node: &str,
) -> (Option<ServiceRules>, Vec<Diagnostic>) {
    let Some(service) = inputs.services.get(key) else {
        return (None, Vec::new());
    };
    let mut diagnostics = Vec::new();
    let cluster_ips = cluster_ips(service, &mut diagnostics);
    let usable_ports = usable_ports(service, &mut diagnostics);
    let slices = inputs.slices.get(key);
    for slice in slices.into_iter().flat_map(BTreeMap::values) {
        check_slice(slice, &mut diagnostics);
    }

    let mut ports = Vec::with_capacity(usable_ports.len() * cluster_ips.len());
    for port in usable_ports {
        for (&family, &cluster_ip) in &cluster_ips {
            let endpoints = slices.map_or_else(BTreeMap::new, |slices| {
                join(slices.values(), port, family, node)
            });
            ports.push(port_rule(service, port, family, cluster_ip, &endpoints));
        }
    }
    (Some(ServiceRules { ports }), diagnostics)
}

/// Derives every Service.
pub fn derive_all(inputs: &Inputs, node: &str) -> (Desired, Vec<Diagnostic>) {
    let mut desired = Desired::default();
    let diagnostics = desired.update(inputs, inputs.services.keys(), node);
    (desired, diagnostics)
}

/// How good an endpoint is; when two slices disagree about one ip:port, the better word counts (a pod that moves
/// between slices is in both for a moment).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Unusable,
    /// Going away but still answering: used when nothing is ready (KEP-1669).
    Draining,
    Ready,
}

impl State {
    fn of(endpoint: &Endpoint) -> Self {
        if endpoint.ready {
            Self::Ready
        } else if endpoint.serving && endpoint.terminating {
            Self::Draining
        } else {
            Self::Unusable
        }
    }
}

/// State first: the better one wins, and being local breaks a tie, whatever the order of the slices.
type Endpoints = BTreeMap<SocketAddr, (State, bool)>;

/// The endpoints of one Service port in one family: the union over all slices, joined by port name and protocol.
fn join<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    port: &ServicePort,
    family: Family,
    node: &str,
) -> Endpoints {
    let mut endpoints = Endpoints::new();
    for slice in slices.filter(|s| s.family == family) {
        let target_ports = slice
            .ports
            .iter()
            .filter(|p| p.name == port.name && p.protocol == port.protocol && p.port != 0);
        for target in target_ports {
            for endpoint in &slice.endpoints {
                let seen = (State::of(endpoint), endpoint.node.as_deref() == Some(node));
                for &ip in endpoint.addresses.iter().filter(|ip| usable(**ip, family)) {
                    let best = endpoints
                        .entry(SocketAddr::new(ip, target.port))
                        .or_insert(seen);
                    *best = seen.max(*best);
                }
            }
        }
    }
    endpoints
}

fn port_rule(
    service: &Service,
    port: &ServicePort,
    family: Family,
    cluster_ip: IpAddr,
    endpoints: &Endpoints,
) -> PortRule {
    let cluster = choose(endpoints, false);
    let local = choose(endpoints, true);
    PortRule {
        port_name: port.name.clone(),
        protocol: port.protocol,
        family,
        frontends: frontends(service, port, family, cluster_ip),
        lingering: match port.protocol {
            Protocol::Udp => lingering(endpoints, [&cluster, &local]),
            Protocol::Tcp | Protocol::Sctp => Vec::new(),
        },
        cluster,
        local,
        any_endpoints: endpoints.values().any(|(s, _)| *s != State::Unusable),
        internal_policy: service.internal_policy,
        external_policy: service.external_policy,
        affinity: service.affinity,
        source_ranges: source_ranges(service, family),
    }
}

/// Ready endpoints; if there are none, the ones that terminate but still serve.
fn choose(endpoints: &Endpoints, only_local: bool) -> Vec<Backend> {
    let of_state = |wanted| -> Vec<Backend> {
        endpoints
            .iter()
            .filter(|(_, (state, local))| *state == wanted && (*local || !only_local))
            .map(|(&addr, &(_, local))| Backend { addr, local })
            .collect()
    };
    let ready = of_state(State::Ready);
    if ready.is_empty() {
        of_state(State::Draining)
    } else {
        ready
    }
}

/// Endpoints that answer, in none of the sets (which are sorted by address).
fn lingering(endpoints: &Endpoints, sets: [&[Backend]; 2]) -> Vec<SocketAddr> {
    let chosen = |addr: &SocketAddr| {
        sets.iter()
            .any(|set| set.binary_search_by_key(addr, |b| b.addr).is_ok())
    };
    endpoints
        .iter()
        .filter(|(addr, (state, _))| *state != State::Unusable && !chosen(addr))
        .map(|(&addr, _)| addr)
        .collect()
}

fn frontends(
    service: &Service,
    port: &ServicePort,
    family: Family,
    cluster_ip: IpAddr,
) -> Vec<Frontend> {
    let frontend = |addr, port_number, kind| Frontend {
        addr,
        port: port_number,
        protocol: port.protocol,
        kind,
    };
    let mut taken = BTreeSet::from([cluster_ip]);
    let mut frontends = vec![frontend(
        FrontendAddr::Ip(cluster_ip),
        port.port,
        FrontendKind::ClusterIp,
    )];
    if let Some(node_port) = port.node_port.filter(|p| *p != 0) {
        frontends.push(frontend(
            FrontendAddr::AnyNodeAddress(family),
            node_port,
            FrontendKind::NodePort,
        ));
    }
    // A load balancer address that is an external IP as well keeps its source ranges: it is listed first.
    let external = [
        (&service.load_balancer_ips, FrontendKind::LoadBalancer),
        (&service.external_ips, FrontendKind::ExternalIp),
    ];
    for (ips, kind) in external {
        for &ip in ips.iter().filter(|ip| usable(**ip, family)) {
            if taken.insert(ip) {
                frontends.push(frontend(FrontendAddr::Ip(ip), port.port, kind));
            }
        }
    }
    frontends
}

/// The ranges of one family; one that covers the whole family lifts the restriction.
fn source_ranges(service: &Service, family: Family) -> Vec<IpNetwork> {
    let mut ranges: Vec<IpNetwork> = service
        .source_ranges
        .iter()
        .filter(|range| Family::of(range.ip()) == family)
        .copied()
        .collect();
    if ranges.iter().any(|range| range.prefix() == 0) {
        return Vec::new();
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

fn cluster_ips(service: &Service, diagnostics: &mut Vec<Diagnostic>) -> BTreeMap<Family, IpAddr> {
    let mut ips = BTreeMap::new();
    for (i, &ip) in service.cluster_ips.iter().enumerate() {
        let family = Family::of(ip);
        let problem = if !usable(ip, family) {
            format!("{ip} is no address that a Service can have; it gets no rules")
        } else if let Some(first) = ips.get(&family) {
            format!("only one address per family is served, {first} already is; {ip} gets no rules")
        } else {
            ips.insert(family, ip);
            continue;
        };
        diagnostics.push(Diagnostic {
            object: service.key.clone(),
            field: format!("spec.clusterIPs[{i}]"),
            consequence: problem,
        });
    }
    ips
}

fn usable_ports<'a>(
    service: &'a Service,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<&'a ServicePort> {
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    let mut ports = Vec::with_capacity(service.ports.len());
    for (i, port) in service.ports.iter().enumerate() {
        let (field, problem) = if port.port == 0 {
            ("port", "port 0 cannot be served; this port gets no rules")
        } else if !numbers.insert((port.port, port.protocol)) {
            (
                "port",
                "an earlier port has the same number and protocol; this one gets no rules",
            )
        } else if !names.insert((&port.name, port.protocol)) {
            (
                "name",
                "an earlier port has the same name and protocol; this one gets no rules",
            )
        } else {
            ports.push(port);
            continue;
        };
        diagnostics.push(Diagnostic {
            object: service.key.clone(),
            field: format!("spec.ports[{i}].{field}"),
            consequence: problem.to_owned(),
        });
    }
    ports
}

fn check_slice(slice: &EndpointSlice, diagnostics: &mut Vec<Diagnostic>) {
    for (i, port) in slice.ports.iter().enumerate() {
        if port.port == 0 {
            diagnostics.push(Diagnostic {
                object: slice.key.clone(),
                field: format!("ports[{i}].port"),
                consequence: "no port number; its endpoints get no traffic for this port"
                    .to_owned(),
            });
        }
    }
    for (i, endpoint) in slice.endpoints.iter().enumerate() {
        for (j, &ip) in endpoint.addresses.iter().enumerate() {
            let consequence = if Family::of(ip) != slice.family {
                format!("{ip} is not of the slice's addressType; it gets no traffic")
            } else if !usable(ip, slice.family) {
                format!("{ip} is no address that an endpoint can have; it gets no traffic")
            } else {
                continue;
            };
            diagnostics.push(Diagnostic {
                object: slice.key.clone(),
                field: format!("endpoints[{i}].addresses[{j}]"),
                consequence,
            });
        }
    }
}

/// Addresses that can stand in a rule: of the right family, and neither unspecified, loopback nor multicast (which
/// the API server refuses too, but manifests may hold).
fn usable(ip: IpAddr, family: Family) -> bool {
    Family::of(ip) == family && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}
