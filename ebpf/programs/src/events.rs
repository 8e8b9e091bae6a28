//! What happens to flows, counted for their Service and told to whoever listens. Off the path of packets whose flow stands.

use aya_ebpf::bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP};
use seaway_ebpf_abi::event::{EVENT_FAR, EVENT_NODE_PORT, EVENT_SOCKET};
use seaway_ebpf_abi::flow::FLOW_FAR;
use seaway_ebpf_abi::{Addr, Event, FlowKey, FrontendKey, Tally, Verdict};
use seaway_ebpf_logic::decide::Client;
use seaway_ebpf_logic::events::is_sampled;

use crate::flows::now;
use crate::maps::{EVENTS, LISTENER, TALLIES, Work, count};

/// No backend, or none yet.
pub(crate) const NOBODY: FlowKey = FlowKey {
    src: Addr::ANY_V6,
    dst: Addr::ANY_V6,
    sport: 0,
    dport: 0,
    protocol: 0,
    pad: [0; 3],
};

/// Something happened to the flow in hand, at a packet of either direction.
#[inline(never)]
pub(crate) fn of_flow(work: &mut Work, verdict: Verdict) {
    work.asked = work.packet.key;
    work.got = work.flow.translated(work.packet.key.protocol);
    if work.flow.is_reverse() {
        work.asked = work.got;
        work.asked.swap();
        work.got = work.packet.key;
        work.got.swap();
    }
    let outside = work.flow.flags & FLOW_FAR != 0;
    let frontend = work.flow.frontend(&work.asked);
    happened(verdict, &frontend, outside);
    tell(
        verdict,
        &work.asked,
        &work.got,
        (flags(&frontend, outside), 0),
    );
}

/// A packet that has no flow met its end at the frontend in hand.
#[inline(never)]
pub(crate) fn at_frontend(work: &mut Work, client: Client, verdict: Verdict) {
    let outside = client == Client::Far;
    happened(verdict, &work.frontend, outside);
    tell(
        verdict,
        &work.packet.key,
        &NOBODY,
        (flags(&work.frontend, outside), 0),
    );
}

/// Something happened at the hook of a socket in that network namespace.
#[inline(always)]
pub(crate) fn of_socket(
    verdict: Verdict,
    frontend: &FrontendKey,
    client: Client,
    (asked, got): (&FlowKey, &FlowKey),
    netns: u64,
) {
    let outside = client == Client::Far;
    happened(verdict, frontend, outside);
    tell(
        verdict,
        asked,
        got,
        (flags(frontend, outside) | EVENT_SOCKET, netns),
    );
}

#[inline(always)]
fn flags(frontend: &FrontendKey, far: bool) -> u8 {
    let node_port = if frontend.addr.is_unspecified() {
        EVENT_NODE_PORT
    } else {
        0
    };
    node_port | if far { EVENT_FAR } else { 0 }
}

/// Counts a verdict, for everybody and for the Service.
#[inline(always)]
fn happened(verdict: Verdict, frontend: &FrontendKey, outside: bool) {
    count(verdict);
    if let Some(what) = verdict.tally() {
        let mut key = *frontend;
        key.pad = Tally { what, outside }.pad();
        add(&key);
    }
}

#[inline(never)]
fn add(key: &FrontendKey) {
    let mut slot = TALLIES.get_ptr_mut(key);
    if slot.is_none() {
        if TALLIES.insert(key, 1, u64::from(BPF_NOEXIST)).is_ok() {
            return;
        }
        // Another CPU was faster, or the table is full.
        slot = TALLIES.get_ptr_mut(key);
    }
    match slot {
        // SAFETY: as in `count`.
        Some(counter) => unsafe { *counter += 1 },
        None => count(Verdict::TallyLost),
    }
}

/// Tells whoever listens.
#[inline(always)]
fn tell(verdict: Verdict, client: &FlowKey, to: &FlowKey, (flags, netns): (u8, u64)) {
    let Some(listener) = LISTENER.get(0) else {
        return;
    };
    if listener.until == 0 || listener.wants & verdict.want() == 0 {
        return;
    }
    let at = now();
    if at >= listener.until || !is_sampled(client, listener.sample) {
        return;
    }
    let Some(mut record) = EVENTS.reserve(0) else {
        count(Verdict::EventLost);
        return;
    };
    record.write(Event {
        at,
        netns,
        client: client.src,
        frontend: client.dst,
        source: to.src,
        backend: to.dst,
        client_port: client.sport,
        frontend_port: client.dport,
        source_port: to.sport,
        backend_port: to.dport,
        verdict: verdict as u32,
        protocol: client.protocol,
        flags,
        pad: [0; 2],
    });
    // The listener looks by itself, often enough.
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
}
