//! Saying no to a packet: a TCP reset, or "port unreachable" or "packet too big" by ICMP.

use seaway_ebpf_abi::{Addr, FlowKey, TCP};

use crate::checksum::{add, fold, pseudo_header, sum};
use crate::packet::{ICMP, ICMPV6, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

/// Length of a TCP header without options: all of a reset.
pub const RESET: usize = 20;
/// What an ICMP error quotes of the packet behind its IP header: the ports, and all of a UDP header.
pub const QUOTED_TRANSPORT: usize = 8;
const HOPS: u8 = 64;

/// Turns the header of a TCP segment into a reset that answers it (RFC 9293, 3.5.2), given the length of what followed it.
#[inline(always)]
pub fn reset(key: &FlowKey, header: &mut [u8; RESET], payload: u32) {
    let flags = header[13];
    let number = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (sequence, acknowledged, reply) = if flags & TCP_ACK != 0 {
        (number(8), 0, TCP_RST)
    } else {
        let bits = u32::from(flags & TCP_SYN != 0) + u32::from(flags & TCP_FIN != 0);
        let next = number(4).wrapping_add(payload).wrapping_add(bits);
        (0, next, TCP_RST | TCP_ACK)
    };
    let (from, to) = (key.dport.to_ne_bytes(), key.sport.to_ne_bytes());
    let (s, a) = (sequence.to_be_bytes(), acknowledged.to_be_bytes());
    *header = [
        from[0], from[1], to[0], to[1], s[0], s[1], s[2], s[3], a[0], a[1], a[2], a[3], 0x50,
        reply, 0, 0, 0, 0, 0, 0,
    ];
    let pseudo = pseudo_header(&key.dst, &key.src, TCP, RESET as u16);
    let check = (!fold(add(pseudo, sum(header)))).to_ne_bytes();
    header[16] = check[0];
    header[17] = check[1];
}

/// An IPv4 header without options.
#[inline(always)]
#[must_use]
pub fn ipv4_header(src: &Addr, dst: &Addr, protocol: u8, payload: u16) -> [u8; 20] {
    let length = (20 + payload).to_be_bytes();
    let (s, d) = (src.words[3].to_ne_bytes(), dst.words[3].to_ne_bytes());
    let mut header = [
        0x45, 0, length[0], length[1], 0, 0, 0x40, 0, HOPS, protocol, 0, 0, s[0], s[1], s[2], s[3],
        d[0], d[1], d[2], d[3],
    ];
    let check = (!fold(sum(&header))).to_ne_bytes();
    header[10] = check[0];
    header[11] = check[1];
    header
}

/// The first eight bytes of an IPv6 header; the addresses follow.
#[inline(always)]
#[must_use]
pub const fn ipv6_header(protocol: u8, payload: u16) -> [u8; 8] {
    let length = payload.to_be_bytes();
    [0x60, 0, 0, 0, length[0], length[1], protocol, HOPS]
}

/// Length of ICMP's own header.
pub const ICMP_HEADER: usize = 8;

/// Writes the header of an ICMP error from `src` to `dst` in front of what it quotes: an IP header and the beginning of
/// what follows that. It says "packet too big" for an MTU, and "port unreachable" for 0. So many bytes of zero come behind it.
#[inline(always)]
pub fn icmp_error<const N: usize>(
    src: &Addr,
    dst: &Addr,
    mtu: u16,
    message: &mut [u8; N],
    zeros: u16,
) {
    let (kind, code, pseudo) = match (src.is_v4(), mtu) {
        (true, 0) => (3, 3, 0),
        // RFC 1191: fragmentation needed.
        (true, _) => (3, 4, 0),
        (false, _) => {
            let pseudo = pseudo_header(src, dst, ICMPV6, N as u16 + zeros);
            if mtu == 0 {
                (1, 4, pseudo)
            } else {
                (2, 0, pseudo)
            }
        }
    };
    // Both versions have the MTU at the end of the header.
    let [high, low] = mtu.to_be_bytes();
    for (byte, value) in message.iter_mut().zip([kind, code, 0, 0, 0, 0, high, low]) {
        *byte = value;
    }
    let check = (!fold(add(pseudo, sum(message)))).to_ne_bytes();
    message[2] = check[0];
    message[3] = check[1];
}

/// The protocol of error messages.
#[inline(always)]
#[must_use]
pub const fn icmp_protocol(v4: bool) -> u8 {
    if v4 { ICMP } else { ICMPV6 }
}
