//! Flows whose backend answers the client itself: what the node where they enter, which never sees an answer, makes of the
//! client's packets; and how the choice of a backend travels to the backend's node.

use seaway_ebpf_abi::dsr::{DSR_HASH, DSR_VNI};
use seaway_ebpf_abi::flow::{STATE_FIN_CLIENT, STATE_REPLIED, STATE_RESET};
use seaway_ebpf_abi::{BackendValue, FlowValue, TCP, TunnelValue, UDP, VtepValue};

use crate::flow::{self, may_open};
use crate::packet::{TCP_ACK, TCP_RST, TCP_SYN};
use crate::plain::{Headers as _, Ipv4};
use crate::{spread, tunnel};

/// The VNI by which the node of a backend knows which one is meant. Two backends of one Service on one node that share a
/// hash get each other's flows, each of them steadily.
#[inline(always)]
#[must_use]
pub const fn vni(backend: &BackendValue) -> u32 {
    DSR_VNI | spread::backend(&backend.addr, backend.port) & DSR_HASH
}

/// Whether a VNI is one of those.
#[inline(always)]
#[must_use]
pub const fn is_vni(vni: u32) -> bool {
    vni & DSR_VNI != 0
}

/// The state after a packet of the client. That the backend has answered shows in what the client sends: it
/// acknowledges, or goes on. What a datagram's backend does is never known: it counts as answered.
#[inline(always)]
#[must_use]
pub const fn client_packet(protocol: u8, state: u8, tcp_flags: u8) -> u8 {
    let goes_on = tcp_flags & (TCP_ACK | TCP_SYN | TCP_RST) == TCP_ACK;
    let answered = if protocol == UDP || goes_on {
        STATE_REPLIED
    } else {
        0
    };
    flow::client_packet(state | answered, tcp_flags)
}

/// Whether a flow is bound to its backend, as [`flow::is_bound`]. The reset of a backend is not seen: whatever opens a
/// connection with the addresses of an old one may need another backend.
#[inline(always)]
#[must_use]
pub const fn is_bound(protocol: u8, state: u8, tcp_flags: u8) -> bool {
    flow::is_bound(protocol, state) && !may_open(protocol, tcp_flags)
}

/// Whether a packet begins a connection anew: one that the client has closed for its part.
#[inline(always)]
#[must_use]
pub const fn begins_anew(protocol: u8, state: u8, tcp_flags: u8) -> bool {
    protocol == TCP
        && state & (STATE_FIN_CLIENT | STATE_RESET) != 0
        && may_open(protocol, tcp_flags)
}

const SECOND: u64 = 1_000_000_000;

/// How long a silent flow is kept, in nanoseconds. Of one that the client has closed nobody tells when the backend does:
/// `nf_conntrack_tcp_timeout_fin_wait`.
#[must_use]
pub const fn timeout(protocol: u8, flow: &FlowValue) -> u64 {
    if protocol == TCP && flow.state & (STATE_FIN_CLIENT | STATE_RESET) == STATE_FIN_CLIENT {
        return 120 * SECOND;
    }
    flow::timeout(protocol, flow.state)
}

/// Words of the headers in front of a frame in the tunnel: Ethernet, IPv4 without options, UDP, VXLAN (RFC 7348).
pub const OUTER4: usize = 7 + tunnel::HEADERS4;

/// These headers, for a frame of a flow, given its length in bytes. All of the flow's packets have one source port, as for the
/// kernel: networks spread by it. They are not to be cut, so that they need no numbers of their own.
#[inline(always)]
#[must_use]
pub const fn outer4(
    flow: &FlowValue,
    there: &TunnelValue,
    way: &VtepValue,
    frame: u16,
) -> [u16; OUTER4] {
    let backend = BackendValue {
        addr: flow.dst,
        port: flow.dport,
        flags: 0,
    };
    let outer = tunnel::Outer4 {
        local: way.local.words[3],
        remote: there.remote.words[3],
        from: tunnel::source_port(spread::backend(&flow.src, flow.sport)),
        to: there.port,
        vni: vni(&backend),
        ecn: 0,
        id: 0,
        whole: true,
    };
    let rest = tunnel::headers4(&outer, frame);
    let (t, f) = (way.hop.to, way.hop.from);
    let mut all = [0; OUTER4];
    let first = [t[0], t[1], t[2], f[0], f[1], f[2], Ipv4::ETHERTYPE];
    let mut i = 0;
    while i < OUTER4 {
        all[i] = if i < 7 { first[i] } else { rest[i - 7] };
        i += 1;
    }
    all
}
