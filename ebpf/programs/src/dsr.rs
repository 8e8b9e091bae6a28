//! Direct server return: packets of clients outside, sent as they are to the node of their backend, and what arrives so from
//! other nodes. [`seaway_ebpf_abi::dsr`] says what is in the tunnel.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, BPF_FIB_LKUP_RET_SUCCESS,
    BPF_FIB_LOOKUP_SRC, TC_ACT_SHOT, bpf_tunnel_key as Tunnel,
};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::{bpf_loop, bpf_redirect, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key};
use aya_ebpf::programs::TcContext;
use seaway_ebpf_abi::config::CONFIG_DSR;
use seaway_ebpf_abi::dsr::{TUNNEL_BEGINNING, TUNNEL_BEGUN};
use seaway_ebpf_abi::flow::{FLOW_DIRECT, FLOW_FAR, FLOW_NODE_PORT, FLOW_SENT_ON};
use seaway_ebpf_abi::frontend::{BACKEND_LOCAL, BACKEND_POD};
use seaway_ebpf_abi::{
    Addr, BackendKey, BackendValue, Config, FlowKey, FlowValue, FrontendValue, Hop, TunnelValue,
    UDP, Verdict, VtepValue,
};
use seaway_ebpf_logic::decide::{self, Choice, Client};
use seaway_ebpf_logic::{dsr, flow as state};

use crate::events;
use crate::flows::{self, Origin, now};
use crate::maps::{BACKENDS, TUNNELS, VTEPS, Work, config, count, is_node_addr};
use crate::quick;
use crate::services::{self, Knock, Picked};
use crate::ways;

/// How a client outside is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// By this node, which the backend takes for the client where rules would have it so.
    Here,
    /// By the backend's node, which is another one.
    There,
    /// By this node, where the backend is and sees the client.
    Plain,
}

/// Who will answer a client.
#[inline(always)]
pub(crate) fn answer(
    config: &Config,
    frontend: &FrontendValue,
    client: Client,
    backend: &BackendValue,
) -> Answer {
    if config.flags & CONFIG_DSR == 0
        || client != Client::Far
        || !frontend.is_external()
        || backend.flags & BACKEND_POD == 0
    {
        return Answer::Here;
    }
    if backend.flags & BACKEND_LOCAL != 0 {
        return Answer::Plain;
    }
    let takes = |there: &TunnelValue| there.flags & TUNNEL_BEGINNING != 0;
    if config.overlay_ifindex != 0 && tunnel(&backend.addr).is_some_and(takes) {
        Answer::There
    } else {
        Answer::Here
    }
}

/// The node that an address is at.
#[inline(always)]
fn tunnel(addr: &Addr) -> Option<&'static TunnelValue> {
    // SAFETY: values are replaced, never changed in place, and read at once.
    TUNNELS.get(&Key::new(128, addr.words))
}

/// The node that packets of a flow are sent to as they are.
#[inline(always)]
pub(crate) fn taker(flow: &FlowValue) -> Option<&'static TunnelValue> {
    tunnel(&flow.dst).filter(|there| there.flags & TUNNEL_BEGUN != 0)
}

/// Whether the node of a flow's backend takes its packets no more. A way that is not there, as between two routes, says nothing.
#[inline(always)]
pub(crate) fn is_let_go(flow: &FlowValue) -> bool {
    tunnel(&flow.dst).is_some_and(|there| there.flags & TUNNEL_BEGUN == 0)
}

#[inline(always)]
fn skb(ctx: &TcContext) -> *mut __sk_buff {
    ctx.as_ptr().cast()
}

/// Whether the packet came in by the overlay.
#[inline(always)]
pub(crate) fn is_from_overlay(ctx: &TcContext) -> bool {
    // SAFETY: the kernel's context.
    let link = unsafe { (*skb(ctx)).ifindex };
    config().is_some_and(|config| config.overlay_ifindex == link)
}

