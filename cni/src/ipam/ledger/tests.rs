use ipnetwork::IpNetwork;

use super::*;

const NOW: Duration = Duration::from_secs(10_000);

fn owner(id: &str) -> OwnerKey {
    OwnerKey {
        container_id: id.into(),
        ifname: "eth0".into(),
    }
}

pub(super) fn lease(id: &str) -> Lease {
    Lease {
        owner: owner(id),
        netns: format!("/run/netns/{id}"),
        netns_id: Some((4, 7)),
        interface: true,
        since: 1,
    }
}

/// The id of a boot.
pub(super) fn boot(number: u32) -> String {
    format!("9f94d7e0-7b6c-4ae4-a0e4-{number:012x}")
}

fn lists(texts: &[&str]) -> Vec<Vec<Range>> {
    let range = |text: &&str| Range::of_node(text.parse::<IpNetwork>().unwrap()).unwrap();
    texts.iter().map(|text| vec![range(text)]).collect()
}

fn allocate(ledger: &Ledger, id: &str, texts: &[&str]) -> Result<Vec<String>, String> {
    ledger
        .allocate(&lease(id), &lists(texts), &[], NOW)
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
        "no address is left in 10.244.1.0/30: all 2 are in use"
    );
    let owners: Vec<_> = ledger.entries().unwrap();
    assert_eq!(owners.len(), 4);
}

#[test]
fn a_corrupt_entry_keeps_its_address_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), "net").unwrap();
    let range = &["10.244.1.0/29"];
    allocate(&ledger, "a", range).unwrap();
    let entry = ledger.entries().unwrap().remove(0);
    assert_eq!(ledger.lease(&entry).unwrap(), lease("a"));
    fs::write(ledger.path(&entry), "{\"owner\":").unwrap();
    assert!(ledger.lease(&entry).unwrap_err().starts_with("EOF"));
    fs::write(ledger.directory.join("garbage"), "x").unwrap();
    assert_eq!(allocate(&ledger, "b", range).unwrap(), ["10.244.1.2"]);
    let first = "10.244.1.1".parse().unwrap();
    let error = ledger.allocate(&lease("c"), &lists(range), &[first], NOW);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("in use by container unknown (EOF"),
        "{error}"
    );
    assert_eq!(ledger.release(&owner("a"), NOW).unwrap(), [first]);
}

/// A kill between the record of an address and the removal of what says when it was freed leaves both.
#[test]
fn an_address_with_two_files_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), "net").unwrap();
    allocate(&ledger, "a", &["10.244.1.0/30"]).unwrap();
    let address = "10.244.1.1".parse().unwrap();
    let at = NOW - Duration::from_secs(1);
    fs::write(ledger.path(&Entry::Freed { address, at }), "").unwrap();
    assert_eq!(
        allocate(&ledger, "b", &["10.244.1.0/30"]).unwrap(),
        ["10.244.1.2"]
    );
    allocate(&ledger, "c", &["10.244.1.0/30"]).unwrap_err();
}

#[test]
fn what_was_freed_long_ago_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), "net").unwrap();
    allocate(&ledger, "a", &["fd00::/64"]).unwrap();
    ledger.release(&owner("a"), NOW - pool::QUARANTINE).unwrap();
    assert_eq!(ledger.entries().unwrap().len(), 1);
    allocate(&ledger, "b", &["fd00::/64"]).unwrap();
    let names: Vec<_> = ledger.entries().unwrap().iter().map(Entry::name).collect();
    assert_eq!(
        names,
        [Entry::of("fd00::2".parse().unwrap(), &owner("b")).name()]
    );
}

#[test]
fn leases_of_another_boot_are_dead() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_for_boot(dir.path(), "net", &boot(1)).unwrap();
    allocate(&ledger, "a", &["10.244.1.0/24"]).unwrap();
    fs::write(ledger.directory.join("10.244.1.7@0123456789a"), "torn").unwrap();
    drop(ledger);
    let ledger = Ledger::open_for_boot(dir.path(), "net", &boot(2)).unwrap();
    assert_eq!(
        allocate(&ledger, "a", &["10.244.1.0/24"]).unwrap(),
        ["10.244.1.1"]
    );
    assert!(!dir.path().join(format!("net/{}", boot(1))).exists());
}

#[test]
fn a_requested_address_is_served_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), "net").unwrap();
    let ask = |id: &str, address: &str| {
        let address = address.parse().unwrap();
        ledger
            .allocate(&lease(id), &lists(&["10.244.1.0/24"]), &[address], NOW)
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

#[test]
fn what_is_not_of_a_ledger_stays_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    // A config may say `dataDir: /var/lib/kubelet`, and the network's name be `pods`.
    let (images, pod) = (dir.path().join("net/images"), boot(1));
    let pod = dir.path().join("net").join(pod);
    for file in [
        images.join("layer"),
        images.join("10.244.1.1"),
        pod.join("etc-hosts"),
    ] {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }
    let ledger = Ledger::open_for_boot(dir.path(), "net", &boot(2)).unwrap();
    allocate(&ledger, "a", &["10.244.1.0/24"]).unwrap();
    drop(ledger);
    let ledger = Ledger::open_for_boot(dir.path(), "net", &boot(3)).unwrap();
    allocate(&ledger, "a", &["10.244.1.0/24"]).unwrap();
    for file in [
        images.join("layer"),
        images.join("10.244.1.1"),
        pod.join("etc-hosts"),
    ] {
        assert!(file.exists(), "{}", file.display());
    }
    assert!(!dir.path().join("net").join(boot(2)).exists());
}
