//! Which endpoints are used, and why the others are not.

use std::net::SocketAddr;
use std::sync::Arc;

use seaway_model::{Endpoint, EndpointSlice, TrafficPolicy};

use super::answer::{Endpoints, Judged};
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

pub(super) fn judge(world: World<'_>, found: Match<'_>, policy: TrafficPolicy) -> Endpoints {
    let slices = world.inputs.slices.get(found.key);
    let slices: Vec<&EndpointSlice> = slices.into_iter().flatten().collect();
    let candidates = candidates(&slices, found);
    let none = if slices.is_empty() {
        Some(
            "no EndpointSlice has the label kubernetes.io/service-name for this Service".to_owned(),
        )
    } else {
        candidates.is_empty().then(|| {
            format!(
                "no EndpointSlice of this family has a {} port named {:?}",
                found.rule.protocol, &*found.rule.port_name
            )
        })
    };
    let used = found.rule.backends(policy);
    let is_used = |addr| used.iter().any(|backend| backend.addr == addr);
    let judged = candidates.iter().map(|candidate| {
        let used = is_used(candidate.addr);
        let endpoint = candidate.endpoint;
        let here = &*world.settings.name;
        Judged {
            address: candidate.addr,
            node: endpoint.node.as_ref().map(ToString::to_string),
            here: endpoint.node.as_deref() == Some(here),
            slice: candidate.slice.to_owned(),
            index: candidate.index,
            used,
            reason: match (used, endpoint.ready) {
                (true, true) => None,
                (true, false) => Some("none is ready: it terminates, but still serves".to_owned()),
                (false, _) => Some(left_out(world, candidate, policy)),
            },
        }
    });
    let hints = match policy {
        TrafficPolicy::Cluster => hints_ignored(world, &candidates, &is_used),
        TrafficPolicy::Local => None,
    };
    Endpoints {
        all: judged.collect(),
        none,
        zone_hints_ignored: hints,
    }
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
    Some(why)
}

fn zone<'a>(world: World<'a>) -> Option<&'a str> {
    let node = world.inputs.nodes.get(&world.settings.name)?;
    node.zone.as_deref()
}

fn names(names: &[Arc<str>]) -> String {
    names.join(" or ")
}
