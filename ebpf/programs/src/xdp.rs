//! The short way at the driver of an uplink, before the kernel has made a socket buffer of the packet: for flows whose
//! packets leave by the link where they came in, as those to backends on other nodes do and their replies, or by another link
//! whose driver takes frames. All else passes to [`crate::tc`], which opens flows and keeps them.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use aya_ebpf::helpers::bpf_xdp_get_buff_len;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use seaway_ebpf_abi::programs::{AGAIN, AGAIN_HEADERS};
use seaway_ebpf_abi::shortcut::SHORTCUT_NEIGHBOUR;
use seaway_ebpf_abi::{FlowValue, Shortcut, Verdict};
use seaway_ebpf_logic::packet::ETHERNET;
use seaway_ebpf_logic::plain::{self, Headers};

use crate::encap;
use crate::maps::{XDP_LINKS, count};
use crate::quick::{self, Carrier, Hook, LEFT};

#[xdp(frags)]
pub fn xdp_uplink(ctx: XdpContext) -> u32 {
    match quick::step(&ctx, Hook::Ingress) {
        LEFT => XDP_PASS,
        code => code as u32,
    }
}

/// Passes everything. On the other end of a veth it has that link take packets from XDP.
#[xdp]
pub fn xdp_idle(_: XdpContext) -> u32 {
    XDP_PASS
}

/// Sends a frame back with the header that stands in front of it as metadata. For frames that the kernel uses again
/// (`BPF_F_TEST_XDP_LIVE_FRAMES`) and others have changed meanwhile. What has no metadata comes from others, and passes.
#[xdp]
pub fn xdp_again(ctx: XdpContext) -> u32 {
    // The two bytes in front of a frame do not last: with an Ethernet header the kernel writes 16 (`neigh_hh_output`).
    type Headers = [u16; AGAIN_HEADERS / 2];
    let (header, start, end) = (ctx.metadata(), ctx.data(), ctx.data_end());
    if header + AGAIN > start || start + AGAIN > end {
        return XDP_PASS;
    }
    // SAFETY: both have so many bytes, and lie one behind the other.
    unsafe { *(start as *mut Headers) = *(header as *const Headers) };
    XDP_TX
}

/// How long the packet is, all of its buffers: the headers are in the first one, which is all that can be read in place.
#[inline(always)]
pub(crate) fn length(ctx: &XdpContext) -> usize {
    // SAFETY: the kernel's context.
    unsafe { bpf_xdp_get_buff_len(ctx.ctx) as usize }
}

/// Where the packet came in.
#[inline(always)]
pub(crate) fn link(ctx: &XdpContext) -> u32 {
    // SAFETY: the kernel's context.
    unsafe { (*ctx.ctx).ingress_ifindex }
}

/// Whether another link takes the packet; then that is where the kernel sends it, once the program says so. What lies in
/// several buffers not every driver takes.
#[inline(always)]
fn may_redirect(ctx: &XdpContext, ifindex: u32, size: u32) -> bool {
    let (start, end) = ctx.bounds();
    size as usize + ETHERNET <= end - start && XDP_LINKS.redirect(ifindex, 0).is_ok()
}

impl Carrier for XdpContext {
    const DROP: i32 = XDP_DROP as i32;

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.data(), self.data_end())
    }

    /// The frame's length would be a call. What is behind the packet in it came in by the link where it leaves.
    #[inline(always)]
    fn may_send<H: Headers>(&self, way: &Shortcut, _: u8, length: u16) -> bool {
        let size = plain::size::<H>(length);
        way.flags & SHORTCUT_NEIGHBOUR != 0
            && size <= u32::from(way.mtu)
            && (way.ifindex == link(self) || may_redirect(self, way.ifindex, size))
    }

    /// Here every checksum is whole.
    #[inline(always)]
    fn mend<H: Headers>(&self, way: &Shortcut, at: usize, protocol: u8, _: u16) -> Option<()> {
        let check: &mut u16 = quick::at(self, at)?;
        *check = plain::mend_whole(way, *check, protocol);
        Some(())
    }

    #[inline(always)]
    fn send(&self, way: &Shortcut) -> i32 {
        count(Verdict::Xdp);
        if way.ifindex == link(self) {
            XDP_TX as i32
        } else {
            XDP_REDIRECT as i32
        }
    }

    #[inline(always)]
    fn send_on<H: Headers>(&self, flow: &FlowValue, _: u8) -> Option<i32> {
        encap::send_on(self, flow)
    }
}
