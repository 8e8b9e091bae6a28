use seaway_ebpf_abi::Addr;

use super::*;

fn frontend(n: u32) -> FrontendKey {
    FrontendKey {
        addr: Addr::v4(n),
        port: 80_u16.to_be(),
        protocol: 6,
        pad: 0,
    }
}

fn counted(n: u32, what: u8, outside: bool) -> FrontendKey {
    FrontendKey {
        pad: Tally { what, outside }.pad(),
        ..frontend(n)
    }
}

/// Frontend `n` belongs to Service `s<n / 10>`.
fn owners(frontends: impl IntoIterator<Item = u32>) -> Owners {
    let mut owners = Owners::default();
    let of = frontends.into_iter().map(|n| {
        let key = ObjectKey::new("default", format!("s{}", n / 10));
        (frontend(n), Some(key))
    });
    owners.update(OwnerChanges {
        anew: true,
        of: of.collect(),
        ..OwnerChanges::default()
    });
    owners
}

#[test]
fn frontends_of_a_service_are_summed_by_direction_and_reason() {
    let tallies = [
        (counted(10, 0, false), 1),
        (counted(11, 0, false), 2),
        (counted(11, 0, true), 4),
        (counted(20, 3, true), 8),
        // Nobody's.
        (counted(30, 0, false), 16),
    ];
    let sums = Roster::default().by_service(&tallies, &owners([10, 11, 20]));
    let named: Vec<_> = sums
        .iter()
        .map(|((service, tally), count)| {
            let service = service.as_ref().unwrap().to_string();
            (service, tally.what, tally.outside, *count)
        })
        .collect();
    assert_eq!(
        named,
        [
            ("default/s1".to_owned(), 0, false, 3),
            ("default/s1".to_owned(), 0, true, 4),
            ("default/s2".to_owned(), 3, true, 8),
        ]
    );
}

#[test]
fn services_beyond_the_limit_are_counted_together_and_stay_there() {
    let limit = u32::try_from(SERVICES_NAMED).unwrap();
    let tallies: Vec<_> = (0..limit + 2)
        .map(|n| (counted(10 * n, 0, false), 1))
        .collect();
    let all = owners((0..limit + 2).map(|n| 10 * n));
    let mut roster = Roster::default();
    let opened = Tally {
        what: 0,
        outside: false,
    };
    let sums = roster.by_service(&tallies, &all);
    assert_eq!(sums.len(), SERVICES_NAMED + 1);
    assert_eq!(sums[&(None, opened)], 2);
    // A named one goes. The sum of the others must not count back.
    let without = owners((1..limit + 2).map(|n| 10 * n));
    let sums = roster.by_service(&tallies, &without);
    assert_eq!(sums.len(), SERVICES_NAMED);
    assert_eq!(sums[&(None, opened)], 2);
}
