//! Fragments: the first one says which flow the others belong to.

use seaway_ebpf_abi::fragment::FRAGMENT_TIMEOUT_NS;
use seaway_ebpf_abi::{FragmentKey, FragmentValue, Verdict};
use seaway_ebpf_logic::packet::{Packet, Part};

use crate::flows::now;
use crate::maps::{FRAGMENTS, Work, count};

#[inline(always)]
pub(crate) fn key(packet: &Packet) -> FragmentKey {
    FragmentKey {
        src: packet.key.src,
        dst: packet.key.dst,
        id: packet.fragment,
        protocol: packet.key.protocol,
        pad: [0; 3],
    }
}

/// Gives a later fragment the ports of the first. `false` if that is not known: it comes after this one, or belongs to no
/// flow of ours.
#[inline(always)]
pub(crate) fn follow(work: &mut Work) -> bool {
    let packet = &mut work.packet;
    // SAFETY: copied at once.
    let Some(first) = unsafe { FRAGMENTS.get(key(packet)) }.copied() else {
        return false;
    };
    if now().wrapping_sub(first.seen) > FRAGMENT_TIMEOUT_NS {
        return false;
    }
    packet.key.sport = first.sport;
    packet.key.dport = first.dport;
    work.cut = first.source;
    count(Verdict::FragmentFollowed);
    true
}

/// Remembers the ports of a first fragment of a flow.
#[inline(always)]
pub(crate) fn remember(packet: &Packet) {
    if packet.part != Part::First {
        return;
    }
    let value = FragmentValue {
        seen: now(),
        sport: packet.key.sport,
        dport: packet.key.dport,
        source: 0,
    };
    // A full LRU map makes room by itself; a failure costs this one packet.
    let _ = FRAGMENTS.insert(key(packet), value, 0);
}
