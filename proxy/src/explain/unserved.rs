//! Why no Service takes a packet, where that may surprise.

use std::net::IpAddr;

use seaway_model::{Outcome, Outcomes, Packet, Service};

use super::World;

pub(super) fn reasons(world: World<'_>, packet: &Packet, outcomes: &Outcomes) -> Vec<String> {
    let to = packet.destination;
    let mut lines = Vec::new();
    for service in world.inputs.services.values() {
        lines.extend(nearly(world, service, packet));
    }
    if outcomes.contains(&Outcome::Reject) {
        lines.push(
            "because: an address of a Service has only the ports of that Service; others are refused"
                .to_owned(),
        );
    }
    if lines.is_empty() {
        lines.push(format!("no Service has the address {}", to.ip()));
    }
    lines
}

/// What a Service has to do with the packet without serving it.
fn nearly(world: World<'_>, service: &Service, packet: &Packet) -> Option<String> {
    let to = packet.destination;
    let key = &service.key;
    if service.cluster_ips.contains(&to.ip()) || service.load_balancer_ips.contains(&to.ip()) {
        return Some(format!(
            "service: {key} has this address, with {} (spec.ports)",
            ports(service)
        ));
    }
    if service.external_ips.contains(&to.ip()) && !allowed(world, to.ip()) {
        return Some(format!(
            "service: {key} asks for this address (spec.externalIPs), but it is outside of --external-ip-cidrs"
        ));
    }
    let node_port = service
        .ports
        .iter()
        .any(|port| port.node_port == Some(to.port()) && port.protocol == packet.protocol);
    if node_port && to.ip().is_loopback() {
        return Some(format!(
            "service: {key} has this node port, which does not answer on loopback addresses; use an address of the \
             node"
        ));
    }
    if node_port && world.node.is_node(to.ip()) {
        return Some(format!(
            "service: {key} has this node port, but this address is not among --nodeport-addresses"
        ));
    }
    if node_port {
        return Some(format!(
            "service: {key} has this node port, but {} is no address of this node",
            to.ip()
        ));
    }
    None
}

fn allowed(world: World<'_>, ip: IpAddr) -> bool {
    let cidrs = &world.settings.external_ip_cidrs;
    cidrs.iter().any(|cidr| cidr.contains(ip))
}

fn ports(service: &Service) -> String {
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| format!("{}/{}", port.port, port.protocol))
        .collect();
    match ports.len() {
        1 => format!("port {}", ports.join("")),
        _ => format!("ports {}", ports.join(", ")),
    }
}
