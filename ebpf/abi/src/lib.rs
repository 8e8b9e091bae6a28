//! Layouts that the eBPF programs and user space share, byte for byte.
//!
//! Every type is `repr(C)`, made of integers only, with its padding written out, so that a key compares equal as bytes
//! and an entry pinned by one build is read by the next. **Addresses and ports are in network byte order** (as they
//! stand in a packet, read as a native integer); everything else is in host order.
//!
//! A change of any layout here, or of the meaning of a field, raises [`LAYOUT_VERSION`]: it is part of the pin path,
//! so two builds with different layouts never meet in one map.
//!
//! Reading order: [`addr`] → [`frontend`] → [`maglev`] → [`flow`] → [`shortcut`] → [`fragment`] → [`dsr`] → [`pod`] → [`socket`]; [`config`], [`counters`] and
//! [`event`] are what remains.

#![no_std]

pub mod addr;
pub mod config;
pub mod counters;
pub mod dsr;
pub mod event;
pub mod flow;
pub mod fragment;
pub mod frontend;
pub mod legacy;
pub mod maglev;
pub mod pod;
pub mod shortcut;
pub mod socket;

pub use addr::{Addr, Cidr};
pub use config::{Config, MAX_CIDRS};
pub use counters::{Tally, Verdict};
pub use dsr::{TunnelKey, TunnelValue, VtepValue};
pub use event::{Event, Listener};
pub use flow::{FlowKey, FlowValue, Hop};
pub use fragment::{FragmentKey, FragmentValue};
pub use frontend::{
    AffinityKey, AffinityValue, BackendKey, BackendValue, FrontendKey, FrontendValue, RangeKey,
};
pub use maglev::{MaglevChunk, MaglevKey};
pub use pod::{PeerValue, PeerWay, PodLink, PodValue};
pub use shortcut::Shortcut;
pub use socket::{SocketKey, SocketValue, SteadyValue};

/// Version of the layouts, and so of the pin directory `v<N>`.
pub const LAYOUT_VERSION: u32 = 3;

/// Names of the maps, as programs declare them and as pins are called.
pub mod maps {
    /// One [`Config`](crate::Config) at index 0.
    pub const CONFIG: &str = "CONFIG";
    /// One word at index 0, never 0: another one for each change of Services, links, addresses or routes, so that what
    /// was found before is looked up anew.
    pub const EPOCH: &str = "EPOCH";
    /// [`FrontendKey`](crate::FrontendKey) → [`FrontendValue`](crate::FrontendValue).
    pub const FRONTENDS: &str = "FRONTENDS";
    /// [`BackendKey`](crate::BackendKey) → [`BackendValue`](crate::BackendValue).
    pub const BACKENDS: &str = "BACKENDS";
    /// [`MaglevKey`](crate::MaglevKey) → [`MaglevChunk`](crate::MaglevChunk): tables of the sets that are asked by hash.
    pub const MAGLEV: &str = "MAGLEV";
    /// [`RangeKey`](crate::RangeKey) → 1: from where clients may come.
    pub const RANGES: &str = "RANGES";
    /// [`AffinityKey`](crate::AffinityKey) → [`AffinityValue`](crate::AffinityValue).
    pub const AFFINITY: &str = "AFFINITY";
    /// Local addresses of the node ([`Addr`](crate::Addr)) → `NODE_ADDR_*` bits.
    pub const NODE_ADDRS: &str = "NODE_ADDRS";
    /// [`FlowKey`](crate::FlowKey) → [`FlowValue`](crate::FlowValue), both directions.
    pub const FLOWS: &str = "FLOWS";
    /// [`Shortcut`](crate::Shortcut)s beside the flow table: so many for each CPU, one CPU's after the other's.
    pub const SHORTCUTS: &str = "SHORTCUTS";
    /// `u32`s, one of which changes whenever an entry of the flow table comes or goes: by the flow's hash.
    pub const REVISIONS: &str = "REVISIONS";
    /// [`FragmentKey`](crate::FragmentKey) → [`FragmentValue`](crate::FragmentValue).
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// [`SocketKey`](crate::SocketKey) (backend) → [`SocketValue`](crate::SocketValue) for TCP sockets.
    pub const SOCKETS_TCP: &str = "SOCKETS_TCP";
    /// The same for UDP sockets, apart so that short TCP connections cannot push out long-lived UDP sockets.
    pub const SOCKETS_UDP: &str = "SOCKETS_UDP";
    /// [`SocketKey`](crate::SocketKey) (frontend) → [`SteadyValue`](crate::SteadyValue).
    pub const STEADY: &str = "STEADY";
    /// Cookies (`u64`) of the network namespaces whose sockets are left untranslated → why (`UNTRANSLATED_*` bits).
    pub const UNTRANSLATED: &str = "UNTRANSLATED";
    /// [`TunnelKey`](crate::TunnelKey) → [`TunnelValue`](crate::TunnelValue): pods of other nodes, by the overlay's routes.
    pub const TUNNELS: &str = "TUNNELS";
    /// Ends of tunnels ([`Addr`](crate::Addr)) → [`VtepValue`](crate::VtepValue).
    pub const VTEPS: &str = "VTEPS";
    /// Links that send frames which XDP redirects to them: index → index.
    pub const XDP_LINKS: &str = "XDP_LINKS";
    /// Addresses of this node's pods ([`Addr`](crate::Addr)) → [`PodValue`](crate::PodValue).
    pub const PODS: &str = "PODS";
    /// [`PodLink`](crate::PodLink)s by [`pod_link`](crate::pod::pod_link).
    pub const POD_LINKS: &str = "POD_LINKS";
    /// [`TunnelKey`](crate::TunnelKey) → [`PeerValue`](crate::PeerValue): how packets get to pods of other nodes.
    pub const PEERS: &str = "PEERS";
    /// `u32`, an IPv4 address of the underlay → [`PeerWay`](crate::PeerWay).
    pub const PEER_WAYS: &str = "PEER_WAYS";
    /// [`FlowKey`](crate::FlowKey) → 1: flows between pods that began in the stack and stay there, both directions.
    pub const DETOURS: &str = "DETOURS";
    /// Per-CPU `u64` by [`Verdict`](crate::Verdict).
    pub const COUNTERS: &str = "COUNTERS";
    /// [`FrontendKey`](crate::FrontendKey), padded with a [`Tally`](crate::Tally) → per-CPU `u64`.
    pub const TALLIES: &str = "TALLIES";
    /// One [`Listener`](crate::Listener) at index 0.
    pub const LISTENER: &str = "LISTENER";
    /// Ring buffer of [`Event`](crate::Event).
    pub const EVENTS: &str = "EVENTS";

