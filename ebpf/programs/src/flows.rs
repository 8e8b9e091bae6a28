//! The flow table: how an entry comes to be, and how packets keep it alive.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value would be copied to the stack, which is too small"
)]

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_loop};
use seaway_ebpf_abi::flow::{
    FLOW_FAR, FLOW_NODE, FLOW_NODE_PORT, FLOW_REVERSE, FLOW_SENT_ON, FLOW_STACK, STATE_OPENED,
    TOUCH_INTERVAL_NS,
};
use seaway_ebpf_abi::{FlowKey, FlowValue, Hop, Verdict};
use seaway_ebpf_logic::decide::{self, Choice, Client};
use seaway_ebpf_logic::{dsr, flow as state, nat};

use crate::dsr::is_let_go;
use crate::events;
use crate::maps::{FLOWS, Work, config, count, is_node_addr};
use crate::services::{self, Knock, Picked};
use crate::shortcuts;

/// `CLOCK_MONOTONIC` as of the last tick, which costs far less than to the nanosecond.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Copies the entry of the packet: the table is shared, and an LRU entry may be reused under our hands.
#[inline(always)]
pub(crate) fn find(work: &mut Work) -> bool {
    get(&work.packet.key, &mut work.flow)
}

#[inline(always)]
fn get(key: &FlowKey, into: &mut FlowValue) -> bool {
    // SAFETY: copied at once. A torn read can only concern `last_seen` and `state`: nothing else is written in place.
    match unsafe { FLOWS.get(key) } {
        Some(flow) => {
            *into = *flow;
            true
        }
        None => false,
    }
}

/// Adds an entry that is not there yet. What is added and removed is counted, so that what the table pushed out by itself
/// can be told.
#[inline(always)]
fn add(key: &FlowKey, flow: &FlowValue) -> Result<(), i32> {
    FLOWS.insert(key, flow, u64::from(BPF_NOEXIST))?;
    // The table may have pushed out an earlier one, whose packets still take the short way.
    shortcuts::end(key);
    count(Verdict::EntryAdded);
    Ok(())
}

/// Writes another entry in the place of the one that is there.
#[inline(always)]
fn replace(key: &FlowKey, flow: &FlowValue) -> Result<(), i32> {
    FLOWS.insert(key, flow, 0)?;
    shortcuts::end(key);
    Ok(())
}

#[inline(always)]
fn forget(key: &FlowKey) {
    if FLOWS.remove(key).is_ok() {
        shortcuts::end(key);
        count(Verdict::EntryRemoved);
    }
}

/// Puts the packet's addresses after translation into `to`.
#[inline(always)]
pub(crate) fn translate(work: &mut Work) {
    work.to = work.flow.translated(work.packet.key.protocol);
}

/// Puts the key of the flow's other entry into `other_key`.
#[inline(always)]
fn name_other(work: &mut Work) {
    work.other_key = work.flow.translated(work.packet.key.protocol);
    work.other_key.swap();
}

/// Puts the entry that replies to the flow find into `other_key` and `other`.
#[inline(always)]
fn make_reverse(work: &mut Work, ifindex: u32) {
    name_other(work);
    let key = &work.packet.key;
    work.other = FlowValue {
        last_seen: work.flow.last_seen,
        src: key.dst,
        dst: key.src,
        sport: key.dport,
        dport: key.sport,
        ifindex,
        set: work.flow.set,
        state: 0,
        flags: work.flow.flags | FLOW_REVERSE,
        pad: [0; 2],
        hop: Hop::default(),
    };
}

/// Takes note of a packet of the client.
#[inline(always)]
pub(crate) fn client_seen(work: &mut Work, ifindex: u32) {
    let sent_on = work.flow.flags & FLOW_SENT_ON != 0;
    let tcp_flags = work.packet.tcp_flags;
    let next = if sent_on {
        dsr::client_packet(work.packet.key.protocol, work.flow.state, tcp_flags)
    } else {
        state::client_packet(work.flow.state, tcp_flags)
    };
    let at = now();
    let due = at.wrapping_sub(work.flow.last_seen) > TOUCH_INTERVAL_NS;
    if next == work.flow.state && !due {
        return;
    }
    let before = work.flow.state;
    work.flow.state = next;
    work.flow.last_seen = at;
    if let Some(stored) = FLOWS.get_ptr_mut(&work.packet.key) {
        // SAFETY: both fields stand by themselves; a lost race with the other direction costs one bit until the
        // next packet, or a second of age.
        unsafe {
            (*stored).state |= next;
            (*stored).last_seen = at;
            (*stored).set = work.flow.set;
        }
        if state::is_closed(next) && !state::is_closed(before) {
            events::of_flow(work, Verdict::FlowClosed);
        }
    }
    if due && !sent_on {
        // The table may have pushed out the other half of a flow that only sends.
        make_reverse(work, ifindex);
        let _ = add(&work.other_key, &work.other);
    }
}

