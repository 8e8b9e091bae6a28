//! The short way, for a plain packet whose flow is known and to which it adds nothing: one look into the flow table, and
//! the packet is rewritten in place. Whatever is not sure at once is left, untouched, to the long way of [`crate::tc`].
//!
//! A packet is carried by a socket buffer here, and by a frame of the driver in [`crate::xdp`].

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value would be copied to the stack once more"
)]

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_OK, TC_ACT_SHOT,
};
use aya_ebpf::helpers::{bpf_csum_update, bpf_redirect, bpf_redirect_neigh};
use aya_ebpf::programs::TcContext;
use seaway_ebpf_abi::flow::{
    FLOW_HELD, FLOW_NODE, FLOW_REVERSE, FLOW_SENT_ON, FLOW_STACK, TOUCH_INTERVAL_NS,
};
use seaway_ebpf_abi::{FlowKey, FlowValue, Hop, TCP, UDP, Verdict};
use seaway_ebpf_logic::checksum::add;
use seaway_ebpf_logic::dsr as logic;
use seaway_ebpf_logic::flow as state;
use seaway_ebpf_logic::packet::{ETHERNET, TCP_FIN, TCP_RST, TCP_SYN};
use seaway_ebpf_logic::plain::{self, Change, TCP4, TCP6, UDP4, UDP6};

use crate::dsr;
use crate::flows::now;
use crate::maps::{FLOWS, count, epoch};

/// Where a program is attached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Packets of clients and of backends.
    Ingress,
    /// Packets of backends that are the node itself, as they leave.
    Egress,
}

/// What a packet is carried by.
pub(crate) trait Carrier {
    /// What the program returns for a packet that is broken now.
    const DROP: i32;

    /// Where the packet begins, and where what of it can be read ends.
    fn bounds(&self) -> (usize, usize);

    /// Whether the packet fits a link, and can be sent there.
    fn may_send(&self, hop: &Hop) -> bool;

    /// Has the checksum of a packet with so many words of headers make up for a change.
    fn mend<const UDP_N: usize, const ALL: usize>(&self, change: &Change) -> Option<()>;

    /// Sends the packet; what the program returns.
    fn send(&self, hop: &Hop) -> i32;

    /// Sends the packet as it is to the node of its flow's backend, if it is one that goes there and nothing is to be said
    /// about its size; what the program returns.
    fn send_on(&self, flow: &FlowValue) -> Option<i32>;
}

/// In place of what the program returns: nothing was done.
pub(crate) const LEFT: i32 = i32::MIN;

/// Sends the packet on its way; what the program has to return, or [`LEFT`]. A function of its own in the kernel, too, so
/// that its stack is not there any more on the long way.
#[inline(never)]
pub(crate) fn ingress(ctx: &TcContext) -> i32 {
    step(ctx, Hook::Ingress)
}

/// The same for [`Hook::Egress`].
#[inline(never)]
pub(crate) fn egress(ctx: &TcContext) -> i32 {
    step(ctx, Hook::Egress)
}

#[inline(always)]
pub(crate) fn step(carrier: &impl Carrier, hook: Hook) -> i32 {
    let done = match head::<IP>(carrier).map(|head| head[ETHERTYPE]) {
        Some(ETHERTYPE_IPV4) => step_of::<UDP4, TCP4, _>(carrier, hook),
        Some(ETHERTYPE_IPV6) => step_of::<UDP6, TCP6, _>(carrier, hook),
        _ => None,
    };
    done.unwrap_or(LEFT)
}

const IP: usize = ETHERNET / 2;
const ETHERTYPE: usize = IP - 1;
const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();

/// The beginning of the packet. Helpers that write to packets make it stale.
#[inline(always)]
pub(crate) fn head<const N: usize>(carrier: &impl Carrier) -> Option<&'static mut [u16; N]> {
    let (start, end) = carrier.bounds();
    if start + 2 * N > end {
        return None;
    }
    // SAFETY: the packet has so many bytes, as the kernel has seen us check.
    Some(unsafe { &mut *(start as *mut [u16; N]) })
}

/// Flags of a packet with ports; `None` for a TCP packet that opens or closes, or has no whole header.
#[inline(always)]
fn flags<const TCP_N: usize>(carrier: &impl Carrier, protocol: u8) -> Option<u8> {
    if protocol == UDP {
        return Some(0);
    }
    let [_, flags] = head::<TCP_N>(carrier)?[TCP_N - 4].to_ne_bytes();
    (flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0).then_some(flags)
}

/// The protocol of a packet with so many words of headers, and where among them its checksum is.
#[inline(always)]
pub(crate) const fn checksum<const UDP_N: usize, const ALL: usize>() -> (u8, usize) {
    if ALL == UDP_N {
        (UDP, plain::transport(UDP_N) + 3)
    } else {
        (TCP, plain::transport(UDP_N) + 8)
    }
}

