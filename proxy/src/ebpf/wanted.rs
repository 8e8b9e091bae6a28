//! One Service's rules as map entries that do not know their set ids yet.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnetwork::IpNetwork;
use seaway_ebpf_abi::frontend::{
    BACKEND_LOCAL, BACKEND_POD, FRONTEND_FAR_LOCAL, FRONTEND_MAGLEV, FRONTEND_NETFILTER,
    FRONTEND_REJECT, KIND_CLUSTER_IP, KIND_EXTERNAL_IP, KIND_LOAD_BALANCER, KIND_NODE_PORT,
    RANGE_BITS,
};
use seaway_ebpf_abi::{Addr, BackendValue, Cidr, FrontendKey, RangeKey};
use seaway_model::{
    Algorithm, Backend, DetectLocal, Family, Frontend, FrontendAddr, FrontendKind, ObjectKey,
    PortRule, ServiceRules, TrafficPolicy,
};
use sha2::{Digest, Sha256};

use super::maglev;
use crate::companion::split;

/// A frontend and who answers there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) near: Vec<BackendValue>,
    pub(super) far: Vec<BackendValue>,
    /// From where clients may come, in order; none: from anywhere.
    pub(super) ranges: Vec<Range>,
    pub(super) affinity: Option<Affinity>,
    pub(super) kind: u8,
    pub(super) flags: u8,
}

/// Clients stay with their backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Affinity {
    /// Under which they are remembered.
    pub(super) id: u64,
    /// In seconds, at least 1.
    pub(super) timeout: u32,
}

/// A network from which clients may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    addr: Addr,
    /// Of 128 bits.
    prefix: u32,
}

impl Range {
    fn new(network: &IpNetwork) -> Self {
        let cidr = Cidr::new(network.ip(), network.prefix());
        Self {
            addr: cidr.addr,
            prefix: cidr.mask.words.iter().map(|word| word.count_ones()).sum(),
        }
    }

    /// From an entry of the map.
    pub(super) fn of(key: &RangeKey) -> Self {
        Self {
            addr: key.addr,
            prefix: key.prefix.saturating_sub(RANGE_BITS),
        }
    }

    /// Its entry in the map.
    pub(super) fn key(&self, ranges: u32) -> RangeKey {
        RangeKey {
            prefix: RANGE_BITS + self.prefix,
            ranges,
            addr: self.addr,
        }
    }

    /// As people write it.
    pub(super) fn show(&self) -> String {
        let ip = self.addr.ip();
        let mapped = if ip.is_ipv4() { 96 } else { 0 };
        format!("{ip}/{}", self.prefix.saturating_sub(mapped))
    }
}

/// What a Service asks for that this mode does not carry, and what that means.
pub(super) type Notice = String;

/// The frontends of a Service.
pub(super) fn of_service(
    key: &ObjectKey,
    rules: &ServiceRules,
    detect_local: &DetectLocal,
    notices: &mut Vec<Notice>,
) -> BTreeMap<FrontendKey, Wanted> {
    let mut wanted = BTreeMap::new();
    let (carried, by_netfilter) = split(rules);
    for rule in carried {
        for frontend in &rule.frontends {
            // Of two ports that claim one frontend the first has it, as `Desired::find`.
            wanted
                .entry(frontend_key(frontend))
                .or_insert_with(|| entry(key, rule, frontend, detect_local));
        }
        if rules.algorithm != Algorithm::Maglev {
            continue;
        }
        let backends = rule.cluster.len().max(rule.local.len());
        if backends > maglev::MAX_BACKENDS {
            notices.push(format!(
                "{key} port {:?}: {backends} endpoints are too many for a Maglev table ({}): they are chosen at random",
                &*rule.port_name,
                maglev::MAX_BACKENDS
            ));
            continue;
        }
        for frontend in &rule.frontends {
            if let Some(wanted) = wanted.get_mut(&frontend_key(frontend)) {
                wanted.flags |= FRONTEND_MAGLEV;
            }
        }
    }
    for rule in by_netfilter {
        let frontends = rule.frontends.iter();
        for frontend in frontends.filter(|frontend| frontend.kind == FrontendKind::ClusterIp) {
            let key = FrontendKey {
                port: 0,
                protocol: rule.protocol.number(),
                ..frontend_key(frontend)
            };
            wanted.insert(key, nobody(FRONTEND_NETFILTER));
        }
    }
    for ip in rules.cluster_ips() {
        wanted.insert(refused_key(ip.into()), nobody(FRONTEND_REJECT));
    }
    wanted
}

