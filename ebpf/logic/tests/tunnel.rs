//! Headers of the tunnel: as another reader sees them, and what is read from them.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use seaway_ebpf_logic::tunnel::{
    Arrived4, HEADERS4, Outer4, headers4, is_plain4, outer_ecn, read4, source_port,
};

fn outer() -> Outer4 {
    Outer4 {
        local: u32::from_ne_bytes([192, 168, 77, 1]),
        remote: u32::from_ne_bytes([192, 168, 77, 2]),
        from: source_port(7),
        to: 8472_u16.to_be(),
        vni: 0x01_02_03,
        ecn: 1,
        id: 0x1234_u16.to_be(),
        whole: false,
    }
}

fn bytes(outer: &Outer4, frame: u16) -> Vec<u8> {
    let headers = headers4(outer, frame);
    headers.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn arrived(bytes: &[u8]) -> Arrived4 {
    let mut words = Arrived4::default();
    for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
    }
    words
}

#[test]
fn another_reader_finds_what_was_written() {
    for whole in [true, false] {
        let mut bytes = bytes(&Outer4 { whole, ..outer() }, 60);
        assert_eq!(bytes.len(), 2 * HEADERS4);
        bytes.extend_from_slice(&[0xab; 60]);
        let packet = SlicedPacket::from_ip(&bytes).unwrap();
        let Some(NetSlice::Ipv4(ip)) = packet.net else {
            panic!("not IPv4");
        };
        let ip = ip.header().to_header();
        assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
        assert_eq!(ip.source, [192, 168, 77, 1]);
        assert_eq!(ip.destination, [192, 168, 77, 2]);
        assert_eq!((ip.dont_fragment, ip.time_to_live), (whole, 64));
        assert_eq!((ip.identification, ip.ecn.value()), (0x1234, 1));
        let Some(TransportSlice::Udp(udp)) = packet.transport else {
            panic!("not UDP");
        };
        assert_eq!((udp.destination_port(), udp.checksum()), (8472, 0));
        let payload = udp.payload();
        assert_eq!(payload[..8], [8, 0, 0, 0, 1, 2, 3, 0]);
        assert_eq!(payload[8..], [0xab; 60]);
    }
}

#[test]
fn only_what_tells_of_nothing_but_a_frame_is_plain() {
    let plain = bytes(&outer(), 60);
    assert!(is_plain4(&arrived(&plain)));
    for (byte, value, why) in [
        (0, 0x46, "options"),
        (0, 0x65, "another version"),
        (1, 0x03, "congestion on the way"),
        (6, 0x20, "more fragments"),
        (6, 0x01, "a later fragment"),
        (7, 0x01, "a later fragment"),
        (9, 6, "TCP"),
        (26, 1, "a checksum"),
        (27, 1, "a checksum"),
        (28, 0, "no VNI"),
        (28, 0x88, "a group policy"),
        (29, 1, "a flag that nobody knows"),
        (30, 1, "the same"),
        (31, 1, "the same"),
        (35, 1, "the last byte"),
    ] {
        let mut other = plain.clone();
        other[byte] = value;
        assert!(!is_plain4(&arrived(&other)), "{why}");
    }
    for (byte, value, why) in [
        (1, 0x02, "may tell of congestion"),
        (1, 0xb8, "a class of service"),
        (6, 0x40, "not to be cut"),
        (8, 1, "the last hop"),
    ] {
        let mut other = plain.clone();
        other[byte] = value;
        assert!(is_plain4(&arrived(&other)), "{why}");
    }
}

#[test]
fn congestion_is_told_inside_only() {
    for (inner, outer) in [(0, 0), (1, 1), (2, 2), (3, 2), (0xb8, 0), (0xff, 2)] {
        assert_eq!(outer_ecn(inner), outer, "{inner}");
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        local: u32, remote: u32, hash: u32, to: u16, vni in 0_u32..1 << 24, ecn in 0_u8..3, id: u16, whole: bool,
        frame in 42_u16..65_499,
    ) {
        let outer = Outer4 { local, remote, from: source_port(hash), to, vni, ecn, id, whole };
        let words = arrived(&bytes(&outer, frame));
        prop_assert!(is_plain4(&words));
        prop_assert_eq!(read4(&words), outer);
        prop_assert!(u16::from_be(outer.from) >= 0xc000);
    }
}
