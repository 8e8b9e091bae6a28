//! Parsing and rewriting, judged by etherparse: an implementation that is not ours.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use etherparse::{IpHeaders, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use seaway_ebpf_abi::{Addr, FlowKey, SCTP, TCP, UDP};
use seaway_ebpf_logic::packet::{ETHERNET, Packet, Part, Skip, TCP_ACK, TCP_FIN, TCP_SYN};
use seaway_ebpf_logic::{checksum, nat, refuse};

fn octets(addr: &Addr) -> [u8; 16] {
    match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// IPv4 with that many words of options, or IPv6 with that many empty extension headers (at most three).
fn headers(from: &FlowKey, words: usize, ttl: u8) -> IpHeaders {
    if let (IpAddr::V4(src), IpAddr::V4(dst)) = (from.src.ip(), from.dst.ip()) {
        let number = etherparse::ip_number::TCP;
        let mut header =
            etherparse::Ipv4Header::new(0, ttl, number, src.octets(), dst.octets()).unwrap();
        header.options = vec![1_u8; words * 4].as_slice().try_into().unwrap();
        return IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default());
    }
    let header = etherparse::Ipv6Header {
        hop_limit: ttl,
        source: octets(&from.src),
        destination: octets(&from.dst),
        ..etherparse::Ipv6Header::default()
    };
    let empty = || {
        let next = etherparse::ip_number::TCP;
        Some(etherparse::Ipv6RawExtHeader::new_raw(next, &[1, 4, 0, 0, 0, 0]).unwrap())
    };
    let mut extensions = etherparse::Ipv6Extensions::default();
    if words > 0 {
        extensions.hop_by_hop_options = empty();
    }
    if words > 1 {
        extensions.destination_options = empty();
    }
    if words > 2 {
        extensions.fragment = Some(etherparse::Ipv6FragmentHeader::new(
            etherparse::ip_number::TCP,
            etherparse::IpFragOffset::try_new(0).unwrap(),
            false,
            7,
        ));
    }
    IpHeaders::Ipv6(header, extensions)
}

fn frame(from: &FlowKey, words: usize, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ip(headers(from, words, ttl));
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

fn parse(bytes: &[u8]) -> Result<Packet, Skip> {
    let mut packet = Packet::default();
    packet.read(bytes)?;
    Ok(packet)
}

fn put_addresses(bytes: &mut [u8], at: usize, key: &FlowKey) {
    bytes[at..at + 16].copy_from_slice(&octets(&key.src));
    bytes[at + 16..at + 32].copy_from_slice(&octets(&key.dst));
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
    if packet.key.src.is_v4() {
        let was = (packet.hops, packet.protocol(), packet.check);
        let header = nat::ipv4_mutable(was, &packet.key, to, forwarded);
        bytes[ETHERNET + nat::IPV4_MUTABLE..][..12].copy_from_slice(&header);
    } else {
        bytes[ETHERNET + nat::IPV6_HOPS] = nat::ipv6_hops(packet.hops, forwarded);
        put_addresses(bytes, ETHERNET + nat::IPV6_ADDRESSES, to);
    }
    bytes[packet.transport..packet.transport + 2].copy_from_slice(&to.sport.to_ne_bytes());
    bytes[packet.transport + 2..packet.transport + 4].copy_from_slice(&to.dport.to_ne_bytes());
}

/// Whether every checksum is what etherparse computes.
fn checksums_hold(bytes: &[u8]) -> bool {
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    let (tcp, udp) = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => (Some(tcp.to_header()), None),
        Some(TransportSlice::Udp(udp)) => (None, Some(udp.to_header())),
        _ => return false,
    };
    let payload = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => tcp.payload(),
        Some(TransportSlice::Udp(udp)) => udp.payload(),
        _ => return false,
    };
    match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            let tcp = tcp.is_none_or(|tcp| {
                tcp.calc_checksum_ipv4(&header, payload).unwrap() == tcp.checksum
            });
            let udp = udp.is_none_or(|udp| {
                udp.calc_checksum_ipv4(&header, payload).unwrap() == udp.checksum
            });
            tcp && udp && header.calc_header_checksum() == header.header_checksum
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header().to_header();
            let tcp = tcp.is_none_or(|tcp| {
                tcp.calc_checksum_ipv6(&header, payload).unwrap() == tcp.checksum
            });
            tcp && udp
                .is_none_or(|udp| udp.calc_checksum_ipv6(&header, payload).unwrap() == udp.checksum)
        }
        _ => false,
    }
}

