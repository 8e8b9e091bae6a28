//! From bytes to the handful of fields that forwarding needs.

use seaway_ebpf_abi::{FlowKey, TCP, UDP};

/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// Offset of the part of the IPv4 header that a translation changes: TTL to destination.
pub const IPV4_MUTABLE: usize = ETHERNET + 8;

const ETHERTYPE: usize = 12;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// More-fragments bit and the offset: anything but an unfragmented packet.
const FRAGMENT_MASK: u16 = 0x3fff;

/// Something that bytes can be read from: a slice here, a packet in the kernel there.
pub trait Bytes {
    /// `N` bytes at `offset`, or `None` if the packet ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    #[inline]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

/// A TCP or UDP packet over IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    pub key: FlowKey,
    /// Offset of the TCP or UDP header.
    pub transport: usize,
    /// Bytes 8 to 20 of the IPv4 header: TTL, protocol, checksum, source, destination.
    pub mutable: [u8; 12],
    /// `TCP_*` bits; 0 for UDP.
    pub tcp_flags: u8,
}

/// Why a packet is none of our business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Not IPv4, or neither TCP nor UDP.
    Other,
    /// A fragment: only the first has ports, and translating that one alone would break the packet.
    Fragment,
    /// Shorter than its headers say.
    Truncated,
}

pub const TCP_FIN: u8 = 1;
pub const TCP_SYN: u8 = 2;
pub const TCP_RST: u8 = 4;
pub const TCP_ACK: u8 = 16;

impl Packet {
    /// Offset of the checksum in the TCP or UDP header, from the start of the packet.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(&self) -> usize {
        self.transport + if self.key.protocol == TCP { 16 } else { 6 }
    }

    /// Remaining hops.
    #[inline(always)]
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        self.mutable[0]
    }
}

/// Parses an Ethernet frame.
///
/// # Errors
///
/// The reason why the packet passes untouched.
#[inline(always)]
pub fn parse(bytes: &(impl Bytes + ?Sized)) -> Result<Packet, Skip> {
    let ethertype: [u8; 2] = bytes.read(ETHERTYPE).ok_or(Skip::Truncated)?;
    if ethertype != ETHERTYPE_IPV4 {
        return Err(Skip::Other);
    }
    let ip: [u8; 20] = bytes.read(ETHERNET).ok_or(Skip::Truncated)?;
    let header = usize::from(ip[0] & 0x0f) * 4;
    if ip[0] >> 4 != 4 || header < 20 {
        return Err(Skip::Other);
    }
    let protocol = ip[9];
    if protocol != TCP && protocol != UDP {
        return Err(Skip::Other);
    }
    if u16::from_be_bytes([ip[6], ip[7]]) & FRAGMENT_MASK != 0 {
        return Err(Skip::Fragment);
    }
    let transport = ETHERNET + header;
    let ports: [u8; 8] = bytes.read(transport).ok_or(Skip::Truncated)?;
    let tcp_flags = if protocol == TCP {
        let rest: [u8; 20] = bytes.read(transport).ok_or(Skip::Truncated)?;
        rest[13]
    } else {
        0
    };
    Ok(Packet {
        key: FlowKey {
            src: u32::from_ne_bytes([ip[12], ip[13], ip[14], ip[15]]),
            dst: u32::from_ne_bytes([ip[16], ip[17], ip[18], ip[19]]),
            sport: u16::from_ne_bytes([ports[0], ports[1]]),
            dport: u16::from_ne_bytes([ports[2], ports[3]]),
            protocol,
            pad: [0; 3],
        },
        transport,
        mutable: [
            ip[8], ip[9], ip[10], ip[11], ip[12], ip[13], ip[14], ip[15], ip[16], ip[17], ip[18],
            ip[19],
        ],
        tcp_flags,
    })
}
