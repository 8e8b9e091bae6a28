//! The maps, as `seaway_ebpf_abi::maps` names them. Sizes are defaults; the loader may set others.

use aya_ebpf::bindings::{
    BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST, bpf_fib_lookup as FibLookup,
};
use aya_ebpf::btf_maps::{
    Array, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf,
};
use aya_ebpf::macros::btf_map;
use seaway_ebpf_abi::counters::COUNTERS_LEN;
use seaway_ebpf_abi::event::EVENTS_LEN;
use seaway_ebpf_abi::pod::{PEERS_LEN, POD_LINKS_LEN, PODS_LEN};
use seaway_ebpf_abi::shortcut::REVISIONS_LEN;
use seaway_ebpf_abi::{
    Addr, AffinityKey, AffinityValue, BackendKey, BackendValue, Config, Event, FlowKey, FlowValue,
    FragmentKey, FragmentValue, FrontendKey, FrontendValue, Listener, MaglevChunk, MaglevKey,
    NODE_ADDR_LOCAL, PeerValue, PeerWay, PodLink, PodValue, Shortcut, SocketKey, SocketValue,
    SteadyValue, TunnelValue, Verdict, VtepValue,
};
use seaway_ebpf_logic::packet::Packet;

use crate::{cut, refuse};

/// Nobody maps it; but then it lies in pages of its own, so that a slot is in two lines of a cache and not in three.
const IN_PAGES: usize = BPF_F_MMAPABLE as usize;
/// Memory is taken as entries come: the tables of Services are mostly empty.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();
#[btf_map]
static EPOCH: Array<u32, 1> = Array::new();
#[btf_map]
pub(crate) static FRONTENDS: HashMap<FrontendKey, FrontendValue, 65536, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static BACKENDS: HashMap<BackendKey, BackendValue, 262144, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static MAGLEV: HashMap<MaglevKey, MaglevChunk, 65536, ON_DEMAND> = HashMap::new();
/// Keys are those of [`seaway_ebpf_abi::RangeKey`] behind the prefix.
#[btf_map]
pub(crate) static RANGES: LpmTrie<[u32; 5], u32, 65536> = LpmTrie::new();
#[btf_map]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, AffinityValue, 65536> = LruHashMap::new();
/// Every pod's link may have a link-local address.
#[btf_map]
static NODE_ADDRS: HashMap<Addr, u32, 16384, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static FLOWS: LruHashMap<FlowKey, FlowValue, 131072> = LruHashMap::new();
#[btf_map]
pub(crate) static SHORTCUTS: Array<Shortcut, 65536, IN_PAGES> = Array::new();
#[btf_map]
pub(crate) static REVISIONS: Array<u32, { REVISIONS_LEN as usize }> = Array::new();
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue, 4096> = LruHashMap::new();
#[btf_map]
pub(crate) static SOCKETS_TCP: LruHashMap<SocketKey, SocketValue, 65536> = LruHashMap::new();
#[btf_map]
pub(crate) static SOCKETS_UDP: LruHashMap<SocketKey, SocketValue, 65536> = LruHashMap::new();
#[btf_map]
pub(crate) static STEADY: LruHashMap<SocketKey, SteadyValue, 65536> = LruHashMap::new();
#[btf_map]
static UNTRANSLATED: HashMap<u64, u32, 16384, ON_DEMAND> = HashMap::new();
/// Keys are those of [`seaway_ebpf_abi::TunnelKey`] behind the prefix.
#[btf_map]
pub(crate) static TUNNELS: LpmTrie<[u32; 4], TunnelValue, 65536> = LpmTrie::new();
#[btf_map]
pub(crate) static VTEPS: LruHashMap<Addr, VtepValue, 4096> = LruHashMap::new();
#[btf_map]
pub(crate) static XDP_LINKS: DevMapHash<1024> = DevMapHash::new();
#[btf_map]
pub(crate) static PODS: HashMap<Addr, PodValue, { PODS_LEN as usize }, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static POD_LINKS: Array<PodLink, { POD_LINKS_LEN as usize }> = Array::new();
/// Keys are those of [`seaway_ebpf_abi::TunnelKey`] behind the prefix.
#[btf_map]
pub(crate) static PEERS: LpmTrie<[u32; 4], PeerValue, { PEERS_LEN as usize }> = LpmTrie::new();
#[btf_map]
pub(crate) static PEER_WAYS: LruHashMap<u32, PeerWay, 4096> = LruHashMap::new();
#[btf_map]
pub(crate) static DETOURS: LruHashMap<FlowKey, u32, 32768> = LruHashMap::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { COUNTERS_LEN as usize }> = PerCpuArray::new();
#[btf_map]
pub(crate) static TALLIES: PerCpuHashMap<FrontendKey, u64, 131072, ON_DEMAND> =
    PerCpuHashMap::new();
