//! New addresses in a packet, and its checksums mended.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::programs::TcContext;
use seaway_ebpf_abi::{Addr, FlowKey, UDP, Verdict};
use seaway_ebpf_logic::checksum::add;
use seaway_ebpf_logic::nat;
use seaway_ebpf_logic::packet::{self, Bytes, ETHERNET, Packet, Part};

use crate::maps::Work;

/// Errors of helpers; which one it was helps nobody.
type Written = Result<(), i64>;

/// A frame that a program has been given.
pub(crate) struct Frame<'a>(pub(crate) &'a TcContext);

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.load(offset).ok()
    }
}

/// Translates a packet of a flow to the addresses in `to`.
#[inline(always)]
pub(crate) fn rewrite(ctx: &TcContext, work: &mut Work, forwarded: bool) -> Result<(), Verdict> {
    if forwarded && work.packet.hops <= 1 {
        return Err(Verdict::DroppedTtl);
    }
    let written = match work.packet.part {
        Part::Error => error(ctx, work, forwarded),
        _ => plain(ctx, work, forwarded),
    };
    match written {
        0 => Ok(()),
        _ => Err(Verdict::DroppedError),
    }
}

/// The same of what is no error. A function of its own in the kernel, too, with a stack of its
/// own, as the larger ones of the other modules.
///
/// Answers 0, or a negative number if that cannot be done.
#[inline(never)]
pub(crate) fn plain(ctx: &TcContext, work: &mut Work, forwarded: bool) -> i64 {
    let written = match work.packet.part {
        Part::Whole | Part::First => transport(ctx, &work.packet, &work.to),
        Part::Later | Part::Error => Ok(()),
    };
    let header = || header(ctx, &work.packet, &work.packet.key, &work.to, forwarded);
    match written.and_then(|()| header()) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

#[inline(always)]
fn transport(ctx: &TcContext, packet: &Packet, to: &FlowKey) -> Written {
    let differences = nat::differences(&packet.key, to);
    // A UDP checksum of zero means "none" (in IPv6 for tunnels, RFC 6935) and stays.
    let zero = if to.protocol == UDP {
        u64::from(BPF_F_MARK_MANGLED_0)
    } else {
        0
    };
    let at = packet.checksum();
    let addresses = u64::from(differences.addresses);
    ctx.l4_csum_replace(at, 0, addresses, zero | u64::from(BPF_F_PSEUDO_HDR))?;
    ctx.l4_csum_replace(at, 0, u64::from(differences.ports), zero)?;
    ctx.store(packet.transport, &[to.sport, to.dport], 0)
}

/// The IP header. An IPv4 header's checksum makes up for the change; in IPv6 the kernel has to be told, for cards that
/// summed up the whole packet.
#[inline(always)]
fn header(
    ctx: &TcContext,
    packet: &Packet,
    from: &FlowKey,
    to: &FlowKey,
    forwarded: bool,
) -> Written {
    if from.src.is_v4() {
        let was = (packet.hops, packet.protocol(), packet.check);
        let header = nat::ipv4_mutable(was, from, to, forwarded);
        return ctx.store(ETHERNET + nat::IPV4_MUTABLE, &header, 0);
    }
    let hops = nat::ipv6_hops(packet.hops, forwarded);
    let recompute = u64::from(BPF_F_RECOMPUTE_CSUM);
    ctx.store(ETHERNET + nat::IPV6_HOPS, &hops, recompute)?;
    let at = ETHERNET + nat::IPV6_ADDRESSES;
    ctx.store(at, addresses(to), recompute)
}

/// Source and destination as they stand in an IPv6 header.
#[inline(always)]
pub(crate) fn addresses(key: &FlowKey) -> &[Addr; 2] {
    // SAFETY: `repr(C)` puts the two addresses one behind the other at the beginning of the key.
    unsafe { &*core::ptr::from_ref(key).cast() }
}

/// An ICMP error: the packet that it quotes went the other way, and is translated back in there.
///
/// Answers 0, or a negative number if that cannot be done.
#[inline(never)]
fn error(ctx: &TcContext, work: &mut Work, forwarded: bool) -> i64 {
    match write_error(ctx, work, forwarded) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

#[inline(always)]
fn write_error(ctx: &TcContext, work: &mut Work, forwarded: bool) -> Written {
    let (packet, was) = (&work.packet, &mut work.other_key);
    let v4 = packet.key.src.is_v4();
    let quoted = packet::quoted(&Frame(ctx), packet.transport, v4, was).map_err(|_| 0)?;
    read_addresses(ctx, v4, &mut work.outer)?;
    work.outer_to = work.outer;
    nat::error_addresses(&mut work.outer_to, &packet.key, &work.to);
    work.to.swap();
    let inner = &work.to;
    let differences = nat::differences(was, inner);
    let at = packet.transport + 2;
    if v4 {
        // The quoted header's own checksum makes up for its addresses.
        let [_, _, header @ ..] = nat::ipv4_mutable((0, 0, quoted.check), was, inner, false);
        ctx.l4_csum_replace(at, 0, u64::from(differences.ports), 0)?;
        ctx.store(quoted.network + nat::IPV4_MUTABLE + 2, &header, 0)?;
    } else {
        let pseudo = nat::differences(&work.outer, &work.outer_to).addresses;
        let quote = add(differences.addresses, differences.ports);
        ctx.l4_csum_replace(at, 0, u64::from(pseudo), u64::from(BPF_F_PSEUDO_HDR))?;
        ctx.l4_csum_replace(at, 0, u64::from(quote), 0)?;
        ctx.store(quoted.network + nat::IPV6_ADDRESSES, addresses(inner), 0)?;
    }
    ctx.store(quoted.transport, &[inner.sport, inner.dport], 0)?;
    header(ctx, packet, &work.outer, &work.outer_to, forwarded)
}

/// Reads source and destination of the IP header.
#[inline(always)]
fn read_addresses(ctx: &TcContext, v4: bool, key: &mut FlowKey) -> Written {
    if v4 {
        let [src, dst]: [u32; 2] = ctx.load(ETHERNET + nat::IPV4_MUTABLE + 4)?;
        key.src = Addr::v4(src);
        key.dst = Addr::v4(dst);
    } else {
        key.src.words = ctx.load(ETHERNET + nat::IPV6_ADDRESSES)?;
        key.dst.words = ctx.load(ETHERNET + nat::IPV6_ADDRESSES + 16)?;
    }
    Ok(())
}
