//! Packet translation at tc: what the socket hooks cannot see.
//!
//! A translated packet does not go through the node's stack: it is sent out of the link that the routing table names
//! (`bpf_fib_lookup`, `bpf_redirect_neigh`). Thus a packet that carries a local address as its source is never taken
//! for a martian, no sysctl has to be changed, and the kernel's connection tracking never sees half a connection.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_check_mtu_ret::BPF_MTU_CHK_RET_FRAG_NEEDED;
use aya_ebpf::bindings::{
    __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NOT_FWDED,
    BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNSUPP_LWT, BPF_FIB_LOOKUP_OUTPUT, TC_ACT_SHOT,
    TC_ACT_UNSPEC, bpf_fib_lookup as FibLookup,
};
use aya_ebpf::helpers::{bpf_check_mtu, bpf_fib_lookup, bpf_redirect_neigh};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use seaway_ebpf_abi::config::CONFIG_HANDOVER;
use seaway_ebpf_abi::flow::{FLOW_DIRECT, FLOW_HELD, FLOW_NODE, FLOW_SENT_ON, FLOW_STACK};
use seaway_ebpf_abi::{FrontendKey, Hop, UDP, Verdict};
use seaway_ebpf_logic::decide::{self, Client};
use seaway_ebpf_logic::flow::may_open;
use seaway_ebpf_logic::packet::Part;

use crate::dsr::Answer;
use crate::flows::{self, Known, Origin};
use crate::maps::{Work, config, count, epoch, is_node_addr, work};
use crate::rewrite::{Frame, rewrite};
use crate::services::{self, Picked, Refusal};
use crate::{dsr, events, fragments, pods, quick, refuse, tunnel};

/// The packet is left to whoever is attached behind us, in tcx and in clsact, and then to the stack. `TC_ACT_OK` would keep it
/// from filters of others, as those that limit what a pod sends.
pub(crate) const PASS: i32 = TC_ACT_UNSPEC;
const SHOT: i32 = TC_ACT_SHOT;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Does nothing: what running a program costs by itself.
#[classifier]
pub fn idle(_: TcContext) -> i32 {
    PASS
}

#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    if pods::may_send(&ctx) == 0 {
        return SHOT;
    }
    ingress(&ctx, true)
}

#[classifier]
pub fn from_uplink(ctx: TcContext) -> i32 {
    quick::mark_arrived(&ctx);
    let code = tunnel::receive(&ctx);
    if code != quick::LEFT {
        return code;
    }
    match ingress(&ctx, false) {
        PASS => dsr::stray(&ctx, PASS),
        code => code,
    }
}

/// Replies of backends that are the node itself are only seen as they leave.
#[classifier]
pub fn to_link(ctx: TcContext) -> i32 {
    if quick::is_sent(&ctx) {
        return PASS;
    }
    let code = quick::egress(&ctx);
    if code != quick::LEFT {
        return code;
    }
    let Some(work) = parse(&ctx) else {
        return PASS;
    };
    if !is_node_addr(&work.packet.key.src) {
        pods::leaves(work);
        return PASS;
    }
    if !flows::find(work) {
        return PASS;
    }
    if !work.flow.is_reverse() || work.flow.flags & FLOW_NODE == 0 {
        return PASS;
    }
    match translate_back(&ctx, work, false) {
        Ok(()) => {
            remember(work, Hop::default());
            PASS
        }
        Err(verdict) => drop_of_flow(work, verdict),
    }
}

#[inline(always)]
fn parse(ctx: &TcContext) -> Option<&'static mut Work> {
    let work = work()?;
    work.epoch = epoch();
    read(ctx, work).then_some(work)
}

/// Reads the packet; `false` if it is none of our business.
#[inline(never)]
fn read(ctx: &TcContext, work: &mut Work) -> bool {
    if work.packet.read(&Frame(ctx)).is_err() {
        return false;
    }
    if work.packet.part == Part::Later && !fragments::follow(&mut work.packet) {
        count(Verdict::Fragment);
        return false;
    }
    true
}

