//! What becomes of a connection, and which field of which object decides it. Built on the model and its oracle, so that
//! the answer is the same in every mode. Pure.

mod answer;
mod endpoints;
mod question;
#[cfg(test)]
mod tests;
mod unserved;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ipnetwork::IpNetwork;
use seaway_model::{
    Client, Desired, DetectLocal, Family, Frontend, FrontendKind, Inputs, NodeContext,
    NodeSettings, ObjectKey, Origin, Outcome, Outcomes, Packet, PortRule, Service, TrafficPolicy,
    WhenEmpty, outcomes,
};

pub use answer::Explanation;
use answer::{Asked, Endpoints, Policy, SourceAddress, SourceRanges, Taken, Verdict};
pub use question::{Asker, Destination};

/// All that an answer is made of.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    pub inputs: &'a Inputs,
    pub desired: &'a Desired,
    pub node: &'a NodeContext,
    pub settings: &'a NodeSettings,
}

/// A Service port that takes a packet.
#[derive(Debug, Clone, Copy)]
struct Match<'a> {
    key: &'a ObjectKey,
    service: &'a Service,
    rule: &'a PortRule,
    frontend: &'a Frontend,
}

/// Explains the first packet of a connection.
pub fn explain(world: World<'_>, packet: &Packet) -> Explanation {
    let outcomes = outcomes(world.desired, packet, world.node);
    let found = matching(world, packet);
    let reasons = match found {
        Some(_) => Vec::new(),
        None => unserved::reasons(world, packet, &outcomes),
    };
    Explanation {
        packet: Asked {
            protocol: packet.protocol,
            source: packet.source,
            source_is: source(world, packet),
            destination: packet.destination,
        },
        verdict: Verdict::of(&outcomes),
        service: found.map(|found| served(world, packet, found, &outcomes)),
        reasons,
        outcomes,
    }
}

fn matching<'a>(world: World<'a>, packet: &Packet) -> Option<Match<'a>> {
    let to = packet.destination;
    let (key, rule, frontend) = world.desired.find(
        to.ip(),
        to.port(),
        packet.protocol,
        world.node.knocks_at_node(packet),
    )?;
    Some(Match {
        key,
        service: world.inputs.services.get(key)?,
        rule,
        frontend,
    })
}

