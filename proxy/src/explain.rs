//! What becomes of a connection, and which field of which object decides it. Built on the model and its oracle, so that
//! the answer is the same in every mode. Pure.

mod endpoints;
#[cfg(test)]
mod tests;
mod unserved;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use ipnetwork::IpNetwork;
use seaway_model::{
    Client, Desired, DetectLocal, Family, Frontend, FrontendKind, Inputs, NodeContext,
    NodeSettings, ObjectKey, Origin, Outcome, Outcomes, Packet, PortRule, Service, TrafficPolicy,
    WhenEmpty, outcomes,
};

/// All that an answer is made of.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    pub inputs: &'a Inputs,
    pub desired: &'a Desired,
    pub node: &'a NodeContext,
    pub settings: &'a NodeSettings,
}

/// The answer, in lines for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What may become of the packet, from the oracle.
    pub outcomes: Outcomes,
    lines: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
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
    let mut lines = vec![
        format!(
            "packet: {} from {} to {}",
            packet.protocol,
            source(world, packet),
            packet.destination
        ),
        format!("verdict: {}", verdict(&outcomes)),
    ];
    match matching(world, packet) {
        Some(found) => lines.extend(served(world, packet, found, &outcomes)),
        None => lines.extend(unserved::reasons(world, packet, &outcomes)),
    }
    Explanation { outcomes, lines }
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

fn source(world: World<'_>, packet: &Packet) -> String {
    let ip = packet.source;
    let what = match packet.origin {
        Origin::NodeProcess => "a process of this node",
        Origin::LocalPod if world.node.is_pod(packet) => "a pod of this node",
        Origin::LocalPod => "behind a pod link of this node, but not counted as a pod",
        Origin::External if world.node.is_pod(packet) => "a pod of another node",
        Origin::External => "outside of the cluster",
    };
    format!("{ip} ({what})")
}

fn verdict(outcomes: &Outcomes) -> String {
    let delivered = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Deliver { .. }))
        .count();
    match outcomes.first() {
        Some(Outcome::Deliver { backend, .. }) if delivered == 1 => {
            format!("goes to {backend}, the only endpoint")
        }
        Some(Outcome::Deliver { .. }) => {
            format!("goes to one of {delivered} endpoints, each as likely as any other")
        }
        Some(Outcome::Reject) => {
            "refused at once (TCP reset, ICMP port unreachable otherwise)".to_owned()
        }
        Some(Outcome::Drop) => "dropped without an answer".to_owned(),
        Some(Outcome::Pass) | None => "not a Service: left to the routes of the node".to_owned(),
    }
}

fn served(world: World<'_>, packet: &Packet, found: Match<'_>, outcomes: &Outcomes) -> Vec<String> {
    let Match { key, rule, .. } = found;
    let port = match &*rule.port_name {
        "" => "its only port".to_owned(),
        name => format!("port {name:?}"),
    };
    let mut lines = vec![format!(
        "service: {key}, {port}, by {}",
        frontend_field(found)
    )];
    if found.frontend.kind == FrontendKind::LoadBalancer && !rule.source_ranges.is_empty() {
        let ranges: Vec<_> = rule.source_ranges.iter().map(ToString::to_string).collect();
        let admitted = rule.admits(found.frontend.kind, packet.source);
        lines.push(format!(
            "source ranges: {} {} {} (spec.loadBalancerSourceRanges)",
            packet.source,
            if admitted { "is in" } else { "is in none of" },
            ranges.join(", ")
        ));
        if !admitted {
            return lines;
        }
    }
    let client = world.node.client(packet);
    let policy = rule.policy_for(found.frontend.kind, client);
    lines.push(policy_line(found, client, policy));
    if rule.backends(policy).is_empty() {
        lines.push(match rule.when_empty() {
            WhenEmpty::Reject => {
                "because: no endpoint on any node can be used; a ready one would change that"
                    .to_owned()
            }
            WhenEmpty::Drop => "because: there are endpoints, but none on this node; one here, or policy Cluster, would \
                 change that"
                .to_owned(),
        });
    } else {
        lines.push(masquerade_line(world, packet, found, outcomes));
        if let Some(timeout) = rule.affinity {
            lines.push(format!(
                "affinity: a client keeps its endpoint until {} s after its last new connection \
                 (spec.sessionAffinity: ClientIP)",
                timeout.as_secs()
            ));
        }
    }
    lines.extend(endpoints::lines(world, found, policy));
    lines
}

fn frontend_field(found: Match<'_>) -> String {
    let index = found
        .service
        .ports
        .iter()
        .position(|port| port.name == found.rule.port_name && port.protocol == found.rule.protocol)
        .unwrap_or_default();
    let (what, field) = match found.frontend.kind {
        FrontendKind::ClusterIp => ("its cluster IP", "spec.clusterIPs".to_owned()),
        FrontendKind::NodePort => ("its node port", format!("spec.ports[{index}].nodePort")),
        FrontendKind::ExternalIp => ("an external IP", "spec.externalIPs".to_owned()),
        FrontendKind::LoadBalancer => (
            "a load balancer address",
            "status.loadBalancer.ingress".to_owned(),
        ),
    };
    format!("{what} ({field})")
}

fn policy_line(found: Match<'_>, client: Client, policy: TrafficPolicy) -> String {
    let name = policy_name(policy);
    let external = found.frontend.kind.is_external();
    match (external, client) {
        (false, _) => format!("policy: {name} (spec.internalTrafficPolicy)"),
        (true, Client::External) => format!("policy: {name} (spec.externalTrafficPolicy)"),
        (true, Client::Internal) if found.rule.external_policy == TrafficPolicy::Local => format!(
            "policy: {name}: spec.externalTrafficPolicy: Local is for clients outside of the cluster, one inside is \
             served as at the cluster IP"
        ),
        (true, Client::Internal) => format!("policy: {name}: the client is inside of the cluster"),
    }
}

fn policy_name(policy: TrafficPolicy) -> &'static str {
    match policy {
        TrafficPolicy::Cluster => "Cluster, endpoints of all nodes",
        TrafficPolicy::Local => "Local, endpoints of this node",
    }
}

fn masquerade_line(
    world: World<'_>,
    packet: &Packet,
    found: Match<'_>,
    outcomes: &Outcomes,
) -> String {
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
    match own {
        Some((own, _)) if !all || hidden.len() == 1 => format!(
            "source address: kept, but at {own}, which is the client itself and must not answer itself directly"
        ),
        _ if !all => {
            let why = if cluster_ip && !detects {
                "nothing says who is a pod in this family, so that nobody is taken for an outsider"
            } else if cluster_ip {
                "the client is a pod"
            } else {
                "policy Local keeps it"
            };
            format!("source address: kept: {why} ({})", detection(world.node))
        }
        _ => {
            let why = if !cluster_ip && found.rule.external_policy == TrafficPolicy::Cluster {
                "the endpoint may be on another node, whose answer has to come back this way \
                 (spec.externalTrafficPolicy: Cluster)"
            } else if !cluster_ip {
                "the client is this node"
            } else if world.node.masquerade_all {
                "--masquerade-all"
            } else {
                "the client is no pod"
            };
            format!(
                "source address: replaced by the node's: {why} ({})",
                detection(world.node)
            )
        }
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
