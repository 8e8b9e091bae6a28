//! Objects with nothing special about them, for tests to change what they are about.

use std::net::IpAddr;

use crate::inputs::{
    Endpoint, EndpointSlice, Family, ObjectKey, Protocol, Service, ServicePort, SlicePort,
    TrafficPolicy,
};

/// `default/NAME` at its cluster IPs only, for everybody, with every endpoint.
pub fn service(name: &str, cluster_ips: Vec<IpAddr>, ports: Vec<ServicePort>) -> Service {
    Service {
        key: ObjectKey::new("default", name),
        cluster_ips,
        ports,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        load_balancer_ips: Vec::new(),
        external_ips: Vec::new(),
        source_ranges: Vec::new(),
        health_check_node_port: None,
        algorithm: None,
    }
}

/// A port of a Service that nodes do not serve.
pub fn port(name: &str, protocol: Protocol, number: u16) -> ServicePort {
    ServicePort {
        name: name.into(),
        protocol,
        port: number,
        node_port: None,
    }
}

/// A slice of `default/SERVICE` with that port's target.
pub fn slice(
    name: &str,
    service: &str,
    family: Family,
    port: SlicePort,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    EndpointSlice {
        key: ObjectKey::new("default", name),
        service: ObjectKey::new("default", service),
        family,
        ports: vec![port],
        endpoints,
        last_change: None,
    }
}

/// A port of a slice.
pub fn target(name: &str, protocol: Protocol, port: u16) -> SlicePort {
    SlicePort {
        name: name.into(),
        protocol,
        port,
    }
}

/// An endpoint without hints; its conditions as letters: ready, serving, terminating.
pub fn endpoint(addr: IpAddr, conditions: &str, node: Option<&str>) -> Endpoint {
    Endpoint {
        address: addr,
        ready: conditions.contains('r'),
        serving: conditions.contains('s'),
        terminating: conditions.contains('t'),
        node: node.map(Into::into),
        zone_hints: Box::default(),
        node_hints: Box::default(),
    }
}
