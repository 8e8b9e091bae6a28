//! From an address to a frontend, from a frontend to a backend.

use core::hint::black_box;

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_loop};
use seaway_ebpf_abi::frontend::{FRONTEND_MAGLEV, RANGE_BITS};
use seaway_ebpf_abi::{
    Addr, AffinityKey, AffinityValue, BackendKey, BackendValue, FrontendKey, FrontendValue,
    MaglevKey, NODE_ADDR_NODE_PORTS, Verdict,
};
use seaway_ebpf_logic::decide::{self, Choice, Client};
use seaway_ebpf_logic::spread;

use crate::flows::now;
use crate::maps::{AFFINITY, BACKENDS, FRONTENDS, MAGLEV, RANGES, config, count, node_addr, put};

/// What a client knocked at.
#[derive(Clone, Copy)]
pub(crate) struct Knock {
    /// As it stands in the map: with address 0 for a node port.
    pub(crate) key: FrontendKey,
    pub(crate) value: FrontendValue,
}

/// A backend, and the set it was taken from.
#[derive(Clone, Copy, Default)]
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

/// The port of a client that has none yet: a socket that connects. Its flow has no hash, so that it gets any backend even where
/// a table is asked for; no other node ever sees this flow at the frontend.
pub(crate) const NO_PORT: u32 = u32::MAX;

/// Picks a backend: the one that the client had, where it is remembered; else by hash or at random, as the frontend asks.
///
/// A slot may be missing if the frontend moved on to a new set in the meantime: then its entry is read once more.
#[inline(always)]
pub(crate) fn pick(
    knock: &mut Knock,
    client: Client,
    who: &Addr,
    port: u32,
    picked: &mut Picked,
) -> Result<(), Refusal> {
    match pick_into(knock, client, who, port, picked) {
        PICKED => Ok(()),
        REJECT => Err(Refusal::Reject),
        _ => Err(Refusal::Drop),
    }
}

const PICKED: u32 = 0;
const REJECT: u32 = 1;
const DROP: u32 = 2;

/// A function in the kernel as well, and so are those that it calls: the stacks of a packet's way lie upon each other, and have
/// 512 bytes. It returns a number: with a larger result the compiler leaves whatever it likes in the register
/// of the result, and the verifier takes no address there.
#[inline(never)]
fn pick_into(knock: &mut Knock, client: Client, who: &Addr, port: u32, picked: &mut Picked) -> u32 {
    let mut attempt = 0;
    while attempt < 2 {
        let (set, size) = match decide::choose(&knock.value, client) {
            Choice::Set { set, count } => (set, count),
            Choice::Reject => return REJECT,
            Choice::Drop => return DROP,
        };
        let key = BackendKey {
            set,
            slot: slot(knock, who, (set, size), port),
        };
        // SAFETY: slots of a set never change; the copy is taken at once.
        if let Some(backend) = unsafe { BACKENDS.get(key) } {
            picked.backend = *backend;
            picked.set = set;
            if knock.value.affinity_timeout != 0 {
                remember(knock.value.affinity, who, &picked.backend);
            }
            return PICKED;
        }
        let Some(again) = frontend(&knock.key) else {
            return REJECT;
        };
        knock.value = again;
        attempt += 1;
    }
    count(Verdict::SlotMissing);
    DROP
}

/// Where in a set the backend of a new flow is.
#[inline(always)]
fn slot(knock: &Knock, who: &Addr, (set, size): (u32, u32), port: u32) -> u32 {
    let frontend = &knock.value;
    if frontend.affinity_timeout != 0 {
        let slot = remembered(frontend, who, set, size);
        if slot != NOT_FOUND {
            count(Verdict::AffinityKept);
            return slot;
        }
    }
    if frontend.flags & FRONTEND_MAGLEV != 0 && size > 1 && port != NO_PORT {
        return slot_by_table(set, flow_hash(knock, who, port));
    }
    // SAFETY: a helper without arguments.
    decide::slot(set, size, unsafe { bpf_get_prandom_u32() }).slot
}

/// The hash of a packet that begins a flow. A client that is to stay with its backend is hashed without its port: so it gets
/// the same one from every node.
#[inline(never)]
fn flow_hash(knock: &Knock, client: &Addr, port: u32) -> u32 {
    let port = match knock.value.affinity_timeout {
        0 => port as u16,
        _ => 0,
    };
    let seed = config().map_or(0, |config| config.hash_seed);
    spread::hash(client, port, &knock.key, seed)
}

/// The slot that the table of a set has for a hash; one that no set has if there is no table.
#[inline(always)]
fn slot_by_table(set: u32, hash: u32) -> u32 {
    let (chunk, place) = spread::place(spread::entry(hash));
    // SAFETY: a slot is one word, copied at once. A chunk that is replaced meanwhile has slots of the same set.
    if let Some(chunk) = unsafe { MAGLEV.get(MaglevKey { set, chunk }) }
        // The compiler knows that the place is in the chunk; the verifier does only after a comparison.
        && let Some(slot) = chunk.slots.get(black_box(place) as usize)
    {
        return u32::from(*slot);
    }
    NOT_FOUND
}

/// The slot of the backend that a client had, if it is not too long ago and the set still has it.
#[inline(never)]
fn remembered(frontend: &FrontendValue, who: &Addr, set: u32, size: u32) -> u32 {
    let key = AffinityKey {
        affinity: frontend.affinity,
        client: *who,
    };
    // SAFETY: a torn read could only give a backend that is not in the set.
    let Some(known) = (unsafe { AFFINITY.get(key) }) else {
        return NOT_FOUND;
    };
    if !decide::is_remembered(frontend, known, now()) {
        return NOT_FOUND;
    }
    slot_of(set, size, &known.addr, known.port).unwrap_or(NOT_FOUND)
}

/// Remembers a client's backend from now on.
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value would be copied to the stack, which is too small"
)]
#[inline(never)]
fn remember(affinity: u64, who: &Addr, backend: &BackendValue) -> u32 {
    let key = AffinityKey {
        affinity,
        client: *who,
    };
    if let Some(known) = AFFINITY.get_ptr_mut(&key) {
        // SAFETY: compared at once. What is written stands by itself: an entry that is reused under our hands is remembered for
        // longer.
        let known = unsafe { &mut *known };
        if known.port == backend.port && known.addr.same(&backend.addr) {
            known.last_used = now();
            return 1;
        }
    }
    let value = AffinityValue {
        last_used: now(),
        addr: backend.addr,
        port: backend.port,
        pad: [0; 6],
    };
    // A full LRU map makes room by itself; a failure costs the client its steadiness only.
    u32::from(put(&AFFINITY, &key, &value, Verdict::AffinityAdded))
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
