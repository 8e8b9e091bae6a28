//! The flow table: how an entry comes to be, and how packets keep it alive.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use seaway_ebpf_abi::flow::{FLOW_NODE, FLOW_REVERSE, TOUCH_INTERVAL_NS};
use seaway_ebpf_abi::{FlowKey, FlowValue, Verdict};
use seaway_ebpf_logic::decide::{self, Choice, Client};
use seaway_ebpf_logic::flow as state;
use seaway_ebpf_logic::nat;
use seaway_ebpf_logic::packet::Packet;

use crate::maps::{FLOWS, config, count, is_node_addr};
use crate::services::{self, Knock, Picked};

#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The entry of a packet, copied: the table is shared, and an LRU entry may be reused under our hands.
#[inline(always)]
pub(crate) fn get(key: &FlowKey) -> Option<FlowValue> {
    // SAFETY: copied at once. A torn read can only concern `last_seen` and `state`: nothing else is written in place.
    unsafe { FLOWS.get(key) }.copied()
}

/// The entry that replies to a flow find.
#[inline(always)]
fn reverse_of(key: &FlowKey, flow: &FlowValue, ifindex: u32) -> (FlowKey, FlowValue) {
    let reverse_key = flow.translated(key.protocol).swapped();
    let back = key.swapped();
    let reverse = FlowValue {
        last_seen: flow.last_seen,
        src: back.src,
        dst: back.dst,
        sport: back.sport,
        dport: back.dport,
        ifindex,
        set: flow.set,
        state: 0,
        flags: flow.flags | FLOW_REVERSE,
        pad: [0; 2],
        frontend: flow.frontend,
    };
    (reverse_key, reverse)
}

/// Takes note of a packet of the client.
#[inline(always)]
pub(crate) fn client_seen(packet: &Packet, flow: &mut FlowValue, ifindex: u32) {
    let next = state::client_packet(flow.state, packet.tcp_flags);
    let at = now();
    let due = at.wrapping_sub(flow.last_seen) > TOUCH_INTERVAL_NS;
    if next == flow.state && !due {
        return;
    }
    flow.state = next;
    flow.last_seen = at;
    if let Some(stored) = FLOWS.get_ptr_mut(packet.key) {
        // SAFETY: both fields stand by themselves; a lost race with the other direction costs one bit until the
        // next packet, or a second of age.
        unsafe {
            (*stored).state |= next;
            (*stored).last_seen = at;
            (*stored).set = flow.set;
        }
    }
    if due {
        // The table may have pushed out the other half of a flow that only sends.
        let (reverse_key, reverse) = reverse_of(&packet.key, flow, ifindex);
        let _ = FLOWS.insert(reverse_key, reverse, u64::from(BPF_NOEXIST));
    }
}

/// Takes note of a packet of the backend.
#[inline(always)]
pub(crate) fn backend_seen(packet: &Packet, reverse: &FlowValue) {
    let next = state::backend_packet(reverse.state, packet.tcp_flags);
    let at = now();
    if next == reverse.state && at.wrapping_sub(reverse.last_seen) <= TOUCH_INTERVAL_NS {
        return;
    }
    if let Some(stored) = FLOWS.get_ptr_mut(packet.key) {
        // SAFETY: as in `client_seen`.
        unsafe {
            (*stored).state = next;
            (*stored).last_seen = at;
        }
    }
    let forward_key = reverse.translated(packet.key.protocol).swapped();
    if let Some(stored) = FLOWS.get_ptr_mut(forward_key) {
        // SAFETY: as in `client_seen`.
        unsafe {
            (*stored).state |= next;
            (*stored).last_seen = at;
        }
        return;
    }
    // Pushed out of the table: the reply says what it was.
    let to = packet.key.swapped();
    let forward = FlowValue {
        last_seen: at,
        src: to.src,
        dst: to.dst,
        sport: to.sport,
        dport: to.dport,
        ifindex: 0,
        set: reverse.set,
        state: state::client_packet(next, packet.tcp_flags & 0x10),
        flags: reverse.flags & !FLOW_REVERSE,
        pad: [0; 2],
        frontend: reverse.frontend,
    };
    let _ = FLOWS.insert(forward_key, forward, u64::from(BPF_NOEXIST));
}

