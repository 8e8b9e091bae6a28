//! Which backend, and whether the client keeps its address.

use seaway_ebpf_abi::config::CONFIG_MASQUERADE_ALL;
use seaway_ebpf_abi::frontend::{BACKEND_POD, FRONTEND_FAR_LOCAL, FRONTEND_REJECT};
use seaway_ebpf_abi::{BackendKey, BackendValue, Config, FrontendValue};

/// From where a client knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A process of the node or one of its pods: the internal policy for a cluster IP, and always the whole cluster
    /// for an external address (kube-proxy's short circuit).
    Near,
    /// Anybody who arrives over an uplink: the external policy for an external address.
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

/// The source address that a packet gets on its way to the backend, or `None` if it keeps its own.
///
/// As kube-proxy: traffic to external addresses under policy `Cluster` is masqueraded, because the backend may be on
/// another node and its reply has to come back here; so is traffic to a cluster IP from outside of the cluster, and a
/// pod's traffic to itself (which would otherwise be answered without ever leaving the pod).
#[inline(always)]
#[must_use]
pub const fn masquerade(
    config: &Config,
    frontend: &FrontendValue,
    client: u32,
    backend: &BackendValue,
    backend_is_node: bool,
) -> Option<u32> {
    let wanted = if client == backend.addr {
        true
    } else if frontend.is_external() {
        frontend.flags & FRONTEND_FAR_LOCAL == 0
    } else {
        config.flags & CONFIG_MASQUERADE_ALL != 0 || !config.in_cluster(client)
    };
    if !wanted || backend_is_node {
        return None;
    }
    let addr = if backend.flags & BACKEND_POD != 0 && config.overlay_addr != 0 {
        config.overlay_addr
    } else {
        config.node_addr
    };
    if addr == 0 { None } else { Some(addr) }
}
