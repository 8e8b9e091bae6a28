//! The maps, as `seaway_ebpf_abi::maps` names them. Sizes are defaults; the loader may set others.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use seaway_ebpf_abi::counters::COUNTERS_LEN;
use seaway_ebpf_abi::{
    BackendKey, BackendValue, Config, FlowKey, FlowValue, FrontendKey, FrontendValue, SocketKey,
    SocketValue, SteadyValue, Verdict,
};

/// Memory is taken as entries come: the tables of Services are mostly empty.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();
#[btf_map]
pub(crate) static FRONTENDS: HashMap<FrontendKey, FrontendValue, 65536, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static BACKENDS: HashMap<BackendKey, BackendValue, 262144, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static NODE_ADDRS: HashMap<u32, u32, 1024, ON_DEMAND> = HashMap::new();
#[btf_map]
pub(crate) static FLOWS: LruHashMap<FlowKey, FlowValue, 131072> = LruHashMap::new();
#[btf_map]
pub(crate) static SOCKETS_TCP: LruHashMap<SocketKey, SocketValue, 65536> = LruHashMap::new();
#[btf_map]
pub(crate) static SOCKETS_UDP: LruHashMap<SocketKey, SocketValue, 65536> = LruHashMap::new();
#[btf_map]
pub(crate) static STEADY: LruHashMap<SocketKey, SteadyValue, 65536> = LruHashMap::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { COUNTERS_LEN as usize }> = PerCpuArray::new();

/// The node's configuration. The map has one entry, always.
#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// Whether an address is one of the node's own.
#[inline(always)]
pub(crate) fn is_node_addr(addr: u32) -> bool {
    NODE_ADDRS.get_ptr(addr).is_some()
}

/// Counts a verdict.
#[inline(always)]
pub(crate) fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict as u32) {
        // SAFETY: a per-CPU slot, and programs are not preempted by themselves on one CPU.
        unsafe { *counter += 1 };
    }
}
