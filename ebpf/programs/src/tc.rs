//! Packet translation at tc: what the socket hooks cannot see.
//!
//! A translated packet does not go through the node's stack: it is sent out of the link that the routing table names
//! (`bpf_fib_lookup`, `bpf_redirect_neigh`). Thus a packet that carries a local address as its source is never taken
//! for a martian, no sysctl has to be changed, and the kernel's connection tracking never sees half a connection.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_redirect_neigh;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use seaway_ebpf_abi::config::CONFIG_HANDOVER;
use seaway_ebpf_abi::flow::{FLOW_DIRECT, FLOW_HELD, FLOW_NODE, FLOW_SENT_ON, FLOW_STACK};
use seaway_ebpf_abi::{FrontendKey, Hop, SCTP, UDP, Verdict};
use seaway_ebpf_logic::decide::{self, Client};
use seaway_ebpf_logic::flow::may_open;
use seaway_ebpf_logic::packet::{Bytes, Part};
use seaway_ebpf_logic::size::TooLarge;

use crate::dsr::Answer;
use crate::flows::{self, Known, Origin};
use crate::maps::{Work, config, count, epoch, is_node_addr, work};
use crate::rewrite::{Frame, rewrite};
use crate::services::{self, Picked, Refusal};
use crate::{cut, dsr, events, fragments, pods, quick, refuse, tunnel, ways};

/// The packet is left to whoever is attached behind us, in tcx and in clsact, and then to the stack. `TC_ACT_OK` would keep it
/// from filters of others, as those that limit what a pod sends.
pub(crate) const PASS: i32 = TC_ACT_UNSPEC;
const SHOT: i32 = TC_ACT_SHOT;

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
    if quick::is_cut(&ctx) {
        return cut::leaves(&ctx);
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
    if is_from_node(work) {
        answer_of_node(&ctx, work)
    } else {
        PASS
    }
}

/// Whether the packet is one of a backend that is the node itself.
#[inline(always)]
pub(crate) fn is_from_node(work: &mut Work) -> bool {
    flows::find(work) && work.flow.is_reverse() && work.flow.flags & FLOW_NODE != 0
}

