//! Which backend, and whether the client keeps its address.

use seaway_ebpf_abi::config::{CONFIG_MASQUERADE_ALL, CONFIG_PODS_BY_LINK};
use seaway_ebpf_abi::frontend::{BACKEND_POD, FRONTEND_FAR_LOCAL, FRONTEND_REJECT};
use seaway_ebpf_abi::{Addr, AffinityValue, BackendKey, BackendValue, Config, FrontendValue};

/// From where a client knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A process of the node or a pod of the cluster: the internal policy for a cluster IP, and always the whole cluster
    /// for an external address (kube-proxy's short circuit).
    Near,
    /// Anybody else: the external policy for an external address.
    Far,
}

/// What meets a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A backend of this set.
    Set { set: u32, count: u32 },
    /// Refuse: no endpoint anywhere.
    Reject,
    /// Silence: no endpoint that the policy allows.
    Drop,
}

/// Whether a packet counts as a pod's, as `--detect-local-mode` says.
#[inline(always)]
#[must_use]
pub const fn is_pod(config: &Config, source: &Addr, over_pod_link: bool) -> bool {
    if config.flags & CONFIG_PODS_BY_LINK != 0 {
        over_pod_link
    } else {
        config.family(source).is_pod(source)
    }
}

/// Chooses the backend set.
#[inline(always)]
#[must_use]
pub const fn choose(frontend: &FrontendValue, client: Client) -> Choice {
    let (set, count) = match client {
        Client::Near => (frontend.near_set, frontend.near_count),
        Client::Far => (frontend.far_set, frontend.far_count),
    };
    if count > 0 {
        Choice::Set { set, count }
    } else if frontend.flags & FRONTEND_REJECT != 0 {
        Choice::Reject
    } else {
        Choice::Drop
    }
}

/// A slot of a set by a random number, each with the same chance (to within `count` in 2^32).
#[inline(always)]
#[must_use]
pub const fn slot(set: u32, count: u32, random: u32) -> BackendKey {
    BackendKey {
        set,
        slot: ((random as u64 * count as u64) >> 32) as u32,
    }
}

/// Whether a client still has its backend by session affinity, as far as time is concerned.
#[inline(always)]
#[must_use]
pub const fn is_remembered(frontend: &FrontendValue, known: &AffinityValue, now: u64) -> bool {
    now.wrapping_sub(known.last_used) < frontend.affinity_timeout as u64 * 1_000_000_000
}

/// The source address that a packet gets on its way to the backend, or `None` if it keeps its own.
///
/// As kube-proxy: traffic to external addresses under policy `Cluster` is masqueraded, because the backend may be on
/// another node and its reply has to come back here; so is traffic to a cluster IP from outside of the cluster, and a
/// pod's traffic to itself (which would otherwise be answered without ever leaving the pod). Under policy `Local` only
/// what is near and no pod is masqueraded: an address of the node, whose reply would not pass here.
#[inline(always)]
#[must_use]
pub const fn masquerade(
    config: &Config,
    frontend: &FrontendValue,
    (source, is_pod, client): (&Addr, bool, Client),
    backend: &BackendValue,
    backend_is_node: bool,
) -> Option<Addr> {
    let wanted = if source.same(&backend.addr) {
        true
    } else if frontend.is_external() {
        frontend.flags & FRONTEND_FAR_LOCAL == 0 || (!is_pod && matches!(client, Client::Near))
    } else {
        config.flags & CONFIG_MASQUERADE_ALL != 0 || (config.detects(source) && !is_pod)
    };
    if !wanted || backend_is_node {
        return None;
    }
    let family = config.family(&backend.addr);
    let addr = if backend.flags & BACKEND_POD != 0 && !family.overlay_addr.is_unspecified() {
        family.overlay_addr
    } else {
        family.node_addr
    };
    if addr.is_unspecified() {
        None
    } else {
        Some(addr)
    }
}
