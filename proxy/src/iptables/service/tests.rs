use std::time::Duration;

use expect_test::{Expect, expect};
use ipnetwork::IpNetwork;
use seaway_model::{DetectLocal, Family, FrontendAddr, Protocol};

use super::*;
use crate::iptables::render;

fn rule(change: impl FnOnce(&mut PortRule)) -> PortRule {
    let frontend = |addr, port, kind| Frontend {
        addr,
        port,
        protocol: Protocol::Tcp,
        kind,
    };
    let ip = |ip: [u8; 4]| FrontendAddr::Ip(ip.into());
    let backend = |last, local| Backend {
        addr: ([10, 244, 1, last], 8080).into(),
        local,
    };
    let mut rule = PortRule {
        port_name: "http".into(),
        protocol: Protocol::Tcp,
        family: Family::V4,
        frontends: vec![
            frontend(ip([10, 96, 0, 10]), 80, FrontendKind::ClusterIp),
            frontend(
                FrontendAddr::AnyNodeAddress(Family::V4),
                30_080,
                FrontendKind::NodePort,
            ),
        ],
        cluster: vec![backend(2, true), backend(3, false)],
        local: vec![backend(2, true)],
        lingering: Vec::new(),
        any_endpoints: true,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
    };
    change(&mut rule);
    rule
}

fn settings(cidrs: &[&str]) -> Settings {
    let cidrs: Vec<IpNetwork> = cidrs.iter().map(|c| c.parse().unwrap()).collect();
    Settings::new(Family::V4, &DetectLocal::ClusterCidr(cidrs))
}

fn check(rule: PortRule, settings: &Settings, expected: &Expect) {
    let key = ObjectKey::new("default", "web");
    let service = ServiceRules {
        ports: vec![rule],
        ..ServiceRules::default()
    };
    let all = chains(&key, &service, settings);
    let mut text = String::new();
    for entry in &all.entries {
        let decision = match &entry.decision {
            Decision::Chain(chain) => chain.to_string(),
            Decision::Here(backends) => format!("{backends:?}"),
        };
        text += &format!("{} -> {decision}\n", entry.frontend);
    }
    for (name, rules) in &all.chains {
        text += &format!("{name}\n");
        for rule in rules.iter() {
            text += &format!("  {}\n", render::rule(rule, Family::V4));
        }
    }
    expected.assert_eq(&text);
}

