//! One Service's rules as map entries that do not know their set ids yet.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnetwork::IpNetwork;
use seaway_ebpf_abi::frontend::{
    BACKEND_LOCAL, BACKEND_POD, FRONTEND_FAR_LOCAL, FRONTEND_REJECT, KIND_CLUSTER_IP,
    KIND_EXTERNAL_IP, KIND_LOAD_BALANCER, KIND_NODE_PORT,
};
use seaway_ebpf_abi::{BackendValue, FrontendKey};
use seaway_model::{
    Backend, Family, Frontend, FrontendAddr, FrontendKind, ObjectKey, PortRule, Protocol,
    ServiceRules, TrafficPolicy,
};

use super::node::bits;

/// A frontend and who answers there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) near: Vec<BackendValue>,
    pub(super) far: Vec<BackendValue>,
    pub(super) kind: u8,
    pub(super) flags: u8,
}

/// What a Service asks for that this mode does not carry, and what that means.
pub(super) type Notice = String;

/// The frontends of a Service.
pub(super) fn of_service(
    key: &ObjectKey,
    rules: &ServiceRules,
    cluster_cidrs: &[IpNetwork],
    notices: &mut Vec<Notice>,
) -> BTreeMap<FrontendKey, Wanted> {
    let mut wanted = BTreeMap::new();
    for rule in &rules.ports {
        if let Some(reason) = not_carried(rule) {
            notices.push(format!("{key} port {:?}: {reason}", &*rule.port_name));
            continue;
        }
        if rule.affinity.is_some() {
            notices.push(format!(
                "{key} port {:?}: sessionAffinity is not carried yet, any endpoint may answer",
                &*rule.port_name
            ));
        }
        for frontend in &rule.frontends {
            if frontend.kind == FrontendKind::LoadBalancer && !rule.source_ranges.is_empty() {
                notices.push(format!(
                    "{key} {frontend}: loadBalancerSourceRanges are not carried yet, the address is not served"
                ));
                continue;
            }
            if let Some(frontend_key) = frontend_key(frontend) {
                // Of two ports that claim one frontend the first has it, as `Desired::find`.
                wanted
                    .entry(frontend_key)
                    .or_insert_with(|| entry(rule, frontend, cluster_cidrs));
            }
        }
    }
    wanted
}

fn not_carried(rule: &PortRule) -> Option<&'static str> {
    if rule.family == Family::V6 {
        return Some("IPv6 is not carried yet");
    }
    (rule.protocol == Protocol::Sctp).then_some("SCTP is not carried by eBPF mode")
}

fn frontend_key(frontend: &Frontend) -> Option<FrontendKey> {
    let addr = match frontend.addr {
        FrontendAddr::Ip(std::net::IpAddr::V4(ip)) => bits(ip),
        FrontendAddr::AnyNodeAddress(Family::V4) => 0,
        FrontendAddr::Ip(_) | FrontendAddr::AnyNodeAddress(Family::V6) => return None,
    };
    Some(FrontendKey {
        addr,
        port: frontend.port.to_be(),
        protocol: frontend.protocol.number(),
        pad: 0,
    })
}

fn entry(rule: &PortRule, frontend: &Frontend, cluster_cidrs: &[IpNetwork]) -> Wanted {
    let set = |policy: TrafficPolicy| {
        let backends = match policy {
            TrafficPolicy::Cluster => &rule.cluster,
            TrafficPolicy::Local => &rule.local,
        };
        backends
            .iter()
            .filter_map(|backend| backend_value(backend, cluster_cidrs))
            .collect()
    };
    let external = frontend.kind.is_external();
    // From inside the cluster an external address is served by all endpoints, whatever its policy (kube-proxy's short
    // circuit); a cluster IP obeys the internal policy from anywhere.
    let (near, far) = if external {
        (TrafficPolicy::Cluster, rule.external_policy)
    } else {
        (rule.internal_policy, rule.internal_policy)
    };
    let mut flags = 0;
    if !rule.any_endpoints {
        flags |= FRONTEND_REJECT;
    }
    if external && rule.external_policy == TrafficPolicy::Local {
        flags |= FRONTEND_FAR_LOCAL;
    }
    Wanted {
        near: set(near),
        far: set(far),
        kind: match frontend.kind {
            FrontendKind::ClusterIp => KIND_CLUSTER_IP,
            FrontendKind::NodePort => KIND_NODE_PORT,
            FrontendKind::ExternalIp => KIND_EXTERNAL_IP,
            FrontendKind::LoadBalancer => KIND_LOAD_BALANCER,
        },
        flags,
    }
}

fn backend_value(backend: &Backend, cluster_cidrs: &[IpNetwork]) -> Option<BackendValue> {
    let SocketAddr::V4(addr) = backend.addr else {
        return None;
    };
    let pod = cluster_cidrs.is_empty()
        || cluster_cidrs
            .iter()
            .any(|cidr| cidr.contains((*addr.ip()).into()));
    Some(BackendValue {
        addr: bits(*addr.ip()),
        port: addr.port().to_be(),
        flags: if backend.local { BACKEND_LOCAL } else { 0 } | if pod { BACKEND_POD } else { 0 },
    })
}
