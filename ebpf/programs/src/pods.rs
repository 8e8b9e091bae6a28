//! Between pods, past the stack: to a pod of this node by its own end of the link, to one of another node through the tunnel.
//! And what pods may not send.
//!
//! Nothing is kept of such flows. What connection tracking translates has to meet it in both directions: a flow between pods that
//! is seen to begin in the stack stays there ([`detour`]), and so does all that is not sure at once.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value would be copied to the stack, which is too small"
)]

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, TC_ACT_SHOT, bpf_tunnel_key as Tunnel,
};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::{bpf_csum_update, bpf_redirect, bpf_redirect_peer, bpf_skb_set_tunnel_key};
use aya_ebpf::programs::TcContext;
use seaway_ebpf_abi::config::{CONFIG_HANDOVER, CONFIG_POD_DETOURS, CONFIG_POD_FAST};
use seaway_ebpf_abi::pod::{POD_FAST, POD_LINK_FAST, pod_link};
use seaway_ebpf_abi::{Addr, PeerValue, PodLink, PodValue, TCP, UDP, Verdict};
use seaway_ebpf_logic::flow::may_open;
use seaway_ebpf_logic::packet::{ETHERNET, TCP_ACK, TCP_SYN};
use seaway_ebpf_logic::plain::{Headers, Ipv4, Ipv6};
use seaway_ebpf_logic::pod::{self, Hop};
use seaway_ebpf_logic::size::{UDP_HEADER, segment, tcp_header};
use seaway_ebpf_logic::tunnel::ROOM4;

use crate::maps::{DETOURS, FLOWS, PEERS, POD_LINKS, PODS, Work, config, count, put, work};
use crate::quick::{self, LEFT, at};
use crate::tunnel;

pub(crate) const ETHERTYPE: usize = ETHERNET - 2;
const IPV4_SOURCE: usize = ETHERNET + 12;
const IPV6_SOURCE: usize = ETHERNET + 8;
/// Where a TCP header has its length.
const TCP_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
/// Of the outer packet.
const HOPS: u8 = 64;
/// Whose Ethernet address was that of the link.
pub(crate) const PACKET_HOST: u32 = 0;

#[inline(always)]
fn skb(ctx: &TcContext) -> *mut __sk_buff {
    ctx.as_ptr().cast()
}

#[inline(always)]
fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel's context.
    unsafe { (*skb(ctx)).ifindex }
}

/// What is known of the link that a packet came in by.
#[inline(always)]
fn link(ctx: &TcContext) -> Option<&'static PodLink> {
    let index = ifindex(ctx);
    POD_LINKS
        .get(pod_link(index))
        .filter(|link| link.ifindex == index)
}

/// Whether a pod may send the packet: not with an address of somebody else. A function of its own in the kernel, too; a `bool`
/// as a number.
#[inline(never)]
pub(crate) fn may_send(ctx: &TcContext) -> u32 {
    quick::mark_arrived(ctx);
    let Some(link) = link(ctx) else {
        return 1;
    };
    if at::<u16>(ctx, ETHERTYPE).is_some_and(|kind| *kind == Ipv4::ETHERTYPE)
        && at::<u32>(ctx, IPV4_SOURCE).is_some_and(|src| pod::is_first4(link, *src))
    {
        return 1;
    }
    let src = match ctx.load::<u16>(ETHERTYPE) {
        Ok(Ipv4::ETHERTYPE) => ctx.load(IPV4_SOURCE).map(Addr::v4),
        Ok(Ipv6::ETHERTYPE) => ctx.load(IPV6_SOURCE).map(|words| Addr { words }),
        _ => return 1,
    };
    let Ok(src) = src else {
        // Too short for the stack as well.
        return 1;
    };
    if link.v6.same(&src) || pod::may_send(link, &src) || is_at(&src, link.ifindex) {
        return 1;
    }
    count(Verdict::DroppedSpoofed);
    0
}

