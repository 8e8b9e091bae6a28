//! What the short way keeps of an entry of the flow table, ready to be written into packets: a slot of a plain array, which
//! programs index themselves (`docs/adr/0016-shortcuts-beside-the-flow-table.md`).
//!
//! The flow table stays the truth. Slots belong to a CPU, so that no two CPUs ever write one, and are never taken away:
//! they end by their stamp and by time.

/// A slot: 128 bytes, of which IPv4 needs the first 64, one line of a cache.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Shortcut {
    /// Of the epoch, the revision and the kind of packet for which the slot was filled; 0 in one that never was.
    pub stamp: u64,
    /// The tick of the kernel's clock (`jiffies`, its low half) by which it ends.
    pub until: u32,
    /// The addresses of an IPv4 packet as it arrives, and after translation.
    pub src: u32,
    pub dst: u32,
    pub to_src: u32,
    pub to_dst: u32,
    /// The two ports as they lie in a packet, likewise; of both families.
    pub ports: u32,
    pub to_ports: u32,
    /// The link to send out of; 0: up the node's stack.
    pub ifindex: u32,
    /// `SHORTCUT_*` bits.
    pub flags: u16,
    /// The largest packet that the link takes, without its Ethernet header.
    pub mtu: u16,
    /// The Ethernet header's addresses, if there is a neighbour: of whom it goes to, then from whom it comes.
    pub ethernet: [u16; 6],
    /// What the translation adds to sums, folded: to that of TCP or UDP by the addresses, and by addresses and ports.
    pub addresses: u16,
    pub transport: u16,
    /// IPv4: to that of the IP header, with the hop. IPv6, which has none: the hop alone.
    pub header: u16,
    /// The sum of the pseudo header before translation, but for the length.
    pub pseudo: u16,
    /// The addresses of an IPv6 packet, as it arrives and after translation.
    pub src6: [u64; 2],
    pub dst6: [u64; 2],
    pub to_src6: [u64; 2],
    pub to_dst6: [u64; 2],
}

/// The Ethernet header is known.
pub const SHORTCUT_NEIGHBOUR: u16 = 1;
/// The flow's entry is the one that replies find.
pub const SHORTCUT_REVERSE: u16 = 2;

/// How many revisions there are. A flow has one of them by its hash; another one begins with each change of an entry's
/// place in the flow table, so that nobody goes on by what was there before.
pub const REVISIONS_LEN: u32 = 1 << 14;

/// The slots of each CPU beside a flow table of that size: a power of two, in all as many as the table has entries, but some
/// for each CPU whatever their number.
#[must_use]
pub const fn slots(flows: u32, cpus: u32) -> u32 {
    const LEAST: u32 = 256;
    let (all, cpus) = (flows.next_power_of_two(), if cpus == 0 { 1 } else { cpus });
    let each = all / cpus;
    if each <= LEAST {
        LEAST
    } else {
        1 << each.ilog2()
    }
}