/// Takes note of a packet of the backend.
#[inline(always)]
pub(crate) fn backend_seen(work: &mut Work) {
    let next = state::backend_packet(work.flow.state, work.packet.tcp_flags);
    let at = now();
    if next == work.flow.state && at.wrapping_sub(work.flow.last_seen) <= TOUCH_INTERVAL_NS {
        return;
    }
    if let Some(stored) = FLOWS.get_ptr_mut(&work.packet.key) {
        // SAFETY: as in `client_seen`.
        unsafe {
            (*stored).state = next;
            (*stored).last_seen = at;
        }
    }
    name_other(work);
    if let Some(stored) = FLOWS.get_ptr_mut(&work.other_key) {
        // SAFETY: as in `client_seen`.
        let (before, after) = unsafe {
            let before = (*stored).state;
            (*stored).state |= next;
            (*stored).last_seen = at;
            (before, (*stored).state)
        };
        if state::is_closed(after) && !state::is_closed(before) {
            events::of_flow(work, Verdict::FlowClosed);
        }
        return;
    }
    // Pushed out of the table: the reply says what it was.
    let key = &work.packet.key;
    work.other = FlowValue {
        last_seen: at,
        src: key.dst,
        dst: key.src,
        sport: key.dport,
        dport: key.sport,
        ifindex: 0,
        set: work.flow.set,
        state: state::client_packet(next, work.packet.tcp_flags & 0x10),
        flags: work.flow.flags & !FLOW_REVERSE,
        pad: [0; 2],
        hop: Hop::default(),
    };
    let _ = add(&work.other_key, &work.other);
}

/// Keeps what was found out about the way of the flow's packets.
#[inline(always)]
pub(crate) fn remember(work: &Work, hop: &Hop) {
    if let Some(stored) = FLOWS.get_ptr_mut(&work.packet.key) {
        // SAFETY: nobody needs these fields together with others. Two CPUs at once leave a mixture of two ways that
        // both were right a moment ago, for as long as the epoch lasts or a second.
        unsafe { (*stored).hop = *hop };
    }
}

/// Leaves a flow to connection tracking: what follows goes the way of its first packet.
#[inline(always)]
pub(crate) fn leave(work: &mut Work) {
    work.flow = FlowValue {
        last_seen: now(),
        flags: FLOW_STACK,
        state: STATE_OPENED,
        ..FlowValue::default()
    };
    let _ = add(&work.packet.key, &work.flow);
}

/// Whether the packet follows a flow that connection tracking has; takes note of it. Else there is no flow any more.
#[inline(always)]
pub(crate) fn stays_with_stack(work: &mut Work) -> bool {
    let at = now();
    let silent_for = at.wrapping_sub(work.flow.last_seen);
    if !state::stays_with_stack(work.flow.state, silent_for) {
        forget(&work.packet.key);
        return false;
    }
    if silent_for > TOUCH_INTERVAL_NS
        && let Some(stored) = FLOWS.get_ptr_mut(&work.packet.key)
    {
        // SAFETY: as in `client_seen`.
        unsafe { (*stored).last_seen = at };
    }
    true
}

/// What a packet that finds its flow has to do.
pub(crate) enum Known {
    /// Follow it.
    Follow,
    /// Begin anew, which may end in a refusal or be none of our business any more: the connection was closed, or the
    /// backend or the whole Service is gone.
    Renew,
}

/// Looks whether the flow of a client's packet still stands.
#[inline(always)]
pub(crate) fn check(work: &mut Work) -> Known {
    let key = &work.packet.key;
    let flow = &mut work.flow;
    let tcp_flags = work.packet.tcp_flags;
    if flow.flags & FLOW_SENT_ON != 0 {
        if is_let_go(flow) || dsr::begins_anew(key.protocol, flow.state, tcp_flags) {
            return Known::Renew;
        }
        if dsr::is_bound(key.protocol, flow.state, tcp_flags) {
            return Known::Follow;
        }
    } else if state::is_bound(key.protocol, flow.state) {
        let anew = state::is_closed(flow.state) && state::may_open(key.protocol, tcp_flags);
        return if anew { Known::Renew } else { Known::Follow };
    }
    let Some(value) = services::frontend(&flow.frontend(key)) else {
        return Known::Renew;
    };
    let client = if flow.flags & FLOW_FAR != 0 {
        Client::Far
    } else {
        Client::Near
    };
    let Choice::Set { set, count: size } = decide::choose(&value, client) else {
        return Known::Renew;
    };
    if set == flow.set {
        return Known::Follow;
    }
    if services::serves(set, size, &flow.dst, flow.dport) {
        flow.set = set;
        return Known::Follow;
    }
    count(Verdict::Repicked);
    Known::Renew
}

/// Takes both entries of the flow out of the table.
#[inline(always)]
pub(crate) fn remove(work: &mut Work) {
    name_other(work);
    forget(&work.other_key);
    forget(&work.packet.key);
}

