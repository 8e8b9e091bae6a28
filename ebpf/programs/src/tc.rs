//! Packet translation at tc: what the socket hooks cannot see.
//!
//! A translated packet does not go through the node's stack: it is sent out of the link that the routing table names
//! (`bpf_fib_lookup`, `bpf_redirect_neigh`). Thus a packet that carries a local address as its source is never taken
//! for a martian, no sysctl has to be changed, and the kernel's connection tracking never sees half a connection.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNSUPP_LWT, TC_ACT_OK,
    TC_ACT_SHOT, bpf_fib_lookup as FibLookup,
};
use aya_ebpf::helpers::{bpf_fib_lookup, bpf_redirect_neigh};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use seaway_ebpf_abi::flow::FLOW_NODE;
use seaway_ebpf_abi::{FlowKey, FlowValue, UDP, Verdict};
use seaway_ebpf_logic::decide::Client;
use seaway_ebpf_logic::flow::may_open;
use seaway_ebpf_logic::nat;
use seaway_ebpf_logic::packet::{self, Bytes, Packet, Skip};

use crate::flows::{self, Known};
use crate::maps::{config, count, is_node_addr};
use crate::services::{self, Knock, Refusal};

const PASS: i32 = TC_ACT_OK;
const SHOT: i32 = TC_ACT_SHOT;
const AF_INET: u8 = 2;

struct Frame<'a>(&'a TcContext);

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.load(offset).ok()
    }
}

#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    ingress(&ctx, Client::Near)
}

#[classifier]
pub fn from_uplink(ctx: TcContext) -> i32 {
    ingress(&ctx, Client::Far)
}

#[classifier]
pub fn from_overlay(ctx: TcContext) -> i32 {
    let Some(packet) = parse(&ctx) else {
        return PASS;
    };
    match flows::get(&packet.key) {
        Some(flow) if flow.is_reverse() => reply(&ctx, &packet, &flow),
        _ => PASS,
    }
}

/// Replies of backends that are the node itself are only seen as they leave.
#[classifier]
pub fn to_link(ctx: TcContext) -> i32 {
    let Some(packet) = parse(&ctx) else {
        return PASS;
    };
    if !is_node_addr(packet.key.src) {
        return PASS;
    }
    match flows::get(&packet.key) {
        Some(flow) if flow.is_reverse() && flow.flags & FLOW_NODE != 0 => {
            flows::backend_seen(&packet, &flow);
            match rewrite(&ctx, &packet, &flow.translated(packet.key.protocol), false) {
                Ok(()) => {
                    count(Verdict::Reverse);
                    PASS
                }
                Err(verdict) => drop_packet(verdict),
            }
        }
        _ => PASS,
    }
}

#[inline(always)]
fn parse(ctx: &TcContext) -> Option<Packet> {
    match packet::parse(&Frame(ctx)) {
        Ok(packet) => Some(packet),
        Err(skip) => {
            if skip == Skip::Fragment {
                count(Verdict::Fragment);
            }
            None
        }
    }
}

#[inline(always)]
fn ifindex(ctx: &TcContext) -> u32 {
    let skb: *const __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the kernel's context.
    unsafe { (*skb).ifindex }
}

#[inline(always)]
fn drop_packet(verdict: Verdict) -> i32 {
    count(verdict);
    SHOT
}

#[inline(always)]
fn ingress(ctx: &TcContext, client: Client) -> i32 {
    let Some(packet) = parse(ctx) else {
        return PASS;
    };
    if let Some(mut flow) = flows::get(&packet.key) {
        if flow.is_reverse() {
            return if flow.flags & FLOW_NODE == 0 {
                reply(ctx, &packet, &flow)
            } else {
                PASS
            };
        }
        match flows::check(&packet, &mut flow, client) {
            Known::Follow => {
                flows::client_seen(&packet, &mut flow, ifindex(ctx));
                return forward(ctx, &packet, &flow);
            }
            Known::Renew => flows::remove(&packet.key, &flow),
            Known::Forget => {
                flows::remove(&packet.key, &flow);
                return PASS;
            }
        }
    }
    begin(ctx, &packet, client)
}

/// A packet without a flow: the first of one, or none of ours.
#[inline(always)]
fn begin(ctx: &TcContext, packet: &Packet, client: Client) -> i32 {
    let key = &packet.key;
    let Some(knock) = services::find(key.dst, key.dport, key.protocol) else {
        flows::supersede(packet);
        return PASS;
    };
    if !may_open(key.protocol, packet.tcp_flags) {
        count(Verdict::UnknownConnection);
        return PASS;
    }
    let picked = match services::pick(&knock, client) {
        Ok(picked) => picked,
        Err(refusal) => return refuse(packet, &knock, refusal),
    };
    match flows::open(packet, &knock, &picked, ifindex(ctx)) {
        Ok(flow) => {
            count(Verdict::NewFlow);
            forward(ctx, packet, &flow)
        }
        Err(verdict) => drop_packet(verdict),
    }
}

