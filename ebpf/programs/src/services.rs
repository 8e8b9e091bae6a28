//! From an address to a frontend, from a frontend to a backend.

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_loop};
use seaway_ebpf_abi::{BackendKey, BackendValue, FrontendKey, FrontendValue, Verdict};
use seaway_ebpf_logic::decide::{self, Choice, Client};

use crate::maps::{BACKENDS, FRONTENDS, count, is_node_addr};

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
pub(crate) fn exact(addr: u32, port: u16, protocol: u8) -> Option<Knock> {
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
pub(crate) fn find(addr: u32, port: u16, protocol: u8) -> Option<Knock> {
    match exact(addr, port, protocol) {
        None if is_node_addr(addr) => exact(0, port, protocol),
        found => found,
    }
}

/// Picks a backend at random.
///
/// A slot may be missing if the frontend moved on to a new set in the meantime: then its entry is read once more.
#[inline(always)]
pub(crate) fn pick(knock: &Knock, client: Client) -> Result<Picked, Refusal> {
    let mut value = knock.value;
    let mut attempt = 0;
    while attempt < 2 {
        let (set, size) = match decide::choose(&value, client) {
            Choice::Set { set, count } => (set, count),
            Choice::Reject => return Err(Refusal::Reject),
            Choice::Drop => return Err(Refusal::Drop),
        };
        // SAFETY: a helper without arguments.
        let random = unsafe { bpf_get_prandom_u32() };
        // SAFETY: slots of a set never change; the copy is taken at once.
        if let Some(backend) = unsafe { BACKENDS.get(decide::slot(set, size, random)) } {
            return Ok(Picked {
                backend: *backend,
                set,
            });
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

#[repr(C)]
struct Search {
    set: u32,
    addr: u32,
    port: u32,
    found: u32,
}

unsafe extern "C" fn compare(slot: u32, search: *mut c_void) -> i64 {
    // SAFETY: `serves` passes a `Search` that lives for the whole of bpf_loop.
    let search = unsafe { &mut *search.cast::<Search>() };
    let key = BackendKey {
        set: search.set,
        slot,
    };
    // SAFETY: slots of a set never change.
    if let Some(backend) = unsafe { BACKENDS.get(key) }
        && backend.addr == search.addr
        && u32::from(backend.port) == search.port
    {
        search.found = 1;
        return 1;
    }
    0
}

/// Whether a backend belongs to a set. Linear, but only asked of flows whose set has been replaced.
#[inline(always)]
pub(crate) fn serves(set: u32, size: u32, addr: u32, port: u16) -> bool {
    let mut search = Search {
        set,
        addr,
        port: u32::from(port),
        found: 0,
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
    search.found != 0
}