/// Makes room for what a client begins with a backend directly, as sockets do once the hooks know the Service: a flow
/// that had the same addresses behind its translation would take the replies.
#[inline(always)]
pub(crate) fn supersede(work: &mut Work) {
    work.to = work.packet.key.swapped();
    if get(&work.to, &mut work.flow) && work.flow.is_reverse() {
        name_other(work);
        forget(&work.other_key);
        forget(&work.to);
    }
}

/// Who begins a flow.
pub(crate) struct Origin {
    /// The link that the packet came in by.
    pub(crate) ifindex: u32,
    pub(crate) is_pod: bool,
    pub(crate) client: Client,
    /// Whatever rules say.
    pub(crate) keeps_source: bool,
    /// More `FLOW_*` bits.
    pub(crate) flags: u8,
}

/// Sets up a flow: both entries, the reverse one first, so that a reply always finds it.
#[inline(never)]
pub(crate) fn open(
    work: &mut Work,
    knock: &Knock,
    picked: &Picked,
    origin: &Origin,
) -> Result<(), Verdict> {
    let config = config().ok_or(Verdict::DroppedError)?;
    let key = &work.packet.key;
    let node = is_node_addr(&picked.backend.addr);
    let who = (&key.src, origin.is_pod, origin.client);
    let source = if origin.keeps_source {
        None
    } else {
        decide::masquerade(config, &knock.value, who, &picked.backend, node)
    };
    let mut flags = origin.flags | if node { FLOW_NODE } else { 0 };
    if knock.key.addr.is_unspecified() {
        flags |= FLOW_NODE_PORT;
    }
    if origin.client == Client::Far {
        flags |= FLOW_FAR;
    }
    work.flow = FlowValue {
        last_seen: now(),
        src: source.unwrap_or(key.src),
        dst: picked.backend.addr,
        sport: key.sport,
        dport: picked.backend.port,
        ifindex: 0,
        set: picked.set,
        state: state::client_packet(0, work.packet.tcp_flags),
        flags,
        pad: [0; 2],
        hop: Hop::default(),
    };
    let mut search = PortSearch {
        work: &raw mut *work,
        range: (config.snat_port_min, config.snat_port_max),
        ifindex: origin.ifindex,
        masquerade: u32::from(source.is_some()),
        found: 0,
    };
    // SAFETY: the callback has the signature that bpf_loop wants and its context outlives the call.
    unsafe {
        bpf_loop(
            nat::PORT_ATTEMPTS,
            try_port as *const () as *mut c_void,
            (&raw mut search).cast(),
            0,
        )
    };
    if search.found == 0 {
        return Err(Verdict::DroppedNoPort);
    }
    keep(work)
}

/// Stores the entry of the packet. The same client on two CPUs at once: the later one has the word.
#[inline(always)]
pub(crate) fn keep(work: &Work) -> Result<(), Verdict> {
    add(&work.packet.key, &work.flow)
        .or_else(|_| replace(&work.packet.key, &work.flow))
        .map_err(|_| Verdict::DroppedError)
}

/// The search for a source port with which a flow clashes with no other.
#[repr(C)]
struct PortSearch {
    work: *mut Work,
    range: (u16, u16),
    ifindex: u32,
    masquerade: u32,
    found: u32,
}

/// One attempt; 1 ends the search. A loop of the kernel's, not ours, because that is verified once and not for each turn.
unsafe extern "C" fn try_port(attempt: u32, search: *mut c_void) -> i64 {
    // SAFETY: `open` passes a `PortSearch` that lives for the whole of bpf_loop.
    let search = unsafe { &mut *search.cast::<PortSearch>() };
    // SAFETY: `open` has the work from its caller, and leaves it to us for as long.
    let work = unsafe { &mut *search.work };
    // SAFETY: a helper without arguments.
    let random = unsafe { bpf_get_prandom_u32() };
    let original = work.packet.key.sport;
    let masquerade = search.masquerade != 0;
    work.flow.sport = nat::source_port(attempt, original, masquerade, search.range, random);
    make_reverse(work, search.ifindex);
    search.found = u32::from(claim(work));
    i64::from(search.found)
}

/// Claims the reply's addresses for a flow; `false` if another flow has them.
#[inline(always)]
fn claim(work: &mut Work) -> bool {
    let (key, reverse) = (&work.other_key, &work.other);
    if add(key, reverse).is_ok() {
        return true;
    }
    // What an earlier life of this very flow left behind is ours to take.
    // SAFETY: compared at once; a torn read can only concern what is not compared.
    let ours = unsafe { FLOWS.get(key) }.is_some_and(|there| {
        there.is_reverse()
            && there.src.same(&reverse.src)
            && there.dst.same(&reverse.dst)
            && there.sport == reverse.sport
            && there.dport == reverse.dport
    });
    ours && replace(key, reverse).is_ok()
}
