//! The slots beside the flow table, and the revisions by which they end.
//!
//! A slot is read and written by the programs of one CPU only. They run one after the other: at tc and in XDP softirqs are held
//! off, a packet that leaves by a socket's call included, and no packet is sent to another program from within one.

use aya_ebpf::Global;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64};
use seaway_ebpf_abi::{FlowKey, Shortcut};
use seaway_ebpf_logic::shortcut;

use crate::maps::{CHANGES, REVISIONS, SHORTCUTS};

/// The slots of each CPU, as the loader has made the map.
#[unsafe(no_mangle)]
static SLOTS: Global<u32> = Global::new(0);

/// The low half of the kernel's tick: unlike a clock a load, and no call.
#[inline(always)]
pub(crate) fn ticks() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() as u32 }
}

/// The first of the two slots for a hash.
#[inline(always)]
pub(crate) fn index(hash: u64) -> u32 {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    shortcut::slot(hash, cpu, SLOTS.load())
}

/// One of this CPU's slots; `None` if the map is smaller than it should be.
#[inline(always)]
pub(crate) fn get(index: u32) -> Option<&'static mut Shortcut> {
    let slot = SHORTCUTS.get_ptr_mut(index)?;
    // SAFETY: nobody else has this slot, as said above, and it is let go of before it is taken again.
    Some(unsafe { &mut *slot })
}

/// The revision of a hash.
#[inline(always)]
pub(crate) fn revision(hash: u64) -> u32 {
    let revision = REVISIONS.get(shortcut::revision(hash));
    revision.copied().unwrap_or(0)
}

/// Ends the slots of a key, on all CPUs: its entry in the flow table has just come, gone, or been replaced. A function of
/// its own in the kernel, too, because who calls it has little stack left.
#[inline(never)]
pub(crate) fn end(key: &FlowKey) {
    let revision = REVISIONS.get_ptr_mut(shortcut::revision(shortcut::hash(key)));
    if let (Some(revision), Some(changes)) = (revision, CHANGES.get_ptr_mut(0)) {
        // SAFETY: a helper without arguments, a word of this CPU's, and one in a map. Of two CPUs at once either may have the
        // last word: both words are new.
        unsafe {
            *changes = (*changes).wrapping_add(1);
            *revision = shortcut::new_revision(ticks(), bpf_get_smp_processor_id(), *changes);
        }
    }
}
