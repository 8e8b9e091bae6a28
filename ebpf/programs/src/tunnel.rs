//! Packets between pods of two nodes, put into the tunnel as a pod sends them and taken out of it at the uplink: what the overlay's
//! device does, for those that need nothing else of it. All others are left to the device, untouched.
//!
//! A super-packet stays one: the kernel cuts it behind the inner headers when it leaves, if the uplink cannot.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    __sk_buff, BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_DECAP_L3_IPV4,
    BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
    BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_FIB_LKUP_RET_SUCCESS,
    BPF_FIB_LOOKUP_SRC, bpf_redir_neigh as NextHop,
};
use aya_ebpf::helpers::{
    bpf_get_hash_recalc, bpf_get_prandom_u32, bpf_redirect_neigh, bpf_skb_adjust_room,
};
use aya_ebpf::programs::TcContext;
use seaway_ebpf_abi::flow::TOUCH_INTERVAL_NS;
use seaway_ebpf_abi::{Addr, FlowKey, PeerValue, PeerWay, UDP, Verdict};
use seaway_ebpf_logic::packet::ETHERNET;
use seaway_ebpf_logic::plain::{Headers, Ipv4, Ipv6};
use seaway_ebpf_logic::tunnel::{self, Arrived4, HEADERS4, Outer4, ROOM4};

use crate::flows::now;
use crate::maps::{PEER_WAYS, Work, count, epoch, is_node_addr};
use crate::pods::{self, ETHERTYPE};
use crate::quick::{LEFT, at};
use crate::ways;

