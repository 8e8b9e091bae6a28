//! The life of a flow: what its packets say about it, and when it may be forgotten.

use seaway_ebpf_abi::UDP;
use seaway_ebpf_abi::flow::{
    STATE_ESTABLISHED, STATE_FIN_BACKEND, STATE_FIN_CLIENT, STATE_OPENED, STATE_REPLIED,
    STATE_RESET,
};

use crate::packet::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

/// Whether a packet may begin a flow: any datagram, but only the SYN of a connection. (TCP in mid-air would reach a
/// backend that knows nothing of it.)
#[inline(always)]
#[must_use]
pub const fn may_open(protocol: u8, tcp_flags: u8) -> bool {
    protocol == UDP || tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
}

/// The state after a packet of the client.
#[inline(always)]
#[must_use]
pub const fn client_packet(state: u8, tcp_flags: u8) -> u8 {
    let mut next = state | STATE_OPENED;
    if tcp_flags & TCP_ACK != 0 && state & STATE_REPLIED != 0 {
        next |= STATE_ESTABLISHED;
    }
    if tcp_flags & TCP_FIN != 0 {
        next |= STATE_FIN_CLIENT;
    }
    if tcp_flags & TCP_RST != 0 {
        next |= STATE_RESET;
    }
    next
}

/// The state after a packet of the backend.
#[inline(always)]
#[must_use]
pub const fn backend_packet(state: u8, tcp_flags: u8) -> u8 {
    let mut next = state | STATE_REPLIED;
    if tcp_flags & TCP_FIN != 0 {
        next |= STATE_FIN_BACKEND;
    }
    if tcp_flags & TCP_RST != 0 {
        next |= STATE_RESET;
    }
    next
}

/// Whether no packet in the midst of a flow, in the direction of an entry with that state, changes the state any more.
#[inline(always)]
#[must_use]
pub const fn is_settled(protocol: u8, state: u8, reverse: bool) -> bool {
    let next = if reverse {
        backend_packet(state, 0)
    } else {
        client_packet(state, if protocol == UDP { 0 } else { TCP_ACK })
    };
    next == state
}

/// Whether a connection is over, so that a SYN with the same addresses begins a new one.
#[inline(always)]
#[must_use]
pub const fn is_closed(state: u8) -> bool {
    const BOTH: u8 = STATE_FIN_CLIENT | STATE_FIN_BACKEND;
    state & STATE_RESET != 0 || state & BOTH == BOTH
}

/// Whether a flow is bound to its backend. A datagram never is, and a connection only once the backend has answered;
/// until then it moves on when the backend leaves the Service.
#[inline(always)]
#[must_use]
pub const fn is_bound(protocol: u8, state: u8) -> bool {
    protocol != UDP && state & STATE_REPLIED != 0
}

const SECOND: u64 = 1_000_000_000;

/// Whether a datagram still follows a flow that connection tracking has. Forgotten here a little earlier than there
/// (`nf_conntrack_udp_timeout`, 30 s, and `nf_conntrack_udp_timeout_stream`, 120 s): else it would find nobody who
/// translates it.
#[inline(always)]
#[must_use]
pub const fn stays_with_stack(state: u8, silent_for: u64) -> bool {
    silent_for < if state & STATE_REPLIED != 0 { 110 } else { 25 } * SECOND
}

/// How long a silent flow is kept, in nanoseconds. The figures are those of the kernel's connection tracking
/// (`nf_conntrack_*_timeout*`), with kube-proxy's 24 hours for established connections
/// (`--conntrack-tcp-timeout-established`).
#[must_use]
pub const fn timeout(protocol: u8, state: u8) -> u64 {
    if protocol == UDP {
        return if state & STATE_REPLIED != 0 { 120 } else { 30 } * SECOND;
    }
    if state & STATE_RESET != 0 {
        return 10 * SECOND;
    }
    if is_closed(state) {
        return 30 * SECOND;
    }
    if state & (STATE_FIN_CLIENT | STATE_FIN_BACKEND) != 0 {
        // Half closed: the other half may still be sending, as kube-proxy's --conntrack-tcp-timeout-close-wait.
        return 3600 * SECOND;
    }
    if state & STATE_ESTABLISHED != 0 {
        86_400 * SECOND
    } else {
        120 * SECOND
    }
}