#[btf_map]
pub(crate) static LISTENER: Array<Listener, 1> = Array::new();
#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, { EVENTS_LEN as usize }> = RingBuf::new();

/// The node's configuration. The map has one entry, always.
#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// What was found in an epoch other than this one has to be looked up anew; 0 before there is one.
#[inline(always)]
pub(crate) fn epoch() -> u32 {
    EPOCH.get(0).copied().unwrap_or(0)
}

/// The `NODE_ADDR_*` bits of an address.
#[inline(always)]
pub(crate) fn node_addr(addr: &Addr) -> u32 {
    // SAFETY: a word, copied at once.
    unsafe { NODE_ADDRS.get(addr) }.copied().unwrap_or(0)
}

/// Whether an address is one of the node's own.
#[inline(always)]
pub(crate) fn is_node_addr(addr: &Addr) -> bool {
    node_addr(addr) & NODE_ADDR_LOCAL != 0
}

/// Whether sockets of the network namespace with this cookie are left untranslated.
#[inline(always)]
pub(crate) fn is_untranslated(namespace: u64) -> bool {
    // SAFETY: nothing is read.
    unsafe { UNTRANSLATED.get(namespace) }.is_some()
}

/// Counts a verdict.
#[inline(always)]
pub(crate) fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict as u32) {
        // SAFETY: a per-CPU slot, and programs are not preempted by themselves on one CPU.
        unsafe { *counter += 1 };
    }
}

/// Writes an entry of a table that makes room by itself. What is added is counted, so that what the table pushed out can be told.
#[inline(always)]
pub(crate) fn put<K, V, const N: usize>(
    table: &LruHashMap<K, V, N>,
    key: &K,
    value: &V,
    added: Verdict,
) -> bool {
    if table.insert(key, value, u64::from(BPF_NOEXIST)).is_ok() {
        count(added);
        return true;
    }
    table.insert(key, value, 0).is_ok()
}

/// How often this CPU has changed a place in the flow table.
#[btf_map]
pub(crate) static CHANGES: PerCpuArray<u32, 1> = PerCpuArray::new();

/// What a classifier has in hand. A program's stack (512 bytes) is too small for all of it.
pub(crate) struct Work {
    pub(crate) packet: Packet,
    /// Of a later fragment whose first one went to the stack, to be cut: not 0.
    pub(crate) cut: u32,
    /// As of before anything was looked up.
    pub(crate) epoch: u32,
    /// The flow of the packet, as the table has it under the packet's key.
    pub(crate) flow: FlowValue,
    /// The packet's addresses after translation.
    pub(crate) to: FlowKey,
    /// The other entry of the flow.
    pub(crate) other_key: FlowKey,
    pub(crate) other: FlowValue,
    pub(crate) fib: FibLookup,
    /// Addresses of an ICMP error, before and after translation.
    pub(crate) outer: FlowKey,
    pub(crate) outer_to: FlowKey,
    /// Where a packet without a flow knocked.
    pub(crate) frontend: FrontendKey,
    /// What is told of the flow: the client's addresses, before and after translation.
    pub(crate) asked: FlowKey,
    pub(crate) got: FlowKey,
    pub(crate) record: cut::Record,
    /// The answer to a packet that is refused.
    pub(crate) reply: [u8; refuse::LONGEST],
}

#[btf_map]
static WORK: PerCpuArray<Work, 1> = PerCpuArray::new();

/// This CPU's piece of work.
#[inline(always)]
pub(crate) fn work() -> Option<&'static mut Work> {
    let work = WORK.get_ptr_mut(0)?;
    // SAFETY: programs of one CPU run one after the other, with its softirqs held off; each takes this once at a time.
    Some(unsafe { &mut *work })
}