/// Counts a packet of a flow.
#[inline(always)]
fn count_translated(work: &Work, verdict: Verdict) {
    count(match work.packet.part {
        Part::Error => Verdict::IcmpError,
        _ => verdict,
    });
}

#[inline(always)]
fn ifindex(ctx: &TcContext) -> u32 {
    let skb: *const __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the kernel's context.
    unsafe { (*skb).ifindex }
}

/// Drops a packet of the flow in hand.
#[inline(always)]
fn drop_of_flow(work: &mut Work, verdict: Verdict) -> i32 {
    events::of_flow(work, verdict);
    SHOT
}

/// In place of what the program returns: the packet goes on to the backend of its flow.
const FORWARD: i32 = i32::MIN;
/// The same: the packet begins a flow, or none of ours. There is one place that calls [`begin`], as the kernel verifies what
/// is called once for each place.
const BEGIN: i32 = FORWARD + 1;

#[inline(always)]
fn ingress(ctx: &TcContext, over_pod_link: bool) -> i32 {
    let code = quick::ingress(ctx);
    if code != quick::LEFT {
        return code;
    }
    let code = if over_pod_link {
        pods::from_pod(ctx)
    } else {
        pods::from_overlay(ctx)
    };
    if code != quick::LEFT {
        return code;
    }
    let Some(work) = parse(ctx) else {
        return PASS;
    };
    let mut step = if flows::find(work) {
        if work.flow.is_reverse() {
            return if work.flow.flags & FLOW_NODE == 0 {
                reply(ctx, work)
            } else {
                PASS
            };
        }
        if work.flow.flags & FLOW_HELD != 0 {
            count(Verdict::DroppedHeld);
            return SHOT;
        }
        if work.flow.flags & FLOW_STACK == 0 {
            follow(ctx, work)
        } else if !work.packet.has_ports() || flows::stays_with_stack(work) {
            PASS
        } else {
            BEGIN
        }
    } else if work.packet.has_ports() {
        BEGIN
    } else {
        PASS
    };
    if step == BEGIN {
        let vni = if over_pod_link { 0 } else { dsr::vni(ctx) };
        step = if vni == 0 {
            begin(ctx, work, over_pod_link)
        } else if dsr::receive(ctx, work, vni) == 0 {
            SHOT
        } else {
            FORWARD
        };
    }
    if step == FORWARD {
        forward(ctx, work)
    } else {
        step
    }
}

/// A packet of a client that has a flow.
#[inline(always)]
fn follow(ctx: &TcContext, work: &mut Work) -> i32 {
    if !work.packet.has_ports() {
        return FORWARD;
    }
    if work.flow.flags & FLOW_SENT_ON != 0 && dsr::is_from_overlay(ctx) {
        // Another node has taken the client over, and means a backend of ours.
        if !may_open(work.packet.key.protocol, work.packet.tcp_flags) {
            return drop_of_flow(work, Verdict::DroppedError);
        }
        flows::remove(work);
        return BEGIN;
    }
    match flows::check(work) {
        Known::Follow => {
            flows::client_seen(work, ifindex(ctx));
            FORWARD
        }
        Known::Renew => {
            flows::remove(work);
            BEGIN
        }
    }
}

/// A packet without a flow: the first of one, or none of ours.
#[inline(never)]
fn begin(ctx: &TcContext, work: &mut Work, over_pod_link: bool) -> i32 {
    match knock(ctx, work, over_pod_link) {
        Ok(code) => code,
        Err((client, refusal)) => refused(ctx, work, client, refusal),
    }
}

