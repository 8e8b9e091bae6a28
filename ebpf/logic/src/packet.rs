//! From bytes to the handful of fields that forwarding needs.

use seaway_ebpf_abi::{Addr, FlowKey, SCTP, TCP, UDP};

mod icmp;
mod ipv6;

pub use icmp::{Quoted, quoted};

/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = 14;

const ETHERTYPE: usize = 12;
pub(crate) const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
pub(crate) const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// IPv4: the more-fragments bit and the offset.
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// IANA protocol numbers of ICMP.
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

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

/// A packet that may belong to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packet {
    /// Of a TCP, UDP or SCTP packet its addresses, without ports in a [`Part::Later`] fragment (SCTP's are not followed). Of an ICMP error the addresses
    /// that an ordinary packet of that flow in that direction has.
    pub key: FlowKey,
    /// Offset of what follows the IP headers.
    pub transport: usize,
    /// Remaining hops.
    pub hops: u8,
    /// `TCP_*` bits; 0 for anything else.
    pub tcp_flags: u8,
    /// The header's checksum; 0 for IPv6, which has none.
    pub check: u16,
    pub part: Part,
    /// Which fragments belong together: the identification as it stands in the packet.
    pub fragment: u32,
}

/// What of a packet this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    #[default]
    Whole,
    /// The first fragment, which has the ports.
    First,
    /// Another fragment.
    Later,
    /// An ICMP error that quotes a packet of the flow, as that went the other way.
    Error,
}

/// Why a packet is none of our business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Another protocol, or headers that we do not follow.
    Other,
    /// Shorter than its headers say.
    Truncated,
}

pub const TCP_FIN: u8 = 1;
pub const TCP_SYN: u8 = 2;
pub const TCP_RST: u8 = 4;
pub const TCP_ACK: u8 = 16;

impl Packet {
    /// Offset of the checksum in the header of TCP, UDP or SCTP, from the start of the packet.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(&self) -> usize {
        self.transport
            + match self.key.protocol {
                TCP => 16,
                SCTP => 8,
                _ => 6,
            }
    }

    /// The protocol of the packet itself, which for an error is not that of its flow.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        match self.part {
            Part::Error if self.key.src.is_v4() => ICMP,
            Part::Error => ICMPV6,
            _ => self.key.protocol,
        }
    }

    /// Whether the packet carries ports.
    #[inline(always)]
    #[must_use]
    pub const fn has_ports(&self) -> bool {
        matches!(self.part, Part::Whole | Part::First)
    }

    /// Parses an Ethernet frame. In place, because a program has little room to move such a value around.
    ///
    /// # Errors
    ///
    /// The reason why the packet passes untouched.
    #[inline(always)]
    pub fn read(&mut self, bytes: &(impl Bytes + ?Sized)) -> Result<(), Skip> {
        let ethertype: [u8; 2] = bytes.read(ETHERTYPE).ok_or(Skip::Truncated)?;
        let protocol = match ethertype {
            ETHERTYPE_IPV4 => ipv4(self, bytes)?,
            ETHERTYPE_IPV6 => ipv6::headers(self, bytes)?,
            _ => return Err(Skip::Other),
        };
        self.key.protocol = protocol;
        self.key.pad = [0; 3];
        self.tcp_flags = 0;
        match (protocol, self.part) {
            (TCP | UDP, Part::Later) => ports(&mut self.key, [0; 4]),
            (TCP, _) => {
                let tcp: [u8; 20] = bytes.read(self.transport).ok_or(Skip::Truncated)?;
                ports(&mut self.key, [tcp[0], tcp[1], tcp[2], tcp[3]]);
                self.tcp_flags = tcp[13];
            }
            // Both begin with their ports, and have eight bytes and more.
            (UDP, _) | (SCTP, Part::Whole | Part::First) => {
                let udp: [u8; 8] = bytes.read(self.transport).ok_or(Skip::Truncated)?;
                ports(&mut self.key, [udp[0], udp[1], udp[2], udp[3]]);
            }
            (ICMP | ICMPV6, Part::Whole) => {
                let v4 = self.key.src.is_v4();
                icmp::is_error(bytes, self.transport, protocol, v4)?;
                quoted(bytes, self.transport, v4, &mut self.key)?;
                self.key.swap();
                self.part = Part::Error;
            }
            _ => return Err(Skip::Other),
        }
        Ok(())
    }
}

#[inline(always)]
fn ports(key: &mut FlowKey, [a, b, c, d]: [u8; 4]) {
    key.sport = u16::from_ne_bytes([a, b]);
    key.dport = u16::from_ne_bytes([c, d]);
}

/// Reads the IPv4 header; the protocol of what follows.
#[inline(always)]
fn ipv4(packet: &mut Packet, bytes: &(impl Bytes + ?Sized)) -> Result<u8, Skip> {
    let ip: [u8; 20] = bytes.read(ETHERNET).ok_or(Skip::Truncated)?;
    let header = usize::from(ip[0] & 0x0f) * 4;
    if ip[0] >> 4 != 4 || header < 20 {
        return Err(Skip::Other);
    }
    let fragment = u16::from_be_bytes([ip[6], ip[7]]);
    packet.key.src = Addr::v4(u32::from_ne_bytes([ip[12], ip[13], ip[14], ip[15]]));
    packet.key.dst = Addr::v4(u32::from_ne_bytes([ip[16], ip[17], ip[18], ip[19]]));
    packet.transport = ETHERNET + header;
    packet.hops = ip[8];
    packet.check = u16::from_ne_bytes([ip[10], ip[11]]);
    packet.part = if fragment & FRAGMENT_OFFSET != 0 {
        Part::Later
    } else if fragment & MORE_FRAGMENTS != 0 {
        Part::First
    } else {
        Part::Whole
    };
    packet.fragment = u16::from_ne_bytes([ip[4], ip[5]]) as u32;
    Ok(ip[9])
}