/// What a packet that finds its flow has to do.
pub(crate) enum Known {
    /// Follow it.
    Follow,
    /// Begin anew: the connection was closed, or the backend is gone.
    Renew,
    /// The Service is gone: no longer ours.
    Forget,
}

/// Looks whether a flow still stands.
#[inline(always)]
pub(crate) fn check(packet: &Packet, flow: &mut FlowValue, client: Client) -> Known {
    let protocol = packet.key.protocol;
    if state::is_bound(protocol, flow.state) {
        let anew = state::is_closed(flow.state) && state::may_open(protocol, packet.tcp_flags);
        return if anew { Known::Renew } else { Known::Follow };
    }
    let Some(value) = services::frontend(&flow.frontend) else {
        return Known::Forget;
    };
    let Choice::Set { set, count: size } = decide::choose(&value, client) else {
        return Known::Renew;
    };
    if set == flow.set {
        return Known::Follow;
    }
    if services::serves(set, size, flow.dst, flow.dport) {
        flow.set = set;
        return Known::Follow;
    }
    count(Verdict::Repicked);
    Known::Renew
}

/// Takes both entries of a flow out of the table, given either.
#[inline(always)]
pub(crate) fn remove(key: &FlowKey, flow: &FlowValue) {
    let _ = FLOWS.remove(flow.translated(key.protocol).swapped());
    let _ = FLOWS.remove(key);
}

/// Makes room for what a client begins with a backend directly, as sockets do once the hooks know the Service: a flow
/// that had the same addresses behind its translation would take the replies.
#[inline(always)]
pub(crate) fn supersede(packet: &Packet) {
    let protocol = packet.key.protocol;
    if !state::may_open(protocol, packet.tcp_flags) {
        return;
    }
    let replies = packet.key.swapped();
    if let Some(flow) = get(&replies)
        && flow.is_reverse()
    {
        remove(&replies, &flow);
    }
}

/// Sets up a flow: both entries, the reverse one first, so that a reply always finds it.
#[inline(always)]
pub(crate) fn open(
    packet: &Packet,
    knock: &Knock,
    picked: &Picked,
    ifindex: u32,
) -> Result<FlowValue, Verdict> {
    let config = config().ok_or(Verdict::DroppedError)?;
    let key = &packet.key;
    let node = is_node_addr(picked.backend.addr);
    let source = decide::masquerade(config, &knock.value, key.src, &picked.backend, node);
    let mut flow = FlowValue {
        last_seen: now(),
        src: source.unwrap_or(key.src),
        dst: picked.backend.addr,
        sport: key.sport,
        dport: picked.backend.port,
        ifindex: 0,
        set: picked.set,
        state: state::client_packet(0, packet.tcp_flags),
        flags: if node { FLOW_NODE } else { 0 },
        pad: [0; 2],
        frontend: knock.key,
    };
    let range = (config.snat_port_min, config.snat_port_max);
    let mut attempt = 0;
    while attempt < nat::PORT_ATTEMPTS {
        // SAFETY: a helper without arguments.
        let random = unsafe { bpf_get_prandom_u32() };
        flow.sport = nat::source_port(attempt, key.sport, source.is_some(), range, random);
        if claim(key, &flow, ifindex) {
            return match FLOWS.insert(key, flow, 0) {
                Ok(()) => Ok(flow),
                Err(_) => Err(Verdict::DroppedError),
            };
        }
        attempt += 1;
    }
    Err(Verdict::DroppedNoPort)
}

/// Claims the reply's addresses for a flow; `false` if another flow has them.
#[inline(always)]
fn claim(key: &FlowKey, flow: &FlowValue, ifindex: u32) -> bool {
    let (reverse_key, reverse) = reverse_of(key, flow, ifindex);
    if FLOWS
        .insert(reverse_key, reverse, u64::from(BPF_NOEXIST))
        .is_ok()
    {
        return true;
    }
    // What an earlier life of this very flow left behind is ours to take.
    let ours = get(&reverse_key)
        .is_some_and(|other| other.is_reverse() && other.translated(key.protocol) == key.swapped());
    ours && FLOWS.insert(reverse_key, reverse, 0).is_ok()
}
