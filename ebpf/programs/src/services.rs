//! From an address to a frontend, from a frontend to a backend.

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_loop};
use seaway_ebpf_abi::frontend::RANGE_BITS;
use seaway_ebpf_abi::{
    Addr, AffinityKey, AffinityValue, BackendKey, BackendValue, FrontendKey, FrontendValue,
    NODE_ADDR_NODE_PORTS, Verdict,
};
use seaway_ebpf_logic::decide::{self, Choice, Client};

use crate::flows::now;
use crate::maps::{AFFINITY, BACKENDS, FRONTENDS, RANGES, count, node_addr};

/// What a client knocked at.
#[derive(Clone, Copy)]
pub(crate) struct Knock {
    /// As it stands in the map: with address 0 for a node port.
    pub(crate) key: FrontendKey,
    pub(crate) value: FrontendValue,
}

/// A backend, and the set it was taken from.
#[derive(Clone, Copy)]
pub(crate) struct Picked {
    pub(crate) backend: BackendValue,
    pub(crate) set: u32,
}

/// Why there is no backend.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    Reject,
    Drop,
}

#[inline(always)]
pub(crate) fn frontend(key: &FrontendKey) -> Option<FrontendValue> {
    // SAFETY: values are replaced, never changed in place, and the copy is taken at once.
    unsafe { FRONTENDS.get(key) }.copied()
}

/// The frontend of an address of a Service.
#[inline(always)]
pub(crate) fn exact(addr: Addr, port: u16, protocol: u8) -> Option<Knock> {
    let key = FrontendKey {
        addr,
        port,
        protocol,
        pad: 0,
    };
    frontend(&key).map(|value| Knock { key, value })
}

/// The frontend of an address of a Service or of the node.
#[inline(always)]
pub(crate) fn find(addr: &Addr, port: u16, protocol: u8) -> Option<Knock> {
    if addr.is_unspecified() {
        return None;
    }
    match exact(*addr, port, protocol) {
        None if node_addr(addr) & NODE_ADDR_NODE_PORTS != 0 => exact(addr.any(), port, protocol),
        found => found,
    }
}

/// What refuses all that a cluster IP has no frontend for.
#[inline(always)]
pub(crate) fn refused(addr: &Addr) -> Option<Knock> {
    exact(*addr, 0, 0)
}

/// Whether a client may come from that address.
#[inline(always)]
pub(crate) fn admits(frontend: &FrontendValue, source: &Addr) -> bool {
    let [a, b, c, d] = source.words;
    let key = Key::new(RANGE_BITS + 128, [frontend.ranges, a, b, c, d]);
    frontend.ranges == 0 || RANGES.get(&key).is_some()
}

/// Picks a backend: the one that the client had, where it is remembered, or one at random.
///
/// A slot may be missing if the frontend moved on to a new set in the meantime: then its entry is read once more.
#[inline(never)]
pub(crate) fn pick(knock: &Knock, client: Client, who: &Addr) -> Result<Picked, Refusal> {
    let mut value = knock.value;
    let mut attempt = 0;
    while attempt < 2 {
        let (set, size) = match decide::choose(&value, client) {
            Choice::Set { set, count } => (set, count),
            Choice::Reject => return Err(Refusal::Reject),
            Choice::Drop => return Err(Refusal::Drop),
        };
        if value.affinity_timeout != 0
            && let Some(backend) = remembered(&value, who, set, size)
        {
            return Ok(Picked { backend, set });
        }
        // SAFETY: a helper without arguments.
        let random = unsafe { bpf_get_prandom_u32() };
        // SAFETY: slots of a set never change; the copy is taken at once.
        if let Some(backend) = unsafe { BACKENDS.get(decide::slot(set, size, random)) } {
            let backend = *backend;
            if value.affinity_timeout != 0 {
                remember(&value, who, &backend);
            }
            return Ok(Picked { backend, set });
        }
        let Some(again) = frontend(&knock.key) else {
            return Err(Refusal::Reject);
        };
        value = again;
        attempt += 1;
    }
    count(Verdict::SlotMissing);
    Err(Refusal::Drop)
}

/// The backend that a client had, if it is not too long ago and the set still has it; from now on anew.
#[inline(always)]
fn remembered(frontend: &FrontendValue, who: &Addr, set: u32, size: u32) -> Option<BackendValue> {
    let key = AffinityKey {
        affinity: frontend.affinity,
        client: *who,
    };
    // SAFETY: copied at once; a torn read could only give a backend that is not in the set.
    let known = unsafe { AFFINITY.get(key) }.copied()?;
    if !decide::is_remembered(frontend, &known, now()) {
        return None;
    }
    let slot = slot_of(set, size, &known.addr, known.port)?;
    // SAFETY: slots of a set never change; the copy is taken at once.
    let backend = unsafe { BACKENDS.get(BackendKey { set, slot }) }.copied()?;
    remember(frontend, who, &backend);
    count(Verdict::AffinityKept);
    Some(backend)
}

#[inline(always)]
fn remember(frontend: &FrontendValue, who: &Addr, backend: &BackendValue) {
    let key = AffinityKey {
        affinity: frontend.affinity,
        client: *who,
    };
    let value = AffinityValue {
        last_used: now(),
        addr: backend.addr,
        port: backend.port,
        pad: [0; 6],
    };
    // A full LRU map makes room by itself; a failure costs the client its steadiness only.
    let _ = AFFINITY.insert(key, value, 0);
}

#[repr(C)]
struct Search {
    set: u32,
    /// The slot, once found.
    found: u32,
    addr: Addr,
    port: u32,
}

const NOT_FOUND: u32 = u32::MAX;

unsafe extern "C" fn compare(slot: u32, search: *mut c_void) -> i64 {
    // SAFETY: `slot_of` passes a `Search` that lives for the whole of bpf_loop.
    let search = unsafe { &mut *search.cast::<Search>() };
    let key = BackendKey {
        set: search.set,
        slot,
    };
    // SAFETY: slots of a set never change.
    if let Some(backend) = unsafe { BACKENDS.get(key) }
        && backend.addr.same(&search.addr)
        && u32::from(backend.port) == search.port
    {
        search.found = slot;
        return 1;
    }
    0
}

/// Where in a set a backend is. Linear, but only asked of flows whose set has been replaced, and of clients that are
/// remembered.
#[inline(always)]
fn slot_of(set: u32, size: u32, addr: &Addr, port: u16) -> Option<u32> {
    let mut search = Search {
        set,
        found: NOT_FOUND,
        addr: *addr,
        port: u32::from(port),
    };
    // SAFETY: the callback has the signature that bpf_loop wants and its context outlives the call.
    unsafe {
        bpf_loop(
            size,
            compare as *const () as *mut c_void,
            (&raw mut search).cast(),
            0,
        )
    };
    (search.found != NOT_FOUND).then_some(search.found)
}

/// Whether a backend belongs to a set.
#[inline(always)]
pub(crate) fn serves(set: u32, size: u32, addr: &Addr, port: u16) -> bool {
    slot_of(set, size, addr, port).is_some()
}