#[inline(always)]
fn refuse(packet: &Packet, knock: &Knock, refusal: Refusal) -> i32 {
    match refusal {
        Refusal::Drop => drop_packet(Verdict::DroppedNoLocal),
        // Nobody listens on a node port, so that the node's stack answers with a reset or "port unreachable".
        Refusal::Reject if knock.key.addr == 0 || is_node_addr(packet.key.dst) => {
            count(Verdict::Rejected);
            PASS
        }
        Refusal::Reject => drop_packet(Verdict::DroppedReject),
    }
}

#[inline(always)]
fn forward(ctx: &TcContext, packet: &Packet, flow: &FlowValue) -> i32 {
    let to = flow.translated(packet.key.protocol);
    let node = flow.flags & FLOW_NODE != 0;
    let out = if node {
        0
    } else {
        match route(ctx, &to) {
            Ok(ifindex) => ifindex,
            Err(verdict) => return drop_packet(verdict),
        }
    };
    if let Err(verdict) = rewrite(ctx, packet, &to, out != 0) {
        return drop_packet(verdict);
    }
    count(Verdict::Forward);
    send(out)
}

#[inline(always)]
fn reply(ctx: &TcContext, packet: &Packet, flow: &FlowValue) -> i32 {
    flows::backend_seen(packet, flow);
    let to = flow.translated(packet.key.protocol);
    if let Err(verdict) = rewrite(ctx, packet, &to, true) {
        return drop_packet(verdict);
    }
    count(Verdict::Reverse);
    send(flow.ifindex)
}

/// Out of a link, or up the stack for link 0.
#[inline(always)]
fn send(ifindex: u32) -> i32 {
    if ifindex == 0 {
        return PASS;
    }
    // SAFETY: no parameters: the helper asks the routing table for the next hop on that link.
    unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

/// The link that leads to the new destination; 0 if that is the node itself.
#[inline(always)]
fn route(ctx: &TcContext, to: &FlowKey) -> Result<u32, Verdict> {
    // SAFETY: all zeroes are a valid value of this struct of integers.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    fib.family = AF_INET;
    fib.l4_protocol = to.protocol;
    fib.sport = to.sport;
    fib.dport = to.dport;
    fib.ifindex = ifindex(ctx);
    fib.__bindgen_anon_3.ipv4_src = to.src;
    fib.__bindgen_anon_4.ipv4_dst = to.dst;
    // SAFETY: the kernel's context and a parameter block of the size given.
    let code =
        unsafe { bpf_fib_lookup(ctx.as_ptr(), &raw mut fib, size_of::<FibLookup>() as i32, 0) };
    match u32::try_from(code) {
        Ok(BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH) => Ok(fib.ifindex),
        // An encapsulating route: only the overlay has those.
        Ok(BPF_FIB_LKUP_RET_UNSUPP_LWT) => config()
            .map(|config| config.overlay_ifindex)
            .filter(|ifindex| *ifindex != 0)
            .ok_or(Verdict::DroppedNoRoute),
        Ok(BPF_FIB_LKUP_RET_NOT_FWDED) if is_node_addr(to.dst) => Ok(0),
        _ => Err(Verdict::DroppedNoRoute),
    }
}

/// Puts new addresses into the packet and mends its checksums.
#[inline(always)]
fn rewrite(ctx: &TcContext, packet: &Packet, to: &FlowKey, forwarded: bool) -> Result<(), Verdict> {
    if forwarded && packet.ttl() <= 1 {
        return Err(Verdict::DroppedTtl);
    }
    let differences = nat::differences(&packet.key, to);
    // A UDP checksum of zero means "none" and stays.
    let zero = if to.protocol == UDP {
        u64::from(BPF_F_MARK_MANGLED_0)
    } else {
        0
    };
    let ports = [to.sport, to.dport];
    ctx.l4_csum_replace(
        packet.checksum(),
        0,
        u64::from(differences.addresses),
        zero | u64::from(BPF_F_PSEUDO_HDR),
    )
    .and_then(|()| ctx.l4_csum_replace(packet.checksum(), 0, u64::from(differences.ports), zero))
    .and_then(|()| {
        let header = nat::ipv4_mutable(packet.mutable, to, forwarded);
        ctx.store(packet::IPV4_MUTABLE, &header, 0)
    })
    .and_then(|()| ctx.store(packet.transport, &ports, 0))
    .map_err(|_| Verdict::DroppedError)
}
