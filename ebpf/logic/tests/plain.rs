//! The short way of plain packets: what it makes of a packet is, byte for byte, the packet that etherparse builds with
//! the new addresses.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use etherparse::PacketBuilder;
use proptest::prelude::*;
use seaway_ebpf_abi::{Addr, FlowKey, TCP, UDP};
use seaway_ebpf_logic::checksum::{add, fold, pseudo_header, update};
use seaway_ebpf_logic::packet::Packet;
use seaway_ebpf_logic::plain::{self, TCP4, TCP6, UDP4, UDP6};

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

fn words<const N: usize>(bytes: &[u8]) -> [u16; N] {
    let words = bytes.chunks_exact(2).take(N);
    let words: Vec<u16> = words.map(|w| u16::from_ne_bytes([w[0], w[1]])).collect();
    words.try_into().unwrap()
}

fn put(bytes: &mut [u8], words: &[u16]) {
    for (to, from) in bytes.chunks_exact_mut(2).zip(words) {
        to.copy_from_slice(&from.to_ne_bytes());
    }
}

/// Whose checksum it is: of the packet, or of its pseudo header only, for whoever sends it to finish.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sum {
    Whole,
    Partial,
}

/// Translates a packet as the program does; `None` if it leaves the packet to the long way.
fn translate<const UDP_N: usize, const ALL: usize>(
    bytes: &mut [u8],
    to: &FlowKey,
    forwarded: bool,
    sum: Sum,
) -> Option<()> {
    let mut head: [u16; UDP_N] = words(bytes);
    let protocol = plain::protocol(&head)?;
    let key = plain::key(&head, protocol);
    let change = plain::change(&head, &key, to, forwarded);
    if !change.tells() {
        return None;
    }
    let at = plain::transport(UDP_N) + if ALL == UDP_N { 3 } else { 8 };
    let mut all: [u16; ALL] = words(bytes);
    let before = all[at];
    // What the kernel's helper does.
    let after = match sum {
        Sum::Whole => update(before, change.addresses),
        Sum::Partial => fold(add(u32::from(before), change.addresses)),
    };
    all[at] = change.mend(before, after, protocol);
    if sum == Sum::Whole {
        let at_once = change.mend_whole(before, protocol);
        assert!(
            at_once == all[at] || at_once == !all[at],
            "two spellings of zero at most"
        );
        assert_eq!(change.mend_whole(0, UDP), 0, "none stays none");
    }
    put(bytes, &all);
    head = words(bytes);
    plain::write(&mut head, to, &change, forwarded);
    put(bytes, &head);
    Some(())
}

fn run(bytes: &mut [u8], v4: bool, to: &FlowKey, forwarded: bool, sum: Sum) -> Option<()> {
    match (v4, to.protocol) {
        (true, TCP) => translate::<UDP4, TCP4>(bytes, to, forwarded, sum),
        (true, _) => translate::<UDP4, UDP4>(bytes, to, forwarded, sum),
        (false, TCP) => translate::<UDP6, TCP6>(bytes, to, forwarded, sum),
        (false, _) => translate::<UDP6, UDP6>(bytes, to, forwarded, sum),
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
        let (protocol, key, seen) = if v4 {
            let head: [u16; UDP4] = words(&bytes);
            let protocol = plain::protocol(&head).unwrap();
            (protocol, plain::key(&head, protocol), plain::hops(&head))
        } else {
            let head: [u16; UDP6] = words(&bytes);
            let protocol = plain::protocol(&head).unwrap();
            (protocol, plain::key(&head, protocol), plain::hops(&head))
        };
        prop_assert_eq!((protocol, key, seen), (from.protocol, packet.key, packet.hops));
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
        let four = plain::protocol(&words::<UDP4>(&bytes));
        let six = plain::protocol(&words::<UDP6>(&bytes));
        prop_assert!(four.is_none() || six.is_none());
        if let Some(protocol) = four.or(six) {
            let mut packet = Packet::default();
            prop_assert_eq!(packet.read(bytes.as_slice()), Ok(()));
            prop_assert_eq!(packet.part, seaway_ebpf_logic::packet::Part::Whole);
            prop_assert_eq!(packet.key.protocol, protocol);
            let headers = if four.is_some() { UDP4 } else { UDP6 };
            prop_assert_eq!(packet.transport, 2 * plain::transport(headers));
        }
    }
}
