use super::*;

const NOW: Duration = Duration::from_secs(10_000);

fn owner(id: &str) -> OwnerKey {
    OwnerKey {
        container_id: id.into(),
        ifname: "eth0".into(),
    }
}

fn ranges(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn allocate(ledger: &Ledger, id: &str, texts: &[&str]) -> Result<Vec<String>, String> {
    ledger
        .allocate(&owner(id), &ranges(texts), None, NOW)
        .map(|list| list.iter().map(ToString::to_string).collect())
        .map_err(|e| e.to_string())
}

#[test]
fn an_attachment_gets_one_address_per_range_once() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), "net").unwrap();
    let both = &["10.244.1.0/24", "fd00:1::/64"];
    assert_eq!(
        allocate(&ledger, "a", both).unwrap(),
        ["10.244.1.1", "fd00:1::1"]
    );
    assert_eq!(
        allocate(&ledger, "a", both).unwrap_err(),
        "container a has address 10.244.1.1 on eth0 already; a second ADD needs a DEL first"
    );
    assert_eq!(
        allocate(&ledger, "b", both).unwrap(),
        ["10.244.1.2", "fd00:1::2"]
    );
    assert_eq!(ledger.release(&owner("a"), NOW).unwrap().len(), 2);
    assert_eq!(ledger.release(&owner("a"), NOW).unwrap().len(), 0);
    // Round robin, not the one that was just freed.
    assert_eq!(
        allocate(&ledger, "c", both).unwrap(),
        ["10.244.1.3", "fd00:1::3"]
    );
}

#[test]
fn an_exhausted_range_is_named_and_leaves_no_half_lease() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), "net").unwrap();
    let texts = &["fd00::/64", "10.244.1.0/30"];
    allocate(&ledger, "a", texts).unwrap();
    allocate(&ledger, "b", texts).unwrap();
    assert_eq!(
        allocate(&ledger, "c", texts).unwrap_err(),
        "no address is left in fd00::/64, 10.244.1.0/30: all 2 are in use"
    );
    let owners: Vec<_> = ledger.entries().unwrap();
    assert_eq!(owners.len(), 4);
}

#[test]
fn a_corrupt_entry_stops_allocation_but_not_release() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), "net").unwrap();
    allocate(&ledger, "a", &["10.244.1.0/24"]).unwrap();
    fs::write(ledger.path("10.244.1.9".parse().unwrap()), "{\"owner\":").unwrap();
    let before = ledger.entries().unwrap();
    let error = allocate(&ledger, "b", &["10.244.1.0/24"]).unwrap_err();
    assert!(error.contains("/10.244.1.9 cannot be read (EOF"), "{error}");
    assert!(error.ends_with("remove the file"), "{error}");
    assert_eq!(ledger.entries().unwrap(), before);
    assert_eq!(ledger.release(&owner("a"), NOW).unwrap().len(), 1);
}

#[test]
fn leases_of_another_boot_are_dead() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_for_boot(dir.path(), "net", "boot-1").unwrap();
    allocate(&ledger, "a", &["10.244.1.0/24"]).unwrap();
    fs::write(ledger.path("10.244.1.7".parse().unwrap()), "torn").unwrap();
    drop(ledger);
    let ledger = Ledger::open_for_boot(dir.path(), "net", "boot-2").unwrap();
    assert_eq!(
        allocate(&ledger, "a", &["10.244.1.0/24"]).unwrap(),
        ["10.244.1.1"]
    );
    assert!(!Ledger::root(dir.path()).join("net/boot-1").exists());
}

#[test]
fn a_requested_address_is_served_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), "net").unwrap();
    let ask = |id: &str, address: &str| {
        let address = Some(address.parse().unwrap());
        ledger
            .allocate(&owner(id), &ranges(&["10.244.1.0/24"]), address, NOW)
            .map_err(|e| e.to_string())
    };
    assert_eq!(
        ask("a", "10.244.1.50").unwrap()[0].to_string(),
        "10.244.1.50"
    );
    assert_eq!(
        ask("b", "10.244.1.50").unwrap_err(),
        "the requested address 10.244.1.50 is in use by container a"
    );
    for outside in ["10.244.2.1", "10.244.1.0", "10.244.1.255"] {
        assert_eq!(
            ask("b", outside).unwrap_err(),
            format!("the requested address {outside} is not one of 10.244.1.0/24")
        );
    }
}

#[test]
fn parallel_allocations_are_serialised() {
    let dir = tempfile::tempdir().unwrap();
    let mut all: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..24)
            .map(|n| {
                let dir = dir.path();
                scope.spawn(move || {
                    let ledger = Ledger::open(dir, "net").unwrap();
                    allocate(&ledger, &format!("c{n}"), &["10.244.1.0/24"]).unwrap()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|w| w.join().unwrap())
            .collect()
    });
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 24);
}