fn source(world: World<'_>, packet: &Packet) -> &'static str {
    match packet.origin {
        Origin::NodeProcess => "a process of this node",
        Origin::LocalPod if world.node.is_pod(packet) => "a pod of this node",
        Origin::LocalPod => "behind a pod link of this node, but not counted as a pod",
        Origin::External if world.node.is_pod(packet) => "a pod of another node",
        Origin::External => "outside of the cluster",
    }
}

fn served(world: World<'_>, packet: &Packet, found: Match<'_>, outcomes: &Outcomes) -> Taken {
    let Match { key, rule, .. } = found;
    let kind = found.frontend.kind;
    let mut taken = Taken {
        name: key.to_string(),
        port: rule.port_name.to_string(),
        by: kind,
        field: frontend_field(found),
        source_ranges: None,
        policy: None,
        because: None,
        source_address: None,
        affinity_seconds: None,
        endpoints: Endpoints::default(),
    };
    if kind == FrontendKind::LoadBalancer && !rule.source_ranges.is_empty() {
        let admitted = rule.admits(kind, packet.source);
        taken.source_ranges = Some(SourceRanges {
            admitted,
            ranges: rule.source_ranges.clone(),
        });
        if !admitted {
            return taken;
        }
    }
    let client = world.node.client(packet);
    let policy = rule.policy_for(kind, client);
    taken.policy = Some(policy_met(found, client, policy));
    if rule.backends(policy).is_empty() {
        taken.because = Some(match rule.when_empty() {
            WhenEmpty::Reject => {
                "no endpoint on any node can be used; a ready one would change that"
            }
            WhenEmpty::Drop => {
                "there are endpoints, but none on this node; one here, or policy Cluster, would change that"
            }
        });
    } else {
        taken.source_address = Some(source_address(world, packet, found, outcomes));
        taken.affinity_seconds = rule.affinity.map(|timeout| timeout.as_secs());
    }
    taken.endpoints = endpoints::judge(world, found, policy);
    taken
}

fn frontend_field(found: Match<'_>) -> String {
    let index = found
        .service
        .ports
        .iter()
        .position(|port| port.name == found.rule.port_name && port.protocol == found.rule.protocol)
        .unwrap_or_default();
    match found.frontend.kind {
        FrontendKind::ClusterIp => "spec.clusterIPs".to_owned(),
        FrontendKind::NodePort => format!("spec.ports[{index}].nodePort"),
        FrontendKind::ExternalIp => "spec.externalIPs".to_owned(),
        FrontendKind::LoadBalancer => "status.loadBalancer.ingress".to_owned(),
    }
}

fn policy_met(found: Match<'_>, client: Client, policy: TrafficPolicy) -> Policy {
    let external = found.frontend.kind.is_external();
    let (field, reason) = match (external, client) {
        (false, _) => (Some("spec.internalTrafficPolicy"), None),
        (true, Client::External) => (Some("spec.externalTrafficPolicy"), None),
        (true, Client::Internal) if found.rule.external_policy == TrafficPolicy::Local => (
            None,
            Some(
                "spec.externalTrafficPolicy: Local is for clients outside of the cluster, one inside is served as at the \
                 cluster IP",
            ),
        ),
        (true, Client::Internal) => (None, Some("the client is inside of the cluster")),
    };
    Policy {
        name: policy,
        field,
        reason,
    }
}

fn source_address(
    world: World<'_>,
    packet: &Packet,
    found: Match<'_>,
    outcomes: &Outcomes,
) -> SourceAddress {
    let hidden: BTreeSet<(SocketAddr, bool)> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Deliver {
                backend,
                masqueraded,
            } => Some((*backend, *masqueraded)),
            _ => None,
        })
        .collect();
    let all = hidden.iter().all(|(_, masqueraded)| *masqueraded);
    let own = hidden
        .iter()
        .find(|(backend, masqueraded)| *masqueraded && backend.ip() == packet.source);
    let cluster_ip = found.frontend.kind == FrontendKind::ClusterIp;
    let detects = world.node.detect_local.detects(Family::of(packet.source));
    let (kept, why) = match own {
        Some((own, _)) if !all || hidden.len() == 1 => {
            return SourceAddress {
                kept: true,
                but_at: Some(*own),
                reason: "which is the client itself and must not answer itself directly",
                pods: None,
            };
        }
        _ if !all && cluster_ip && !detects => (
            true,
            "nothing says who is a pod in this family, so that nobody is taken for an outsider",
        ),
        _ if !all && cluster_ip => (true, "the client is a pod"),
        _ if !all => (true, "policy Local keeps it"),
        _ if !cluster_ip && found.rule.external_policy == TrafficPolicy::Cluster => (
            false,
            "the endpoint may be on another node, whose answer has to come back this way (spec.externalTrafficPolicy: \
             Cluster)",
        ),
        _ if !cluster_ip => (false, "the client is this node"),
        _ if world.node.masquerade_all => (false, "--masquerade-all"),
        _ => (false, "the client is no pod"),
    };
    SourceAddress {
        kept,
        but_at: None,
        reason: why,
        pods: Some(detection(world.node)),
    }
}

/// How pods are told from others, as flags say it.
fn detection(node: &NodeContext) -> String {
    let list = |cidrs: &[IpNetwork]| {
        let texts: Vec<_> = cidrs.iter().map(ToString::to_string).collect();
        if texts.is_empty() {
            "not set".to_owned()
        } else {
            texts.join(",")
        }
    };
    match &node.detect_local {
        DetectLocal::ClusterCidr(cidrs) => format!("--cluster-cidr: {}", list(cidrs)),
        DetectLocal::NodeCidr(cidrs) => format!("--detect-local-mode NodeCIDR: {}", list(cidrs)),
        DetectLocal::BridgeInterface(link) => format!("--pod-bridge-interface: {link}"),
        DetectLocal::InterfaceNamePrefix(prefix) => {
            format!("--pod-interface-name-prefix: {prefix}")
        }
        DetectLocal::None => "pods are not told from others".to_owned(),
    }
}
