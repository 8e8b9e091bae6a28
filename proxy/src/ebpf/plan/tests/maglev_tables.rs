//! Maglev tables come before the frontends that ask them, and go after.

use super::*;

fn set(kernel: &mut Kernel, backends: &[&str], algorithm: Algorithm) -> Change {
    let rule = rule("10.96.0.1", backends, TrafficPolicy::Local);
    let change = kernel.set("a", Some(rule));
    if let Some(rules) = kernel.desired.services.get_mut(&key("a")) {
        rules.algorithm = algorithm;
    }
    change
}

#[test]
fn a_table_comes_and_goes_with_its_set() {
    let mut kernel = Kernel::default();
    let change = set(
        &mut kernel,
        &["10.244.1.5", "10.244.2.5"],
        Algorithm::Maglev,
    );
    // The set outside has one backend: nothing to choose.
    expect![[r#"
        + set 1: 10.244.1.5:8080(local) 10.244.2.5:8080
        + set 2: 10.244.1.5:8080(local)
        + Maglev table of set 1 (2 backends)
        + frontend node:30080/tcp NodePort -> inside set 1 (2), outside set 2 (1), clients keep their address, by Maglev
        + frontend 10.96.0.1, everything else ClusterIP -> reject
        + frontend 10.96.0.1:80/tcp ClusterIP -> set 1 (2), by Maglev
    "#]]
    .assert_eq(&kernel.step(&change));
    // After a start, when nobody is known to own anything.
    kernel.owners = Owners::default();
    assert_eq!(kernel.step(&Change::Full), "# nothing to do\n");
    let change = set(
        &mut kernel,
        &["10.244.1.5", "10.244.2.6"],
        Algorithm::Maglev,
    );
    expect![[r#"
        + set 3: 10.244.1.5:8080(local) 10.244.2.6:8080
        + Maglev table of set 3 (2 backends)
        + frontend node:30080/tcp NodePort -> inside set 3 (2), outside set 2 (1), clients keep their address, by Maglev
        + frontend 10.96.0.1:80/tcp ClusterIP -> set 3 (2), by Maglev
        - Maglev table of set 1
        - set 1 (2 backends)
    "#]]
    .assert_eq(&kernel.step(&change));
    let change = set(
        &mut kernel,
        &["10.244.1.5", "10.244.2.6"],
        Algorithm::Random,
    );
    expect![[r#"
        + frontend node:30080/tcp NodePort -> inside set 3 (2), outside set 2 (1), clients keep their address
        + frontend 10.96.0.1:80/tcp ClusterIP -> set 3 (2)
        - Maglev table of set 3
    "#]]
    .assert_eq(&kernel.step(&change));
}

#[test]
fn another_seed_makes_tables_anew_in_their_place() {
    let mut kernel = Kernel::default();
    let change = set(
        &mut kernel,
        &["10.244.1.5", "10.244.2.5"],
        Algorithm::Maglev,
    );
    kernel.step(&change);
    kernel.owners = Owners::default();
    kernel.seed = 1;
    let again = "+ Maglev table of set 1 (2 backends)\n";
    assert_eq!(kernel.step(&Change::Full), again);
    // So does a start that finds half of a table.
    kernel.owners = Owners::default();
    kernel.image.tables.insert(1, 0);
    assert_eq!(kernel.step(&Change::Full), again);
    // And one that nobody asks goes.
    kernel.owners = Owners::default();
    kernel.image.tables.insert(9, 5);
    assert_eq!(kernel.step(&Change::Full), "- Maglev table of set 9\n");
}

#[test]
fn too_many_endpoints_are_chosen_at_random() {
    let mut kernel = Kernel::default();
    let many: Vec<String> = (0..=maglev::MAX_BACKENDS)
        .map(|n| format!("10.244.{}.{}", n / 256, n % 256))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let change = set(&mut kernel, &many, Algorithm::Maglev);
    let text = kernel.step(&change);
    let notice = "# default/a port \"web\": 16382 endpoints are too many for a Maglev table (16381): they are chosen at random";
    assert!(text.lines().any(|line| line == notice), "{text:.300}");
    assert!(!text.contains("by Maglev"));
    assert_eq!(kernel.image.tables.len(), 0);
}

#[test]
fn a_table_is_whole_only_with_all_of_its_chunks() {
    let chunks = |count: u32, odd: u64| {
        let keys = (0..count).map(|chunk| seaway_ebpf_abi::MaglevKey { set: 4, chunk });
        keys.map(|key| (key, if key.chunk == 3 { odd } else { 7 }))
            .collect()
    };
    for (count, odd, expected) in [(9, 7, 7), (8, 7, 0), (9, 8, 0), (10, 7, 0)] {
        let image = Image::from_entries(vec![], vec![], chunks(count, odd), vec![]);
        assert_eq!(
            image.tables,
            BTreeMap::from([(4, expected)]),
            "{count} {odd}"
        );
    }
}