/// Opens a flow for a packet that asks for one; whose packet is refused, if it is.
#[inline(always)]
fn knock(ctx: &TcContext, work: &mut Work, over_pod_link: bool) -> Result<i32, (Client, Refusal)> {
    let key = &work.packet.key;
    let opens = may_open(key.protocol, work.packet.tcp_flags);
    if config().is_none_or(|config| config.flags & CONFIG_HANDOVER != 0) {
        if key.protocol == UDP && services::find(&key.dst, key.dport, key.protocol).is_some() {
            flows::leave(work);
        }
        return Ok(PASS);
    }
    let Some(mut asked) = services::find(&key.dst, key.dport, key.protocol) else {
        if !opens {
            return Ok(PASS);
        }
        if services::refused(&key.dst).is_some() {
            work.frontend = FrontendKey {
                addr: key.dst,
                ..FrontendKey::default()
            };
            return Err((Client::Near, Refusal::Reject));
        }
        flows::supersede(work);
        return Ok(PASS);
    };
    if !opens {
        count(Verdict::UnknownConnection);
        return Ok(PASS);
    }
    let Some(config) = config() else {
        count(Verdict::DroppedError);
        return Ok(SHOT);
    };
    let is_pod = decide::is_pod(config, &key.src, over_pod_link);
    let client = if is_pod || is_node_addr(&key.src) {
        Client::Near
    } else {
        Client::Far
    };
    work.frontend = asked.key;
    if !services::admits(&asked.value, &key.src) {
        events::at_frontend(work, client, Verdict::DroppedSource);
        return Ok(SHOT);
    }
    let port = u32::from(key.sport);
    let mut picked = Picked::default();
    if let Err(refusal) = services::pick(&mut asked, client, &key.src, port, &mut picked) {
        return Err((client, refusal));
    }
    let answer = dsr::answer(config, &asked.value, client, &picked.backend);
    if answer == Answer::There {
        return Ok(match dsr::open(work, &asked, &picked) {
            0 => drop_of_flow(work, Verdict::DroppedError),
            _ => {
                events::of_flow(work, Verdict::NewFlow);
                FORWARD
            }
        });
    }
    let origin = Origin {
        ifindex: ifindex(ctx),
        is_pod,
        client,
        keeps_source: answer == Answer::Plain,
        flags: 0,
    };
    match flows::open(work, &asked, &picked, &origin) {
        Ok(()) => {
            events::of_flow(work, Verdict::NewFlow);
            Ok(FORWARD)
        }
        Err(verdict) => Ok(drop_of_flow(work, verdict)),
    }
}

#[inline(always)]
fn refused(ctx: &TcContext, work: &mut Work, client: Client, refusal: Refusal) -> i32 {
    let (verdict, code) = match refusal {
        Refusal::Drop => (Verdict::DroppedNoLocal, SHOT),
        Refusal::Reject => match refuse::answer(ctx, work, ifindex(ctx), 0) {
            code if code < 0 => (Verdict::DroppedError, SHOT),
            code => (Verdict::Rejected, code),
        },
    };
    events::at_frontend(work, client, verdict);
    code
}

#[inline(always)]
fn forward(ctx: &TcContext, work: &mut Work) -> i32 {
    fragments::remember(&work.packet);
    if work.flow.flags & FLOW_SENT_ON != 0 {
        return send_on(ctx, work);
    }
    flows::translate(work);
    let hop = if work.flow.flags & FLOW_NODE != 0 {
        Hop::default()
    } else {
        match route(ctx, work) {
            Ok(hop) => hop,
            Err(Verdict::TooLarge) => return too_large(ctx, work),
            Err(verdict) => return drop_of_flow(work, verdict),
        }
    };
    if let Err(verdict) = rewrite(ctx, work, hop.ifindex != 0) {
        return drop_of_flow(work, verdict);
    }
    count_translated(work, Verdict::Forward);
    remember(work, hop);
    send(ctx, hop.ifindex)
}

/// To the node of the backend, as it is. What is too large for the overlay and may be cut is cut by the stack, around what
/// is sent through the tunnel. A function in the kernel, too, for its stack.
#[inline(never)]
fn send_on(ctx: &TcContext, work: &mut Work) -> i32 {
    let overlay = config().map_or(0, |config| config.overlay_ifindex);
    // From one node to the next and no further.
    if overlay == 0 || dsr::is_from_overlay(ctx) {
        return drop_of_flow(work, Verdict::DroppedNoRoute);
    }
    let hop = match fitting(ctx, &mut work.fib, overlay) {
        Ok(hop) => Some(hop),
        Err(_) if refuse::may_be_cut(ctx, work) => None,
        Err(_) => return too_large(ctx, work),
    };
    dsr::learn(ctx, work);
    let Some(code) = dsr::send_on(ctx, &work.flow, overlay) else {
        return drop_of_flow(work, Verdict::DroppedNoRoute);
    };
    count_translated(work, Verdict::Forward);
    if let Some(hop) = hop {
        remember(work, hop);
    }
    code
}

