use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::derive::derive_all;
use crate::desired::{Backend, Frontend, FrontendAddr, ServiceRules};
use crate::inputs::ObjectKey;
use crate::settings::DetectLocal;
use crate::testing;

const LOCAL: &str = "10.244.1.2:8080";
const REMOTE: &str = "10.244.2.2:8080";

const SOURCES: [(&str, &str, Origin); 5] = [
    ("pod", "10.244.1.3", Origin::LocalPod),
    ("endpoint", "10.244.1.2", Origin::LocalPod),
    ("node", "192.168.100.1", Origin::NodeProcess),
    ("friend", "192.0.2.1", Origin::External),
    ("stranger", "198.51.100.1", Origin::External),
];

fn node() -> NodeContext {
    NodeContext {
        addresses: vec!["192.168.100.1".parse().unwrap()],
        detect_local: DetectLocal::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap()]),
        ..NodeContext::default()
    }
}

/// A Service with one frontend of each kind.
fn service(change: impl FnOnce(&mut PortRule)) -> Desired {
    let frontend = |addr: Option<&str>, port, kind| Frontend {
        addr: addr.map_or(FrontendAddr::AnyNodeAddress(Family::V4), |ip| {
            FrontendAddr::Ip(ip.parse().unwrap())
        }),
        port,
        protocol: Protocol::Tcp,
        kind,
    };
    let backend = |addr: &str, local| Backend {
        addr: addr.parse().unwrap(),
        local,
    };
    let mut rule = PortRule {
        port_name: Arc::from("http"),
        protocol: Protocol::Tcp,
        family: Family::V4,
        frontends: vec![
            frontend(Some("10.96.0.10"), 80, FrontendKind::ClusterIp),
            frontend(None, 30_080, FrontendKind::NodePort),
            frontend(Some("203.0.113.1"), 80, FrontendKind::LoadBalancer),
        ],
        cluster: vec![backend(LOCAL, true), backend(REMOTE, false)],
        local: vec![backend(LOCAL, true)],
        lingering: Vec::new(),
        any_endpoints: true,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: Some(Duration::from_secs(10)),
        source_ranges: Vec::new(),
    };
    change(&mut rule);
    let mut desired = Desired::default();
    let rules = ServiceRules {
        ports: vec![rule],
        ..ServiceRules::default()
    };
    desired
        .services
        .insert(ObjectKey::new("default", "web"), rules);
    desired
}

fn table(desired: &Desired, node: &NodeContext) -> String {
    let destinations = [
        ("cluster IP", "10.96.0.10:80"),
        ("node port", "192.168.100.1:30080"),
        ("balancer", "203.0.113.1:80"),
    ];
    let mut text = String::new();
    for (to, destination) in destinations {
        for (from, source, origin) in SOURCES {
            let packet = Packet {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol: Protocol::Tcp,
                origin,
            };
            let outcomes: Vec<_> = outcomes(desired, &packet, node)
                .into_iter()
                .map(|outcome| match outcome {
                    Outcome::Deliver {
                        backend,
                        masqueraded,
                    } => {
                        let place = if backend.to_string() == LOCAL {
                            "local"
                        } else {
                            "remote"
                        };
                        let masquerade = if masqueraded { "+masq" } else { "" };
                        format!("{place}{masquerade}")
                    }
                    other => format!("{other:?}"),
                })
                .collect();
            text += &format!("{from} -> {to}: {}\n", outcomes.join(" "));
        }
    }
    text
}

fn check(desired: &Desired, expected: &Expect) {
    expected.assert_eq(&table(desired, &node()));
}

