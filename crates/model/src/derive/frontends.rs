//! Where a Service port can be reached, and by whom.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Diagnostic, usable};
use crate::desired::{Frontend, FrontendAddr, FrontendKind};
use crate::inputs::{Family, Node, Service, ServicePort};
use crate::settings::NodeSettings;

/// The addresses of a Service besides its cluster IPs and the nodes', of both families, each once.
pub(super) struct External(Vec<(IpAddr, FrontendKind)>);

impl External {
    pub(super) fn of(
        service: &Service,
        settings: &NodeSettings,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut taken: BTreeSet<IpAddr> = service.cluster_ips.iter().copied().collect();
        let mut addresses = Vec::new();
        let mut say = |field: &str, consequence| {
            diagnostics.push(Diagnostic {
                object: service.key.clone(),
                field: field.to_owned(),
                consequence,
            });
        };
        // A load balancer address that is an external IP as well keeps its source ranges: it is listed first.
        for &ip in &service.load_balancer_ips {
            if !usable(ip, Family::of(ip)) {
                say(
                    "status.loadBalancer.ingress",
                    format!("{ip} is no address that a load balancer can have; it gets no rules"),
                );
            } else if taken.insert(ip) {
                addresses.push((ip, FrontendKind::LoadBalancer));
            }
        }
        let allowed = |ip| {
            let mut ranges = settings.external_ip_cidrs.iter();
            ranges.any(|range| range.contains(ip))
        };
        for &ip in &service.external_ips {
            if !usable(ip, Family::of(ip)) {
                say(
                    "spec.externalIPs",
                    format!("{ip} is no address that a Service can have; it gets no rules"),
                );
            } else if taken.contains(&ip) {
                // Served already, whatever is allowed.
            } else if !allowed(ip) {
                say(
                    "spec.externalIPs",
                    format!(
                        "{ip} is in none of the allowed ranges (--external-ip-cidrs); it gets no rules"
                    ),
                );
            } else {
                taken.insert(ip);
                addresses.push((ip, FrontendKind::ExternalIp));
            }
        }
        Self(addresses)
    }
}

/// The frontends of one port in the family of the cluster IP.
pub(super) fn of_port(
    port: &ServicePort,
    cluster_ip: IpAddr,
    external: &External,
) -> Vec<Frontend> {
    let family = Family::of(cluster_ip);
    let frontend = |addr, number, kind| Frontend {
        addr,
        port: number,
        protocol: port.protocol,
        kind,
    };
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
    let own = external
        .0
        .iter()
        .filter(|(ip, _)| Family::of(*ip) == family);
    frontends.extend(own.map(|&(ip, kind)| frontend(FrontendAddr::Ip(ip), port.port, kind)));
    frontends
}

/// Who may use the load balancer addresses of one family; empty: everyone. A range that covers the whole family lifts
/// the restriction, and so does having ranges of the other family only (as in kube-proxy).
pub(super) fn source_ranges(
    service: &Service,
    family: Family,
    node: Option<&Node>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<IpNetwork> {
    let mut addresses = service.load_balancer_ips.iter();
    let guards = addresses.any(|ip| usable(*ip, family));
    let mut ranges: Vec<IpNetwork> = service
        .source_ranges
        .iter()
        .filter(|range| Family::of(range.ip()) == family)
        .copied()
        .collect();
    if ranges.is_empty() && !service.source_ranges.is_empty() && guards {
        diagnostics.push(Diagnostic {
            object: service.key.clone(),
            field: "spec.loadBalancerSourceRanges".to_owned(),
            consequence: format!(
                "no range is of IPv{}; everybody may use the load balancer addresses of that family",
                match family {
                    Family::V4 => 4,
                    Family::V6 => 6,
                }
            ),
        });
    }
    if ranges.iter().any(|range| range.prefix() == 0) {
        return Vec::new();
    }
    ranges.extend(own_balancers(service, family, node, &ranges));
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

/// A node to which the load balancer hands its address over as a local one reaches that address with the very
/// address as its source: let in where the node itself is.
fn own_balancers(
    service: &Service,
    family: Family,
    node: Option<&Node>,
    ranges: &[IpNetwork],
) -> Vec<IpNetwork> {
    let own = node.and_then(|node| node.addresses.iter().find(|ip| Family::of(**ip) == family));
    let admitted = own.is_some_and(|own| ranges.iter().any(|range| range.contains(*own)));
    let balancers = service.load_balancer_ips.iter().copied();
    balancers
        .filter(|ip| admitted && usable(*ip, family))
        .map(IpNetwork::from)
        .collect()
}
