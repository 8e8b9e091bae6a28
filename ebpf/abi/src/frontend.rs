//! Services: where clients knock, and who answers.

use crate::Addr;

/// Where a client knocks.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrontendKey {
    /// An unspecified address stands for the node's addresses of that family (a `NodePort`).
    pub addr: Addr,
    /// 0, with protocol 0: whatever else is sent to this cluster IP, which is refused. 0, with a protocol: netfilter has ports of that
    /// protocol there.
    pub port: u16,
    /// IANA number.
    pub protocol: u8,
    pub pad: u8,
}

/// The backend sets of a frontend. A set is immutable: a change writes a new set under a new id and flips this entry,
/// so that a program never sees half of a Service.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FrontendValue {
    /// For clients in the cluster: the socket hooks, and packets of pods.
    pub near_set: u32,
    pub near_count: u32,
    /// For clients outside, as `externalTrafficPolicy` says.
    pub far_set: u32,
    pub far_count: u32,
    /// How long a client stays with its backend after its last new connection, in seconds; 0: it does not.
    pub affinity_timeout: u32,
    /// The set of networks from which clients may come; 0: from anywhere.
    pub ranges: u32,
    /// The Service port under which clients are remembered, the same at all of its frontends.
    pub affinity: u64,
    /// One of the `KIND_*` constants; for people, no decision hangs on it but [`FrontendValue::is_external`].
    pub kind: u8,
    /// `FRONTEND_*` bits.
    pub flags: u8,
    pub pad: [u8; 6],
}

/// `spec.clusterIPs`.
pub const KIND_CLUSTER_IP: u8 = 1;
/// `spec.ports[].nodePort`.
pub const KIND_NODE_PORT: u8 = 2;
/// `spec.externalIPs`.
pub const KIND_EXTERNAL_IP: u8 = 3;
/// `status.loadBalancer.ingress[].ip`.
pub const KIND_LOAD_BALANCER: u8 = 4;

/// There is no usable endpoint on any node: refuse. Without it an empty set means silence, so that a load balancer in
/// front tries another node.
pub const FRONTEND_REJECT: u8 = 1;
/// Clients outside keep their address: the far set holds backends of this node only.
pub const FRONTEND_FAR_LOCAL: u8 = 2;

/// A packet's backend goes by the hash of its flow: both sets have a table if they have more than one backend.
pub const FRONTEND_MAGLEV: u8 = 4;
/// Not a frontend: netfilter has ports of that protocol at the cluster IP.
pub const FRONTEND_NETFILTER: u8 = 8;

impl FrontendValue {
    /// Whether traffic from outside the cluster is meant to arrive here.
    #[inline(always)]
    #[must_use]
    pub const fn is_external(&self) -> bool {
        self.kind != KIND_CLUSTER_IP
    }
}

/// A slot of a backend set: `0..count`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BackendKey {
    pub set: u32,
    pub slot: u32,
}

/// Who answers.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BackendValue {
    pub addr: Addr,
    pub port: u16,
    /// `BACKEND_*` bits.
    pub flags: u16,
}

/// The backend runs on this node.
pub const BACKEND_LOCAL: u16 = 1;
/// The backend's address is in the cluster's pod network: replies to the node's overlay address come back.
pub const BACKEND_POD: u16 = 2;

/// A network from which clients may come, in a trie of the longest prefixes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RangeKey {
    /// Of what follows, in bits; host order.
    pub prefix: u32,
    /// The set that the network belongs to; every look-up matches it in full.
    pub ranges: u32,
    pub addr: Addr,
}

/// Bits of a [`RangeKey`] before the address.
pub const RANGE_BITS: u32 = 32;

/// Whom a client of a Service port with session affinity gets.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AffinityKey {
    /// [`FrontendValue::affinity`].
    pub affinity: u64,
    /// The source of a packet. For a socket, which has none yet, its network namespace: [`AffinityKey::of_namespace`].
    pub client: Addr,
}

impl AffinityKey {
    /// The client that a network namespace is: a pod, or the node. Such addresses occur in no packet (`ff00::/8` is no
    /// source).
    #[inline(always)]
    #[must_use]
    pub const fn of_namespace(cookie: u64) -> Addr {
        Addr {
            words: [u32::MAX, 0, (cookie >> 32) as u32, cookie as u32],
        }
    }

    /// The cookie of the namespace that the client is, if it is one.
    #[must_use]
    pub const fn namespace(&self) -> Option<u64> {
        match self.client.words {
            [u32::MAX, 0, high, low] => Some((high as u64) << 32 | low as u64),
            _ => None,
        }
    }
}

/// Who has answered a client.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AffinityValue {
    /// `CLOCK_MONOTONIC` in nanoseconds: the client's last new connection.
    pub last_used: u64,
    pub addr: Addr,
    pub port: u16,
    pub pad: [u8; 6],
}
