//! When a slot ends, and where packets look for theirs.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use seaway_ebpf_abi::flow::{
    STATE_ESTABLISHED, STATE_FIN_BACKEND, STATE_OPENED, STATE_REPLIED, TOUCH_INTERVAL_NS,
};
use seaway_ebpf_abi::shortcut::{REVISIONS_LEN, slots};
use seaway_ebpf_abi::{Addr, FlowKey, TCP, UDP};
use seaway_ebpf_logic::flow::is_settled;
use seaway_ebpf_logic::plain::{Ipv4, Ipv6};
use seaway_ebpf_logic::shortcut::{self, holds, stamp, until};

const SECOND: u64 = 1_000_000_000;

#[test]
fn whatever_changes_makes_another_stamp() {
    let stamps = [
        stamp::<Ipv4>(1, 0, UDP, false),
        stamp::<Ipv4>(2, 0, UDP, false),
        stamp::<Ipv4>(1, 1, UDP, false),
        stamp::<Ipv4>(1, 0, TCP, false),
        stamp::<Ipv4>(1, 0, UDP, true),
        stamp::<Ipv6>(1, 0, UDP, false),
    ];
    for (i, one) in stamps.iter().enumerate() {
        assert!(stamps[..i].iter().all(|other| other != one), "{i}");
    }
    // The epoch can be read from it.
    for egress in [true, false] {
        let stamp = stamp::<Ipv6>(7, u32::MAX, TCP, egress);
        assert_eq!(
            (shortcut::epoch(stamp), shortcut::is_egress(stamp)),
            (7, egress)
        );
    }
}

/// As long as a slot lives no revision comes back, on whichever CPU.
#[test]
fn every_change_is_a_revision_of_its_own() {
    let mut seen = BTreeSet::new();
    for ticks in (u32::MAX - 50..=u32::MAX).chain(0..50) {
        for cpu in [0, 1, 7, 1023] {
            for nth in [u32::MAX, 0, 1, 2048] {
                let revision = shortcut::new_revision(ticks, cpu, nth);
                assert!(seen.insert(stamp::<Ipv4>(1, revision, TCP, false)));
            }
        }
    }
}

#[test]
fn a_slot_does_not_outlive_the_second_of_its_entry() {
    // Ticks of kernels with 100, 250 and 1000 a second.
    for per_second in [100_u64, 250, 1000] {
        for age in (0..=2 * SECOND).step_by(10_000_000) {
            for now in [0, 1000, u32::MAX - 3] {
                let end = until(now, age);
                let lives = (1..200).find(|tick| !holds(end, now.wrapping_add(*tick)));
                let lives = u64::from(lives.unwrap()) * SECOND / per_second;
                // The tick in which it ends has begun before.
                let tick = SECOND / per_second;
                assert!(age.min(SECOND) + lives <= TOUCH_INTERVAL_NS + tick, "{age}");
            }
        }
    }
    assert!(!holds(0, 0) && !holds(5, 5) && !holds(4, 5) && !holds(0, 1_000_000));
    assert!(holds(105, 5) && !holds(106, 5) && holds(3, u32::MAX));
}

#[test]
fn a_slot_is_filled_when_no_packet_changes_the_state() {
    let established = STATE_OPENED | STATE_REPLIED | STATE_ESTABLISHED;
    for (protocol, state, reverse, settled) in [
        (UDP, STATE_OPENED, false, true),
        (UDP, STATE_OPENED | STATE_REPLIED, false, true),
        (UDP, 0, true, false),
        (UDP, STATE_REPLIED, true, true),
        (TCP, 0, false, false),
        // Nobody has answered here: replies go another way.
        (TCP, STATE_OPENED, false, true),
        // The client's next packet establishes it.
        (TCP, STATE_OPENED | STATE_REPLIED, false, false),
        (TCP, established, false, true),
        (TCP, established | STATE_FIN_BACKEND, false, true),
        (TCP, 0, true, false),
        (TCP, STATE_REPLIED, true, true),
    ] {
        assert_eq!(
            is_settled(protocol, state, reverse),
            settled,
            "{protocol} {state} {reverse}"
        );
    }
}

#[test]
fn slots_fit_the_flow_table_and_the_machine() {
    for (flows, cpus, each) in [
        (131_072, 1, 131_072),
        (131_072, 2, 65_536),
        (131_072, 3, 32_768),
        (131_072, 240, 512),
        (600_000, 2, 524_288),
        (1024, 64, 256),
        (1024, 0, 1024),
    ] {
        assert_eq!(slots(flows, cpus), each, "{flows} {cpus}");
    }
}

/// Clients that come one port after the other, as they do, meet no more often than by chance.
#[test]
fn slots_are_used_evenly() {
    let many = 1 << 14;
    for v4 in [true, false] {
        let mut used: BTreeMap<u32, u32> = BTreeMap::new();
        let mut revisions: BTreeMap<u32, u32> = BTreeMap::new();
        for i in 0..many {
            let (client, port) = (i / 1024, i % 1024);
            let addr = |last: u32| match v4 {
                true => Addr::v4((0x0af4_0100 + last).to_be()),
                false => Addr {
                    words: [
                        0xfd00_0010_u32.to_be(),
                        0x0244_0001_u32.to_be(),
                        0,
                        last.to_be(),
                    ],
                },
            };
            let key = FlowKey {
                src: addr(client),
                dst: addr(0x10_0000),
                sport: (40_000 + port as u16).to_be(),
                dport: 80_u16.to_be(),
                protocol: TCP,
                pad: [0; 3],
            };
            let hash = shortcut::hash(&key);
            let slot = shortcut::slot(hash, 3, many);
            assert!((3 * many..4 * many).contains(&slot));
            *used.entry(slot / 2).or_default() += 1;
            let revision = shortcut::revision(hash);
            assert!(revision < REVISIONS_LEN);
            *revisions.entry(revision).or_default() += 1;
        }
        // Of 2 in a pair on average more than 9 are in one with a chance of 1 in 20,000.
        let most = used.values().chain(revisions.values()).max().unwrap();
        assert!(*most < 14, "{most}");
        // By chance 1 - e^-2 of the pairs are used.
        let share = f64::from(used.len() as u32) / f64::from(many / 2);
        assert!((0.84..0.89).contains(&share), "{share}");
    }
}

proptest! {
    #[test]
    fn a_slot_is_one_of_its_cpu(hash in any::<u64>(), cpu in 0_u32..512, log in 0_u32..20) {
        let slots = 1 << log;
        let slot = shortcut::slot(hash, cpu, slots);
        prop_assert!((cpu * slots..(cpu + 1) * slots).contains(&slot));
        if slots > 1 {
            prop_assert!((cpu * slots..(cpu + 1) * slots).contains(&(slot ^ 1)));
        }
    }
}
