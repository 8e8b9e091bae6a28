//! Which endpoints are used, and why the others are not.

use std::net::SocketAddr;
use std::sync::Arc;

use seaway_model::{Endpoint, EndpointSlice, TrafficPolicy};

use super::{Match, World};

/// An endpoint as one slice has it.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    addr: SocketAddr,
    endpoint: &'a Endpoint,
    slice: &'a str,
    /// Where in the slice.
    index: usize,
}

pub(super) fn lines(world: World<'_>, found: Match<'_>, policy: TrafficPolicy) -> Vec<String> {
    let slices = world.inputs.slices.get(found.key);
    let slices: Vec<&EndpointSlice> = slices.into_iter().flatten().collect();
    if slices.is_empty() {
        return vec![
            "endpoints: none: no EndpointSlice has the label kubernetes.io/service-name for this Service"
                .to_owned(),
        ];
    }
    let candidates = candidates(&slices, found);
    let mut lines = vec!["endpoints:".to_owned()];
    if candidates.is_empty() {
        lines.push(format!(
            "  none: no EndpointSlice of this family has a {} port named {:?}",
            found.rule.protocol, &*found.rule.port_name
        ));
    }
    let used = found.rule.backends(policy);
    let is_used = |addr| used.iter().any(|backend| backend.addr == addr);
    for candidate in &candidates {
        let Candidate {
            addr,
            slice,
            index,
            endpoint,
        } = candidate;
        let place = match &endpoint.node {
            Some(node) if **node == *world.settings.name => "this node".to_owned(),
            Some(node) => format!("node {node}"),
            None => "no node".to_owned(),
        };
        let verdict = if is_used(*addr) {
            if endpoint.ready {
                "used".to_owned()
            } else {
                "used, because none is ready: it terminates, but still serves".to_owned()
            }
        } else {
            format!("left out: {}", left_out(world, candidate, policy))
        };
        lines.push(format!(
            "  {addr} ({place}; EndpointSlice {slice}, endpoints[{index}]): {verdict}"
        ));
    }
    if policy == TrafficPolicy::Cluster {
        lines.extend(hints_ignored(world, &candidates, &is_used));
    }
    lines
}

fn candidates<'a>(slices: &[&'a EndpointSlice], found: Match<'_>) -> Vec<Candidate<'a>> {
    let rule = found.rule;
    let mut candidates = Vec::new();
    for slice in slices.iter().filter(|slice| slice.family == rule.family) {
        let ports = slice.ports.iter().filter(|port| {
            port.name == rule.port_name && port.protocol == rule.protocol && port.port != 0
        });
        for port in ports {
            for (index, endpoint) in slice.endpoints.iter().enumerate() {
                candidates.push(Candidate {
                    addr: SocketAddr::new(endpoint.address, port.port),
                    endpoint,
                    slice: slice.key.name(),
                    index,
                });
            }
        }
    }
    candidates.sort_by_key(|candidate| candidate.addr);
    candidates
}

fn left_out(world: World<'_>, candidate: &Candidate<'_>, policy: TrafficPolicy) -> String {
    let endpoint = candidate.endpoint;
    if !endpoint.ready {
        return match (endpoint.terminating, endpoint.serving) {
            (true, true) => "it terminates (conditions.terminating), and others are ready",
            (true, false) => {
                "it terminates and serves no more (conditions.terminating, conditions.serving)"
            }
            (false, _) => "not ready (conditions.ready)",
        }
        .to_owned();
    }
    let here = &world.settings.name;
    if policy == TrafficPolicy::Local {
        return match &endpoint.node {
            Some(_) => "not on this node, and the policy is Local (nodeName)".to_owned(),
            None => "nothing says that it is on this node, and the policy is Local (nodeName)"
                .to_owned(),
        };
    }
    if !endpoint.node_hints.is_empty() && !endpoint.node_hints.contains(here) {
        return format!(
            "meant for node {}, this is {here} (hints.forNodes)",
            names(&endpoint.node_hints)
        );
    }
    if !endpoint.zone_hints.is_empty() {
        return format!(
            "meant for zone {}, this node is in {} (hints.forZones)",
            names(&endpoint.zone_hints),
            zone(world).unwrap_or("no zone")
        );
    }
    "not usable: its address cannot be forwarded to".to_owned()
}

/// Says why hints that are there decide nothing: they vanish silently otherwise.
fn hints_ignored(
    world: World<'_>,
    candidates: &[Candidate<'_>],
    is_used: &impl Fn(SocketAddr) -> bool,
) -> Option<String> {
    let ready = || candidates.iter().filter(|c| c.endpoint.ready);
    if !ready().any(|c| !c.endpoint.zone_hints.is_empty()) || !ready().all(|c| is_used(c.addr)) {
        return None;
    }
    let here = zone(world);
    let meant = |c: &Candidate<'_>| {
        here.is_some_and(|here| c.endpoint.zone_hints.iter().any(|zone| **zone == *here))
    };
    if ready().all(meant) {
        return None;
    }
    let why = if let Some(bare) = ready().find(|c| c.endpoint.zone_hints.is_empty()) {
        format!("{} has none", bare.addr)
    } else if here.is_none() {
        "this node has no label topology.kubernetes.io/zone".to_owned()
    } else {
        format!(
            "no ready endpoint is meant for zone {}",
            here.unwrap_or_default()
        )
    };
    Some(format!("zone hints decide nothing: {why}"))
}

fn zone<'a>(world: World<'a>) -> Option<&'a str> {
    let node = world.inputs.nodes.get(&world.settings.name)?;
    node.zone.as_deref()
}

fn names(names: &[Arc<str>]) -> String {
    names.join(" or ")
}