/// The VNI that a packet of another node's client came with; 0 if it is an ordinary packet.
#[inline(never)]
pub(crate) fn vni(ctx: &TcContext) -> u32 {
    if !is_from_overlay(ctx) {
        return 0;
    }
    // SAFETY: all zeroes are a valid value of this struct of integers.
    let mut key: Tunnel = unsafe { core::mem::zeroed() };
    let size = size_of::<Tunnel>() as u32;
    // SAFETY: the kernel's context, and room of the size given.
    let mut read = |flags| unsafe { bpf_skb_get_tunnel_key(skb(ctx), &raw mut key, size, flags) };
    if read(0) != 0 && read(u64::from(BPF_F_TUNINFO_IPV6)) != 0 {
        return 0;
    }
    if dsr::is_vni(key.tunnel_id) {
        key.tunnel_id
    } else {
        0
    }
}

/// Opens a flow that is sent on: without an entry for replies, which go another way.
#[inline(never)]
pub(crate) fn open(work: &mut Work, knock: &Knock, picked: &Picked) -> u32 {
    let key = &work.packet.key;
    let node_port = if knock.key.addr.is_unspecified() {
        FLOW_NODE_PORT
    } else {
        0
    };
    work.flow = FlowValue {
        last_seen: now(),
        src: key.src,
        dst: picked.backend.addr,
        sport: key.sport,
        dport: picked.backend.port,
        ifindex: 0,
        set: picked.set,
        state: dsr::client_packet(key.protocol, 0, work.packet.tcp_flags),
        flags: FLOW_SENT_ON | FLOW_FAR | node_port,
        pad: [0; 2],
        hop: Hop::default(),
    };
    u32::from(flows::keep(work).is_ok())
}

/// Has the packet of a flow leave by the overlay, to the node of its backend; what the program returns.
#[inline(always)]
pub(crate) fn send_on(ctx: &TcContext, flow: &FlowValue, overlay: u32) -> Option<i32> {
    let there = taker(flow)?;
    let backend = BackendValue {
        addr: flow.dst,
        port: flow.dport,
        flags: 0,
    };
    // SAFETY: all zeroes are a valid value of this struct of integers.
    let mut key: Tunnel = unsafe { core::mem::zeroed() };
    key.tunnel_id = dsr::vni(&backend);
    key.tunnel_ttl = HOPS;
    let flags = if there.remote.is_v4() {
        // As packets of the overlay's routes: what is inside has its own checksum.
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(there.remote.words[3]);
        BPF_F_ZERO_CSUM_TX
    } else {
        key.__bindgen_anon_1.remote_ipv6 = there.remote.words;
        BPF_F_TUNINFO_IPV6
    };
    let size = size_of::<Tunnel>() as u32;
    // SAFETY: the kernel's context, and a key of the size given.
    if unsafe { bpf_skb_set_tunnel_key(skb(ctx), &raw mut key, size, u64::from(flags)) } != 0 {
        return None;
    }
    count(Verdict::SentOn);
    quick::mark_sent(ctx);
    // SAFETY: a helper that takes numbers only.
    Some(unsafe { bpf_redirect(overlay, 0) } as i32)
}

/// Takes note of the way to the node of the flow's backend, for [`crate::encap`]. Without the source (before Linux 6.7) there is none.
#[inline(never)]
pub(crate) fn learn(ctx: &TcContext, work: &mut Work) {
    let Some(there) = taker(&work.flow) else {
        return;
    };
    if !there.remote.is_v4() {
        return;
    }
    work.to = FlowKey {
        src: Addr::ANY_V4,
        dst: there.remote,
        protocol: UDP,
        ..FlowKey::default()
    };
    // SAFETY: the kernel's context.
    let link = unsafe { (*skb(ctx)).ifindex };
    if ways::look_up(ctx, work, link, BPF_FIB_LOOKUP_SRC, 0) != BPF_FIB_LKUP_RET_SUCCESS {
        return;
    }
    // SAFETY: the look-up has put an IPv4 address there.
    let local = unsafe { work.fib.__bindgen_anon_3.ipv4_src };
    let way = VtepValue {
        local: Addr::v4(local),
        hop: Hop {
            epoch: work.epoch,
            ..ways::known(&work.fib)
        },
    };
    // SAFETY: compared at once; what is torn differs.
    if unsafe { VTEPS.get(work.to.dst) }
        .is_none_or(|known| known.hop.epoch != way.hop.epoch || *known != way)
    {
        // A full LRU map makes room by itself.
        let _ = VTEPS.insert(work.to.dst, way, 0);
    }
}

