//! Where a translated packet goes by the node's routes, and whether it fits there.
//!
//! Sizes are those of the packet without its Ethernet header; of one that is cut into segments when it leaves, those of a
//! segment.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NOT_FWDED,
    BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNSUPP_LWT, BPF_FIB_LOOKUP_OUTPUT,
    bpf_fib_lookup as FibLookup,
};
use aya_ebpf::helpers::{bpf_check_mtu, bpf_fib_lookup};
use aya_ebpf::programs::TcContext;
use seaway_ebpf_abi::{Hop, TCP, Verdict};
use seaway_ebpf_logic::packet::{ETHERNET, Packet};
use seaway_ebpf_logic::size::{UDP_HEADER, segment, tcp_header};

use crate::maps::{Work, config, is_node_addr};
use crate::pods;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Where a TCP header has its length.
const TCP_OFFSET: usize = 12;
/// Larger than what any route takes: asks for the size that it does take.
const ANY_SIZE: u16 = u16::MAX;

#[inline(always)]
fn skb(ctx: &TcContext) -> *mut __sk_buff {
    ctx.as_ptr().cast()
}

/// The size of the packet in hand.
#[inline(always)]
fn size(ctx: &TcContext, packet: &Packet) -> u32 {
    // SAFETY: the kernel's context.
    let gso = unsafe { (*skb(ctx)).gso_size };
    if gso == 0 {
        return ctx.len().saturating_sub(ETHERNET as u32);
    }
    let header = if packet.key.protocol == TCP {
        tcp_header(ctx.load(packet.transport + TCP_OFFSET).unwrap_or(0))
    } else {
        UDP_HEADER
    };
    segment(gso, (packet.transport - ETHERNET) as u32 + header)
}

/// Asks the routing table for the way to the new destination: of a packet that came in by a link, or that has to go out
/// of one. Whether it is one for a packet of that size; of size 0: for the one in hand, by the link alone.
#[inline(never)]
pub(crate) fn look_up(
    ctx: &TcContext,
    work: &mut Work,
    ifindex: u32,
    flags: u32,
    size: u16,
) -> u32 {
    let (fib, to) = (&mut work.fib, &work.to);
    // SAFETY: all zeroes are a valid value of this struct of integers.
    *fib = unsafe { core::mem::zeroed() };
    fib.l4_protocol = to.protocol;
    fib.sport = to.sport;
    fib.dport = to.dport;
    fib.ifindex = ifindex;
    fib.__bindgen_anon_1.tot_len = size;
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
    u32::try_from(code).unwrap_or(FAILED)
}

/// No code of a look-up.
const FAILED: u32 = u32::MAX;

/// What a look-up says about sizes.
#[inline(always)]
fn mtu(fib: &FibLookup) -> u16 {
    // SAFETY: a look-up that succeeds, or finds the packet too large, has put it there.
    match unsafe { fib.__bindgen_anon_1.mtu_result } {
        // That of the loopback device has no place there.
        0 => u16::MAX,
        mtu => mtu,
    }
}

/// What the routing table has found, with a neighbour.
#[inline(always)]
pub(crate) fn known(fib: &FibLookup) -> Hop {
    Hop {
        ifindex: fib.ifindex,
        to: ethernet(fib.dmac),
        from: ethernet(fib.smac),
        mtu: mtu(fib),
        ..Hop::default()
    }
}

#[inline(always)]
const fn ethernet([a, b, c, d, e, f]: [u8; 6]) -> [u16; 3] {
    [
        u16::from_ne_bytes([a, b]),
        u16::from_ne_bytes([c, d]),
        u16::from_ne_bytes([e, f]),
    ]
}

/// The way by the routing table, as [`look_up`] asks for it. Of a packet that is too large the size that would fit is in `fib`.
#[inline(always)]
fn find(ctx: &TcContext, work: &mut Work, ifindex: u32, flags: u32) -> Result<Hop, Verdict> {
    let size = u16::try_from(size(ctx, &work.packet)).unwrap_or(ANY_SIZE);
    let by = match look_up(ctx, work, ifindex, flags, size) {
        BPF_FIB_LKUP_RET_SUCCESS => return Ok(known(&work.fib)),
        BPF_FIB_LKUP_RET_FRAG_NEEDED => return Err(Verdict::TooLarge),
        BPF_FIB_LKUP_RET_NO_NEIGH => work.fib.ifindex,
        // An encapsulating route: only the overlay has those.
        BPF_FIB_LKUP_RET_UNSUPP_LWT => overlay(),
        BPF_FIB_LKUP_RET_NOT_FWDED if is_node_addr(&work.to.dst) => return Ok(Hop::default()),
        _ => 0,
    };
    if by == 0 {
        return Err(Verdict::DroppedNoRoute);
    }
    // It fits, but what else would the kernel does not say.
    let most = match look_up(ctx, work, ifindex, flags, ANY_SIZE) {
        BPF_FIB_LKUP_RET_FRAG_NEEDED => mtu(&work.fib),
        _ => u16::MAX,
    };
    fits_link(work, by, most, size)
}

/// The link, if a packet of that size fits; to pods behind the overlay less may.
#[inline(always)]
fn fits_link(work: &mut Work, ifindex: u32, most: u16, size: u16) -> Result<Hop, Verdict> {
    let mtu = if ifindex == overlay() {
        most.min(pods::way_takes(&work.to.dst))
    } else {
        most
    };
    if size > mtu {
        work.fib.__bindgen_anon_1.mtu_result = mtu;
        return Err(Verdict::TooLarge);
    }
    Ok(Hop {
        ifindex,
        mtu,
        ..Hop::default()
    })
}

#[inline(always)]
fn overlay() -> u32 {
    config().map_or(0, |config| config.overlay_ifindex)
}

/// The way to the new destination; link 0 if that is the node itself.
#[inline(always)]
pub(crate) fn route(ctx: &TcContext, work: &mut Work) -> Result<Hop, Verdict> {
    // SAFETY: the kernel's context.
    let ifindex = unsafe { (*skb(ctx)).ifindex };
    find(ctx, work, ifindex, 0)
}

/// The way of a reply, which leaves by the link where the client's packets come in.
#[inline(always)]
pub(crate) fn back(ctx: &TcContext, work: &mut Work) -> Result<Hop, Verdict> {
    let ifindex = work.flow.ifindex;
    match find(ctx, work, ifindex, BPF_FIB_LOOKUP_OUTPUT) {
        Ok(hop) if hop.ifindex == ifindex => Ok(hop),
        Err(Verdict::TooLarge) => Err(Verdict::TooLarge),
        _ => by_link(ctx, work, ifindex),
    }
}

/// The way by a link, whatever routes say.
#[inline(always)]
pub(crate) fn by_link(ctx: &TcContext, work: &mut Work, ifindex: u32) -> Result<Hop, Verdict> {
    let size = u16::try_from(size(ctx, &work.packet)).unwrap_or(ANY_SIZE);
    // Anything but 0, which would mean the frame with all of its segments.
    let mut mtu = 1_u32;
    // SAFETY: the kernel's context and a word of ours.
    let code = unsafe { bpf_check_mtu(ctx.as_ptr(), ifindex, &raw mut mtu, 0, 0) };
    if code < 0 {
        return Err(Verdict::DroppedNoRoute);
    }
    let most = u16::try_from(mtu).unwrap_or(u16::MAX);
    fits_link(work, ifindex, most, size)
}
