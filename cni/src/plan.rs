//! What ADD does, step by step. Pure. Deleting one end of a veth takes the other end with it, and with both everything
//! that the later steps made: so nothing else has to be undone.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::{MacAddr, Route, RouteMetrics, Scope, SourceRule, TABLE_MAIN};
use seaway_model::ownership::ROUTE_PROTOCOL;

use crate::attachment::Attachment;
use crate::protocol::RouteConfig;

/// One step on a link whose index is known when it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Address(IpNetwork),
    /// Permanent, so that nobody asks and nobody needs to answer.
    Neighbour {
        address: IpAddr,
        mac: MacAddr,
    },
    /// The link is filled in.
    Route {
        route: Route,
        metrics: RouteMetrics,
    },
    /// What the pod sends from one of its addresses leaves by the link of that address.
    Rule(SourceRule),
}

/// Metrics of routes that give way to those of another link of the pod: from here on, with the link's index. Behind 1024,
/// which an IPv6 route has that nobody gave one.
const SECOND: u32 = 2000;

/// What to do on each side once the pair is there and up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub pod: Vec<Step>,
    pub host: Vec<Step>,
}

/// The steps of ADD.
pub fn add(attachment: &Attachment) -> Plan {
    let mut plan = Plan::default();
    let mut gateways: Vec<IpAddr> = Vec::new();
    for address in &attachment.addresses {
        let ip = address.network.ip();
        plan.pod.push(Step::Address(address.network));
        if !gateways.contains(&address.gateway) {
            gateways.push(address.gateway);
            plan.pod.extend(gateway(attachment, address.gateway));
            if address.on_host {
                plan.host.push(Step::Address(address.gateway.into()));
            }
        }
        let subnet = IpNetwork::new(address.network.network(), address.network.prefix());
        if address.on_host
            && let Ok(subnet) = subnet
        {
            plan.pod.push(via(subnet, address.gateway));
        }
        plan.host.push(Step::Neighbour {
            address: ip,
            mac: attachment.pod_mac,
        });
        plan.host.push(plain(host_route(ip)));
    }
    for route in &attachment.routes {
        let Some(family) = attachment.gateway_for(route.destination) else {
            continue;
        };
        let next = route.gateway.unwrap_or(family);
        let step = config_route(route, next);
        // As with the reference plugins the first of several counts.
        if plan.pod.iter().any(|there| is_same_route(there, &step)) {
            continue;
        }
        if !gateways.contains(&next) {
            gateways.push(next);
            plan.pod.extend(gateway(attachment, next));
        }
        plan.pod.push(step);
    }
    plan
}

/// The same in a pod that has other links with these routes. The link that came first keeps its routes: ours to the same
/// destinations get a metric behind them. What comes from our addresses takes this link all the same, by a table of its own:
/// the node drops what a pod sends from an address that it does not have on that link.
pub fn add_beside(attachment: &Attachment, link: u32, others: &[Route]) -> Plan {
    let mut plan = add(attachment);
    let first: Vec<&Route> = others
        .iter()
        .filter(|route| route.link != Some(link) && route.metric.unwrap_or(0) < SECOND)
        .collect();
    let mut gave_way = false;
    let mut own = Vec::new();
    for step in &mut plan.pod {
        let Step::Route { route, metrics } = step else {
            continue;
        };
        if route.table != TABLE_MAIN || route.metric.is_some() {
            continue;
        }
        if route.gateway.is_some() {
            let route = Route {
                table: attachment.table,
                ..route.clone()
            };
            let metrics = *metrics;
            own.push(Step::Route { route, metrics });
        }
        let is_taken =
            |other: &&Route| (other.table, other.destination) == (route.table, route.destination);
        if first.iter().any(is_taken) {
            route.metric = Some(SECOND.saturating_add(link));
            gave_way = true;
        }
    }
    if gave_way {
        plan.pod.extend(own);
        plan.pod.extend(attachment.addresses.iter().map(|address| {
            Step::Rule(SourceRule {
                from: address.network.ip(),
                table: attachment.table,
                protocol: ROUTE_PROTOCOL,
            })
        }));
    }
    plan
}

/// Whether routes of this link stand behind those of another.
pub fn gave_way(link: u32, routes: &[Route]) -> bool {
    let behind = Some(SECOND.saturating_add(link));
    let mut routes = routes.iter();
    routes.any(|route| {
        route.link == Some(link) && route.table == TABLE_MAIN && route.metric == behind
    })
}

/// The pod reaches a gateway over its link, and never asks for it.
fn gateway(attachment: &Attachment, gateway: IpAddr) -> Vec<Step> {
    let mut steps = vec![Step::Neighbour {
        address: gateway,
        mac: attachment.host_mac,
    }];
    // A link-local IPv6 address is on the link in any case.
    if !matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        steps.push(plain(gateway_route(gateway)));
    }
    steps
}

fn plain(route: Route) -> Step {
    Step::Route {
        route,
        metrics: RouteMetrics::default(),
    }
}

fn via(destination: IpNetwork, gateway: IpAddr) -> Step {
    plain(through(destination, gateway))
}

/// Whether the kernel has room for one of both only.
fn is_same_route(one: &Step, other: &Step) -> bool {
    let key = |step: &Step| match step {
        Step::Route { route, .. } => Some((route.destination, route.table, route.metric)),
        _ => None,
    };
    key(one).is_some() && key(one) == key(other)
}

fn config_route(config: &RouteConfig, gateway: IpAddr) -> Step {
    let to = config.destination;
    // Without the bits of a host, as the kernel keeps it.
    let to = IpNetwork::new(to.network(), to.prefix()).unwrap_or(to);
    let mut route = through(to, gateway);
    route.metric = config.priority;
    route.table = config.table.unwrap_or(route.table);
    route.scope = config.scope.map_or(route.scope, Scope::from);
    Step::Route {
        route,
        metrics: RouteMetrics {
            mtu: config.mtu,
            advmss: config.advmss,
        },
    }
}

/// `169.254.1.1 dev eth0 scope link`.
pub fn gateway_route(gateway: IpAddr) -> Route {
    Route {
        scope: link_scope(gateway),
        ..Route::new(gateway.into(), ROUTE_PROTOCOL)
    }
}

/// `DESTINATION via GATEWAY dev eth0 onlink`.
pub fn through(destination: IpNetwork, gateway: IpAddr) -> Route {
    Route {
        gateway: Some(gateway),
        onlink: true,
        ..Route::new(destination, ROUTE_PROTOCOL)
    }
}

/// `POD dev swX scope link` on the node.
pub fn host_route(address: IpAddr) -> Route {
    Route {
        scope: link_scope(address),
        ..Route::new(address.into(), ROUTE_PROTOCOL)
    }
}

/// The kernel keeps no scope for IPv6 routes.
fn link_scope(address: IpAddr) -> Scope {
    if address.is_ipv4() {
        Scope::Link
    } else {
        Scope::Global
    }
}

#[cfg(test)]
mod tests;
