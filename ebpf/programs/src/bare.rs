//! Links whose packets have no Ethernet header (tun, WireGuard, IPIP). What comes in by one gets a header, so that the programs
//! behind see what they know; on the way up the stack nobody looks at it. What leaves by one is looked at without; only what has to be
//! translated gets a header for that, and is sent once more, since the kernel takes a header off no other way.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_skb_change_head;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use seaway_ebpf_logic::packet::{Bytes, ETHERNET};
use seaway_ebpf_logic::plain::{Headers as _, Ipv4, Ipv6};

use crate::maps::{is_node_addr, work};
use crate::pods::ETHERTYPE;
use crate::tc::{self, PASS};
use crate::{cut, pods, quick};

#[inline(always)]
fn skb(ctx: &TcContext) -> *mut __sk_buff {
    ctx.as_ptr().cast()
}

/// What would stand in the header.
#[inline(always)]
fn kind(ctx: &TcContext) -> u16 {
    // SAFETY: the kernel's context, which has these sixteen bits in a larger word.
    unsafe { (*skb(ctx)).protocol as u16 }
}

/// Puts a header in front; 0 if it cannot be, or if that is no IP packet.
#[inline(never)]
fn frame(ctx: &TcContext) -> u32 {
    let kind = kind(ctx);
    if kind != Ipv4::ETHERTYPE && kind != Ipv6::ETHERTYPE {
        return 0;
    }
    // SAFETY: the kernel's context; nothing points into the packet.
    if unsafe { bpf_skb_change_head(skb(ctx), ETHERNET as u32, 0) } != 0 {
        return 0;
    }
    u32::from(ctx.store(ETHERTYPE, &kind, 0).is_ok())
}

/// A packet without its header, read as if it had one.
struct Bare<'a>(&'a TcContext);

impl Bytes for Bare<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset < ETHERNET {
            let mut bytes = [0; N];
            let kind = kind(self.0).to_ne_bytes();
            // Nothing else of the header is asked for.
            for (byte, value) in bytes.iter_mut().zip(kind) {
                *byte = value;
            }
            return Some(bytes);
        }
        self.0.load(offset - ETHERNET).ok()
    }
}

/// Comes before the program that belongs to the link.
#[classifier]
pub fn from_bare(ctx: TcContext) -> i32 {
    let _ = frame(&ctx);
    PASS
}

/// In the place of [`tc::to_link`].
#[classifier]
pub fn to_bare(ctx: TcContext) -> i32 {
    if quick::is_sent(&ctx) {
        return PASS;
    }
    if quick::is_cut(&ctx) {
        if frame(&ctx) == 0 {
            return pods::broken();
        }
        return again(&ctx, cut::leaves(&ctx));
    }
    let Some(work) = work() else {
        return PASS;
    };
    if !tc::take_in(work, &Bare(&ctx), true) {
        return PASS;
    }
    if !is_node_addr(&work.packet.key.src) {
        pods::leaves(work);
        return PASS;
    }
    if !tc::is_from_node(work) {
        return PASS;
    }
    if frame(&ctx) == 0 {
        return pods::broken();
    }
    again(&ctx, tc::answer_of_node(&ctx, work))
}

/// Sends a packet that has got a header, unless it ends here.
#[inline(always)]
fn again(ctx: &TcContext, code: i32) -> i32 {
    if code != PASS {
        return code;
    }
    // SAFETY: the kernel's context.
    tc::send(ctx, unsafe { (*skb(ctx)).ifindex })
}