fn frontend_key(frontend: &Frontend) -> FrontendKey {
    FrontendKey {
        addr: match frontend.addr {
            FrontendAddr::Ip(ip) => ip.into(),
            FrontendAddr::AnyNodeAddress(Family::V4) => Addr::ANY_V4,
            FrontendAddr::AnyNodeAddress(Family::V6) => Addr::ANY_V6,
        },
        port: frontend.port.to_be(),
        protocol: frontend.protocol.number(),
        pad: 0,
    }
}

/// Where everything ends up that a cluster IP has no frontend for.
fn refused_key(addr: Addr) -> FrontendKey {
    FrontendKey {
        addr,
        ..FrontendKey::default()
    }
}

/// What has no backends.
fn nobody(flags: u8) -> Wanted {
    Wanted {
        near: Vec::new(),
        far: Vec::new(),
        ranges: Vec::new(),
        affinity: None,
        kind: KIND_CLUSTER_IP,
        flags,
    }
}

fn entry(
    service: &ObjectKey,
    rule: &PortRule,
    frontend: &Frontend,
    detect_local: &DetectLocal,
) -> Wanted {
    let set = |policy: TrafficPolicy| {
        let backends = rule.backends(policy).iter();
        backends
            .map(|backend| backend_value(backend, detect_local))
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
    let mut ranges: Vec<Range> = match frontend.kind {
        FrontendKind::LoadBalancer => rule.source_ranges.iter().map(Range::new).collect(),
        _ => Vec::new(),
    };
    ranges.sort_unstable();
    ranges.dedup();
    Wanted {
        near: set(near),
        far: set(far),
        ranges,
        affinity: rule.affinity.map(|timeout| Affinity {
            id: affinity_id(service, rule),
            timeout: seconds(timeout),
        }),
        kind: match frontend.kind {
            FrontendKind::ClusterIp => KIND_CLUSTER_IP,
            FrontendKind::NodePort => KIND_NODE_PORT,
            FrontendKind::ExternalIp => KIND_EXTERNAL_IP,
            FrontendKind::LoadBalancer => KIND_LOAD_BALANCER,
        },
        flags,
    }
}

/// A hash of what the Service port is called, so that clients stay remembered whoever writes the maps, and when.
pub(super) fn affinity_id(service: &ObjectKey, rule: &PortRule) -> u64 {
    let name = format!(
        "{service} {} {} {:?}",
        rule.port_name, rule.protocol, rule.family
    );
    let digest = Sha256::digest(name.as_bytes());
    let first = digest.iter().take(8);
    first.fold(0, |id, byte| id << 8 | u64::from(*byte))
}

fn seconds(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1)
}

fn backend_value(backend: &Backend, detect_local: &DetectLocal) -> BackendValue {
    let ip = backend.addr.ip();
    let pod = match detect_local {
        DetectLocal::ClusterCidr(cidrs) => {
            let mut of_family = cidrs
                .iter()
                .filter(|cidr| Family::of(cidr.ip()) == Family::of(ip))
                .peekable();
            of_family.peek().is_none() || of_family.any(|cidr| cidr.contains(ip))
        }
        // Not told by their addresses; other nodes have a route to the overlay's address as well.
        _ => true,
    };
    BackendValue {
        addr: ip.into(),
        port: backend.addr.port().to_be(),
        flags: if backend.local { BACKEND_LOCAL } else { 0 } | if pod { BACKEND_POD } else { 0 },
    }
}