#[test]
fn policy_cluster() {
    check(
        &service(|_| {}),
        &expect![[r"
            pod -> cluster IP: local remote
            endpoint -> cluster IP: local+masq remote
            node -> cluster IP: local+masq remote+masq
            friend -> cluster IP: local+masq remote+masq
            stranger -> cluster IP: local+masq remote+masq
            pod -> node port: local+masq remote+masq
            endpoint -> node port: local+masq remote+masq
            node -> node port: local+masq remote+masq
            friend -> node port: local+masq remote+masq
            stranger -> node port: local+masq remote+masq
            pod -> balancer: local+masq remote+masq
            endpoint -> balancer: local+masq remote+masq
            node -> balancer: local+masq remote+masq
            friend -> balancer: local+masq remote+masq
            stranger -> balancer: local+masq remote+masq
        "]],
    );
}

#[test]
fn external_policy_local_keeps_the_source_and_short_circuits_inside() {
    check(
        &service(|rule| rule.external_policy = TrafficPolicy::Local),
        &expect![[r"
            pod -> cluster IP: local remote
            endpoint -> cluster IP: local+masq remote
            node -> cluster IP: local+masq remote+masq
            friend -> cluster IP: local+masq remote+masq
            stranger -> cluster IP: local+masq remote+masq
            pod -> node port: local remote
            endpoint -> node port: local+masq remote
            node -> node port: local+masq remote+masq
            friend -> node port: local
            stranger -> node port: local
            pod -> balancer: local remote
            endpoint -> balancer: local+masq remote
            node -> balancer: local+masq remote+masq
            friend -> balancer: local
            stranger -> balancer: local
        "]],
    );
}

#[test]
fn internal_policy_local_concerns_the_cluster_ip_only() {
    check(
        &service(|rule| rule.internal_policy = TrafficPolicy::Local),
        &expect![[r"
            pod -> cluster IP: local
            endpoint -> cluster IP: local+masq
            node -> cluster IP: local+masq
            friend -> cluster IP: local+masq
            stranger -> cluster IP: local+masq
            pod -> node port: local+masq remote+masq
            endpoint -> node port: local+masq remote+masq
            node -> node port: local+masq remote+masq
            friend -> node port: local+masq remote+masq
            stranger -> node port: local+masq remote+masq
            pod -> balancer: local+masq remote+masq
            endpoint -> balancer: local+masq remote+masq
            node -> balancer: local+masq remote+masq
            friend -> balancer: local+masq remote+masq
            stranger -> balancer: local+masq remote+masq
        "]],
    );
}

#[test]
fn an_empty_local_set_drops_but_no_endpoint_anywhere_rejects() {
    let empty_here = service(|rule| {
        rule.external_policy = TrafficPolicy::Local;
        rule.internal_policy = TrafficPolicy::Local;
        rule.local.clear();
    });
    let nowhere = service(|rule| {
        rule.cluster.clear();
        rule.local.clear();
        rule.any_endpoints = false;
    });
    let here = table(&empty_here, &node());
    assert!(here.contains("pod -> cluster IP: Drop\n"));
    assert!(here.contains("stranger -> node port: Drop\n"));
    assert!(here.contains("pod -> node port: local remote\n"));
    let nowhere = table(&nowhere, &node());
    assert!(nowhere.lines().all(|line| line.ends_with(": Reject")));
}

#[test]
fn source_ranges_guard_the_load_balancer_only() {
    check(
        &service(|rule| rule.source_ranges = vec!["192.0.2.0/24".parse().unwrap()]),
        &expect![[r"
            pod -> cluster IP: local remote
            endpoint -> cluster IP: local+masq remote
            node -> cluster IP: local+masq remote+masq
            friend -> cluster IP: local+masq remote+masq
            stranger -> cluster IP: local+masq remote+masq
            pod -> node port: local+masq remote+masq
            endpoint -> node port: local+masq remote+masq
            node -> node port: local+masq remote+masq
            friend -> node port: local+masq remote+masq
            stranger -> node port: local+masq remote+masq
            pod -> balancer: Drop
            endpoint -> balancer: Drop
            node -> balancer: Drop
            friend -> balancer: local+masq remote+masq
            stranger -> balancer: Drop
        "]],
    );
}

#[test]
fn settings_decide_who_is_masqueraded_at_the_cluster_ip() {
    let masquerade_all = NodeContext {
        masquerade_all: true,
        ..node()
    };
    let all = table(&service(|_| {}), &masquerade_all);
    assert!(all.contains("pod -> cluster IP: local+masq remote+masq\n"));

    let nobody_known = NodeContext {
        detect_local: DetectLocal::None,
        ..node()
    };
    let none = table(&service(|_| {}), &nobody_known);
    assert!(none.contains("stranger -> cluster IP: local remote\n"));
    assert!(none.contains("endpoint -> cluster IP: local+masq remote\n"));
}

/// Where pods are known by their ranges; an address of the node means the node, wherever the packet comes in.
#[test]
fn pods_and_the_node_are_inside() {
    for (source, origin, expected) in [
        ("10.244.2.9", Origin::LocalPod, Client::Internal),
        ("10.244.2.9", Origin::External, Client::Internal),
        ("192.168.100.1", Origin::NodeProcess, Client::Internal),
        ("192.168.100.1", Origin::External, Client::Internal),
        ("127.0.0.1", Origin::NodeProcess, Client::Internal),
        ("192.168.100.2", Origin::External, Client::External),
        ("192.0.2.1", Origin::External, Client::External),
        // Not a pod of a range: what is inside is said by the operator.
        ("192.0.2.1", Origin::LocalPod, Client::External),
    ] {
        let packet = Packet {
            source: source.parse().unwrap(),
            destination: "10.96.0.10:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            origin,
        };
        assert_eq!(node().client(&packet), expected, "{source} {origin:?}");
    }
}

/// The tables of [`testing::scenes`], which every data plane runs as well.
#[test]
fn the_scenes_end_as_their_tables_say() {
    let mut cases = 0;
    for scene in testing::scenes::scenes() {
        let (desired, _) = derive_all(&scene.inputs, &scene.settings);
        for case in &scene.cases {
            let found = outcomes(&desired, &case.packet, &scene.node);
            let name = &scene.name;
            assert_eq!(
                found, case.expected,
                "{name}, {:?}: {}",
                scene.family, case.line
            );
            cases += 1;
        }
    }
    assert!(cases >= 300, "{cases} cases");
}

#[test]
fn a_client_that_is_known_gets_its_endpoint_while_that_is_allowed() {
    let here: SocketAddr = LOCAL.parse().unwrap();
    let there: SocketAddr = REMOTE.parse().unwrap();
    let gone: SocketAddr = "10.244.2.9:8080".parse().unwrap();
    let plain = |_: &mut PortRule| {};
    let local = |rule: &mut PortRule| rule.external_policy = TrafficPolicy::Local;
    let forgetful = |rule: &mut PortRule| rule.affinity = None;
    let empty = |rule: &mut PortRule| {
        rule.cluster.clear();
        rule.local.clear();
        rule.any_endpoints = false;
    };
    type Change = fn(&mut PortRule);
    // The rule, where the client knocks, what is remembered of it, and who answers.
    for (change, destination, backend, age, expected) in [
        (plain as Change, "10.96.0.10:80", there, 9, "there"),
        (plain, "192.168.100.1:30080", there, 9, "there"),
        (plain, "203.0.113.1:80", here, 0, "here"),
        (plain, "10.96.0.10:80", there, 10, "here there"),
        (plain, "10.96.0.10:80", gone, 1, "here there"),
        (local, "192.168.100.1:30080", there, 1, "here"),
        (local, "10.96.0.10:80", there, 1, "there"),
        (forgetful, "10.96.0.10:80", there, 1, "here there"),
        (empty, "10.96.0.10:80", there, 1, "Reject"),
        (plain, "10.96.0.10:81", there, 1, "Reject"),
        (plain, "10.96.0.11:80", there, 1, "Pass"),
    ] {
        let packet = Packet {
            source: [192, 0, 2, 1].into(),
            destination: destination.parse().unwrap(),
            protocol: Protocol::Tcp,
            origin: Origin::External,
        };
        let remembered = Remembered {
            backend,
            age: Duration::from_secs(age),
        };
        let found = outcomes_for_known(&service(change), &packet, &node(), &remembered);
        let names: Vec<String> = found
            .iter()
            .map(|outcome| match outcome {
                Outcome::Deliver { backend, .. } if *backend == here => "here".to_owned(),
                Outcome::Deliver { .. } => "there".to_owned(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(names.join(" "), expected, "{destination} after {age} s");
    }
}

proptest! {
    #[test]
    fn a_packet_has_an_outcome_and_backends_are_real(
        inputs in testing::inputs(),
        node in testing::node_context(),
        packet in testing::packet(),
    ) {
        let (desired, _) = derive_all(&inputs, &testing::settings());
        let outcomes = outcomes(&desired, &packet, &node);
        prop_assert!(!outcomes.is_empty());
        for outcome in &outcomes {
            if let Outcome::Deliver { backend, .. } = outcome {
                let known = desired.services.values().flat_map(|s| &s.ports).any(|rule| {
                    rule.cluster.iter().chain(&rule.local).any(|b| b.addr == *backend)
                });
                prop_assert!(known);
            } else {
                prop_assert_eq!(outcomes.len(), 1);
            }
        }
    }
}
