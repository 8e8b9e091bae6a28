//! EndpointSlice → [`seaway_model::EndpointSlice`].

use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;
use seaway_model::{Endpoint, EndpointSlice, Family, ObjectKey, SlicePort};

use super::{Report, has_label, port_number, protocol};
use crate::intern::Interner;
use crate::ip::parse_ip;
use crate::wire;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

pub(super) fn convert(
    key: &ObjectKey,
    slice: &wire::EndpointSlice,
    names: &mut Interner,
    report: &mut Report,
) -> Option<EndpointSlice> {
    if has_label(&slice.metadata, HEADLESS_LABEL) {
        return None;
    }
    let labels = slice.metadata.labels.as_ref();
    let service = labels
        .and_then(|labels| labels.get(SERVICE_LABEL))
        .filter(|name| !name.is_empty());
    let Some(service) = service else {
        report.add(
            format!("metadata.labels[{SERVICE_LABEL}]"),
            "missing: the slice belongs to no Service and is ignored",
        );
        return None;
    };
    let family = match slice.address_type.as_deref() {
        Some("IPv4") => Family::V4,
        Some("IPv6") => Family::V6,
        other => {
            report.add(
                "addressType",
                format!(
                    "{:?} cannot be forwarded to: the slice is ignored",
                    other.unwrap_or_default()
                ),
            );
            return None;
        }
    };
    Some(EndpointSlice {
        key: key.clone(),
        service: key.neighbour(service),
        family,
        ports: ports(slice, names, report),
        endpoints: endpoints(slice, family, names, report),
        last_change: last_change(slice, report),
    })
}

fn ports(slice: &wire::EndpointSlice, names: &mut Interner, report: &mut Report) -> Vec<SlicePort> {
    let mut ports = Vec::with_capacity(slice.ports.len());
    for (i, port) in slice.ports.iter().enumerate() {
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            let name = port.protocol.as_deref().unwrap_or_default();
            report.add(
                format!("ports[{i}].protocol"),
                format!("{name:?} is not known: the port is ignored"),
            );
            continue;
        };
        match port.port.map(port_number) {
            Some(Some(number)) => ports.push(SlicePort {
                name: names.get(port.name.as_deref().unwrap_or_default()),
                protocol,
                port: number,
            }),
            Some(None) => report.add(
                format!("ports[{i}].port"),
                "must be between 1 and 65535: the port is ignored",
            ),
            None => report.add(
                format!("ports[{i}].port"),
                "not set: a Service port has no \"all ports\", the port is ignored",
            ),
        }
    }
    ports
}

fn endpoints(
    slice: &wire::EndpointSlice,
    family: Family,
    names: &mut Interner,
    report: &mut Report,
) -> Vec<Endpoint> {
    // Exactly as many as there are: nearly all slices have one or two.
    let mut endpoints = Vec::with_capacity(slice.endpoints.len());
    let all = slice.endpoints.iter().enumerate();
    endpoints.extend(all.filter_map(|(i, e)| endpoint(i, e, family, names, report)));
    endpoints
}

fn endpoint(
    index: usize,
    endpoint: &wire::Endpoint,
    family: Family,
    names: &mut Interner,
    report: &mut Report,
) -> Option<Endpoint> {
    let address = match endpoint.addresses.first() {
        Some(text) => match parse_ip(text) {
            Some(ip) if Family::of(ip) == family => ip,
            Some(ip) => {
                report.add(
                    format!("endpoints[{index}].addresses[0]"),
                    format!("{ip} is not of the slice's addressType: not forwarded to"),
                );
                return None;
            }
            None => {
                report.add(
                    format!("endpoints[{index}].addresses[0]"),
                    format!("{text:?} is not an IP address: not forwarded to"),
                );
                return None;
            }
        },
        None => return None,
    };
    // The API defines no meaning for more than one, and kube-proxy does not look at them.
    if let Some(second) = endpoint.addresses.get(1) {
        report.add(
            format!("endpoints[{index}].addresses[1]"),
            format!("only the first address of an endpoint counts: {second:?} is not forwarded to"),
        );
    }
    // Defaults as in the API documentation: unset ready means ready, unset serving follows ready.
    let ready = endpoint.conditions.ready.unwrap_or(true);
    let mut list = |hints: &[wire::Named]| hints.iter().map(|hint| names.get(&hint.name)).collect();
    let zone_hints = list(&endpoint.hints.for_zones);
    let node_hints = list(&endpoint.hints.for_nodes);
    let node = endpoint
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty());
    Some(Endpoint {
        address,
        ready,
        serving: endpoint.conditions.serving.unwrap_or(ready),
        terminating: endpoint.conditions.terminating.unwrap_or(false),
        node: node.map(|name| names.get(name)),
        zone_hints,
        node_hints,
    })
}

/// Nothing but a measure depends on it, so an unreadable time holds nothing back.
fn last_change(slice: &wire::EndpointSlice, report: &mut Report) -> Option<SystemTime> {
    let annotations = slice.metadata.annotations.as_ref()?;
    let text = annotations.get(wire::LAST_CHANGE_ANNOTATION)?;
    match text.parse::<Timestamp>() {
        Ok(time) => Some(time.into()),
        Err(_) => {
            report.add(
                format!("metadata.annotations[{}]", wire::LAST_CHANGE_ANNOTATION),
                format!("{text:?} is not a time: this change is not measured"),
            );
            None
        }
    }
}