/// Of the outer packet.
const HOPS: u8 = 64;

/// A packet of another node's client that has no flow here: opens it, with the backend of this node that is meant. A
/// `bool` as a number: whether the packet goes on to the backend.
#[inline(never)]
pub(crate) fn receive(ctx: &TcContext, work: &mut Work, vni: u32) -> u32 {
    let key = &work.packet.key;
    if !state::may_open(key.protocol, work.packet.tcp_flags) {
        count(Verdict::UnknownConnection);
        return 0;
    }
    // The address of a node port is the other node's.
    let asked = services::exact(key.dst, key.dport, key.protocol)
        .or_else(|| services::exact(key.dst.any(), key.dport, key.protocol));
    let Some(asked) = asked else {
        count(Verdict::DroppedNoLocal);
        return 0;
    };
    work.frontend = asked.key;
    let mut picked = Picked::default();
    if !find(&asked.value, vni, &mut picked) {
        // It has left the Service, or we have not heard of it: the client tries again.
        events::at_frontend(work, Client::Far, Verdict::DroppedNoLocal);
        return 0;
    }
    // SAFETY: the kernel's context.
    let ifindex = unsafe { (*skb(ctx)).ifindex };
    let origin = Origin {
        ifindex,
        is_pod: false,
        client: Client::Far,
        keeps_source: true,
        flags: FLOW_DIRECT,
    };
    match flows::open(work, &asked, &picked, &origin) {
        Ok(()) => {
            events::of_flow(work, Verdict::NewFlow);
            1
        }
        Err(verdict) => {
            events::of_flow(work, verdict);
            0
        }
    }
}

/// Drops what is left of packets of other nodes' clients: to the stack they would be packets for somebody else.
#[inline(always)]
pub(crate) fn stray(ctx: &TcContext, code: i32) -> i32 {
    if is_from_overlay(ctx) && vni(ctx) != 0 {
        TC_ACT_SHOT
    } else {
        code
    }
}

/// The backend of this node that a VNI means. Linear in the size of the set, and only for the first packet of a flow.
#[inline(always)]
fn find(frontend: &FrontendValue, vni: u32, picked: &mut Picked) -> bool {
    let Choice::Set { set, count } = decide::choose(frontend, Client::Far) else {
        return false;
    };
    let mut search = Search {
        picked: &raw mut *picked,
        set,
        vni,
        found: 0,
    };
    // SAFETY: the callback has the signature that bpf_loop wants and its context outlives the call.
    unsafe {
        bpf_loop(
            count,
            compare as *const () as *mut c_void,
            (&raw mut search).cast(),
            0,
        )
    };
    search.found != 0
}

#[repr(C)]
struct Search {
    picked: *mut Picked,
    set: u32,
    vni: u32,
    found: u32,
}

unsafe extern "C" fn compare(slot: u32, search: *mut c_void) -> i64 {
    // SAFETY: `find` passes a `Search` that lives for the whole of bpf_loop.
    let search = unsafe { &mut *search.cast::<Search>() };
    let key = BackendKey {
        set: search.set,
        slot,
    };
    // SAFETY: slots of a set never change.
    if let Some(backend) = unsafe { BACKENDS.get(key) }
        && backend.flags & BACKEND_LOCAL != 0
        && dsr::vni(backend) == search.vni
        && !is_node_addr(&backend.addr)
    {
        // SAFETY: as `search`.
        unsafe {
            *search.picked = Picked {
                backend: *backend,
                set: search.set,
            };
        }
        search.found = 1;
        return 1;
    }
    0
}
