//! The short way, for a plain packet whose flow is known and to which it adds nothing: one look at a slot beside the flow
//! table, or into the table to fill that slot, and the packet is rewritten in place. Whatever is not sure at once is left,
//! untouched, to the long way of [`crate::tc`].
//!
//! A packet is carried by a socket buffer here, and by a frame of the driver in [`crate::xdp`].

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT};
use aya_ebpf::helpers::{bpf_csum_update, bpf_redirect, bpf_redirect_neigh};
use aya_ebpf::programs::TcContext;
use seaway_ebpf_abi::flow::{
    FLOW_HELD, FLOW_NODE, FLOW_REVERSE, FLOW_SENT_ON, FLOW_STACK, TOUCH_INTERVAL_NS,
};
use seaway_ebpf_abi::shortcut::{SHORTCUT_NEIGHBOUR, SHORTCUT_REVERSE};
use seaway_ebpf_abi::{FlowKey, FlowValue, Shortcut, TCP, UDP, Verdict};
use seaway_ebpf_logic::checksum::add;
use seaway_ebpf_logic::dsr as logic;
use seaway_ebpf_logic::flow as state;
use seaway_ebpf_logic::packet::{ETHERNET, TCP_FIN, TCP_RST, TCP_SYN};
use seaway_ebpf_logic::plain::{self, Headers, Ipv4, Ipv6};
use seaway_ebpf_logic::shortcut;
use seaway_ebpf_logic::size::{UDP_HEADER, segment, tcp_header};

use crate::dsr;
use crate::flows;
use crate::maps::{FLOWS, count, epoch, work};
use crate::shortcuts::{self, ticks};
use crate::tc::PASS;

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

    /// Whether the packet, of that protocol and length field, fits a link, and can be sent there.
    fn may_send<H: Headers>(&self, way: &Shortcut, protocol: u8, length: u16) -> bool;

    /// Has the checksum at that offset, of an IP packet of that length, make up for a change.
    fn mend<H: Headers>(&self, way: &Shortcut, at: usize, protocol: u8, length: u16) -> Option<()>;

    /// Sends the packet; what the program returns.
    fn send(&self, way: &Shortcut) -> i32;

    /// Sends the packet as it is to the node of its flow's backend, if it is one that goes there and nothing is to be said
    /// about its size; what the program returns.
    fn send_on<H: Headers>(&self, flow: &FlowValue, protocol: u8) -> Option<i32>;
}

/// In place of what the program returns: nothing was done.
pub(crate) const LEFT: i32 = i32::MIN;

/// Sends the packet on its way; what the program has to return, or [`LEFT`]. A function of its own in the kernel, too: its
/// stack is not there any more on the long way, and that is verified once, and not for each place where this one gives up.
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
    let done = match at::<u16>(carrier, ETHERTYPE).map(|kind| *kind) {
        Some(Ipv4::ETHERTYPE) => step_of::<Ipv4, _>(carrier, hook),
        Some(Ipv6::ETHERTYPE) => step_of::<Ipv6, _>(carrier, hook),
        _ => None,
    };
    done.unwrap_or(LEFT)
}

const ETHERTYPE: usize = ETHERNET - 2;
/// Where a TCP header has its length, its flags and its checksum, and where a UDP header has that.
const TCP_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CHECK: usize = 16;
const UDP_CHECK: usize = 6;

/// A part of the packet. Helpers that write to packets make it stale.
///
/// Words are as wide as their place in a frame allows: the kernel has packets begin so that what follows an Ethernet header is
/// aligned (`NET_IP_ALIGN`), counts on that when it verifies programs, and refuses them where a machine could not do it.
#[inline(always)]
pub(crate) fn at<T>(carrier: &impl Carrier, offset: usize) -> Option<&'static mut T> {
    let (start, end) = carrier.bounds();
    if start + offset + size_of::<T>() > end {
        return None;
    }
    // SAFETY: the packet has so many bytes, as the kernel has seen us check; integers only are read.
    Some(unsafe { &mut *((start + offset) as *mut T) })
}

/// Flags of a TCP packet that neither opens nor closes.
#[inline(always)]
fn goes_on<H: Headers>(carrier: &impl Carrier) -> Option<u8> {
    let header: &mut [u8; 20] = at(carrier, ETHERNET + H::IP)?;
    let flags = header[TCP_FLAGS];
    (flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0).then_some(flags)
}

