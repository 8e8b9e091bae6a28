//! Hashes of flows: what nodes agree on, and how evenly they fall.

use std::net::IpAddr;

use proptest::prelude::*;
use seaway_ebpf_abi::maglev::{MAGLEV_CHUNK, MAGLEV_CHUNKS, MAGLEV_TABLE};
use seaway_ebpf_abi::{Addr, FrontendKey, TCP, UDP};
use seaway_ebpf_logic::spread::{entry, hash, place};

fn key(ip: &str, port: u16, protocol: u8) -> FrontendKey {
    FrontendKey {
        addr: addr(ip),
        port: port.to_be(),
        protocol,
        pad: 0,
    }
}

fn addr(ip: &str) -> Addr {
    ip.parse::<IpAddr>().expect("an address").into()
}

/// `jhash2` of `include/linux/jhash.h`, written down as it stands there.
fn jhash2(words: &[u32], seed: u32) -> u32 {
    let start = 0xdead_beef_u32
        .wrapping_add((words.len() as u32) << 2)
        .wrapping_add(seed);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = words;
    while rest.len() > 3 {
        a = a.wrapping_add(rest[0]);
        b = b.wrapping_add(rest[1]);
        c = c.wrapping_add(rest[2]);
        for rotate in [4, 6, 8, 16, 19, 4] {
            a = a.wrapping_sub(c);
            a ^= c.rotate_left(rotate);
            c = c.wrapping_add(b);
            // The same line with the next letters.
            (a, b, c) = (b, c, a);
        }
        rest = &rest[3..];
    }
    a = a.wrapping_add(rest.first().copied().unwrap_or(0));
    b = b.wrapping_add(rest.get(1).copied().unwrap_or(0));
    c = c.wrapping_add(rest.get(2).copied().unwrap_or(0));
    for rotate in [14, 11, 25, 16, 4, 14, 24] {
        c ^= b;
        c = c.wrapping_sub(b.rotate_left(rotate));
        (a, b, c) = (b, c, a);
    }
    // Seven turns of three letters: `c` stands in the second place.
    b
}

proptest! {
    #[test]
    fn it_is_the_hash_of_the_kernel(
        client in any::<[u32; 4]>(),
        to in any::<[u32; 4]>(),
        ports in any::<(u16, u16)>(),
        protocol in any::<u8>(),
        seed in any::<u32>(),
    ) {
        // What a machine of the other byte order has in hand is the same bytes.
        let wire = |words: [u32; 4]| Addr { words: words.map(u32::to_be) };
        let frontend = FrontendKey { addr: wire(to), port: ports.1.to_be(), protocol, pad: 0 };
        let mut words = client.to_vec();
        words.extend(to);
        words.push(u32::from(ports.0) << 16 | u32::from(ports.1));
        words.push(u32::from(protocol));
        prop_assert_eq!(hash(&wire(client), ports.0.to_be(), &frontend, seed), jhash2(&words, seed));
    }

    #[test]
    fn every_hash_has_a_place(hash in any::<u32>()) {
        let entry = entry(hash);
        prop_assert!(entry < MAGLEV_TABLE);
        let (chunk, place) = place(entry);
        prop_assert!(chunk < MAGLEV_CHUNKS && (place as usize) < MAGLEV_CHUNK);
        prop_assert_eq!(chunk * MAGLEV_CHUNK as u32 + place, entry);
    }
}

#[test]
fn the_ends_of_the_hashes_are_the_ends_of_the_table() {
    assert_eq!(entry(0), 0);
    assert_eq!(entry(u32::MAX), MAGLEV_TABLE - 1);
    assert_eq!(place(MAGLEV_TABLE - 1), (8, 1788));
    assert_eq!(MAGLEV_CHUNKS, 9);
}

/// Nodes of different versions have to agree: whoever changes these figures moves every flow of a cluster that is being
/// upgraded.
#[test]
fn hashes_never_change() {
    let of = |(client, port, to): (&str, u16, FrontendKey)| {
        hash(&addr(client), port.to_be(), &to, 0x7377_6179)
    };
    let hashes = [
        ("192.0.2.1", 40_000, key("10.96.0.10", 80, TCP)),
        ("192.0.2.1", 40_001, key("10.96.0.10", 80, TCP)),
        ("192.0.2.1", 40_000, key("10.96.0.10", 80, UDP)),
        ("2001:db8::1", 40_000, key("::", 30_080, TCP)),
    ]
    .map(of);
    assert_eq!(
        hashes,
        [3_071_244_050, 3_831_531_263, 2_011_021_935, 2_751_148_622]
    );
}

/// Clients as they are: one after the other, ports one after the other.
#[test]
fn neighbours_fall_apart() {
    let to = key("10.96.0.10", 80, TCP);
    let mut shares = [0_u32; 8];
    for client in 0..64_u8 {
        let client = addr(&format!("10.0.0.{client}"));
        for port in 40_000..40_512_u16 {
            let entry = entry(hash(&client, port.to_be(), &to, 0));
            shares[(entry * 8 / MAGLEV_TABLE) as usize] += 1;
        }
    }
    // 4096 each, with a standard deviation of 60.
    for share in shares {
        assert!((3_800..4_400).contains(&share), "{shares:?}");
    }
}