/// Whether the pod behind that link has the address.
#[inline(always)]
fn is_at(addr: &Addr, ifindex: u32) -> bool {
    local(addr).is_some_and(|pod| pod.ifindex == ifindex)
}

#[inline(always)]
fn local(addr: &Addr) -> Option<&'static PodValue> {
    // SAFETY: values are replaced, never changed in place, and read at once.
    unsafe { PODS.get(addr) }
}

#[inline(always)]
fn remote(addr: &Addr) -> Option<&'static PeerValue> {
    // SAFETY: as in `local`.
    PEERS.get(&Key::new(128, addr.words))
}

/// The largest packet that goes to an address behind the overlay, as far as that is known: less than the overlay takes, where one of its
/// routes says so.
#[inline(always)]
pub(crate) fn way_takes(addr: &Addr) -> u16 {
    match remote(addr) {
        Some(peer) if peer.mtu != 0 => peer.mtu,
        _ => u16::MAX,
    }
}

/// Sends a packet of a pod to another pod; what the program returns, or [`LEFT`], and then nothing was done.
#[inline(never)]
pub(crate) fn from_pod(ctx: &TcContext) -> i32 {
    match link(ctx) {
        Some(link) if link.flags & POD_LINK_FAST != 0 => forward(ctx, true),
        _ => LEFT,
    }
}

/// Sends a packet that came by the overlay to a pod of this node, likewise.
#[inline(never)]
pub(crate) fn from_overlay(ctx: &TcContext) -> i32 {
    forward(ctx, false)
}

#[inline(always)]
fn forward(ctx: &TcContext, from_pod: bool) -> i32 {
    let wanted = config().is_some_and(|config| {
        config.flags & (CONFIG_POD_FAST | CONFIG_HANDOVER) == CONFIG_POD_FAST
            && (from_pod || config.overlay_ifindex == ifindex(ctx))
    });
    if !wanted {
        return LEFT;
    }
    let done = match at::<u16>(ctx, ETHERTYPE).map(|kind| *kind) {
        Some(Ipv4::ETHERTYPE) => step::<Ipv4>(ctx, from_pod),
        Some(Ipv6::ETHERTYPE) => step::<Ipv6>(ctx, from_pod),
        _ => None,
    };
    done.unwrap_or(LEFT)
}

/// What is asked of a packet besides its key.
#[derive(Clone, Copy)]
struct Seen {
    tcp_flags: u8,
    /// Bytes of the header of TCP or UDP.
    transport: u32,
}

/// Reads what is between pods, given its IP header, into the piece of work in hand; `None` if that is not a plain packet.
#[inline(always)]
fn read<H: Hop>(ctx: &TcContext, packet: &H, from: usize, work: &mut Work) -> Option<Seen> {
    let protocol = packet.protocol()?;
    if packet.hops() <= 1 {
        return None;
    }
    work.packet.key = packet.key(protocol);
    let key = &work.packet.key;
    // In an IPv6 packet such an address is none.
    if !H::V4 && (key.src.is_v4() || key.dst.is_v4()) {
        return None;
    }
    let (mut tcp_flags, mut transport) = (0, UDP_HEADER);
    if protocol == TCP {
        let header: &mut [u8; 20] = at(ctx, from + H::IP)?;
        tcp_flags = header[TCP_FLAGS];
        transport = tcp_header(header[TCP_OFFSET]);
    }
    Some(Seen {
        tcp_flags,
        transport,
    })
}

