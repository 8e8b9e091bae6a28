//! Packets between pods: whether the sender may have that address, and what forwarding changes in the packet.

use seaway_ebpf_abi::pod::{POD_LINK_V4, POD_LINK_V6};
use seaway_ebpf_abi::{Addr, PodLink};

use crate::checksum::update;
use crate::plain::{Headers, Ipv4, Ipv6};

/// Whether the address is the first one of the pod behind that link, which nearly every packet has.
#[inline(always)]
#[must_use]
pub const fn is_first4(link: &PodLink, src: u32) -> bool {
    link.v4 == src && src != 0
}

/// Whether a packet may have a source that is none of the pod's: where not all of them are known, where a pod has none yet
/// (`0.0.0.0`, `::`), and on the link itself (`fe80::/10`), by which neighbours are found.
#[inline(always)]
#[must_use]
pub const fn may_send(link: &PodLink, src: &Addr) -> bool {
    let known = if src.is_v4() {
        POD_LINK_V4
    } else {
        POD_LINK_V6
    };
    link.flags & known == 0 || src.is_unspecified() || is_link_local(src)
}

#[inline(always)]
const fn is_link_local(addr: &Addr) -> bool {
    let [a, b, ..] = addr.words[0].to_ne_bytes();
    a == 0xfe && b & 0xc0 == 0x80
}

/// Headers of which a hop can be taken.
pub trait Hop: Headers {
    /// Takes one; IPv4 has a checksum of its header, which is mended. Not for a packet with no hop left.
    fn take_hop(&mut self);
}

impl Hop for Ipv4 {
    #[inline(always)]
    fn take_hop(&mut self) {
        let [hops, protocol, a, b] = self[2].to_ne_bytes();
        let [a, b] = update(u16::from_ne_bytes([a, b]), !Self::HOP as u32).to_ne_bytes();
        self[2] = u32::from_ne_bytes([hops.wrapping_sub(1), protocol, a, b]);
    }
}

impl Hop for Ipv6 {
    #[inline(always)]
    fn take_hop(&mut self) {
        let [a, b, c, d, e, f, g, hops] = self[0].to_ne_bytes();
        self[0] = u64::from_ne_bytes([a, b, c, d, e, f, g, hops.wrapping_sub(1)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;

    fn addr(text: &str) -> Addr {
        Addr::from(text.parse::<core::net::IpAddr>().expect("an address"))
    }

    #[test]
    fn only_where_addresses_are_known_another_one_is_foreign() {
        let link = |flags| PodLink {
            ifindex: 7,
            flags,
            ..PodLink::default()
        };
        for (flags, src, expected) in [
            (0, "10.0.0.1", true),
            (0, "fd00::1", true),
            (POD_LINK_V4, "10.0.0.1", false),
            (POD_LINK_V4, "fd00::1", true),
            (POD_LINK_V6, "10.0.0.1", true),
            (POD_LINK_V6, "fd00::1", false),
            (POD_LINK_V6 | POD_LINK_V4, "0.0.0.0", true),
            (POD_LINK_V6 | POD_LINK_V4, "::", true),
            (POD_LINK_V6 | POD_LINK_V4, "fe80::1", true),
            (POD_LINK_V6 | POD_LINK_V4, "febf::1", true),
            (POD_LINK_V6 | POD_LINK_V4, "fec0::1", false),
            (POD_LINK_V6 | POD_LINK_V4, "::1", false),
            (POD_LINK_V6 | POD_LINK_V4, "127.0.0.1", false),
        ] {
            assert_eq!(
                may_send(&link(flags), &addr(src)),
                expected,
                "{flags} {src}"
            );
        }
    }

    #[test]
    fn no_address_is_nobodys_first() {
        let mut link = PodLink::default();
        assert!(!is_first4(&link, 0));
        link.v4 = 5;
        assert!(is_first4(&link, 5) && !is_first4(&link, 6));
    }

    #[test]
    fn a_hop_less_leaves_the_header_of_ipv4_whole() {
        for hops in [2_u8, 64, 255] {
            for third in 0..=255_u8 {
                let mut bytes = [0_u8; 28];
                bytes[..20].copy_from_slice(&[
                    0x45, 0, 0, 28, 0x12, 0x34, 0x40, 0, hops, 17, 0, 0, 10, 244, third, 5, 10,
                    244, 2, 7,
                ]);
                let sum = |bytes: &[u8; 28]| {
                    let header: &[u8; 20] = bytes.first_chunk().expect("20 of 28");
                    checksum::fold(checksum::sum(header))
                };
                let check = (!sum(&bytes)).to_ne_bytes();
                bytes[10..12].copy_from_slice(&check);
                assert_eq!(sum(&bytes), 0xffff);
                let mut words: Ipv4 = [0; 7];
                for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
                    *word = u32::from_ne_bytes(four.try_into().expect("four"));
                }
                words.take_hop();
                for (four, word) in bytes.chunks_exact_mut(4).zip(&words) {
                    four.copy_from_slice(&word.to_ne_bytes());
                }
                assert_eq!((bytes[8], sum(&bytes)), (hops - 1, 0xffff));
            }
        }
    }

    #[test]
    fn a_hop_less_in_ipv6_is_that_byte() {
        let mut words: Ipv6 = [
            u64::from_ne_bytes([0x60, 0, 0, 0, 0, 8, 17, 64]),
            1,
            2,
            3,
            4,
            5,
        ];
        words.take_hop();
        assert_eq!(words[0].to_ne_bytes(), [0x60, 0, 0, 0, 0, 8, 17, 63]);
        assert_eq!(words[1..], [1, 2, 3, 4, 5]);
    }
}