#[inline(always)]
fn step_of<H: Headers + 'static, C: Carrier>(carrier: &C, hook: Hook) -> Option<i32> {
    let packet: &mut H = at(carrier, ETHERNET)?;
    let protocol = packet.protocol()?;
    let flags = if protocol == TCP {
        goes_on::<H>(carrier)?
    } else {
        0
    };
    let hash = packet.hash(protocol);
    let revision = shortcuts::revision(hash);
    // Made before anybody looks into the flow table: what changes there meanwhile makes it another one.
    let stamp = shortcut::stamp::<H>(epoch(), revision, protocol, hook == Hook::Egress);
    let index = shortcuts::index(hash);
    let now = ticks();
    let holds = |way: &Shortcut| {
        way.stamp == stamp && packet.are_of(way) && shortcut::holds(way.until, now)
    };
    let mut way = shortcuts::get(index)?;
    if !holds(way) {
        way = shortcuts::get(index ^ 1)?;
        if !holds(way) {
            let packet: &mut H = at(carrier, ETHERNET)?;
            // Of the stack there is too little.
            let work = work()?;
            work.to = packet.key(protocol);
            let flow = find::<H>(&work.to, stamp)?;
            if flow.flags & FLOW_SENT_ON != 0 {
                if logic::client_packet(protocol, flow.state, flags) != flow.state {
                    return None;
                }
                let code = carrier.send_on::<H>(flow, protocol)?;
                count(Verdict::Forward);
                return Some(code);
            }
            way = fill::<H>(&work.to, flow, stamp, index, now)?;
        }
    }
    let packet: &mut H = at(carrier, ETHERNET)?;
    let length = packet.length();
    // What goes up the node's stack, or came from there, is not forwarded.
    if way.ifindex != 0 && packet.hops() <= 1 || !carrier.may_send::<H>(way, protocol, length) {
        return None;
    }
    packet.write(way);
    if way.flags & SHORTCUT_NEIGHBOUR != 0
        && let Some(addresses) = at(carrier, 0)
    {
        *addresses = way.ethernet;
    }
    let transport = ETHERNET + H::IP;
    let mended = if protocol == TCP {
        carrier.mend::<H>(way, transport + TCP_CHECK, TCP, length)
    } else {
        carrier.mend::<H>(way, transport + UDP_CHECK, UDP, length)
    };
    if mended.is_none() {
        count(Verdict::DroppedError);
        return Some(C::DROP);
    }
    count(if way.flags & SHORTCUT_REVERSE != 0 {
        Verdict::Reverse
    } else {
        Verdict::Forward
    });
    Some(carrier.send(way))
}

/// The entry of a plain packet in the flow table; `None` if the packet has to take the long way.
#[inline(never)]
fn find<H: Headers>(key: &FlowKey, stamp: u64) -> Option<&'static FlowValue> {
    // In an IPv6 packet such an address is none; an IPv4 flow must not be found by it.
    if !H::V4 && (key.src.is_v4() || key.dst.is_v4()) {
        return None;
    }
    let flow = FLOWS.get_ptr_mut(key)?;
    // SAFETY: what another CPU changes in an entry is never needed together with what it changed before.
    let flow: &FlowValue = unsafe { &*flow };
    let reverse = flow.flags & FLOW_REVERSE != 0;
    let node = flow.flags & FLOW_NODE != 0;
    let ours = (reverse && node) == shortcut::is_egress(stamp);
    let given_away = flow.flags & (FLOW_STACK | FLOW_HELD) != 0;
    let hop = &flow.hop;
    if !ours || given_away || hop.epoch == 0 || hop.epoch != shortcut::epoch(stamp) {
        return None;
    }
    let fresh = flows::now().wrapping_sub(flow.last_seen) <= TOUCH_INTERVAL_NS;
    (fresh && state::is_settled(key.protocol, flow.state, reverse)).then_some(flow)
}

/// Fills one of the two slots from there; `None` as above.
#[inline(never)]
fn fill<H: Headers>(
    key: &FlowKey,
    flow: &FlowValue,
    stamp: u64,
    index: u32,
    now: u32,
) -> Option<&'static mut Shortcut> {
    let mut way = shortcuts::get(index)?;
    if shortcut::holds(way.until, now) {
        way = shortcuts::get(index ^ 1)?;
    }
    let age = flows::now().wrapping_sub(flow.last_seen);
    let until = shortcut::until(now, age);
    shortcut::fill::<H>(way, key, flow, (stamp, until)).then_some(way)
}

#[inline(always)]
fn skb(ctx: &TcContext) -> *mut __sk_buff {
    ctx.as_ptr().cast()
}

/// What is put into a packet's `tc_index`, of which the kernel makes no use: the first letters of our name, in a number that
/// nobody else takes by chance.
const SENT: u32 = 0x5ea3;
/// The same, for a packet that the stack sends on for us, in fragments.
const CUT: u32 = 0x5ea4;

/// What a program has taken note of in the packet.
#[inline(always)]
fn noted(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel's context.
    unsafe { (*skb(ctx)).tc_index }
}

#[inline(always)]
fn note(ctx: &TcContext, what: u32) {
    // SAFETY: the kernel's context.
    unsafe { (*skb(ctx)).tc_index = what };
}