#[test]
fn policy_cluster() {
    check(
        rule(|_| {}),
        &settings(&["10.244.0.0/16"]),
        &expect![[r#"
            10.96.0.10:80/tcp -> SEAWAY-SVC-OSC5D42RU6KJHZT7
            node:30080/tcp -> SEAWAY-EXT-OSC5D42RU6KJHZT7
            SEAWAY-SVC-OSC5D42RU6KJHZT7
              -p tcp -m comment --comment "default/web:http/tcp" -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.244.1.2:8080
              -p tcp -j DNAT --to-destination 10.244.1.3:8080
            SEAWAY-EXT-OSC5D42RU6KJHZT7
              -m comment --comment "default/web:http/tcp" -j MARK --set-xmark 0x10000/0x10000
              -j SEAWAY-SVC-OSC5D42RU6KJHZT7
        "#]],
    );
}

#[test]
fn policy_local() {
    let local = rule(|rule| {
        rule.internal_policy = TrafficPolicy::Local;
        rule.external_policy = TrafficPolicy::Local;
    });
    check(
        local,
        &settings(&["10.244.1.0/24", "10.244.2.0/24"]),
        &expect![[r#"
            10.96.0.10:80/tcp -> SEAWAY-LOC-OSC5D42RU6KJHZT7
            node:30080/tcp -> SEAWAY-EXT-OSC5D42RU6KJHZT7
            SEAWAY-SVC-OSC5D42RU6KJHZT7
              -p tcp -m comment --comment "default/web:http/tcp" -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.244.1.2:8080
              -p tcp -j DNAT --to-destination 10.244.1.3:8080
            SEAWAY-LOC-OSC5D42RU6KJHZT7
              -p tcp -m comment --comment "default/web:http/tcp" -j DNAT --to-destination 10.244.1.2:8080
            SEAWAY-EXT-OSC5D42RU6KJHZT7
              -m comment --comment "default/web:http/tcp" -j MARK --set-xmark 0x0/0x10000
              -s 10.244.1.0/24 -j SEAWAY-SVC-OSC5D42RU6KJHZT7
              -s 10.244.2.0/24 -j SEAWAY-SVC-OSC5D42RU6KJHZT7
              -m addrtype --src-type LOCAL -j MARK --set-xmark 0x10000/0x10000
              -m addrtype --src-type LOCAL -j SEAWAY-SVC-OSC5D42RU6KJHZT7
              -j SEAWAY-LOC-OSC5D42RU6KJHZT7
        "#]],
    );
}

#[test]
fn affinity_asks_the_lists_first() {
    let sticky = rule(|rule| {
        rule.frontends.truncate(1);
        rule.affinity = Some(Duration::from_secs(10_800));
    });
    check(
        sticky,
        &settings(&[]),
        &expect![[r#"
        10.96.0.10:80/tcp -> SEAWAY-SVC-OSC5D42RU6KJHZT7
        SEAWAY-SVC-OSC5D42RU6KJHZT7
          -p tcp -m comment --comment "default/web:http/tcp" -m recent --update --seconds 10800 --reap --name SEAWAY-GFA2GHME45CCKKCE --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.244.1.2:8080
          -p tcp -m recent --update --seconds 10800 --reap --name SEAWAY-3I3OZCONI6K4YXQL --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.244.1.3:8080
          -p tcp -m statistic --mode random --probability 0.50000000000 -m recent --set --name SEAWAY-GFA2GHME45CCKKCE --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.244.1.2:8080
          -p tcp -m recent --set --name SEAWAY-3I3OZCONI6K4YXQL --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.244.1.3:8080
    "#]],
    );
}

#[test]
fn source_ranges_stand_in_front() {
    let guarded = rule(|rule| {
        rule.frontends[1].kind = FrontendKind::LoadBalancer;
        rule.frontends[1].addr = FrontendAddr::Ip([203, 0, 113, 1].into());
        rule.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
        rule.cluster.clear();
    });
    check(
        guarded,
        &settings(&[]),
        &expect![[r#"
            10.96.0.10:80/tcp -> SEAWAY-SVC-OSC5D42RU6KJHZT7
            203.0.113.1:30080/tcp -> SEAWAY-FW-OSC5D42RU6KJHZT7
            SEAWAY-SVC-OSC5D42RU6KJHZT7
              -m comment --comment "default/web:http/tcp" -j SEAWAY-DROP
            SEAWAY-EXT-OSC5D42RU6KJHZT7
              -m comment --comment "default/web:http/tcp" -j MARK --set-xmark 0x10000/0x10000
              -j SEAWAY-SVC-OSC5D42RU6KJHZT7
            SEAWAY-FW-OSC5D42RU6KJHZT7
              -s 192.0.2.0/24 -m comment --comment "default/web:http/tcp" -j SEAWAY-EXT-OSC5D42RU6KJHZT7
              -j SEAWAY-DROP
        "#]],
    );
}

#[test]
fn only_restricted_load_balancers_have_a_chain_for_it() {
    use FrontendKind::{ExternalIp, LoadBalancer, NodePort};
    for (kind, ranges, expected) in [
        (LoadBalancer, &["192.0.2.0/24"][..], true),
        (LoadBalancer, &[], false),
        (ExternalIp, &["192.0.2.0/24"], false),
        (NodePort, &["192.0.2.0/24"], false),
    ] {
        let service = ServiceRules {
            ports: vec![rule(|rule| {
                rule.frontends[1].kind = kind;
                rule.source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
            })],
            ..ServiceRules::default()
        };
        let key = ObjectKey::new("default", "web");
        let all = chains(&key, &service, &settings(&[]));
        let is_firewall = |name: &ChainName| name.as_str().starts_with("SEAWAY-FW-");
        let made = all.chains.iter().any(|(name, _)| is_firewall(name));
        let used = all.entries.iter().any(|entry| match &entry.decision {
            Decision::Chain(name) => is_firewall(name),
            Decision::Here(_) => false,
        });
        assert_eq!((made, used), (expected, expected), "{kind:?} {ranges:?}");
    }
}

#[test]
fn without_endpoints_the_filter_table_is_asked_to_reject() {
    let nowhere = rule(|rule| {
        rule.frontends.truncate(1);
        rule.cluster.clear();
        rule.any_endpoints = false;
    });
    check(
        nowhere,
        &settings(&["10.244.0.0/16"]),
        &expect![[r#"
            10.96.0.10:80/tcp -> SEAWAY-REJECT
        "#]],
    );
}

#[test]
fn the_other_family_has_nothing_here() {
    let key = ObjectKey::new("default", "web");
    let service = ServiceRules {
        ports: vec![rule(|rule| rule.family = Family::V6)],
        ..ServiceRules::default()
    };
    assert_eq!(
        chains(&key, &service, &settings(&[])),
        ServiceChains::default()
    );
}
