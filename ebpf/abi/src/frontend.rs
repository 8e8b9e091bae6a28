//! Services: where clients knock, and who answers.

/// Where a client knocks.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrontendKey {
    /// IPv4 address; 0 stands for every local address of the node (a `NodePort`). IPv6 frontends will have a map
    /// of their own, so that IPv4 look-ups stay eight bytes.
    pub addr: u32,
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
    /// One of the `KIND_*` constants; for people, no decision hangs on it but [`FrontendValue::is_external`].
    pub kind: u8,
    /// `FRONTEND_*` bits.
    pub flags: u8,
    pub pad: [u8; 2],
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
    pub addr: u32,
    pub port: u16,
    /// `BACKEND_*` bits.
    pub flags: u16,
}

/// The backend runs on this node.
pub const BACKEND_LOCAL: u16 = 1;
/// The backend's address is in the cluster's pod network: replies to the node's overlay address come back.
pub const BACKEND_POD: u16 = 2;