/// A client's packet that does not fit the link to the backend: it is told the size that does.
#[inline(always)]
fn too_large(ctx: &TcContext, work: &mut Work) -> i32 {
    // SAFETY: the look-up that said so has put it there.
    let mtu = unsafe { work.fib.__bindgen_anon_1.mtu_result };
    if !work.packet.has_ports() || mtu == 0 || refuse::may_be_cut(ctx, work) {
        return drop_of_flow(work, Verdict::DroppedTooLarge);
    }
    match refuse::answer(ctx, work, ifindex(ctx), mtu) {
        code if code < 0 => drop_of_flow(work, Verdict::DroppedTooLarge),
        code => {
            events::of_flow(work, Verdict::TooLarge);
            code
        }
    }
}

#[inline(always)]
fn reply(ctx: &TcContext, work: &mut Work) -> i32 {
    match translate_back(ctx, work, true) {
        Ok(()) => {
            if work.flow.flags & FLOW_DIRECT != 0 {
                return answer_directly(ctx, work);
            }
            let ifindex = work.flow.ifindex;
            if work.packet.part == Part::Whole {
                let hop = way_back(ctx, work, ifindex);
                remember(work, hop);
            }
            send(ctx, ifindex)
        }
        Err(verdict) => drop_of_flow(work, verdict),
    }
}

/// To a client that came by another node: by this one's routes.
#[inline(always)]
fn answer_directly(ctx: &TcContext, work: &mut Work) -> i32 {
    match route(ctx, work) {
        Ok(hop) if hop.ifindex != 0 => {
            remember(work, hop);
            send(ctx, hop.ifindex)
        }
        Ok(_) => drop_of_flow(work, Verdict::DroppedNoRoute),
        Err(Verdict::TooLarge) => drop_of_flow(work, Verdict::DroppedTooLarge),
        Err(verdict) => drop_of_flow(work, verdict),
    }
}

/// Keeps the way of the packets of a flow, for the packets that take the short way from now on. This one still goes
/// where the kernel finds the neighbour, who stays known by that.
#[inline(always)]
fn remember(work: &Work, hop: Hop) {
    if work.packet.part == Part::Whole {
        let epoch = work.epoch;
        flows::remember(work, &Hop { epoch, ..hop });
    }
}

/// Translates a packet of a backend.
#[inline(always)]
fn translate_back(ctx: &TcContext, work: &mut Work, forwarded: bool) -> Result<(), Verdict> {
    if work.packet.has_ports() {
        flows::backend_seen(work);
        fragments::remember(&work.packet);
    }
    flows::translate(work);
    rewrite(ctx, work, forwarded)?;
    count_translated(work, Verdict::Reverse);
    Ok(())
}

