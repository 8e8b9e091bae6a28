use expect_test::{Expect, expect};
use seaway_model::{DetectLocal, FrontendKind};

use super::*;
use crate::iptables::render;

fn entry(addr: Option<&str>, port: u16) -> Entry {
    let any = FrontendAddr::AnyNodeAddress(Family::V4);
    Entry {
        frontend: Frontend {
            addr: addr.map_or(any, |ip| FrontendAddr::Ip(ip.parse().unwrap())),
            port,
            protocol: Protocol::Tcp,
            kind: match addr {
                Some(_) => FrontendKind::ClusterIp,
                None => FrontendKind::NodePort,
            },
        },
        decision: Decision::Chain(ChainName::new("SEAWAY-SVC-X")),
        owner: "o".into(),
    }
}

fn v4() -> Settings {
    Settings::new(Family::V4, &DetectLocal::None)
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

fn leaf(name: &str) -> ChainId {
    ChainId::nat(&ChainName::new(name))
}

fn show(tree: &Tree, family: Family) -> String {
    let mut text = String::new();
    for (id, slots) in tree {
        text += &format!("{} {}\n", id.table.as_str(), id.name);
        for rule in slots.values().flat_map(|rules| rules.iter()) {
            text += &format!("  {}\n", render::rule(rule, family));
        }
    }
    text
}

fn check(tree: &Tree, expected: &Expect) {
    expected.assert_eq(&show(tree, Family::V4));
}

fn built(entries: &[(&str, Entry)]) -> Tree {
    built_with(&v4(), entries)
}

fn built_with(settings: &Settings, entries: &[(&str, Entry)]) -> Tree {
    let nothing = Tree::new();
    let mut edit = TreeEdit::new(&nothing, settings);
    for (name, entry) in entries {
        edit.replace(&key(name), &[], std::slice::from_ref(entry));
    }
    edit.finish()
}

#[test]
fn the_first_entries_make_the_way_to_them() {
    let tree = built(&[
        ("a", entry(Some("10.96.0.10"), 80)),
        ("b", entry(Some("10.96.0.26"), 80)),
        ("c", entry(None, 30_080)),
    ]);
    check(
        &tree,
        &expect![[r#"
            filter SEAWAY-CIPS-A
              -d 0.0.0.0/0.0.0.240 -j SEAWAY-CIPS-A0
              -d 0.0.0.16/0.0.0.240 -j SEAWAY-CIPS-A1
            filter SEAWAY-CIPS-A0
              -d 10.96.0.10/32 -j SEAWAY-UNKNOWN-PORT
            filter SEAWAY-CIPS-A1
              -d 10.96.0.26/32 -j SEAWAY-UNKNOWN-PORT
            filter SEAWAY-CLUSTER-IPS
              -d 0.0.0.10/0.0.0.15 -j SEAWAY-CIPS-A
            nat SEAWAY-NODEPORTS
              -p tcp -m tcp --dport 30080:30207 -j SEAWAY-NPS-TCP-30080
            nat SEAWAY-NPS-TCP-30080
              -p tcp -m comment --comment o -m tcp --dport 30080 -j SEAWAY-SVC-X
            nat SEAWAY-SERVICES
              -d 0.0.0.10/0.0.0.15 -j SEAWAY-SVCS-A
              ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j SEAWAY-NODEPORTS
            nat SEAWAY-SVCS-A
              -d 0.0.0.0/0.0.0.240 -j SEAWAY-SVCS-A0
              -d 0.0.0.16/0.0.0.240 -j SEAWAY-SVCS-A1
            nat SEAWAY-SVCS-A0
              -d 10.96.0.10/32 -p tcp -m comment --comment o -m tcp --dport 80 -j SEAWAY-SVC-X
            nat SEAWAY-SVCS-A1
              -d 10.96.0.26/32 -p tcp -m comment --comment o -m tcp --dport 80 -j SEAWAY-SVC-X
        "#]],
    );
}

#[test]
fn the_last_entry_takes_the_way_with_it() {
    let base = built(&[
        ("a", entry(Some("10.96.0.10"), 80)),
        ("b", entry(Some("10.96.0.26"), 80)),
    ]);
    let mut edit = TreeEdit::new(&base, &v4());
    edit.replace(&key("a"), &[entry(Some("10.96.0.10"), 80)], &[]);
    check(
        &edit.finish(),
        &expect![[r#"
            filter SEAWAY-CIPS-A
              -d 0.0.0.16/0.0.0.240 -j SEAWAY-CIPS-A1
            filter SEAWAY-CIPS-A0
            nat SEAWAY-SVCS-A
              -d 0.0.0.16/0.0.0.240 -j SEAWAY-SVCS-A1
            nat SEAWAY-SVCS-A0
        "#]],
    );

    let mut edit = TreeEdit::new(&base, &v4());
    edit.replace(&key("a"), &[entry(Some("10.96.0.10"), 80)], &[]);
    edit.replace(&key("b"), &[entry(Some("10.96.0.26"), 80)], &[]);
    check(
        &edit.finish(),
        &expect![[r#"
            filter SEAWAY-CIPS-A
            filter SEAWAY-CIPS-A0
            filter SEAWAY-CIPS-A1
            filter SEAWAY-CLUSTER-IPS
            nat SEAWAY-SERVICES
              ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j SEAWAY-NODEPORTS
            nat SEAWAY-SVCS-A
            nat SEAWAY-SVCS-A0
            nat SEAWAY-SVCS-A1
        "#]],
    );
}

#[test]
fn two_claims_to_one_frontend_are_ordered_by_key() {
    let again = entry(Some("203.0.113.1"), 80);
    let mut first = again.clone();
    first.decision = Decision::Chain(ChainName::new("SEAWAY-SVC-FIRST"));
    let tree = built(&[("b", again), ("a", first)]);
    let targets = |id: &ChainId| -> Vec<Target> {
        let rules = tree[id].values().flat_map(|rules| rules.iter());
        rules.map(|rule| rule.target.clone()).collect()
    };
    let jump = |name: &str| Target::Jump(ChainName::new(name));
    let names = ["SEAWAY-SVC-FIRST", "SEAWAY-SVC-X"];
    assert_eq!(targets(&leaf("SEAWAY-SVCS-10")), names.map(jump));
    // And what neither has is refused, for as long as one of them is there.
    let leaf = ChainId::filter(&ChainName::new("SEAWAY-CIPS-10"));
    assert_eq!(targets(&leaf), [names::UNKNOWN_PORT; 2].map(jump));
}

#[test]
fn replacing_an_entry_leaves_the_way_alone() {
    let base = built(&[("a", entry(Some("10.96.0.10"), 80))]);
    let mut edit = TreeEdit::new(&base, &v4());
    let port = |port| [entry(Some("10.96.0.10"), port)];
    edit.replace(&key("a"), &port(80), &port(81));
    let changed = edit.finish();
    for (chain, slots) in changed {
        let same = base.get(&chain) == Some(&slots);
        assert_eq!(same, chain != leaf("SEAWAY-SVCS-A0"), "{chain:?}");
    }
}

#[test]
fn ipv6_goes_by_its_lowest_byte_too() {
    let settings = Settings::new(Family::V6, &DetectLocal::None);
    let tree = built_with(&settings, &[("a", entry(Some("fd00::1a"), 80))]);
    expect![[r#"
        filter SEAWAY-CIPS-A
          -d ::10/::f0 -j SEAWAY-CIPS-A1
        filter SEAWAY-CIPS-A1
          -d fd00::1a/128 -j SEAWAY-UNKNOWN-PORT
        filter SEAWAY-CLUSTER-IPS
          -d ::a/::f -j SEAWAY-CIPS-A
        nat SEAWAY-NODEPORTS
        nat SEAWAY-SERVICES
          -d ::a/::f -j SEAWAY-SVCS-A
          ! -d ::1/128 -m addrtype --dst-type LOCAL -j SEAWAY-NODEPORTS
        nat SEAWAY-SVCS-A
          -d ::10/::f0 -j SEAWAY-SVCS-A1
        nat SEAWAY-SVCS-A1
          -d fd00::1a/128 -p tcp -m comment --comment o -m tcp --dport 80 -j SEAWAY-SVC-X
    "#]]
    .assert_eq(&show(&tree, Family::V6));
}

#[test]
fn node_ports_are_served_where_the_operator_says() {
    let check = |ranges: &[&str], expected: &Expect| {
        let ranges: Vec<_> = ranges.iter().map(|r| r.parse().unwrap()).collect();
        let rules = node_ports(&v4().node_ports_on(Some(&ranges)));
        let text = rules.iter().map(|rule| render::rule(rule, Family::V4));
        expected.assert_eq(&text.collect::<Vec<_>>().join("\n"));
    };
    check(
        &["192.168.0.0/16", "10.0.0.1/32", "fd00::/8"],
        &expect![[r#"
            -d 192.168.0.0/16 -m addrtype --dst-type LOCAL -j SEAWAY-NODEPORTS
            -d 10.0.0.1/32 -m addrtype --dst-type LOCAL -j SEAWAY-NODEPORTS"#]],
    );
    // Never on loopback.
    check(
        &["0.0.0.0/0", "10.0.0.1/32"],
        &expect![[r#"! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j SEAWAY-NODEPORTS"#]],
    );
    check(
        &["127.0.0.1/32", "126.0.0.0/7"],
        &expect![[r#"
            -d 127.0.0.0/8 -j RETURN
            -d 126.0.0.0/7 -m addrtype --dst-type LOCAL -j SEAWAY-NODEPORTS"#]],
    );
    // None of this family.
    check(&["fd00::/8"], &expect![""]);
}

#[test]
fn endpoints_stand_in_the_leaf() {
    let mut web = entry(Some("10.96.0.10"), 80);
    let backends = [2, 3, 4].map(|last| ([10, 244, 1, last], 8080).into());
    web.decision = Decision::Here(backends.to_vec());
    let settings = Settings {
        comments: false,
        ..Settings::new(
            Family::V4,
            &DetectLocal::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap()]),
        )
    };
    check(
        &built_with(&settings, &[("web", web)]),
        &expect![[r#"
        filter SEAWAY-CIPS-A
          -d 0.0.0.0/0.0.0.240 -j SEAWAY-CIPS-A0
        filter SEAWAY-CIPS-A0
          -d 10.96.0.10/32 -j SEAWAY-UNKNOWN-PORT
        filter SEAWAY-CLUSTER-IPS
          -d 0.0.0.10/0.0.0.15 -j SEAWAY-CIPS-A
        nat SEAWAY-NODEPORTS
        nat SEAWAY-SERVICES
          ! -s 10.244.0.0/16 -j MARK --set-xmark 0x10000/0x10000
          -d 0.0.0.10/0.0.0.15 -j SEAWAY-SVCS-A
          -j MARK --set-xmark 0x0/0x10000
          ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j SEAWAY-NODEPORTS
        nat SEAWAY-SVCS-A
          -d 0.0.0.0/0.0.0.240 -j SEAWAY-SVCS-A0
        nat SEAWAY-SVCS-A0
          -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -m statistic --mode random --probability 0.33333333349 -j DNAT --to-destination 10.244.1.2:8080
          -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.244.1.3:8080
          -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.1.4:8080
    "#]],
    );
}

#[test]
fn unknown_ports_can_be_refused_in_nat() {
    let settings = Settings {
        unknown_ports: Table::Nat,
        ..v4()
    };
    let mut tree = built_with(&settings, &[("a", entry(Some("10.96.0.10"), 80))]);
    tree.retain(|id, _| !id.name.as_str().starts_with(names::SERVICES_BELOW));
    check(
        &tree,
        &expect![[r#"
        nat SEAWAY-CIPS-A
          -d 0.0.0.0/0.0.0.240 -j SEAWAY-CIPS-A0
        nat SEAWAY-CIPS-A0
          -d 10.96.0.10/32 -j SEAWAY-UNKNOWN-PORT
        nat SEAWAY-CLUSTER-IPS
          -d 0.0.0.10/0.0.0.15 -j SEAWAY-CIPS-A
        nat SEAWAY-NODEPORTS
        nat SEAWAY-SERVICES
          -d 0.0.0.10/0.0.0.15 -j SEAWAY-SVCS-A
          ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j SEAWAY-NODEPORTS
          -j SEAWAY-CLUSTER-IPS
    "#]],
    );
}
