use super::*;

#[test]
fn a_slow_look_is_repeated_less_often() {
    assert_eq!(pause(Duration::from_millis(3)), PAUSE);
    assert_eq!(pause(Duration::from_secs(1)), Duration::from_secs(40));
}

fn size(entries: u32) -> Stamp {
    Stamp::Sizes(vec![TableSize {
        entries,
        bytes: 0,
        hooks: [0; 5],
    }])
}

fn stamps(entries: u32, generation: u32) -> Stamps {
    vec![Some(size(entries)), Some(Stamp::Generation(generation))]
}

/// The tables that are to be looked at, of a legacy node with nat in nft.
fn due(watcher: &Watcher, stamps: Stamps) -> Vec<Table> {
    let due = watcher.due(stamps).into_iter();
    due.flat_map(|(share, _)| share.tables).copied().collect()
}

#[test]
fn each_table_is_looked_at_when_its_own_variant_says_so() {
    let mut watcher = Watcher::default();
    let placement = Placement {
        filter: IptablesVariant::Legacy,
        nat: IptablesVariant::NfTables,
    };
    watcher.place(placement);
    watcher.set_known(stamps(10, 5));
    // Equal sizes prove nothing, an equal generation does.
    assert_eq!(due(&watcher, stamps(10, 5)), [Table::Filter]);
    let [filter, _] = placement.shares()[..] else {
        panic!("two shares")
    };
    watcher.looked(filter, Some(size(10)), Duration::from_millis(1));
    assert_eq!(due(&watcher, stamps(10, 5)), []);
    assert_eq!(due(&watcher, stamps(11, 5)), [Table::Filter]);
    assert_eq!(due(&watcher, stamps(10, 6)), [Table::Nat]);

    // To be placed where it is changes nothing.
    watcher.place(placement);
    assert_eq!(due(&watcher, stamps(10, 5)), []);
    watcher.place(Placement::whole(IptablesVariant::NfTables));
    let nothing_known = vec![Some(Stamp::Generation(5))];
    assert_eq!(due(&watcher, nothing_known), Table::ALL);
}

#[test]
fn our_own_commits_are_counted_where_they_go() {
    let changed = |commits: &[(Table, u32)], generation: u32| {
        let mut watcher = Watcher::default();
        watcher.place(Placement {
            filter: IptablesVariant::Legacy,
            nat: IptablesVariant::NfTables,
        });
        watcher.set_known(stamps(10, 5));
        let mut all = Commits::default();
        for (table, count) in commits {
            all.add(*table, *count);
        }
        watcher.changed_by_us(&stamps(10, 5), stamps(10, generation), all);
        due(&watcher, stamps(10, generation)).contains(&Table::Nat)
    };
    assert!(!changed(&[(Table::Nat, 2)], 7));
    assert!(!changed(&[(Table::Nat, 2), (Table::Filter, 1)], 7));
    // Somebody else has changed something meanwhile.
    assert!(changed(&[(Table::Nat, 2)], 8));
    assert!(changed(&[(Table::Filter, 2)], 7));
}