#[inline(always)]
fn step_of<const UDP_N: usize, const TCP_N: usize, C: Carrier>(
    carrier: &C,
    hook: Hook,
) -> Option<i32> {
    let packet = head::<UDP_N>(carrier)?;
    let protocol = plain::protocol(packet)?;
    let key = plain::key(packet, protocol);
    // In an IPv6 packet such an address is none; an IPv4 flow must not be found by it.
    if UDP_N == UDP6 && (key.src.is_v4() || key.dst.is_v4()) {
        return None;
    }
    let flags = flags::<TCP_N>(carrier, protocol)?;
    let flow = FLOWS.get_ptr_mut(&key)?;
    // SAFETY: what another CPU changes in an entry is never needed together with what it changed before.
    let flow: &FlowValue = unsafe { &*flow };
    let reverse = flow.flags & FLOW_REVERSE != 0;
    let node = flow.flags & FLOW_NODE != 0;
    let ours = match hook {
        Hook::Ingress => !(reverse && node),
        Hook::Egress => reverse && node,
    };
    let given_away = flow.flags & (FLOW_STACK | FLOW_HELD) != 0;
    let hop = &flow.hop;
    if !ours || given_away || hop.epoch == 0 || hop.epoch != epoch() {
        return None;
    }
    let next = if reverse {
        state::backend_packet(flow.state, flags)
    } else {
        state::client_packet(flow.state, flags)
    };
    if next != flow.state || now().wrapping_sub(flow.last_seen) > TOUCH_INTERVAL_NS {
        return None;
    }
    if flow.flags & FLOW_SENT_ON != 0 {
        if logic::client_packet(protocol, flow.state, flags) != flow.state {
            return None;
        }
        let code = carrier.send_on(flow)?;
        count(Verdict::Forward);
        return Some(code);
    }
    // What goes up the node's stack, or came from there, is not forwarded.
    let forwarded = hop.ifindex != 0;
    if forwarded && plain::hops(packet) <= 1 || !carrier.may_send(hop) {
        return None;
    }
    let to = flow.translated(protocol);
    let change = plain::change(packet, &key, &to, forwarded);
    if !change.tells() {
        return None;
    }
    let written = if protocol == TCP {
        carrier.mend::<UDP_N, TCP_N>(&change)
    } else {
        carrier.mend::<UDP_N, UDP_N>(&change)
    };
    if written
        .and_then(|()| rewrite::<UDP_N>(carrier, &to, &change, forwarded, hop))
        .is_none()
    {
        count(Verdict::DroppedError);
        return Some(C::DROP);
    }
    count(if reverse {
        Verdict::Reverse
    } else {
        Verdict::Forward
    });
    Some(carrier.send(hop))
}

/// Writes the headers; the checksum of TCP or UDP is mended already.
#[inline(always)]
fn rewrite<const UDP_N: usize>(
    carrier: &impl Carrier,
    to: &FlowKey,
    change: &Change,
    forwarded: bool,
    hop: &Hop,
) -> Option<()> {
    let packet = head::<UDP_N>(carrier)?;
    plain::write(packet, to, change, forwarded);
    if hop.has_neighbour() {
        [packet[0], packet[1], packet[2]] = hop.to;
        [packet[3], packet[4], packet[5]] = hop.from;
    }
    Some(())
}

#[inline(always)]
fn skb(ctx: &TcContext) -> *mut __sk_buff {
    ctx.as_ptr().cast()
}

impl Carrier for TcContext {
    const DROP: i32 = TC_ACT_SHOT;

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.data(), self.data_end())
    }

    /// What will be cut into segments later fits always.
    #[inline(always)]
    fn may_send(&self, hop: &Hop) -> bool {
        hop.ifindex == 0
            || self.len() <= u32::from(hop.mtu) + ETHERNET as u32
            // SAFETY: the kernel's context.
            || unsafe { (*skb(self)).gso_size } != 0
    }

    /// Only the kernel knows whether the checksum is to be made when the packet leaves, or was made by a card.
    #[inline(always)]
    fn mend<const UDP_N: usize, const ALL: usize>(&self, change: &Change) -> Option<()> {
        let (protocol, at) = checksum::<UDP_N, ALL>();
        let before = head::<ALL>(self)?[at];
        let addresses = u64::from(change.addresses);
        let zero = if protocol == UDP {
            u64::from(BPF_F_MARK_MANGLED_0)
        } else {
            0
        };
        self.l4_csum_replace(2 * at, 0, addresses, u64::from(BPF_F_PSEUDO_HDR) | zero)
            .ok()?;
        if UDP_N == UDP6 {
            // Nothing in an IPv6 header makes up for the change; of use only where a card has summed up the whole packet.
            // SAFETY: the kernel's context.
            unsafe { bpf_csum_update(skb(self), add(change.addresses, change.hop)) };
        }
        let packet = head::<ALL>(self)?;
        if protocol == TCP || before != 0 {
            packet[at] = change.mend(before, packet[at], protocol);
        }
        Some(())
    }

    #[inline(always)]
    fn send(&self, hop: &Hop) -> i32 {
        if hop.ifindex == 0 {
            return TC_ACT_OK;
        }
        if hop.has_neighbour() {
            // SAFETY: a helper that takes numbers only.
            return unsafe { bpf_redirect(hop.ifindex, 0) } as i32;
        }
        // SAFETY: no parameters: the helper asks the routing table for the next hop on that link.
        unsafe { bpf_redirect_neigh(hop.ifindex, core::ptr::null_mut(), 0, 0) as i32 }
    }

    #[inline(always)]
    fn send_on(&self, flow: &FlowValue) -> Option<i32> {
        if !self.may_send(&flow.hop) || dsr::is_from_overlay(self) {
            return None;
        }
        dsr::send_on(self, flow, flow.hop.ifindex)
    }
}