/// Translates such a packet as it leaves.
#[inline(always)]
pub(crate) fn answer_of_node(ctx: &TcContext, work: &mut Work) -> i32 {
    heard_back(work);
    match write_back(ctx, work, false) {
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
    (read(ctx, work, 1) != 0).then_some(work)
}

/// Reads the packet; 0 if it is none of our business, as a fragment is that should follow its first one (for `follows` other than
/// 0) and does not.
#[inline(never)]
pub(crate) fn read(ctx: &TcContext, work: &mut Work, follows: u32) -> u32 {
    u32::from(take_in(work, &Frame(ctx), follows != 0))
}

/// The same, of whatever has the bytes.
#[inline(always)]
pub(crate) fn take_in(work: &mut Work, bytes: &impl Bytes, follows: bool) -> bool {
    work.cut = 0;
    if work.packet.read(bytes).is_err() {
        return false;
    }
    if follows && work.packet.part == Part::Later && !fragments::follow(work) {
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
/// The same: it does not fit its way.
const LARGE: i32 = FORWARD + 2;

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
            if work.flow.flags & FLOW_NODE != 0 {
                return PASS;
            }
            reply(ctx, work)
        } else if work.flow.flags & FLOW_HELD != 0 {
            count(Verdict::DroppedHeld);
            SHOT
        } else if work.flow.flags & FLOW_STACK == 0 {
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
        step = forward(ctx, work);
    }
    if step == LARGE {
        step = too_large(ctx, work);
    }
    if step == refuse::BY_ROUTES {
        step = by_routes(ctx, work);
    }
    step
}

/// Sends an answer, of which `to` has the addresses.
#[inline(never)]
fn by_routes(ctx: &TcContext, work: &mut Work) -> i32 {
    match ways::route(ctx, work) {
        Ok(hop) if hop.ifindex != 0 => send(ctx, hop.ifindex),
        _ => {
            count(Verdict::DroppedNoRoute);
            SHOT
        }
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
        // Of SCTP, which netfilter carries, there are no flows.
        let sctp = key.protocol == SCTP;
        if !opens && !sctp || sctp && services::exact(key.dst, 0, SCTP).is_some() {
            return Ok(PASS);
        }
        if services::refused(&key.dst).is_some() {
            work.frontend = FrontendKey {
                addr: key.dst,
                ..FrontendKey::default()
            };
            return Err((Client::Near, Refusal::Reject));
        }
        if !sctp {
            flows::supersede(work);
        }
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
        match ways::route(ctx, work) {
            // What was cut off a packet follows it.
            Ok(hop) if hop.ifindex != 0 && work.cut != 0 => return LARGE,
            Ok(hop) => hop,
            Err(Verdict::TooLarge) => return LARGE,
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
    flows::translate(work);
    let hop = match ways::by_link(ctx, work, overlay) {
        Ok(hop) => Some(hop),
        Err(_) if refuse::too_large(ctx, work) == TooLarge::Cut => None,
        Err(_) => return LARGE,
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

/// A packet that is too large for its way, of which `to` has the translation. A function in the kernel, too, for its stack.
#[inline(never)]
fn too_large(ctx: &TcContext, work: &mut Work) -> i32 {
    match refuse::too_large(ctx, work) {
        TooLarge::Cut => match cut::hand_over(ctx, work) {
            Ok(code) => {
                count(if work.flow.is_reverse() {
                    Verdict::Reverse
                } else {
                    Verdict::Forward
                });
                code
            }
            Err(verdict) => drop_of_flow(work, verdict),
        },
        TooLarge::Answer => match refuse::answer(ctx, work, ifindex(ctx), refuse::mtu(work)) {
            code if code < 0 => drop_of_flow(work, Verdict::DroppedTooLarge),
            code => {
                events::of_flow(work, Verdict::TooLarge);
                code
            }
        },
        TooLarge::Drop => drop_of_flow(work, Verdict::DroppedTooLarge),
    }
}

#[inline(always)]
fn reply(ctx: &TcContext, work: &mut Work) -> i32 {
    heard_back(work);
    // A client that came by another node is answered by this one's routes.
    let way = if work.flow.flags & FLOW_DIRECT != 0 {
        ways::route(ctx, work)
    } else {
        ways::back(ctx, work)
    };
    let hop = match way {
        Ok(hop) if hop.ifindex != 0 && work.cut == 0 => hop,
        Ok(hop) if hop.ifindex != 0 => return LARGE,
        Ok(_) => return drop_of_flow(work, Verdict::DroppedNoRoute),
        Err(Verdict::TooLarge) => return LARGE,
        Err(verdict) => return drop_of_flow(work, verdict),
    };
    if let Err(verdict) = write_back(ctx, work, true) {
        return drop_of_flow(work, verdict);
    }
    remember(work, hop);
    send(ctx, hop.ifindex)
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

/// Takes note of a packet of a backend, and puts its addresses after translation into `to`.
#[inline(always)]
fn heard_back(work: &mut Work) {
    if work.packet.has_ports() {
        flows::backend_seen(work);
        fragments::remember(&work.packet);
    }
    flows::translate(work);
}

/// Translates a packet of a backend.
#[inline(always)]
fn write_back(ctx: &TcContext, work: &mut Work, forwarded: bool) -> Result<(), Verdict> {
    rewrite(ctx, work, forwarded)?;
    count_translated(work, Verdict::Reverse);
    Ok(())
}

/// Out of a link, or up the stack for link 0.
#[inline(always)]
pub(crate) fn send(ctx: &TcContext, ifindex: u32) -> i32 {
    if ifindex == 0 {
        return PASS;
    }
    quick::mark_sent(ctx);
    // SAFETY: no parameters: the helper asks the routing table for the next hop on that link.
    unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}