    /// All of them.
    pub const ALL: [&str; 28] = [
        CONFIG,
        EPOCH,
        FRONTENDS,
        BACKENDS,
        MAGLEV,
        RANGES,
        AFFINITY,
        NODE_ADDRS,
        FLOWS,
        SHORTCUTS,
        REVISIONS,
        FRAGMENTS,
        SOCKETS_TCP,
        SOCKETS_UDP,
        STEADY,
        UNTRANSLATED,
        TUNNELS,
        VTEPS,
        XDP_LINKS,
        PODS,
        POD_LINKS,
        PEERS,
        PEER_WAYS,
        DETOURS,
        COUNTERS,
        TALLIES,
        LISTENER,
        EVENTS,
    ];
}

/// Names of the constants that the loader gives to programs.
pub mod globals {
    /// `u32`: the slots of each CPU in the map of shortcuts, a power of two.
    pub const SLOTS: &str = "SLOTS";
}

/// Names of the programs.
pub mod programs {
    /// tc ingress of a pod's link: the packets that a pod sends.
    pub const FROM_POD: &str = "from_pod";
    /// tc ingress of an uplink: the packets that arrive from outside. Of the overlay device as well: mostly replies of
    /// backends on other nodes, but pods of other nodes may knock at addresses of this one, too.
    pub const FROM_UPLINK: &str = "from_uplink";
    /// tc egress of uplinks and pod links: replies of backends that are the node itself.
    pub const TO_LINK: &str = "to_link";
    /// tc ingress of links whose packets have no Ethernet header, before the program of the link: gives them one.
    pub const FROM_BARE: &str = "from_bare";
    /// tc egress of such links, in the place of [`TO_LINK`].
    pub const TO_BARE: &str = "to_bare";
    /// The socket hooks, attached to the node's cgroup. Those for IPv6 sockets serve IPv4-mapped addresses as well, but
    /// for a datagram to such an address, which passes `sendmsg4`.
    pub const SOCKET: [&str; 8] = [
        "sock_connect4",
        "sock_sendmsg4",
        "sock_recvmsg4",
        "sock_getpeername4",
        "sock_connect6",
        "sock_sendmsg6",
        "sock_recvmsg6",
        "sock_getpeername6",
    ];
    /// XDP at an uplink: established flows that leave by the link where they came in, or by another one with XDP.
    pub const XDP_UPLINK: &str = "xdp_uplink";
    /// XDP that passes everything, loaded by tests.
    pub const XDP_IDLE: &str = "xdp_idle";
    /// XDP that sends a frame back, with the header that stands in front of it as metadata, loaded by who measures.
    pub const XDP_AGAIN: &str = "xdp_again";
    /// Bytes of that header: Ethernet, IPv4, UDP, rounded up to words as metadata have to be.
    pub const AGAIN: usize = AGAIN_HEADERS.next_multiple_of(4);
    /// Of that, what it puts back: headers of Ethernet, IPv4 and UDP.
    pub const AGAIN_HEADERS: usize = 14 + 20 + 8;
    /// A classifier that does nothing and is loaded by nobody but those who measure the others.
    pub const IDLE: &str = "idle";
    /// The classifiers.
    pub const CLASSIFIERS: [&str; 5] = [FROM_POD, FROM_UPLINK, TO_LINK, TO_BARE, FROM_BARE];
}

/// The address is one of the node's.
pub const NODE_ADDR_LOCAL: u32 = 1;
/// Node ports are served there.
pub const NODE_ADDR_NODE_PORTS: u32 = 2;

/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;
/// IANA protocol number of SCTP.
pub const SCTP: u8 = 132;

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
    Addr, 16, 4;
    FrontendKey, 20, 4;
    FrontendValue, 40, 8;
    BackendKey, 8, 4;
    BackendValue, 20, 4;
    MaglevKey, 8, 4;
    MaglevChunk, 3656, 8;
    RangeKey, 24, 4;
    AffinityKey, 24, 8;
    AffinityValue, 32, 8;
    FlowKey, 40, 4;
    FlowValue, 80, 8;
    Hop, 24, 4;
    Shortcut, 128, 8;
    FragmentKey, 40, 4;
    FragmentValue, 16, 8;
    SocketKey, 32, 8;
    SocketValue, 32, 8;
    SteadyValue, 24, 4;
    TunnelKey, 20, 4;
    TunnelValue, 20, 4;
    VtepValue, 40, 4;
    PodValue, 20, 4;
    PodLink, 32, 4;
    PeerValue, 52, 4;
    PeerWay, 32, 8;
    legacy::OldFlowValue, 56, 8;
    legacy::OldSocketValue, 20, 4;
    Config, 352, 8;
    Listener, 16, 8;
    Event, 96, 8;
}