#[inline(always)]
fn step<H: Hop + 'static>(ctx: &TcContext, from_pod: bool) -> Option<i32> {
    // Of the stack there is too little.
    let work = work()?;
    let seen = read::<H>(ctx, at(ctx, ETHERNET)?, ETHERNET, work)?;
    let size = ctx.len().saturating_sub(ETHERNET as u32);
    let key = &work.packet.key;
    if let Some(pod) = local(&key.dst) {
        if !takes::<H>(ctx, pod, size, seen.transport) || !is_plain(work, seen.tcp_flags) {
            return None;
        }
        take_hop::<H>(ctx)?;
        return Some(hand(ctx, pod));
    }
    if !from_pod {
        return None;
    }
    let peer = remote(&key.dst)?;
    if !fits::<H>(ctx, size, peer.mtu, seen.transport) || !is_plain(work, seen.tcp_flags) {
        return None;
    }
    let overlay = config()?.overlay_ifindex;
    take_hop::<H>(ctx)?;
    quick::mark_sent(ctx);
    count(Verdict::PodRemote);
    let code = tunnel::send(ctx, work, peer, H::ETHERTYPE);
    if code != LEFT {
        return Some(code);
    }
    if set_key(ctx, peer).is_none() || address(ctx, &peer.ethernet).is_none() {
        // There is no memory.
        return Some(broken());
    }
    // SAFETY: a helper that takes numbers only.
    Some(unsafe { bpf_redirect(overlay, 0) } as i32)
}

/// Hands a packet that is in the tunnel to a pod of this node; `None` as above.
#[inline(always)]
pub(crate) fn from_tunnel<H: Hop + Default + 'static>(ctx: &TcContext) -> Option<i32> {
    if config()?.flags & (CONFIG_POD_FAST | CONFIG_HANDOVER) != CONFIG_POD_FAST
        // SAFETY: the kernel's context.
        || unsafe { (*skb(ctx)).pkt_type } != PACKET_HOST
    {
        return None;
    }
    let work = work()?;
    let from = ROOM4 + ETHERNET;
    // Not aligned there: read by the kernel, which can on all machines.
    let packet: H = ctx.load(from).ok()?;
    let seen = read::<H>(ctx, &packet, from, work)?;
    let key = &work.packet.key;
    // The kernel goes on to think of the packet as one in a tunnel. Only of TCP that does not matter when it is cut.
    // SAFETY: the kernel's context.
    if key.protocol != TCP && unsafe { (*skb(ctx)).gso_size } != 0 {
        return None;
    }
    let pod = local(&key.dst)?;
    let size = ctx.len().saturating_sub(from as u32);
    if !takes::<H>(ctx, pod, size, seen.transport)
        || !tunnel::is_from(ctx, remote(&key.src)?)?
        || !is_plain(work, seen.tcp_flags)
    {
        return None;
    }
    tunnel::strip::<H>(ctx)?;
    count(Verdict::PodUnpacked);
    Some(match take_hop::<H>(ctx) {
        Some(()) => hand(ctx, pod),
        None => broken(),
    })
}

/// Whether such a packet goes to the pod past the stack.
#[inline(always)]
fn takes<H: Headers>(ctx: &TcContext, pod: &PodValue, size: u32, transport: u32) -> bool {
    pod.ifindex != ifindex(ctx)
        && pod.flags & POD_FAST != 0
        && fits::<H>(ctx, size, pod.mtu, transport)
}

/// Hands the packet to the pod.
#[inline(always)]
fn hand(ctx: &TcContext, pod: &PodValue) -> i32 {
    if address(ctx, &pod.ethernet).is_none() {
        return broken();
    }
    count(Verdict::PodLocal);
    // SAFETY: a helper that takes numbers only.
    unsafe { bpf_redirect_peer(pod.ifindex, 0) as i32 }
}

/// What the program returns for a packet that was changed and cannot be sent.
#[inline(always)]
pub(crate) fn broken() -> i32 {
    count(Verdict::DroppedError);
    TC_ACT_SHOT
}

/// Whether neither a Service nor connection tracking has to do with the flow of the packet.
#[inline(never)]
fn is_plain(work: &mut Work, tcp_flags: u8) -> bool {
    let key = &work.packet.key;
    // SAFETY: nothing is read.
    if unsafe { FLOWS.get(key).is_some() || DETOURS.get(key).is_some() } {
        return false;
    }
    if !may_open(key.protocol, tcp_flags) {
        return true;
    }
    work.to = key.swapped();
    // An old flow of a Service would take the answer: what opens makes it go.
    // SAFETY: nothing is read.
    unsafe { FLOWS.get(&work.to) }.is_none()
}

