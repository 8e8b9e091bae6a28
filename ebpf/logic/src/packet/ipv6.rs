//! The IPv6 header and those of its extensions that change nothing about where a packet goes.

use seaway_ebpf_abi::Addr;

use super::{Bytes, ETHERNET, Packet, Part, Skip};

/// Length of the fixed header.
pub(super) const HEADER: usize = 40;

const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// Extension headers that are skipped. RFC 8200 recommends each at most once, the destination options twice.
const EXTENSIONS: u32 = 4;
const MORE_FRAGMENTS: u16 = 1;
const FRAGMENT_OFFSET: u16 = 0xfff8;

/// An address in a header.
#[inline(always)]
pub(super) fn addr(ip: &[u8; HEADER], at: usize) -> Addr {
    let word = |i: usize| u32::from_ne_bytes([ip[i], ip[i + 1], ip[i + 2], ip[i + 3]]);
    Addr {
        words: [word(at), word(at + 4), word(at + 8), word(at + 12)],
    }
}

/// Follows the headers; the protocol of what comes behind. Routing headers (the destination is not the last one), IPsec
/// and what else there is are not followed: such packets pass untouched.
#[inline(always)]
pub(super) fn headers(packet: &mut Packet, bytes: &(impl Bytes + ?Sized)) -> Result<u8, Skip> {
    let ip: [u8; HEADER] = bytes.read(ETHERNET).ok_or(Skip::Truncated)?;
    if ip[0] >> 4 != 6 {
        return Err(Skip::Other);
    }
    packet.key.src = addr(&ip, 8);
    packet.key.dst = addr(&ip, 24);
    // No such address is in a packet (the kernel drops it); to us it would be an IPv4 packet's.
    if packet.key.src.is_v4() || packet.key.dst.is_v4() {
        return Err(Skip::Other);
    }
    packet.hops = ip[7];
    packet.check = 0;
    packet.part = Part::Whole;
    packet.fragment = 0;
    let mut protocol = ip[6];
    let mut transport = ETHERNET + HEADER;
    let mut seen = 0;
    while seen < EXTENSIONS {
        match protocol {
            HOP_BY_HOP | DESTINATION => {
                let option: [u8; 2] = bytes.read(transport).ok_or(Skip::Truncated)?;
                protocol = option[0];
                transport += (usize::from(option[1]) + 1) * 8;
            }
            FRAGMENT => {
                let fragment: [u8; 8] = bytes.read(transport).ok_or(Skip::Truncated)?;
                let place = u16::from_be_bytes([fragment[2], fragment[3]]);
                protocol = fragment[0];
                transport += 8;
                packet.fragment =
                    u32::from_ne_bytes([fragment[4], fragment[5], fragment[6], fragment[7]]);
                if place & FRAGMENT_OFFSET != 0 {
                    // Nothing of this fragment is a header.
                    packet.part = Part::Later;
                    break;
                }
                if place & MORE_FRAGMENTS != 0 {
                    packet.part = Part::First;
                }
            }
            _ => break,
        }
        seen += 1;
    }
    packet.transport = transport;
    Ok(protocol)
}
