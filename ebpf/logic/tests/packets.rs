//! Parsing and rewriting, judged by etherparse: an implementation that is not ours.

#![allow(clippy::unwrap_used)]

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use seaway_ebpf_abi::{FlowKey, TCP, UDP};
use seaway_ebpf_logic::packet::{self, Packet, Skip, TCP_SYN};
use seaway_ebpf_logic::{checksum, nat};

fn frame(from: &FlowKey, options: &[u8], ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = etherparse::Ipv4Header::new(
        0,
        ttl,
        etherparse::ip_number::TCP,
        from.src.to_ne_bytes(),
        from.dst.to_ne_bytes(),
    )
    .unwrap();
    header.options = options.try_into().unwrap();
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ip(etherparse::IpHeaders::Ipv4(
        header,
        etherparse::Ipv4Extensions::default(),
    ));
    let (sport, dport) = (u16::from_be(from.sport), u16::from_be(from.dport));
    let mut bytes = Vec::new();
    if from.protocol == TCP {
        let tcp = builder.tcp(sport, dport, 7, 1000).syn();
        tcp.write(&mut bytes, payload).unwrap();
    } else {
        builder
            .udp(sport, dport)
            .write(&mut bytes, payload)
            .unwrap();
    }
    bytes
}

/// What the programs do to a packet, done to a slice.
fn rewrite(bytes: &mut [u8], packet: &Packet, to: &FlowKey, forwarded: bool) {
    let differences = nat::differences(&packet.key, to);
    let at = packet.checksum();
    let old = u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let new = checksum::update(old, checksum::add(differences.addresses, differences.ports));
    // RFC 768: a computed zero is sent as all ones.
    let new = if new == 0 && packet.key.protocol == UDP {
        0xffff
    } else {
        new
    };
    bytes[at..at + 2].copy_from_slice(&new.to_ne_bytes());
    let header = nat::ipv4_mutable(packet.mutable, to, forwarded);
    bytes[packet::IPV4_MUTABLE..packet::IPV4_MUTABLE + 12].copy_from_slice(&header);
    bytes[packet.transport..packet.transport + 2].copy_from_slice(&to.sport.to_ne_bytes());
    bytes[packet.transport + 2..packet.transport + 4].copy_from_slice(&to.dport.to_ne_bytes());
}

/// Whether every checksum is what etherparse computes.
fn checksums_hold(bytes: &[u8]) -> bool {
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    let Some(etherparse::NetSlice::Ipv4(ip)) = &sliced.net else {
        return false;
    };
    let header = ip.header().to_header();
    let transport = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let computed = tcp
                .to_header()
                .calc_checksum_ipv4(&header, tcp.payload())
                .unwrap();
            computed == tcp.checksum()
        }
        Some(TransportSlice::Udp(udp)) => {
            let computed = udp
                .to_header()
                .calc_checksum_ipv4(&header, udp.payload())
                .unwrap();
            computed == udp.checksum()
        }
        _ => false,
    };
    transport && header.calc_header_checksum() == header.header_checksum
}

fn flow() -> impl Strategy<Value = FlowKey> {
    (
        any::<[u32; 2]>(),
        any::<[u16; 2]>(),
        prop_oneof![Just(TCP), Just(UDP)],
    )
        .prop_map(|([src, dst], [sport, dport], protocol)| FlowKey {
            src,
            dst,
            sport,
            dport,
            protocol,
            pad: [0; 3],
        })
}

proptest! {
    #[test]
    fn what_was_built_is_what_is_read(
        from in flow(),
        words in 0_usize..=10,
        ttl in any::<u8>(),
    ) {
        let bytes = frame(&from, &vec![1; words * 4], ttl, b"payload");
        let packet = packet::parse(bytes.as_slice()).unwrap();
        prop_assert_eq!(packet.key, from);
        prop_assert_eq!(packet.ttl(), ttl);
        prop_assert_eq!(packet.transport, 34 + words * 4);
        prop_assert_eq!(packet.tcp_flags, if from.protocol == TCP { TCP_SYN } else { 0 });
    }

    #[test]
    fn a_rewritten_packet_has_right_checksums_and_addresses(
        from in flow(),
        to in flow(),
        words in 0_usize..=10,
        ttl in 2_u8..,
        forwarded in any::<bool>(),
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let to = FlowKey { protocol: from.protocol, ..to };
        let mut bytes = frame(&from, &vec![1; words * 4], ttl, &payload);
        prop_assert!(checksums_hold(&bytes));
        let packet = packet::parse(bytes.as_slice()).unwrap();
        rewrite(&mut bytes, &packet, &to, forwarded);
        prop_assert!(checksums_hold(&bytes));
        let after = packet::parse(bytes.as_slice()).unwrap();
        prop_assert_eq!(after.key, to);
        prop_assert_eq!(after.ttl(), if forwarded { ttl - 1 } else { ttl });
    }

    #[test]
    fn there_and_back_is_the_identity(from in flow(), to in flow()) {
        let to = FlowKey { protocol: from.protocol, ..to };
        let original = frame(&from, &[], 64, b"x");
        let mut bytes = original.clone();
        for target in [&to, &from] {
            let packet = packet::parse(bytes.as_slice()).unwrap();
            rewrite(&mut bytes, &packet, target, false);
        }
        prop_assert_eq!(bytes, original);
    }

    #[test]
    fn no_bytes_at_all_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = packet::parse(bytes.as_slice());
    }

    #[test]
    fn a_cut_packet_is_skipped(from in flow(), keep in 0.0_f64..1.0) {
        let bytes = frame(&from, &[], 64, b"");
        let cut = &bytes[..(bytes.len() as f64 * keep) as usize];
        prop_assert_eq!(packet::parse(cut), Err(Skip::Truncated));
    }
}

#[test]
fn what_is_not_ours_is_skipped() {
    let from = FlowKey {
        src: 1,
        dst: 2,
        sport: 3,
        dport: 4,
        protocol: UDP,
        pad: [0; 3],
    };
    let good = frame(&from, &[], 64, b"x");
    for (offset, value, expected) in [
        (12, 0x86, Skip::Other),    // another ethertype
        (14, 0x65, Skip::Other),    // another version
        (14, 0x44, Skip::Other),    // a header of 16 bytes
        (23, 1, Skip::Other),       // ICMP
        (20, 0x20, Skip::Fragment), // more fragments
        (21, 0x01, Skip::Fragment), // a later fragment
    ] {
        let mut bytes = good.clone();
        bytes[offset] = value;
        assert_eq!(
            packet::parse(bytes.as_slice()),
            Err(expected),
            "{offset} {value:#x}"
        );
    }
    // "Don't fragment" is no fragment.
    let mut bytes = good;
    bytes[20] = 0x40;
    assert!(packet::parse(bytes.as_slice()).is_ok());
}
