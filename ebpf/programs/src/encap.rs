//! Into the tunnel without the kernel: packets of established flows to a backend that answers the client itself, at the driver of
//! the uplink by which the way to the backend's node leads. What is not sure at once is left to [`crate::dsr`].

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_TX};
use aya_ebpf::helpers::bpf_xdp_adjust_head;
use aya_ebpf::programs::XdpContext;
use seaway_ebpf_abi::{FlowValue, Verdict};
use seaway_ebpf_logic::dsr::{self, OUTER4};
use seaway_ebpf_logic::packet::ETHERNET;

use crate::dsr::taker;
use crate::maps::{VTEPS, count, epoch};
use crate::quick::at;
use crate::xdp;

/// Puts the headers of the tunnel in front of the packet and sends it; what the program returns.
#[inline(always)]
pub(crate) fn send_on(ctx: &XdpContext, flow: &FlowValue) -> Option<i32> {
    let frame = xdp::length(ctx);
    let there = taker(flow)?;
    // SAFETY: copied at once. Torn it is a mixture of two ways that both were right a moment ago.
    let way = *unsafe { VTEPS.get(there.remote) }?;
    let link = xdp::link(ctx);
    let outer = frame + 2 * OUTER4 - ETHERNET;
    if way.hop.epoch != epoch()
        || way.hop.ifindex != link
        || !way.hop.has_neighbour()
        || frame > usize::from(flow.hop.mtu) + ETHERNET
        || outer > usize::from(way.hop.mtu)
    {
        return None;
    }
    let headers = dsr::outer4(flow, there, &way, frame as u16);
    // SAFETY: the kernel's context; what pointed into the packet is not used any more.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(2 * OUTER4 as i32)) } != 0 {
        return None;
    }
    let Some(packet) = at::<[u16; OUTER4]>(ctx, 0) else {
        return Some(XDP_DROP as i32);
    };
    *packet = headers;
    count(Verdict::SentOn);
    count(Verdict::Xdp);
    Some(XDP_TX as i32)
}
