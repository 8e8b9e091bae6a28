//! Packets that are too large for their way and may be cut: the stack sends them, which can.
//!
//! It is given the packet with its new destination alone: with a new source, which is an address of this node or of a Service, it would
//! take it for a martian (`fib_validate_source`). The new source comes as the fragments leave, in the place of whatever rules of the node have put there.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value would be copied to the stack, which is too small"
)]

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::{bpf_loop, bpf_skb_change_type};
use aya_ebpf::programs::TcContext;
use seaway_ebpf_abi::flow::FLOW_DIRECT;
use seaway_ebpf_abi::{Addr, FragmentKey, FragmentValue, Verdict};
use seaway_ebpf_logic::packet::Part;
use seaway_ebpf_logic::size::nth_id;

use crate::maps::{FRAGMENTS, Work, count, work};
use crate::pods::PACKET_HOST;
use crate::rewrite::plain;
use crate::tc::{self, PASS};
use crate::{flows, fragments, quick};

/// Of fragments as they leave.
#[inline(always)]
const fn key(dst: Addr, id: u32, protocol: u8) -> FragmentKey {
    FragmentKey {
        src: Addr::ANY_V4,
        dst,
        id,
        protocol,
        pad: [0; 3],
    }
}

/// Gives the stack a packet of a flow that is translated to `to`; what the program returns, or why it cannot be.
#[inline(always)]
pub(crate) fn hand_over(ctx: &TcContext, work: &mut Work) -> Result<i32, Verdict> {
    if work.packet.hops <= 1 {
        return Err(Verdict::DroppedTtl);
    }
    record(ctx, work);
    work.to.src = work.packet.key.src;
    work.to.sport = work.packet.key.sport;
    if plain(ctx, work, false) != 0 {
        return Err(Verdict::DroppedError);
    }
    if work.flow.flags & FLOW_DIRECT != 0 {
        // The frame is for the node where the client came in; to our stack it would be somebody else's.
        // SAFETY: the kernel's context.
        unsafe { bpf_skb_change_type(ctx.as_ptr().cast(), PACKET_HOST) };
    }
    quick::mark_cut(ctx);
    count(Verdict::Cut);
    Ok(TC_ACT_OK)
}

/// What is written down of a packet that the stack cuts. A program's stack is too small for it.
pub(crate) struct Record {
    key: FragmentKey,
    value: FragmentValue,
}

/// Writes down for the fragments that follow where they belong, and for what leaves which source it gets. A function in the kernel,
/// too, for its stack.
#[inline(never)]
fn record(ctx: &TcContext, work: &mut Work) {
    let (packet, to, record) = (&work.packet, &work.to, &mut work.record);
    record.value = FragmentValue {
        seen: flows::now(),
        sport: packet.key.sport,
        dport: packet.key.dport,
        source: to.src.words[3],
    };
    if packet.part == Part::First {
        record.key = fragments::key(packet);
        let _ = FRAGMENTS.insert(&record.key, &record.value, 0);
    }
    record.key = key(to.dst, packet.fragment, to.protocol);
    record.value.sport = to.sport;
    let first = packet.fragment;
    let mut all = All {
        work: &raw mut *work,
        first,
    };
    // SAFETY: the kernel's context.
    let segments = unsafe { (*ctx.as_ptr().cast::<__sk_buff>()).gso_segs };
    // SAFETY: the callback has the signature that bpf_loop wants and its context outlives the call.
    unsafe {
        bpf_loop(
            segments.max(1),
            record_one as *const () as *mut c_void,
            (&raw mut all).cast(),
            0,
        )
    };
}

#[repr(C)]
struct All {
    work: *mut Work,
    /// The identification of the packet, and of its first segment.
    first: u32,
}

unsafe extern "C" fn record_one(segment: u32, all: *mut c_void) -> i64 {
    // SAFETY: `record` passes an `All` that lives for the whole of bpf_loop.
    let all = unsafe { &mut *all.cast::<All>() };
    // SAFETY: `record` has the work from its caller, and leaves it to us for as long.
    let record = unsafe { &mut (*all.work).record };
    record.key.id = nth_id(all.first, segment);
    // A full LRU map makes room by itself; what is not found is dropped as it leaves.
    let _ = FRAGMENTS.insert(&record.key, &record.value, 0);
    0
}

/// A fragment leaves, or a packet that the stack did not have to cut.
#[inline(never)]
pub(crate) fn leaves(ctx: &TcContext) -> i32 {
    // What is put around it for a tunnel is not for us.
    quick::mark_sent(ctx);
    let done = work().ok_or(Verdict::DroppedError);
    match done.and_then(|work| put_source(ctx, work)) {
        Ok(()) => PASS,
        Err(verdict) => {
            count(verdict);
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
fn put_source(ctx: &TcContext, work: &mut Work) -> Result<(), Verdict> {
    if tc::read(ctx, work, 0) == 0 {
        return Err(Verdict::DroppedError);
    }
    let packet = &work.packet;
    let key = key(packet.key.dst, packet.fragment, packet.key.protocol);
    // SAFETY: copied at once.
    let Some(new) = (unsafe { FRAGMENTS.get(key) }).copied() else {
        return Err(Verdict::DroppedTooLarge);
    };
    work.to = work.packet.key;
    work.to.src = Addr::v4(new.source);
    work.to.sport = new.sport;
    match plain(ctx, work, false) {
        0 => Ok(()),
        _ => Err(Verdict::DroppedError),
    }
}
