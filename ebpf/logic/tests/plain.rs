//! The short way of plain packets: what it makes of a packet is, byte for byte, the packet that etherparse builds with
//! the new addresses.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use etherparse::PacketBuilder;
use proptest::prelude::*;
use seaway_ebpf_abi::{Addr, FlowKey, FlowValue, Hop, Shortcut, TCP, UDP};
use seaway_ebpf_logic::checksum::{add, fold, pseudo_header, update};
use seaway_ebpf_logic::packet::{ETHERNET, Packet};
use seaway_ebpf_logic::plain::{self, Headers, Ipv4, Ipv6};
use seaway_ebpf_logic::shortcut;

fn frame(key: &FlowKey, hops: u8, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([1; 6], [2; 6]);
    let ip = match (key.src.ip(), key.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), hops),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), hops),
        other => panic!("{other:?}"),
    };
    let (sport, dport) = (u16::from_be(key.sport), u16::from_be(key.dport));
    let mut bytes = Vec::new();
    match key.protocol {
        TCP => ip
            .tcp(sport, dport, 7, 1000)
            .ack(9)
            .write(&mut bytes, payload),
        _ => ip.udp(sport, dport).write(&mut bytes, payload),
    }
    .unwrap();
    bytes
}

fn ipv4(bytes: &[u8]) -> Ipv4 {
    let words = bytes[ETHERNET..].chunks_exact(4).take(7);
    let words: Vec<u32> = words
        .map(|w| u32::from_ne_bytes(w.try_into().unwrap()))
        .collect();
    words.try_into().unwrap()
}

fn ipv6(bytes: &[u8]) -> Ipv6 {
    let words = bytes[ETHERNET..].chunks_exact(8).take(6);
    let words: Vec<u64> = words
        .map(|w| u64::from_ne_bytes(w.try_into().unwrap()))
        .collect();
    words.try_into().unwrap()
}

/// Whose checksum it is: of the packet, or of its pseudo header only, for whoever sends it to finish.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sum {
    Whole,
    Partial,
}

/// The flow by which a packet with that key goes to others.
fn flow(to: &FlowKey, forwarded: bool) -> FlowValue {
    FlowValue {
        src: to.src,
        dst: to.dst,
        sport: to.sport,
        dport: to.dport,
        hop: Hop {
            ifindex: u32::from(forwarded),
            ..Hop::default()
        },
        ..FlowValue::default()
    }
}

/// Translates a packet as the program does; `None` if it leaves the packet to the long way.
fn translate<H: Headers + IntoIterator>(
    mut headers: H,
    bytes: &mut [u8],
    (to, forwarded, sum): (&FlowKey, bool, Sum),
) -> Option<()>
where
    H::Item: Into<u64>,
{
    let protocol = headers.protocol()?;
    let key = headers.key(protocol);
    assert_eq!(headers.hash(protocol), shortcut::hash(&key));
    let mut way = Shortcut::default();
    let flow = flow(to, forwarded);
    if !shortcut::fill::<H>(&mut way, &key, &flow, (1, 1)) {
        return None;
    }
    assert!(headers.are_of(&way));
    let at = ETHERNET + H::IP + if protocol == TCP { 16 } else { 6 };
    let before = u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let partial = plain::may_be_partial(&way, before, headers.length());
    let length = headers.length();
    assert!(
        partial || sum == Sum::Whole,
        "known to be one of the packet"
    );
    headers.write(&way);
    let size = size_of::<H>() / headers_words::<H>();
    for (i, word) in headers.into_iter().enumerate() {
        let word: u64 = word.into();
        let octets = word.to_ne_bytes();
        let octets = match (size, cfg!(target_endian = "little")) {
            (8, _) => &octets[..],
            (_, true) => &octets[..4],
            (_, false) => &octets[4..],
        };
        bytes[ETHERNET + i * size..][..size].copy_from_slice(octets);
    }
    assert!(
        plain::may_be_partial(&way, before, 0),
        "too long for {length}"
    );
    let mended = if partial {
        // What the kernel's helper does.
        let addresses = u32::from(way.addresses);
        let after = match sum {
            Sum::Whole => update(before, addresses),
            Sum::Partial => fold(add(u32::from(before), addresses)),
        };
        plain::mend(&way, before, after, protocol)
    } else {
        plain::mend_whole(&way, before, protocol)
    };
    assert_eq!(plain::mend_whole(&way, 0, UDP), 0, "none stays none");
    bytes[at..at + 2].copy_from_slice(&mended.to_ne_bytes());
    Some(())
}

const fn headers_words<H: Headers>() -> usize {
    if H::V4 { 7 } else { 6 }
}

fn run(bytes: &mut [u8], v4: bool, to: &FlowKey, forwarded: bool, sum: Sum) -> Option<()> {
    if v4 {
        translate(ipv4(bytes), bytes, (to, forwarded, sum))
    } else {
        translate(ipv6(bytes), bytes, (to, forwarded, sum))
    }
}

fn addr(v4: bool, [a, b, c, d]: [u32; 4]) -> Addr {
    if v4 {
        return Addr::v4(d);
    }
    // Never one that stands for an IPv4 address.
    let words = [a | 0x20_u32.to_be(), b, c, d];
    Addr { words }
}

fn ends() -> impl Strategy<Value = (bool, FlowKey, FlowKey)> {
    let key = || any::<([u32; 4], [u32; 4], u16, u16)>();
    (any::<bool>(), any::<bool>(), key(), key()).prop_map(|(v4, tcp, from, to)| {
        let protocol = if tcp { TCP } else { UDP };
        let key = |(src, dst, sport, dport)| FlowKey {
            src: addr(v4, src),
            dst: addr(v4, dst),
            sport,
            dport,
            protocol,
            pad: [0; 3],
        };
        (v4, key(from), key(to))
    })
}

