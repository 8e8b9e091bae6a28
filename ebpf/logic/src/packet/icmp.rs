//! ICMP errors: which packet they are about.

use seaway_ebpf_abi::{Addr, FlowKey, TCP, UDP};

use super::ipv6::{self, HEADER};
use super::{Bytes, FRAGMENT_OFFSET, ICMP, Skip, ports};

/// ICMP's own header, of both versions.
const ICMP_HEADER: usize = 8;
const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// Where an ICMP error has the packet that it quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// Offset of its IP header.
    pub network: usize,
    /// Offset of its ports.
    pub transport: usize,
    /// Its header's checksum; 0 for IPv6.
    pub check: u16,
}

/// Looks at the kind of an ICMP message.
#[inline(always)]
pub(super) fn is_error(
    bytes: &(impl Bytes + ?Sized),
    icmp: usize,
    protocol: u8,
    v4: bool,
) -> Result<(), Skip> {
    if v4 != (protocol == ICMP) {
        return Err(Skip::Other);
    }
    let kind: [u8; 1] = bytes.read(icmp).ok_or(Skip::Truncated)?;
    let is_error = if v4 {
        matches!(kind[0], UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
    } else {
        // RFC 4443, 2.1: errors have the high bit clear; 0 is reserved.
        matches!(kind[0], 1..=127)
    };
    if is_error { Ok(()) } else { Err(Skip::Other) }
}

/// The packet that the ICMP message at an offset quotes, and in `key` its addresses as it came to whoever complains.
///
/// # Errors
///
/// If it is neither TCP nor UDP, or quoted without its ports.
#[inline(always)]
pub fn quoted(
    bytes: &(impl Bytes + ?Sized),
    icmp: usize,
    v4: bool,
    key: &mut FlowKey,
) -> Result<Quoted, Skip> {
    let network = icmp + ICMP_HEADER;
    let quoted = if v4 {
        let ip: [u8; 20] = bytes.read(network).ok_or(Skip::Truncated)?;
        let header = usize::from(ip[0] & 0x0f) * 4;
        let is_later = u16::from_be_bytes([ip[6], ip[7]]) & FRAGMENT_OFFSET != 0;
        // Ports within the header would be written there as well.
        if ip[0] >> 4 != 4 || header < 20 || is_later {
            return Err(Skip::Other);
        }
        key.src = Addr::v4(u32::from_ne_bytes([ip[12], ip[13], ip[14], ip[15]]));
        key.dst = Addr::v4(u32::from_ne_bytes([ip[16], ip[17], ip[18], ip[19]]));
        key.protocol = ip[9];
        Quoted {
            network,
            transport: network + header,
            check: u16::from_ne_bytes([ip[10], ip[11]]),
        }
    } else {
        let ip: [u8; HEADER] = bytes.read(network).ok_or(Skip::Truncated)?;
        if ip[0] >> 4 != 6 {
            return Err(Skip::Other);
        }
        key.src = ipv6::addr(&ip, 8);
        key.dst = ipv6::addr(&ip, 24);
        if key.src.is_v4() || key.dst.is_v4() {
            return Err(Skip::Other);
        }
        key.protocol = ip[6];
        Quoted {
            network,
            transport: network + HEADER,
            check: 0,
        }
    };
    if key.protocol != TCP && key.protocol != UDP {
        return Err(Skip::Other);
    }
    let four: [u8; 4] = bytes.read(quoted.transport).ok_or(Skip::Truncated)?;
    ports(key, four);
    Ok(quoted)
}
