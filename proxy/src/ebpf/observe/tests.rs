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

/// The Service that frontend `n` belongs to.
fn service(n: u32) -> ObjectKey {
    ObjectKey::new("default", format!("s{}", n / 10))
}

fn shared(frontends: impl IntoIterator<Item = u32>) -> Shared {
    let shared = Shared::new(PathBuf::new());
    let of = frontends
        .into_iter()
        .map(|n| (frontend(n), Some(service(n))));
    shared.update(OwnerChanges {
        anew: true,
        of: of.collect(),
        ..OwnerChanges::default()
    });
    shared
}

fn sums(shared: &Shared, tallies: &[(FrontendKey, u64)]) -> Sums {
    let mut sums = Sums::new();
    for portion in tallies.chunks(7) {
        lock(&shared.roster).sum(portion, &shared.owners(), &mut sums);
    }
    sums
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
    let sums = sums(&shared([10, 11, 20]), &tallies);
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
    let shared = shared((0..limit + 2).map(|n| 10 * n));
    let opened = Tally {
        what: 0,
        outside: false,
    };
    let before = sums(&shared, &tallies);
    assert_eq!(before.len(), SERVICES_NAMED + 1);
    assert_eq!(before[&(None, opened)], 2);
    // A named one goes. The sum of the others must not count back.
    let change = |of: [(FrontendKey, Option<ObjectKey>); 2]| OwnerChanges {
        of: of.into(),
        ..OwnerChanges::default()
    };
    shared.update(change([(frontend(0), None), (frontend(1), None)]));
    let after = sums(&shared, &tallies);
    assert_eq!(after.len(), SERVICES_NAMED);
    assert_eq!(after[&(None, opened)], 2);
    // One that changes all of its frontends has not gone; a new one takes the place that is free.
    shared.update(change([
        (frontend(10), None),
        (frontend(11), Some(service(11))),
    ]));
    let new = 10 * (limit + 5);
    shared.update(change([
        (frontend(new), Some(service(new))),
        (frontend(new + 1), Some(service(new))),
    ]));
    let moved = [
        (counted(11, 0, false), 1),
        (counted(new, 0, false), 1),
        (counted(10 * limit, 0, false), 1),
    ];
    let named: Vec<_> = sums(&shared, &moved)
        .into_keys()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(named, [None, Some(service(11)), Some(service(new))]);
    // Nor does it matter to a full plan.
    let of = [(frontend(20), Some(service(20)))].into();
    shared.update(OwnerChanges {
        anew: true,
        of,
        ..OwnerChanges::default()
    });
    let roster = lock(&shared.roster);
    assert_eq!((roster.known.len(), roster.named), (1, 1));
}