/// Two spellings of one sum.
fn normal(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    if bytes[at..at + 2] == [0, 0] {
        bytes[at..at + 2].copy_from_slice(&[0xff, 0xff]);
    }
    bytes
}

fn checksum_at(v4: bool, protocol: u8) -> usize {
    let transport = if v4 { 34 } else { 54 };
    transport + if protocol == TCP { 16 } else { 6 }
}

proptest! {
    #[test]
    fn a_translated_packet_is_the_one_with_the_new_addresses(
        (v4, from, to) in ends(),
        hops in 2_u8..,
        forwarded in any::<bool>(),
        payload in proptest::collection::vec(any::<u8>(), 0..40),
        partial in any::<bool>(),
    ) {
        let sum = if partial { Sum::Partial } else { Sum::Whole };
        let at = checksum_at(v4, from.protocol);
        let mut bytes = frame(&from, hops, &payload);
        let mut wanted = frame(&to, hops - u8::from(forwarded), &payload);
        if partial {
            for (bytes, key) in [(&mut bytes, &from), (&mut wanted, &to)] {
                let length = (bytes.len() - if v4 { 34 } else { 54 }) as u16;
                let sum = fold(pseudo_header(&key.src, &key.dst, key.protocol, length));
                bytes[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
            }
        }
        let before = bytes.clone();
        if run(&mut bytes, v4, &to, forwarded, sum).is_none() {
            prop_assert_eq!(bytes, before, "left as it was");
        } else {
            prop_assert_eq!(normal(bytes, at), normal(wanted, at));
        }
    }

    /// What the short way reads is what the long way reads.
    #[test]
    fn the_short_way_reads_what_the_long_way_reads((v4, from, _) in ends(), hops in any::<u8>()) {
        let bytes = frame(&from, hops, b"payload");
        let mut packet = Packet::default();
        packet.read(bytes.as_slice()).unwrap();
        fn seen<H: Headers>(headers: &H) -> (u8, FlowKey, u8, u32) {
            let protocol = headers.protocol().unwrap();
            let size = plain::size::<H>(headers.length());
            (protocol, headers.key(protocol), headers.hops(), size)
        }
        let seen = if v4 { seen(&ipv4(&bytes)) } else { seen(&ipv6(&bytes)) };
        let size = (bytes.len() - ETHERNET) as u32;
        prop_assert_eq!(seen, (from.protocol, packet.key, packet.hops, size));
    }

    /// Whatever the bytes are: a packet that the short way takes is one that the long way takes as a whole one.
    #[test]
    fn what_is_not_plain_is_left_alone(
        mut bytes in proptest::collection::vec(any::<u8>(), 80),
        kind in prop_oneof![Just([8_u8, 0]), Just([0x86, 0xdd]), any::<[u8; 2]>()],
        first in prop_oneof![Just(0x45_u8), Just(0x46), Just(0x60), any::<u8>()],
        protocol in prop_oneof![Just(TCP), Just(UDP), Just(0), Just(44), any::<u8>()],
        place in prop_oneof![Just([0_u8, 0]), Just([0x40, 0]), Just([0x20, 0]), Just([0, 1])],
    ) {
        bytes[12..14].copy_from_slice(&kind);
        bytes[14] = first;
        bytes[if kind[0] == 8 { 23 } else { 20 }] = protocol;
        if kind[0] == 8 {
            bytes[20..22].copy_from_slice(&place);
        }
        let kind = u16::from_ne_bytes(kind);
        let four = (kind == Ipv4::ETHERTYPE).then(|| ipv4(&bytes).protocol()).flatten();
        let six = (kind == Ipv6::ETHERTYPE).then(|| ipv6(&bytes).protocol()).flatten();
        if let Some(protocol) = four.or(six) {
            let mut packet = Packet::default();
            prop_assert_eq!(packet.read(bytes.as_slice()), Ok(()));
            prop_assert_eq!(packet.part, seaway_ebpf_logic::packet::Part::Whole);
            prop_assert_eq!(packet.key.protocol, protocol);
            let header = if four.is_some() { Ipv4::IP } else { Ipv6::IP };
            prop_assert_eq!(packet.transport, ETHERNET + header);
        }
    }

    /// What the change adds to the sum of all, which a card may have made, is what the packet's bytes say.
    #[test]
    fn the_sum_of_the_whole_packet_is_known(
        (v4, from, to) in ends(),
        hops in 2_u8..,
        forwarded in any::<bool>(),
        payload in proptest::collection::vec(any::<u8>(), 20..40),
    ) {
        let mut bytes = frame(&from, hops, &payload);
        let all = |bytes: &[u8]| {
            let words = bytes[ETHERNET..].chunks(2);
            words.fold(0, |sum, word| {
                add(sum, u32::from(u16::from_ne_bytes([word[0], word.get(1).copied().unwrap_or(0)])))
            })
        };
        let before = all(&bytes);
        if run(&mut bytes, v4, &to, forwarded, Sum::Whole).is_some() {
            let mut way = Shortcut::default();
            let flow = flow(&to, forwarded);
            if v4 {
                shortcut::fill::<Ipv4>(&mut way, &from, &flow, (1, 1));
            } else {
                shortcut::fill::<Ipv6>(&mut way, &from, &flow, (1, 1));
            }
            let expected = add(before, u32::from(shortcut::in_all(&way, v4)));
            prop_assert_eq!(fold(expected) % 0xffff, fold(all(&bytes)) % 0xffff);
        }
    }
}
