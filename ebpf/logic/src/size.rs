//! How large a packet is on its way, and what becomes of one that is too large for it: what the kernel's own forwarding does
//! (`ip_forward`, `ip6_forward`).

use crate::packet::Part;

/// Bytes of the largest packet that a packet makes which is cut into segments when it leaves, without its Ethernet header: what
/// a segment carries, and the headers of IP and of TCP or UDP.
#[inline(always)]
#[must_use]
pub const fn segment(gso_size: u32, headers: u32) -> u32 {
    gso_size + headers
}

/// Bytes of a header of UDP.
pub const UDP_HEADER: u32 = 8;

/// Bytes of a TCP header, by the byte of it that says so.
#[inline(always)]
#[must_use]
pub const fn tcp_header(offset: u8) -> u32 {
    (offset >> 4) as u32 * 4
}

/// What becomes of a packet that is too large for its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLarge {
    /// It goes on in fragments.
    Cut,
    /// Its sender is told what size fits, by ICMP.
    Answer,
    Drop,
}

/// Decides that. Routers cut IPv4 only, and what may be cut; about errors and fragments without ports there are no errors
/// (RFC 1122, 3.2.2; RFC 4443, 2.4), and none without a size.
#[inline(always)]
#[must_use]
pub const fn too_large(v4: bool, dont_fragment: bool, part: Part, mtu: u16) -> TooLarge {
    match part {
        Part::Error => TooLarge::Drop,
        _ if v4 && !dont_fragment => TooLarge::Cut,
        Part::Whole | Part::First if mtu != 0 => TooLarge::Answer,
        _ => TooLarge::Drop,
    }
}

/// The identification of the `nth` segment of an IPv4 packet, as it stands in the packet: the kernel counts them up
/// (`inet_gso_segment`).
#[inline(always)]
#[must_use]
pub const fn nth_id(first: u32, nth: u32) -> u32 {
    u16::from_be(first as u16).wrapping_add(nth as u16).to_be() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_has_both_headers() {
        assert_eq!(segment(1398, 20 + tcp_header(0x80)), 1450);
        assert_eq!(segment(1378, 40 + tcp_header(0x8f)), 1450);
        assert_eq!(segment(1422, 20 + UDP_HEADER), 1450);
        assert_eq!((tcp_header(0x50), tcp_header(0xf0)), (20, 60));
    }

    #[test]
    fn only_ipv4_that_may_be_cut_is_cut_and_senders_are_told_of_the_rest() {
        use TooLarge::{Answer, Cut, Drop};
        for (part, cut, kept, unknown) in [
            (Part::Whole, Cut, Answer, Drop),
            (Part::First, Cut, Answer, Drop),
            (Part::Later, Cut, Drop, Drop),
            (Part::Error, Drop, Drop, Drop),
        ] {
            assert_eq!(too_large(true, false, part, 1400), cut, "{part:?}");
            assert_eq!(too_large(true, true, part, 1400), kept, "{part:?}");
            assert_eq!(too_large(true, true, part, 0), unknown, "{part:?}");
            for flag in [false, true] {
                assert_eq!(too_large(false, flag, part, 1400), kept, "{part:?}");
                assert_eq!(too_large(false, flag, part, 0), unknown, "{part:?}");
            }
        }
    }

    #[test]
    fn segments_are_counted_from_the_first_on() {
        let id = |id: u16| u32::from(id.to_be());
        for (first, nth, expected) in [(7, 0, 7), (0x00ff, 1, 0x0100), (0xffff, 2, 1)] {
            assert_eq!(nth_id(id(first), nth), id(expected));
        }
    }
}