/// Whether a packet of that size fits, or what will be cut from it does.
#[inline(always)]
fn fits<H: Headers>(ctx: &TcContext, size: u32, mtu: u16, transport: u32) -> bool {
    // SAFETY: the kernel's context.
    let length = match unsafe { (*skb(ctx)).gso_size } {
        0 => size,
        gso => segment(gso, H::IP as u32 + transport),
    };
    length <= u32::from(mtu)
}

/// One hop on the way.
#[inline(always)]
fn take_hop<H: Hop + 'static>(ctx: &TcContext) -> Option<()> {
    let packet: &mut H = at(ctx, ETHERNET)?;
    packet.take_hop();
    if !H::V4 {
        // Nothing in the header makes up for the change. Of use only where a card has summed up the whole packet.
        // SAFETY: the kernel's context.
        unsafe { bpf_csum_update(skb(ctx), u32::from(!H::HOP)) };
    }
    Some(())
}

/// Writes the Ethernet addresses of the next hop.
#[inline(always)]
fn address(ctx: &TcContext, ethernet: &[u16; 6]) -> Option<()> {
    *at(ctx, 0)? = *ethernet;
    Some(())
}

/// Says where the overlay is to send the packet.
#[inline(always)]
fn set_key(ctx: &TcContext, peer: &PeerValue) -> Option<()> {
    // SAFETY: all zeroes are a valid value of this struct of integers.
    let mut key: Tunnel = unsafe { core::mem::zeroed() };
    key.tunnel_id = peer.vni;
    key.tunnel_ttl = HOPS;
    let flags = if peer.remote.is_v4() {
        // As packets of the overlay's routes: what is inside has its own checksum.
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(peer.remote.words[3]);
        key.__bindgen_anon_3.local_ipv4 = u32::from_be(peer.local.words[3]);
        BPF_F_ZERO_CSUM_TX
    } else {
        key.__bindgen_anon_1.remote_ipv6 = peer.remote.words;
        key.__bindgen_anon_3.local_ipv6 = peer.local.words;
        BPF_F_TUNINFO_IPV6
    };
    let size = size_of::<Tunnel>() as u32;
    // SAFETY: the kernel's context, and a key of the size given.
    let code = unsafe { bpf_skb_set_tunnel_key(skb(ctx), &raw mut key, size, u64::from(flags)) };
    (code == 0).then_some(())
}

/// A packet leaves that the stack has sent on, and no program. If it opens a flow between two pods, that one stays
/// with the stack in both directions.
#[inline(always)]
pub(crate) fn leaves(work: &mut Work) {
    let key = &work.packet.key;
    let opens = work.packet.has_ports()
        && match key.protocol {
            TCP => work.packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN,
            protocol => protocol == UDP,
        };
    let wanted = config().is_some_and(|config| {
        config.flags & (CONFIG_POD_DETOURS | CONFIG_HANDOVER) == CONFIG_POD_DETOURS
    });
    if opens && wanted {
        detour(work);
    }
}

#[inline(never)]
fn detour(work: &mut Work) {
    let key = &work.packet.key;
    if !is_pod(&key.src) || !is_pod(&key.dst) {
        return;
    }
    work.to = key.swapped();
    // A translation of ours has been here: its replies are known.
    // SAFETY: nothing is read.
    if unsafe { FLOWS.get(&work.to).is_some() || DETOURS.get(key).is_some() } {
        return;
    }
    // A full table makes room by itself.
    put(&DETOURS, key, &1, Verdict::DetourAdded);
    put(&DETOURS, &work.to, &1, Verdict::DetourAdded);
}

#[inline(always)]
fn is_pod(addr: &Addr) -> bool {
    local(addr).is_some() || remote(addr).is_some()
}
