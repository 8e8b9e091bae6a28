use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use seaway_ebpf_abi::{Addr, AffinityKey, AffinityValue};

use super::super::bpffs;
use super::super::config::MapSizes;
use super::super::objects::Programs;
use super::*;

fn at(added: u64, removed: u64) -> Turnover {
    Turnover { added, removed }
}

#[test]
fn what_is_missing_was_pushed_out() {
    for (before, after, listed, expected) in [
        (at(0, 0), at(0, 0), 0, Balance::Evicted(0)),
        (at(10, 2), at(10, 2), 8, Balance::Evicted(0)),
        (at(10, 2), at(10, 2), 5, Balance::Evicted(3)),
        // Four came and went meanwhile: any of them may have been seen.
        (at(10, 2), at(14, 6), 8, Balance::Evicted(0)),
        (at(10, 2), at(14, 6), 12, Balance::Evicted(0)),
        (at(100, 2), at(104, 6), 12, Balance::Evicted(82)),
        // More than were ever added: a copy from elsewhere.
        (at(10, 2), at(14, 6), 13, Balance::Unexplained(1)),
        (at(0, 0), at(0, 0), 7, Balance::Unexplained(7)),
    ] {
        assert_eq!(balance(before, after, listed), expected, "{before:?}");
    }
}

/// No two tables share a counter: what one adds would be missing in the other.
#[test]
fn every_ledger_has_counters_of_its_own() {
    let mut seen = BTreeSet::new();
    for ledger in Ledger::ALL {
        assert_eq!(Ledger::of(ledger.name), Some(ledger));
        let verdicts = [ledger.added, ledger.adopted, ledger.collected];
        for verdict in verdicts.into_iter().chain(ledger.removed) {
            assert!(seen.insert(verdict), "{}", verdict.label());
        }
    }
    assert_eq!(Ledger::of(maps::BACKENDS), None);
}

/// What user space takes out is not taken for pushed out, and what it brings in not for unexplained.
#[test]
fn what_user_space_writes_is_counted() {
    let dir = PathBuf::from(format!("/sys/fs/bpf/seaway-ledger-{}", std::process::id()));
    bpffs::create_dir(&dir).unwrap();
    Programs::load(&dir, MapSizes::for_flows(1024)).unwrap();
    let table: Counted<AffinityKey, AffinityValue> =
        Counted::open(&dir, &AFFINITY).unwrap().unwrap();
    let client = |number| AffinityKey {
        affinity: 1,
        client: Addr::v4(number),
    };
    let value = AffinityValue::default();
    table.set(&client(1), &value).unwrap();
    // Again, which adds nothing.
    table.set(&client(1), &value).unwrap();
    let more = [1, 2, 3, 4].map(|number| (client(number), value));
    assert_eq!(table.bring_in(more.into()).unwrap(), 3);
    assert_eq!(table.delete_all(&[client(1), client(2)]).unwrap(), 2);
    let found = |table: &Counted<_, _>| {
        let found = table.usage().unwrap();
        (found.entries, found.balance.unwrap())
    };
    assert_eq!(found(&table), (2, Balance::Evicted(0)));
    // As the kernel does it, and as an older build: past the ledger.
    table.table.delete(&client(3)).unwrap();
    assert_eq!(found(&table), (1, Balance::Evicted(1)));
    let strangers: Vec<_> = (10..15).map(|number| (client(number), value)).collect();
    table.table.set_all(&strangers).unwrap();
    assert_eq!(found(&table), (6, Balance::Unexplained(4)));
    fs::remove_dir_all(&dir).unwrap();
}

proptest::proptest! {
    /// A table in which entries are added, removed and pushed out while it is listed: never more is claimed than was
    /// pushed out, and at rest exactly that.
    #[test]
    fn never_more_than_were_pushed_out(
        steps in proptest::collection::vec((0_u8..3, 0_usize..64), 0..200),
        listing in 0_usize..200,
    ) {
        let mut entries: Vec<usize> = Vec::new();
        let (mut turnover, mut evicted, mut next) = (at(0, 0), 0, 0);
        let mut before = at(0, 0);
        let mut listed: BTreeSet<usize> = BTreeSet::new();
        for (i, (step, pick)) in steps.iter().enumerate() {
            if i == listing {
                before = turnover;
                listed.clear();
            }
            if i >= listing {
                // The listing has come to one bucket.
                listed.extend(entries.iter().filter(|e| *e % 8 == i % 8));
            }
            match step {
                0 => {
                    entries.push(next);
                    next += 1;
                    turnover.added += 1;
                }
                1 if !entries.is_empty() => {
                    entries.swap_remove(pick % entries.len());
                    turnover.removed += 1;
                }
                2 if !entries.is_empty() => {
                    entries.swap_remove(pick % entries.len());
                    evicted += 1;
                }
                _ => {}
            }
        }
        if listing + 8 < steps.len() {
            match balance(before, turnover, listed.len() as u64) {
                Balance::Evicted(claimed) => proptest::prop_assert!(claimed <= evicted),
                Balance::Unexplained(n) => proptest::prop_assert!(false, "{n} unexplained"),
            }
        }
        let rest = balance(turnover, turnover, entries.len() as u64);
        proptest::prop_assert_eq!(rest, Balance::Evicted(evicted));
    }
}
