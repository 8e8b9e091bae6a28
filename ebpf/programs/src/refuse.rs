//! Answers to packets that nobody serves, made from these packets and sent back where they came from.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_F_ADJ_ROOM_FIXED_GSO;
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::helpers::{
    bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
};
use aya_ebpf::programs::TcContext;
use seaway_ebpf_abi::{FlowKey, TCP};
use seaway_ebpf_logic::checksum::{fold, pseudo_header};
use seaway_ebpf_logic::nat;
use seaway_ebpf_logic::packet::{ETHERNET, Packet};
use seaway_ebpf_logic::refuse::{self, ICMP_HEADER, QUOTED_TRANSPORT, RESET};
use seaway_ebpf_logic::size::{self, TooLarge};

use crate::dsr;
use crate::maps::Work;
use crate::rewrite::addresses;

/// Where an IPv4 header says whether the packet may be cut into fragments.
const FLAGS: usize = ETHERNET + 6;
const DONT_FRAGMENT: u8 = 0x40;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// What an answer has behind its IP header.
const ERROR4: usize = ICMP_HEADER + IPV4 + QUOTED_TRANSPORT;
const ERROR6: usize = ICMP_HEADER + IPV6 + QUOTED_TRANSPORT;
/// The longest of these.
pub(crate) const LONGEST: usize = ERROR6;

/// In place of what the program returns: the answer leaves by the node's routes. The device of the overlay would have to be told
/// where to, and who came by another node is not behind it.
pub(crate) const BY_ROUTES: i32 = i32::MAX;

/// Turns a packet into its refusal, or into "packet too big" for an MTU other than 0. The answer leaves by the link where
/// the packet came in, or [`BY_ROUTES`]. Returns what the program has to return, or a negative
/// number if it could not be made.
#[inline(never)]
pub(crate) fn answer(ctx: &TcContext, work: &mut Work, ifindex: u32, mtu: u16) -> i32 {
    write(ctx, work, ifindex, mtu).unwrap_or(-1)
}

/// The size that would fit, once a packet was found too large.
#[inline(always)]
pub(crate) fn mtu(work: &Work) -> u16 {
    // SAFETY: whatever says so has put it there.
    unsafe { work.fib.__bindgen_anon_1.mtu_result }
}

/// What becomes of a packet that is too large for its way.
#[inline(always)]
pub(crate) fn too_large(ctx: &TcContext, work: &Work) -> TooLarge {
    let v4 = work.packet.key.src.is_v4();
    // A failure counts as no, and then it is dropped at the latest.
    let whole = v4 && ctx.load::<u8>(FLAGS).is_ok_and(|f| f & DONT_FRAGMENT != 0);
    size::too_large(v4, whole, work.packet.part, mtu(work))
}

#[inline(always)]
fn write(ctx: &TcContext, work: &mut Work, ifindex: u32, mtu: u16) -> Result<i32, i64> {
    let v4 = work.packet.key.src.is_v4();
    let tcp = work.packet.key.protocol == TCP;
    let resets = tcp && mtu == 0;
    let partial = is_partial(ctx, &work.packet)?;
    let (protocol, length) = match (resets, v4) {
        (true, true) => (TCP, reset::<IPV4>(ctx, work)?),
        (true, false) => (TCP, reset::<IPV6>(ctx, work)?),
        (false, true) => (
            refuse::icmp_protocol(true),
            icmp_error::<IPV4, ERROR4>(ctx, work, mtu, partial)?,
        ),
        (false, false) => (
            refuse::icmp_protocol(false),
            icmp_error::<IPV6, ERROR6>(ctx, work, mtu, partial)?,
        ),
    };
    work.to = work.packet.key;
    work.to.swap();
    ip_header(ctx, &work.to, protocol, length)?;
    if partial && resets {
        // Whoever sends it out sums up the answer into this field, which has to hold the pseudo header.
        let pseudo = fold(pseudo_header(&work.to.src, &work.to.dst, protocol, length));
        ctx.store(work.packet.checksum(), &pseudo, 0)?;
    }
    let [a, b, c, d, e, f, g, h, i, j, k, l]: [u8; 12] = ctx.load(0)?;
    ctx.store(0, &[g, h, i, j, k, l, a, b, c, d, e, f], 0)?;
    if dsr::is_from_overlay(ctx) {
        return Ok(BY_ROUTES);
    }
    // SAFETY: a helper that takes numbers only.
    Ok(unsafe { bpf_redirect(ifindex, 0) } as i32)
}

#[inline(always)]
fn ip_header(ctx: &TcContext, key: &FlowKey, protocol: u8, length: u16) -> Result<(), i64> {
    if key.src.is_v4() {
        let header = refuse::ipv4_header(&key.src, &key.dst, protocol, length);
        return ctx.store(ETHERNET, &header, 0);
    }
    ctx.store(ETHERNET, &refuse::ipv6_header(protocol, length), 0)?;
    ctx.store(ETHERNET + nat::IPV6_ADDRESSES, addresses(key), 0)
}

/// Whether the checksum is left to whoever sends the packet out. Such a checksum takes no part in changes of what it
/// covers.
#[inline(always)]
fn is_partial(ctx: &TcContext, packet: &Packet) -> Result<bool, i64> {
    let before: u16 = ctx.load(packet.checksum())?;
    ctx.l4_csum_replace(packet.checksum(), 0, 1, 0)?;
    let after: u16 = ctx.load(packet.checksum())?;
    ctx.store(packet.checksum(), &before, 0)?;
    Ok(before == after)
}

