//! Layouts that the eBPF programs and user space share, byte for byte.
//!
//! Every type is `repr(C)`, made of integers only, with its padding written out, so that a key compares equal as bytes
//! and an entry pinned by one build is read by the next. **Addresses and ports are in network byte order** (as they
//! stand in a packet, read as a native integer); everything else is in host order.
//!
//! A change of any layout here, or of the meaning of a field, raises [`LAYOUT_VERSION`]: it is part of the pin path,
//! so two builds with different layouts never meet in one map.
//!
//! Reading order: [`frontend`] → [`flow`] → [`socket`]; [`config`] and [`counters`] are what remains.

#![no_std]

pub mod config;
pub mod counters;
pub mod flow;
pub mod frontend;
pub mod socket;

pub use config::{Cidr, Config, MAX_CIDRS};
pub use counters::Verdict;
pub use flow::{FlowKey, FlowValue};
pub use frontend::{BackendKey, BackendValue, FrontendKey, FrontendValue};
pub use socket::{SocketKey, SocketValue, SteadyValue};

/// Version of the layouts, and so of the pin directory `v<N>`.
pub const LAYOUT_VERSION: u32 = 1;

/// Names of the maps, as programs declare them and as pins are called.
pub mod maps {
    /// One [`Config`](crate::Config) at index 0.
    pub const CONFIG: &str = "CONFIG";
    /// [`FrontendKey`](crate::FrontendKey) → [`FrontendValue`](crate::FrontendValue).
    pub const FRONTENDS: &str = "FRONTENDS";
    /// [`BackendKey`](crate::BackendKey) → [`BackendValue`](crate::BackendValue).
    pub const BACKENDS: &str = "BACKENDS";
    /// Local addresses of the node (`u32`, network order) → 1.
    pub const NODE_ADDRS: &str = "NODE_ADDRS";
    /// [`FlowKey`](crate::FlowKey) → [`FlowValue`](crate::FlowValue), both directions.
    pub const FLOWS: &str = "FLOWS";
    /// [`SocketKey`](crate::SocketKey) (backend) → [`SocketValue`](crate::SocketValue) for TCP sockets.
    pub const SOCKETS_TCP: &str = "SOCKETS_TCP";
    /// The same for UDP sockets, apart so that short TCP connections cannot push out long-lived UDP sockets.
    pub const SOCKETS_UDP: &str = "SOCKETS_UDP";
    /// [`SocketKey`](crate::SocketKey) (frontend) → [`SteadyValue`](crate::SteadyValue).
    pub const STEADY: &str = "STEADY";
    /// Per-CPU `u64` by [`Verdict`](crate::Verdict).
    pub const COUNTERS: &str = "COUNTERS";

    /// All of them.
    pub const ALL: [&str; 9] = [
        CONFIG,
        FRONTENDS,
        BACKENDS,
        NODE_ADDRS,
        FLOWS,
        SOCKETS_TCP,
        SOCKETS_UDP,
        STEADY,
        COUNTERS,
    ];
}

/// Names of the programs.
pub mod programs {
    /// tc ingress of a pod's link: the packets that a pod sends.
    pub const FROM_POD: &str = "from_pod";
    /// tc ingress of an uplink: the packets that arrive from outside.
    pub const FROM_UPLINK: &str = "from_uplink";
    /// tc ingress of the overlay device: replies of backends on other nodes.
    pub const FROM_OVERLAY: &str = "from_overlay";
    /// tc egress of uplinks and pod links: replies of backends that are the node itself.
    pub const TO_LINK: &str = "to_link";
    /// The socket hooks, attached to the node's cgroup. Those for IPv6 sockets serve IPv4-mapped addresses only;
    /// a datagram to such an address passes `sendmsg4`.
    pub const SOCKET: [&str; 7] = [
        "sock_connect4",
        "sock_sendmsg4",
        "sock_recvmsg4",
        "sock_getpeername4",
        "sock_connect6",
        "sock_recvmsg6",
        "sock_getpeername6",
    ];
    /// The classifiers.
    pub const CLASSIFIERS: [&str; 4] = [FROM_POD, FROM_UPLINK, FROM_OVERLAY, TO_LINK];
}

/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;

/// A type whose every byte pattern is a value and that has no hidden padding: what may go into and come out of a map.
///
/// # Safety
///
/// The implementor is `repr(C)` or an integer, holds integers only, and has its padding written out as fields.
#[expect(
    unsafe_code,
    reason = "an implementor makes a promise that the compiler cannot check"
)]
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($type:ty, $size:literal, $align:literal;)*) => {$(
        const _: () = assert!(size_of::<$type>() == $size && align_of::<$type>() == $align);
        #[expect(unsafe_code, reason = "the assertion above pins the layout that the trait asks for")]
        // SAFETY: `repr(C)` of integers; the size is the sum of the fields, so there is no hidden padding.
        unsafe impl Plain for $type {}
    )*};
}

plain! {
    u32, 4, 4;
    u64, 8, 8;
    FrontendKey, 8, 4;
    FrontendValue, 20, 4;
    BackendKey, 8, 4;
    BackendValue, 8, 4;
    FlowKey, 16, 4;
    FlowValue, 40, 8;
    SocketKey, 16, 8;
    SocketValue, 8, 4;
    SteadyValue, 12, 4;
    Config, 64, 8;
}
