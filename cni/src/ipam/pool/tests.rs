use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::from_secs(10_000);

fn range(text: &str) -> [Range; 1] {
    [Range::of_node(text.parse().unwrap()).unwrap()]
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn starts_behind_the_base_address_and_ends_before_broadcast() {
    let mut states = BTreeMap::new();
    let mut last = None;
    let mut given = Vec::new();
    while let Some(address) = next(&range("10.244.1.0/29"), &states, last, NOW) {
        states.insert(address, State::Taken);
        last = Some(address);
        given.push(address.to_string());
    }
    assert_eq!(
        given,
        [
            "10.244.1.1",
            "10.244.1.2",
            "10.244.1.3",
            "10.244.1.4",
            "10.244.1.5",
            "10.244.1.6"
        ]
    );
    assert_eq!(range("10.244.1.0/29")[0].size(), 6);
}

#[test]
fn goes_on_behind_the_last_one_and_wraps() {
    let r = range("10.244.1.0/29");
    let states = BTreeMap::from([(ip("10.244.1.6"), State::Taken)]);
    assert_eq!(
        next(&r, &states, Some(ip("10.244.1.4")), NOW),
        Some(ip("10.244.1.5"))
    );
    assert_eq!(
        next(&r, &states, Some(ip("10.244.1.5")), NOW),
        Some(ip("10.244.1.1"))
    );
    // The range of the node has changed since.
    assert_eq!(
        next(&r, &states, Some(ip("10.9.0.7")), NOW),
        Some(ip("10.244.1.1"))
    );
}

#[test]
fn a_freed_address_waits_unless_nothing_else_is_left() {
    let r = range("10.244.1.0/30");
    let freed = |ago: u64| State::Freed(NOW - Duration::from_secs(ago));
    let (one, two) = (ip("10.244.1.1"), ip("10.244.1.2"));
    let states = BTreeMap::from([(one, freed(5))]);
    assert_eq!(next(&r, &states, Some(two), NOW), Some(two));
    let states = BTreeMap::from([(one, freed(60))]);
    assert_eq!(next(&r, &states, Some(two), NOW), Some(one));
    let states = BTreeMap::from([(one, freed(5)), (two, freed(9))]);
    assert_eq!(next(&r, &states, None, NOW), Some(two));
    let states = BTreeMap::from([(one, freed(5)), (two, State::Taken)]);
    assert_eq!(next(&r, &states, None, NOW), Some(one));
}

#[test]
fn ranges_without_room_give_nothing() {
    for text in [
        "10.244.1.0/32",
        "10.244.1.0/31",
        "255.255.255.255/32",
        "fd00::/128",
    ] {
        assert_eq!(Range::of_node(text.parse().unwrap()), None, "{text}");
    }
    for (text, first) in [("fd00::/64", "fd00::1"), ("0.0.0.0/0", "0.0.0.1")] {
        let first = Some(ip(first));
        assert_eq!(next(&range(text), &BTreeMap::new(), None, NOW), first);
    }
}

#[test]
fn the_second_range_of_a_list_follows_the_first() {
    let list = [range("10.244.1.0/30")[0], range("10.244.2.0/30")[0]];
    let mut states = BTreeMap::new();
    let mut last = None;
    while let Some(address) = next(&list, &states, last, NOW) {
        states.insert(address, State::Taken);
        last = Some(address);
    }
    let given: Vec<_> = states.keys().map(ToString::to_string).collect();
    assert_eq!(
        given,
        ["10.244.1.1", "10.244.1.2", "10.244.2.1", "10.244.2.2"]
    );
}

proptest! {
    /// Any sequence of allocations and releases: never an address twice, never outside of the range, and
    /// exhausted only when all are taken.
    #[test]
    fn no_address_is_given_twice(prefix in 26u8..=30, steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), 0u64..90), 1..200)) {
        let r = range(&format!("10.244.1.0/{prefix}"));
        let mut states: BTreeMap<IpAddr, State> = BTreeMap::new();
        let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
        let mut last = None;
        let mut now = NOW;
        for (allocate, index, pause) in steps {
            now += Duration::from_secs(pause);
            if allocate || taken.is_empty() {
                match next(&r, &states, last, now) {
                    Some(address) => {
                        prop_assert!(r[0].contains(address));
                        prop_assert!(taken.insert(address), "{address} was given twice");
                        states.insert(address, State::Taken);
                        last = Some(address);
                    }
                    None => prop_assert_eq!(taken.len() as u128, r[0].size()),
                }
            } else {
                let choices: Vec<_> = taken.iter().copied().collect();
                let address = *index.get(&choices);
                taken.remove(&address);
                states.insert(address, State::Freed(now));
            }
        }
    }
}