/// Out of a link, or up the stack for link 0.
#[inline(always)]
fn send(ctx: &TcContext, ifindex: u32) -> i32 {
    if ifindex == 0 {
        return PASS;
    }
    quick::mark_sent(ctx);
    // SAFETY: no parameters: the helper asks the routing table for the next hop on that link.
    unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Asks the routing table for the way to the new destination: of a packet that came in by a link, or that has to go out
/// of one.
#[inline(always)]
pub(crate) fn look_up(ctx: &TcContext, work: &mut Work, ifindex: u32, flags: u32) -> Option<u32> {
    let (fib, to) = (&mut work.fib, &work.to);
    // SAFETY: all zeroes are a valid value of this struct of integers.
    *fib = unsafe { core::mem::zeroed() };
    fib.l4_protocol = to.protocol;
    fib.sport = to.sport;
    fib.dport = to.dport;
    fib.ifindex = ifindex;
    if to.dst.is_v4() {
        fib.family = AF_INET;
        fib.__bindgen_anon_3.ipv4_src = to.src.words[3];
        fib.__bindgen_anon_4.ipv4_dst = to.dst.words[3];
    } else {
        fib.family = AF_INET6;
        fib.__bindgen_anon_3.ipv6_src = to.src.words;
        fib.__bindgen_anon_4.ipv6_dst = to.dst.words;
    }
    // SAFETY: the kernel's context and a parameter block of the size given.
    let code = unsafe {
        bpf_fib_lookup(
            ctx.as_ptr(),
            &raw mut *fib,
            size_of::<FibLookup>() as i32,
            flags,
        )
    };
    u32::try_from(code).ok()
}

/// The way to the new destination; link 0 if that is the node itself.
#[inline(always)]
fn route(ctx: &TcContext, work: &mut Work) -> Result<Hop, Verdict> {
    let code = look_up(ctx, work, ifindex(ctx), 0);
    let fib = &mut work.fib;
    match code {
        // The packet fits that link.
        Some(BPF_FIB_LKUP_RET_SUCCESS) => Ok(known(fib)),
        Some(BPF_FIB_LKUP_RET_NO_NEIGH) => fitting(ctx, fib, fib.ifindex),
        // An encapsulating route: only the overlay has those.
        Some(BPF_FIB_LKUP_RET_UNSUPP_LWT) => {
            let overlay = config().map_or(0, |config| config.overlay_ifindex);
            if overlay == 0 {
                return Err(Verdict::DroppedNoRoute);
            }
            fitting(ctx, fib, overlay)
        }
        Some(BPF_FIB_LKUP_RET_FRAG_NEEDED) => Err(Verdict::TooLarge),
        Some(BPF_FIB_LKUP_RET_NOT_FWDED) if is_node_addr(&work.to.dst) => Ok(Hop::default()),
        _ => Err(Verdict::DroppedNoRoute),
    }
}

/// The way of a reply, which leaves by the link where the client's packets come in.
#[inline(always)]
fn way_back(ctx: &TcContext, work: &mut Work, ifindex: u32) -> Hop {
    let code = look_up(ctx, work, ifindex, BPF_FIB_LOOKUP_OUTPUT);
    if code == Some(BPF_FIB_LKUP_RET_SUCCESS) && work.fib.ifindex == ifindex {
        known(&work.fib)
    } else {
        Hop {
            ifindex,
            mtu: u16::MAX,
            ..Hop::default()
        }
    }
}

/// What the routing table has found, with a neighbour.
#[inline(always)]
pub(crate) fn known(fib: &FibLookup) -> Hop {
    Hop {
        ifindex: fib.ifindex,
        to: ethernet(fib.dmac),
        from: ethernet(fib.smac),
        // SAFETY: a look-up that succeeds has put it there.
        mtu: unsafe { fib.__bindgen_anon_1.mtu_result },
        ..Hop::default()
    }
}

#[inline(always)]
pub(crate) const fn ethernet([a, b, c, d, e, f]: [u8; 6]) -> [u16; 3] {
    [
        u16::from_ne_bytes([a, b]),
        u16::from_ne_bytes([c, d]),
        u16::from_ne_bytes([e, f]),
    ]
}

/// A link, if the packet fits it; else its MTU is put where a look-up of routes puts it.
#[inline(always)]
fn fitting(ctx: &TcContext, fib: &mut FibLookup, ifindex: u32) -> Result<Hop, Verdict> {
    let mut mtu = 0_u32;
    // SAFETY: the kernel's context and a word of ours.
    let code = unsafe { bpf_check_mtu(ctx.as_ptr(), ifindex, &raw mut mtu, 0, 0) };
    if code == i64::from(BPF_MTU_CHK_RET_FRAG_NEEDED) {
        fib.__bindgen_anon_1.mtu_result = mtu as u16;
        return Err(Verdict::TooLarge);
    }
    Ok(Hop {
        ifindex,
        mtu: mtu.min(u32::from(u16::MAX)) as u16,
        ..Hop::default()
    })
}