/// Takes note that a program sends the packet on. It is nobody's of this node then, and nothing is left to do as it leaves.
#[inline(always)]
pub(crate) fn mark_sent(ctx: &TcContext) {
    note(ctx, SENT);
}

/// Takes note that the stack sends the packet on for a program, which returns `TC_ACT_OK`: the kernel makes the note of the class then.
/// Fragments have it from their packet.
#[inline(always)]
pub(crate) fn mark_cut(ctx: &TcContext) {
    // SAFETY: the kernel's context.
    unsafe { (*skb(ctx)).tc_classid = CUT };
}

/// Forgets what another node in the same kernel, or a pod, has put there: what is forwarded by the stack here is taken note of.
#[inline(always)]
pub(crate) fn mark_arrived(ctx: &TcContext) {
    note(ctx, 0);
}

/// Whether a program has sent the packet on, in which case it is not from a socket here.
#[inline(always)]
pub(crate) fn is_sent(ctx: &TcContext) -> bool {
    noted(ctx) == SENT
}

/// Whether the stack sends the packet on for a program.
#[inline(always)]
pub(crate) fn is_cut(ctx: &TcContext) -> bool {
    noted(ctx) == CUT
}

/// Whether a packet fits a way, or the segments that will be cut from it do.
#[inline(always)]
fn fits<H: Headers>(ctx: &TcContext, protocol: u8, mtu: u16) -> bool {
    let most = u32::from(mtu);
    if ctx.len() <= most + ETHERNET as u32 {
        return true;
    }
    // SAFETY: the kernel's context.
    let gso = unsafe { (*skb(ctx)).gso_size };
    if gso == 0 {
        return false;
    }
    let header = if protocol == TCP {
        let offset = at::<u8>(ctx, ETHERNET + H::IP + TCP_OFFSET);
        offset.map_or(0, |offset| tcp_header(*offset))
    } else {
        UDP_HEADER
    };
    segment(gso, H::IP as u32 + header) <= most
}

impl Carrier for TcContext {
    const DROP: i32 = TC_ACT_SHOT;

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.data(), self.data_end())
    }

    #[inline(always)]
    fn may_send<H: Headers>(&self, way: &Shortcut, protocol: u8, _: u16) -> bool {
        way.ifindex == 0 || fits::<H>(self, protocol, way.mtu)
    }

    /// A checksum that cannot be the sum of the pseudo header alone is one of the packet, and mended here. Of the others only
    /// the kernel knows whether they are to be made when the packet leaves.
    #[inline(always)]
    fn mend<H: Headers>(&self, way: &Shortcut, at: usize, protocol: u8, length: u16) -> Option<()> {
        let check: &mut u16 = self::at(self, at)?;
        let before = *check;
        let none = protocol == UDP && before == 0;
        if !none && !plain::may_be_partial(way, before, length) {
            *check = plain::mend_whole(way, before, protocol);
            // Of use only where a card has summed up the whole packet.
            let all = u32::from(shortcut::in_all(way, H::V4));
            // SAFETY: the kernel's context.
            unsafe { bpf_csum_update(skb(self), all) };
            return Some(());
        }
        let addresses = u32::from(way.addresses);
        let zero = if protocol == UDP {
            u64::from(BPF_F_MARK_MANGLED_0)
        } else {
            0
        };
        let flags = u64::from(BPF_F_PSEUDO_HDR) | zero;
        self.l4_csum_replace(at, 0, u64::from(addresses), flags)
            .ok()?;
        if !H::V4 {
            // Nothing in an IPv6 header makes up for the change.
            let all = add(addresses, u32::from(way.header));
            // SAFETY: the kernel's context.
            unsafe { bpf_csum_update(skb(self), all) };
        }
        let check: &mut u16 = self::at(self, at)?;
        if !none {
            *check = plain::mend(way, before, *check, protocol);
        }
        Some(())
    }

    #[inline(always)]
    fn send(&self, way: &Shortcut) -> i32 {
        if way.ifindex == 0 {
            return PASS;
        }
        mark_sent(self);
        if way.flags & SHORTCUT_NEIGHBOUR != 0 {
            // SAFETY: a helper that takes numbers only.
            return unsafe { bpf_redirect(way.ifindex, 0) } as i32;
        }
        // SAFETY: no parameters: the helper asks the routing table for the next hop on that link.
        unsafe { bpf_redirect_neigh(way.ifindex, core::ptr::null_mut(), 0, 0) as i32 }
    }

    #[inline(always)]
    fn send_on<H: Headers>(&self, flow: &FlowValue, protocol: u8) -> Option<i32> {
        if !fits::<H>(self, protocol, flow.hop.mtu) || dsr::is_from_overlay(self) {
            return None;
        }
        dsr::send_on(self, flow, flow.hop.ifindex)
    }
}
