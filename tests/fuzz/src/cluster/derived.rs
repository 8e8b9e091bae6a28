//! What was derived, held against the inputs.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use seaway_model::{
    Backend, Desired, Diagnostic, Family, Frontend, FrontendAddr, FrontendKind, Inputs,
    NodeSettings, ObjectKey, PortRule, Service,
};

use super::{is_set, is_usable};

/// Longest comment of a rule that iptables takes (`XT_MAX_COMMENT_LEN` with its end).
const LONGEST_NAME: usize = 255;

/// Everything that is there was asked for, and what was asked for is there or was talked about.
pub(super) fn check(
    inputs: &Inputs,
    desired: &Desired,
    diagnostics: &[Diagnostic],
    settings: &NodeSettings,
) {
    let known: BTreeSet<&ObjectKey> = inputs.services.keys().collect();
    assert_eq!(desired.services.keys().collect::<BTreeSet<_>>(), known);
    for (key, rules) in &desired.services {
        let service = &inputs.services[key];
        let endpoints = endpoints(inputs, key);
        for rule in &rules.ports {
            check_name(key, rule);
            for frontend in &rule.frontends {
                assert_eq!(frontend.addr.family(), rule.family);
                assert!(
                    was_asked_for(service, rule, frontend, settings),
                    "{key}: {frontend}"
                );
            }
            check_backends(rule, &endpoints);
        }
        let frontends: BTreeSet<&Frontend> = rules
            .ports
            .iter()
            .flat_map(|rule| &rule.frontends)
            .collect();
        if !diagnostics
            .iter()
            .any(|diagnostic| diagnostic.object == *key)
        {
            let missing = promised(service).find(|frontend| !frontends.contains(frontend));
            assert_eq!(missing, None, "{key}: nobody says why it is not served");
        }
    }
}

/// Names go into comments of rules and into logs: one line, not too long.
fn check_name(key: &ObjectKey, rule: &PortRule) {
    let name = format!("{key}:{}/{}", rule.port_name, rule.protocol);
    assert!(
        name.len() <= LONGEST_NAME && name.chars().all(|c| c.is_ascii_graphic()),
        "{name:?}"
    );
}

fn was_asked_for(
    service: &Service,
    rule: &PortRule,
    frontend: &Frontend,
    settings: &NodeSettings,
) -> bool {
    let mut ports = service
        .ports
        .iter()
        .filter(|port| port.name == rule.port_name && port.protocol == frontend.protocol);
    let at = |addresses: &[IpAddr]| match frontend.addr {
        FrontendAddr::Ip(ip) => is_usable(ip) && addresses.contains(&ip),
        FrontendAddr::AnyNodeAddress(_) => false,
    };
    let allowed = |ip| {
        settings
            .external_ip_cidrs
            .iter()
            .any(|range| range.contains(ip))
    };
    let port = frontend.port;
    port != 0
        && match frontend.kind {
            FrontendKind::ClusterIp => at(&service.cluster_ips) && ports.any(|p| p.port == port),
            FrontendKind::LoadBalancer => {
                at(&service.load_balancer_ips) && ports.any(|p| p.port == port)
            }
            FrontendKind::ExternalIp => {
                let FrontendAddr::Ip(ip) = frontend.addr else {
                    return false;
                };
                allowed(ip) && at(&service.external_ips) && ports.any(|p| p.port == port)
            }
            FrontendKind::NodePort => {
                matches!(frontend.addr, FrontendAddr::AnyNodeAddress(_))
                    && ports.any(|p| p.node_port == Some(port))
            }
        }
}

/// The frontends at cluster IPs and nodes that an object without faults has.
fn promised(service: &Service) -> impl Iterator<Item = Frontend> {
    service.cluster_ips.iter().flat_map(|ip| {
        service.ports.iter().flat_map(|port| {
            let frontend = |addr, number, kind| Frontend {
                addr,
                port: number,
                protocol: port.protocol,
                kind,
            };
            let of_cluster = frontend(FrontendAddr::Ip(*ip), port.port, FrontendKind::ClusterIp);
            let node = FrontendAddr::AnyNodeAddress(Family::of(*ip));
            let of_node = port
                .node_port
                .map(|number| frontend(node, number, FrontendKind::NodePort));
            [Some(of_cluster), of_node].into_iter().flatten()
        })
    })
}

/// The addresses with a port of all endpoints of a Service, whatever their state.
fn endpoints(inputs: &Inputs, key: &ObjectKey) -> BTreeSet<SocketAddr> {
    let slices = inputs.slices.get(key).into_iter().flatten();
    slices
        .flat_map(|slice| {
            let addresses = slice.endpoints.iter().map(|endpoint| &endpoint.address);
            addresses.flat_map(|ip| {
                slice
                    .ports
                    .iter()
                    .map(|port| SocketAddr::new(*ip, port.port))
            })
        })
        .collect()
}

fn check_backends(rule: &PortRule, endpoints: &BTreeSet<SocketAddr>) {
    for set in [&rule.cluster, &rule.local] {
        assert!(is_set(set.iter().map(|backend| backend.addr)), "{set:?}");
        assert!(set.is_empty() || rule.any_endpoints);
        assert!(
            rule.lingering
                .iter()
                .all(|addr| !set.iter().any(|b| b.addr == *addr))
        );
    }
    assert!(is_set(rule.lingering.iter().copied()));
    assert!(rule.local.iter().all(|backend| backend.local));
    let sets = rule.cluster.iter().chain(&rule.local);
    for &Backend { addr, .. } in sets {
        assert!(is_usable(addr.ip()) && addr.port() != 0 && Family::of(addr.ip()) == rule.family);
    }
    let all = rule
        .cluster
        .iter()
        .chain(&rule.local)
        .map(|backend| &backend.addr);
    for addr in all.chain(&rule.lingering) {
        assert!(endpoints.contains(addr), "{addr} is nobody's endpoint");
    }
}