fn addr(v4: bool) -> impl Strategy<Value = Addr> {
    any::<[u32; 4]>().prop_map(move |words| {
        if v4 {
            Addr::v4(words[3])
        } else {
            // Not one that looks like IPv4.
            let [a, b, c, d] = words;
            Addr {
                words: [a | 1, b, c, d],
            }
        }
    })
}

/// Two flows of one family and protocol.
fn flows() -> impl Strategy<Value = (FlowKey, FlowKey)> {
    any::<bool>().prop_flat_map(|v4| {
        let addresses = (addr(v4), addr(v4), addr(v4), addr(v4));
        let protocol = prop_oneof![Just(TCP), Just(UDP)];
        (addresses, any::<[u16; 4]>(), protocol).prop_map(
            |((src, dst, src2, dst2), [sport, dport, sport2, dport2], protocol)| {
                let key = |src, dst, sport, dport| FlowKey {
                    src,
                    dst,
                    sport,
                    dport,
                    protocol,
                    pad: [0; 3],
                };
                (key(src, dst, sport, dport), key(src2, dst2, sport2, dport2))
            },
        )
    })
}

proptest! {
    #[test]
    fn what_was_built_is_what_is_read(
        (from, _) in flows(),
        words in 0_usize..=3,
        ttl in any::<u8>(),
    ) {
        let bytes = frame(&from, words, ttl, b"payload");
        let packet = parse(&bytes).unwrap();
        prop_assert_eq!(packet.key, from);
        prop_assert_eq!(packet.hops, ttl);
        let start = if from.src.is_v4() { 34 + words * 4 } else { 54 + words * 8 };
        prop_assert_eq!(packet.transport, start);
        prop_assert_eq!(packet.tcp_flags, if from.protocol == TCP { TCP_SYN } else { 0 });
        prop_assert_eq!(packet.part, Part::Whole);
    }

    #[test]
    fn a_rewritten_packet_has_right_checksums_and_addresses(
        (from, to) in flows(),
        words in 0_usize..=3,
        ttl in 2_u8..,
        forwarded in any::<bool>(),
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = frame(&from, words, ttl, &payload);
        prop_assert!(checksums_hold(&bytes));
        let packet = parse(&bytes).unwrap();
        rewrite(&mut bytes, &packet, &to, forwarded);
        prop_assert!(checksums_hold(&bytes));
        let after = parse(&bytes).unwrap();
        prop_assert_eq!(after.key, to);
        prop_assert_eq!(after.hops, if forwarded { ttl - 1 } else { ttl });
    }

    #[test]
    fn there_and_back_is_the_identity((from, to) in flows()) {
        let original = frame(&from, 0, 64, b"x");
        let mut bytes = original.clone();
        for target in [&to, &from] {
            let packet = parse(&bytes).unwrap();
            rewrite(&mut bytes, &packet, target, false);
        }
        prop_assert_eq!(bytes, original);
    }

    #[test]
    fn no_bytes_at_all_make_it_panic(
        v6 in any::<bool>(),
        mut bytes in proptest::collection::vec(any::<u8>(), 0..160),
    ) {
        if let Some(kind) = bytes.get_mut(12..15) {
            kind.copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[0x08, 0x00, 0x45] });
        }
        let _ = parse(&bytes);
    }

    #[test]
    fn a_cut_packet_is_skipped((from, _) in flows(), keep in 0.0_f64..1.0) {
        let bytes = frame(&from, 0, 64, b"");
        let cut = &bytes[..(bytes.len() as f64 * keep) as usize];
        prop_assert_eq!(parse(cut), Err(Skip::Truncated));
    }

    /// A segment with any flags is answered by a reset that etherparse finds right.
    #[test]
    fn a_reset_is_right(
        (key, _) in flows(),
        sequence in any::<u32>(),
        acknowledged in any::<u32>(),
        flags in any::<u8>(),
        payload in 0_u32..1500,
    ) {
        let mut bytes = [0_u8; refuse::RESET];
        bytes[4..8].copy_from_slice(&sequence.to_be_bytes());
        bytes[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        bytes[13] = flags;
        refuse::reset(&key, &mut bytes, payload);
        let reset = etherparse::TcpHeaderSlice::from_slice(&bytes).unwrap().to_header();
        prop_assert!(reset.rst && !reset.syn && !reset.fin);
        prop_assert_eq!(reset.source_port, u16::from_be(key.dport));
        prop_assert_eq!(reset.destination_port, u16::from_be(key.sport));
        if flags & TCP_ACK != 0 {
            prop_assert_eq!((reset.ack, reset.sequence_number), (false, acknowledged));
        } else {
            let bits = u32::from(flags & TCP_SYN != 0) + u32::from(flags & TCP_FIN != 0);
            prop_assert!(reset.ack);
            prop_assert_eq!(
                reset.acknowledgment_number,
                sequence.wrapping_add(payload).wrapping_add(bits)
            );
        }
        let back = key.swapped();
        let computed = match headers(&back, 0, 64) {
            IpHeaders::Ipv4(header, _) => reset.calc_checksum_ipv4(&header, &[]).unwrap(),
            IpHeaders::Ipv6(header, _) => reset.calc_checksum_ipv6(&header, &[]).unwrap(),
        };
        prop_assert_eq!(computed, reset.checksum);
    }

    /// An error quotes a datagram, and is read back as one about its flow: also with zeros behind it, or what is as good as zero for
    /// its sum.
    #[test]
    fn an_icmp_error_is_right(
        (key, _) in flows(),
        mtu in prop_oneof![Just(0), 68_u16..9000],
        behind in proptest::option::of(prop_oneof![Just(0), Just(u16::MAX)]),
    ) {
        let datagram = frame(&FlowKey { protocol: UDP, ..key }, 0, 64, b"");
        let answer = if key.src.is_v4() {
            icmp_error::<36>(&key, mtu, &datagram, behind)
        } else {
            icmp_error::<56>(&key, mtu, &datagram, behind)
        };
        let packet = parse(&answer).unwrap();
        prop_assert_eq!(packet.part, Part::Error);
        prop_assert_eq!(packet.key, FlowKey { protocol: UDP, ..key.swapped() });
        let sliced = SlicedPacket::from_ethernet(&answer).unwrap();
        match (&sliced.net, &sliced.transport) {
            (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
                let header = ip.header().to_header();
                prop_assert_eq!(header.calc_header_checksum(), header.header_checksum);
                let again = etherparse::Icmpv4Header::with_checksum(icmp.icmp_type(), icmp.payload());
                prop_assert_eq!(icmp.checksum(), again.checksum);
                let expected = if mtu == 0 {
                    etherparse::icmpv4::DestUnreachableHeader::Port
                } else {
                    etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded {
                        next_hop_mtu: mtu,
                    }
                };
                let expected = etherparse::Icmpv4Type::DestinationUnreachable(expected);
                prop_assert_eq!(icmp.icmp_type(), expected);
            }
            (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
                let header = ip.header();
                prop_assert!(icmp.is_checksum_valid(header.source(), header.destination()));
                let expected = if mtu == 0 {
                    etherparse::Icmpv6Type::DestinationUnreachable(
                        etherparse::icmpv6::DestUnreachableCode::Port,
                    )
                } else {
                    etherparse::Icmpv6Type::PacketTooBig { mtu: mtu.into() }
                };
                prop_assert_eq!(icmp.icmp_type(), expected);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

/// The answer of the programs to a datagram.
fn icmp_error<const N: usize>(
    key: &FlowKey,
    mtu: u16,
    datagram: &[u8],
    behind: Option<u16>,
) -> Vec<u8> {
    let zeros = if behind.is_some() { 18 } else { 0 };
    let (from, to) = (&key.dst, &key.src);
    let mut message = [0; N];
    message[refuse::ICMP_HEADER..].copy_from_slice(&datagram[ETHERNET..][..N - 8]);
    refuse::icmp_error(from, to, mtu, &mut message, zeros);
    let mut bytes = datagram[..ETHERNET].to_vec();
    let protocol = refuse::icmp_protocol(from.is_v4());
    if from.is_v4() {
        bytes.extend(refuse::ipv4_header(from, to, protocol, N as u16 + zeros));
    } else {
        bytes.extend(refuse::ipv6_header(protocol, N as u16 + zeros));
        bytes.extend(octets(from));
        bytes.extend(octets(to));
    }
    bytes.extend(message);
    if let Some(last) = behind {
        bytes.extend([0; 16]);
        bytes.extend(last.to_be_bytes());
    }
    bytes
}

fn datagram(v4: bool) -> Vec<u8> {
    let addr = |n: u32| match v4 {
        true => Addr::v4(n),
        false => Addr { words: [n; 4] },
    };
    let from = FlowKey {
        src: addr(1),
        dst: addr(2),
        sport: 3,
        dport: 4,
        protocol: UDP,
        pad: [0; 3],
    };
    frame(&from, 0, 64, b"x")
}

#[test]
fn what_is_not_ours_is_skipped() {
    for (v4, offset, value) in [
        (true, 12, 0x90),  // another ethertype
        (true, 14, 0x65),  // another version
        (true, 14, 0x44),  // a header of 16 bytes
        (true, 23, 33),    // DCCP
        (true, 23, 58),    // the ICMP of the other family
        (false, 14, 0x40), // another version
        (false, 20, 43),   // a routing header
        (false, 20, 51),   // authentication
        (false, 20, 50),   // encryption
        (false, 20, 59),   // nothing follows
        (false, 20, 1),    // the ICMP of the other family
    ] {
        let mut bytes = datagram(v4);
        bytes[offset] = value;
        assert_eq!(parse(&bytes), Err(Skip::Other), "{v4} {offset} {value:#x}");
    }
    // "Don't fragment" is no fragment.
    let mut bytes = datagram(true);
    bytes[20] = 0x40;
    assert_eq!(parse(&bytes).unwrap().part, Part::Whole);
}

/// It begins with its ports, and is not followed further.
#[test]
fn of_sctp_the_addresses_are_read() {
    for (v4, offset) in [(true, 23), (false, 20)] {
        let mut bytes = datagram(v4);
        bytes[offset] = SCTP;
        let packet = parse(&bytes).unwrap();
        assert_eq!(
            (packet.key.sport, packet.key.dport, packet.key.protocol),
            (3, 4, SCTP)
        );
        assert_eq!(packet.checksum(), packet.transport + 8);
    }
    let mut later = datagram(true);
    (later[21], later[23]) = (1, SCTP);
    assert_eq!(parse(&later), Err(Skip::Other));
}

#[test]
fn fragments_are_told_apart() {
    for (place, expected) in [
        ([0x20, 0x00], Part::First),
        ([0x00, 0x01], Part::Later),
        ([0x20, 0x01], Part::Later),
    ] {
        let mut bytes = datagram(true);
        bytes[18..20].copy_from_slice(&[7, 9]);
        bytes[20..22].copy_from_slice(&place);
        let packet = parse(&bytes).unwrap();
        assert_eq!(packet.part, expected);
        assert_eq!(packet.fragment, u32::from(u16::from_ne_bytes([7, 9])));
        assert_eq!(packet.has_ports(), expected == Part::First);
        assert_eq!(packet.key.sport, if packet.has_ports() { 3 } else { 0 });
    }
    for (place, expected) in [
        ([0x00, 0x00], Part::Whole),
        ([0x00, 0x01], Part::First),
        ([0x00, 0x08], Part::Later),
        ([0x00, 0x09], Part::Later),
    ] {
        let plain = datagram(false);
        let mut bytes = plain[..54].to_vec();
        bytes[20] = 44;
        bytes.extend([UDP, 0, place[0], place[1], 1, 2, 3, 4]);
        bytes.extend(&plain[54..]);
        let packet = parse(&bytes).unwrap();
        assert_eq!(packet.part, expected);
        assert_eq!(packet.fragment, u32::from_ne_bytes([1, 2, 3, 4]));
        assert_eq!(packet.transport, 62);
    }
}