#[inline(always)]
fn resize(ctx: &TcContext, length: usize) -> Result<(), i64> {
    // SAFETY: the kernel's context; packets are read and written by helpers only, so that no pointer goes stale.
    match unsafe { bpf_skb_change_tail(ctx.as_ptr().cast(), length as u32, 0) } {
        0 => Ok(()),
        error => Err(error),
    }
}

/// Reads a part of the packet into a part of the answer.
#[inline(always)]
fn load<const N: usize>(ctx: &TcContext, offset: usize, into: &mut [u8; N]) -> Result<(), i64> {
    let into = into.as_mut_ptr().cast();
    // SAFETY: the kernel's context, and room for as many bytes as are asked for.
    match unsafe { bpf_skb_load_bytes(ctx.as_ptr().cast(), offset as u32, into, N as u32) } {
        0 => Ok(()),
        error => Err(error),
    }
}

/// The first bytes of the answer from an offset on.
#[inline(always)]
fn part<const N: usize>(reply: &mut [u8; LONGEST], offset: usize) -> Result<&mut [u8; N], i64> {
    let rest = reply.get_mut(offset..).ok_or(-1_i64)?;
    rest.first_chunk_mut().ok_or(-1)
}

/// A TCP reset; the length of what follows the IP header.
#[inline(always)]
fn reset<const HEADER: usize>(ctx: &TcContext, work: &mut Work) -> Result<u16, i64> {
    let segment: &mut [u8; RESET] = part(&mut work.reply, 0)?;
    load(ctx, work.packet.transport, segment)?;
    let (at, more) = if HEADER == IPV4 {
        (2, 0)
    } else {
        (4, IPV6 as u32)
    };
    let length: [u8; 2] = ctx.load(ETHERNET + at)?;
    let total = u32::from(u16::from_be_bytes(length)) + more;
    let before = (work.packet.transport - ETHERNET) as u32 + u32::from(segment[12] >> 4) * 4;
    refuse::reset(&work.packet.key, segment, total.saturating_sub(before));
    resize(ctx, ETHERNET + HEADER + RESET)?;
    ctx.store(ETHERNET + HEADER, segment, 0)?;
    Ok(RESET as u16)
}

/// An ICMP error; the length of what follows the IP header, which is as long as that of the packet.
#[inline(always)]
fn icmp_error<const HEADER: usize, const LENGTH: usize>(
    ctx: &TcContext,
    work: &mut Work,
    mtu: u16,
    partial: bool,
) -> Result<u16, i64> {
    let ip: &mut [u8; HEADER] = part(&mut work.reply, ICMP_HEADER)?;
    load(ctx, ETHERNET, ip)?;
    if HEADER == IPV4 {
        // Options are not quoted.
        ip[0] = 0x45;
    } else {
        // Nor are extension headers.
        ip[6] = work.packet.key.protocol;
    }
    let transport: &mut [u8; QUOTED_TRANSPORT] = part(&mut work.reply, ICMP_HEADER + HEADER)?;
    load(ctx, work.packet.transport, transport)?;
    let key = &work.packet.key;
    let message: &mut [u8; LENGTH] = part(&mut work.reply, 0)?;
    let more = if partial { SUMMED_UP } else { 0 };
    refuse::icmp_error(&key.dst, &key.src, mtu, message, more as u16);
    resize(ctx, ETHERNET + HEADER + LENGTH)?;
    if partial {
        make_room(ctx, &work.packet, HEADER, LENGTH)?;
    }
    ctx.store(ETHERNET + HEADER, message, 0)?;
    Ok((LENGTH + more) as u16)
}

/// Behind an error about a packet whose checksum is left to whoever sends it out: so many bytes as from where that begins to sum up to the
/// end of where it writes. They are zero, and what it writes there is as good as zero for the sum of the error itself; where nobody sums up, as on the
/// way to a pod, they stay.
const SUMMED_UP: usize = 18;

/// Has the checksum of such a packet begin behind an error of that length, which takes its place.
#[inline(always)]
fn make_room(ctx: &TcContext, packet: &Packet, header: usize, length: usize) -> Result<(), i64> {
    if packet.transport != ETHERNET + header {
        return Err(-1);
    }
    let end = ETHERNET + header + length;
    push_back(ctx, length)?;
    resize(ctx, end + SUMMED_UP)?;
    ctx.store(end, &0_u64, 0)?;
    ctx.store(end + 8, &0_u64, 0)?;
    ctx.store(end + SUMMED_UP - 8, &0_u64, 0)
}

/// Pushes what is behind the Ethernet header back, and with it where such a checksum is.
#[inline(always)]
fn push_back(ctx: &TcContext, by: usize) -> Result<(), i64> {
    let (mode, flags) = (BPF_ADJ_ROOM_MAC, u64::from(BPF_F_ADJ_ROOM_FIXED_GSO));
    // SAFETY: as in `resize`.
    match unsafe { bpf_skb_adjust_room(ctx.as_ptr().cast(), by as i32, mode, flags) } {
        0 => Ok(()),
        error => Err(error),
    }
}