const AF_INET: u8 = 2;
/// Where the inner frame begins, once it is in the tunnel.
const FRAME: usize = ROOM4;
/// The flags by which the kernel cuts a super-packet behind the inner headers; their sizes stay.
const PACK: u64 = (BPF_F_ADJ_ROOM_FIXED_GSO
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH) as u64
    | (ETHERNET as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;

#[inline(always)]
fn skb(ctx: &TcContext) -> *mut __sk_buff {
    ctx.as_ptr().cast()
}

/// Sends a packet to a pod of a peer, past the overlay's device; what the program returns, or [`LEFT`], and then nothing was
/// done. The inner packet is as it is to arrive but for its Ethernet header; `kind` says of which family it is.
#[inline(never)]
pub(crate) fn send(ctx: &TcContext, work: &mut Work, peer: &PeerValue, kind: u16) -> i32 {
    pack(ctx, work, peer, kind).unwrap_or(LEFT)
}

#[inline(always)]
fn pack(ctx: &TcContext, work: &mut Work, peer: &PeerValue, kind: u16) -> Option<i32> {
    let frame = u16::try_from(ctx.len()).ok()?;
    if peer.port == 0 || !peer.remote.is_v4() || frame > u16::MAX - ROOM4 as u16 {
        return None;
    }
    let way = way(ctx, work, peer)?;
    if u32::from(peer.mtu) + ROOM4 as u32 > u32::from(way.mtu) {
        return None;
    }
    // The traffic class of IPv4 is a byte, that of IPv6 lies across two.
    let class = *at::<u8>(ctx, ETHERNET + 1)?;
    let ecn = if kind == Ipv4::ETHERTYPE {
        class
    } else {
        class >> 4
    };
    // SAFETY: the kernel's context, and a helper without arguments.
    let (hash, id) = unsafe { (bpf_get_hash_recalc(skb(ctx)), bpf_get_prandom_u32()) };
    let outer = Outer4 {
        local: way.local,
        remote: peer.remote.words[3],
        from: tunnel::source_port(hash),
        to: peer.port,
        vni: peer.vni,
        ecn: tunnel::outer_ecn(ecn),
        id: id as u16,
        // As packets of the overlay's routes.
        whole: false,
    };
    let headers = tunnel::headers4(&outer, frame);
    // SAFETY: the kernel's context; what pointed into the packet is not used any more.
    if unsafe { bpf_skb_adjust_room(skb(ctx), ROOM4 as i32, BPF_ADJ_ROOM_MAC, PACK) } != 0 {
        return None;
    }
    Some(match write(ctx, peer, kind, &headers) {
        Some(()) => {
            count(Verdict::PodPacked);
            out(&way)
        }
        None => pods::broken(),
    })
}

#[inline(always)]
fn write(ctx: &TcContext, peer: &PeerValue, kind: u16, headers: &[u16; HEADERS4]) -> Option<()> {
    let inner: &mut [u16; ETHERNET / 2] = at(ctx, FRAME)?;
    let [a, b, c, d, e, f] = peer.ethernet;
    *inner = [a, b, c, d, e, f, kind];
    *at::<[u16; HEADERS4]>(ctx, ETHERNET)? = *headers;
    *at::<u16>(ctx, ETHERTYPE)? = Ipv4::ETHERTYPE;
    Some(())
}

/// Out of the uplink. The kernel finds the neighbour, who is thereby known to be in use.
#[inline(always)]
fn out(way: &PeerWay) -> i32 {
    // SAFETY: all zeroes are a valid value of this struct of integers.
    let mut next: NextHop = unsafe { core::mem::zeroed() };
    next.nh_family = u32::from(AF_INET);
    next.__bindgen_anon_1.ipv4_nh = way.next;
    let size = size_of::<NextHop>() as i32;
    // SAFETY: parameters of the size given.
    unsafe { bpf_redirect_neigh(way.ifindex, &raw mut next, size, 0) as i32 }
}

/// The way to a peer, by the routing table unless that was asked just now.
#[inline(always)]
fn way(ctx: &TcContext, work: &mut Work, peer: &PeerValue) -> Option<PeerWay> {
    let remote = peer.remote.words[3];
    let (epoch, now) = (epoch(), now());
    // SAFETY: values are replaced, never changed in place, and copied at once.
    let known = unsafe { PEER_WAYS.get(remote) }.copied();
    if let Some(way) = known
        && way.epoch == epoch
        && now.wrapping_sub(way.learned) <= TOUCH_INTERVAL_NS
    {
        return Some(way);
    }
    learn(ctx, work, peer);
    // SAFETY: as above.
    let way = unsafe { PEER_WAYS.get(remote) }.copied()?;
    (epoch != 0 && way.epoch == epoch && way.learned == now).then_some(way)
}

/// Asks the routing table. Before Linux 6.7 it does not tell the source, which the overlay may say instead.
#[inline(never)]
fn learn(ctx: &TcContext, work: &mut Work, peer: &PeerValue) {
    let (epoch, learned) = (epoch(), now());
    let given = peer.local.is_v4();
    work.to = FlowKey {
        src: if given { peer.local } else { Addr::ANY_V4 },
        dst: peer.remote,
        protocol: UDP,
        ..FlowKey::default()
    };
    let flags = if given { 0 } else { BPF_FIB_LOOKUP_SRC };
    // SAFETY: the kernel's context.
    let link = unsafe { (*skb(ctx)).ifindex };
    // Without a neighbour there is no way: the overlay's device finds one.
    if ways::look_up(ctx, work, link, flags, 0) != BPF_FIB_LKUP_RET_SUCCESS
        || work.fib.family != AF_INET
    {
        return;
    }
    let fib = &work.fib;
    // SAFETY: a look-up that succeeds has put IPv4 addresses and an MTU there.
    let (local, next, mtu) = unsafe {
        (
            fib.__bindgen_anon_3.ipv4_src,
            fib.__bindgen_anon_4.ipv4_dst,
            fib.__bindgen_anon_1.mtu_result,
        )
    };
    let way = PeerWay {
        learned,
        epoch,
        ifindex: fib.ifindex,
        local,
        next,
        mtu,
        pad: [0; 3],
    };
    // A full LRU map makes room by itself.
    let _ = PEER_WAYS.insert(peer.remote.words[3], way, 0);
}

/// Takes a packet out of the tunnel and hands it to its pod; what the program returns, or [`LEFT`], and then nothing was done.
#[inline(always)]
pub(crate) fn receive(ctx: &TcContext) -> i32 {
    let is_carried = at::<u16>(ctx, ETHERTYPE).is_some_and(|kind| *kind == Ipv4::ETHERTYPE)
        && at::<Arrived4>(ctx, ETHERNET).is_some_and(|packet| tunnel::is_plain4(packet));
    if is_carried { unpack(ctx) } else { LEFT }
}

#[inline(never)]
fn unpack(ctx: &TcContext) -> i32 {
    let done = match at::<[u16; ETHERNET / 2]>(ctx, FRAME).map(|inner| inner[6]) {
        Some(Ipv4::ETHERTYPE) => pods::from_tunnel::<Ipv4>(ctx),
        Some(Ipv6::ETHERTYPE) => pods::from_tunnel::<Ipv6>(ctx),
        _ => None,
    };
    done.unwrap_or(LEFT)
}

/// Whether a packet that is in the tunnel comes from that peer, and was sent to us.
#[inline(always)]
pub(crate) fn is_from(ctx: &TcContext, peer: &PeerValue) -> Option<bool> {
    let outer = tunnel::read4(at(ctx, ETHERNET)?);
    let &mut [a, b, c, ..] = at::<[u16; 6]>(ctx, FRAME)?;
    let [.., d, e, f] = peer.ethernet;
    Some(
        peer.remote.same(&Addr::v4(outer.local))
            && peer.port == outer.to
            && peer.vni == outer.vni
            && (a ^ d) | (b ^ e) | (c ^ f) == 0
            && is_node_addr(&Addr::v4(outer.remote)),
    )
}

/// Takes off the headers of the tunnel, and the Ethernet header in it, in place of which the outer one stays, with the addresses it
/// has; `None`, and then nothing was done.
#[inline(always)]
pub(crate) fn strip<H: Headers>(ctx: &TcContext) -> Option<()> {
    let family = if H::V4 {
        BPF_F_ADJ_ROOM_DECAP_L3_IPV4
    } else {
        BPF_F_ADJ_ROOM_DECAP_L3_IPV6
    };
    let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | family);
    // SAFETY: the kernel's context; what pointed into the packet is not used any more.
    let code = unsafe { bpf_skb_adjust_room(skb(ctx), -(ROOM4 as i32), BPF_ADJ_ROOM_MAC, flags) };
    if code != 0 {
        return None;
    }
    if let Some(kind) = at::<u16>(ctx, ETHERTYPE) {
        *kind = H::ETHERTYPE;
    }
    Some(())
}
