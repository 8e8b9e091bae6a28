//! The parts of a Service and its slices that can be used, and words about the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Diagnostic, usable};
use crate::inputs::{EndpointSlice, Family, Service, ServicePort};

/// The cluster IP of each family.
pub(super) fn cluster_ips(
    service: &Service,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<Family, IpAddr> {
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

/// The ports that can have rules.
pub(super) fn ports<'a>(
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

/// What of a slice gets no traffic.
pub(super) fn slice(slice: &EndpointSlice, diagnostics: &mut Vec<Diagnostic>) {
    let mut say = |field, consequence| {
        diagnostics.push(Diagnostic {
            object: slice.key.clone(),
            field,
            consequence,
        });
    };
    for (i, port) in slice.ports.iter().enumerate() {
        if port.port == 0 {
            let consequence = "no port number; its endpoints get no traffic for this port";
            say(format!("ports[{i}].port"), consequence.to_owned());
        }
    }
    for (i, endpoint) in slice.endpoints.iter().enumerate() {
        let ip = endpoint.address;
        if Family::of(ip) != slice.family {
            say(
                format!("endpoints[{i}].addresses[0]"),
                format!("{ip} is not of the slice's addressType; it gets no traffic"),
            );
        } else if !usable(ip, slice.family) {
            say(
                format!("endpoints[{i}].addresses[0]"),
                format!("{ip} is no address that an endpoint can have; it gets no traffic"),
            );
        }
    }
}
