use std::net::SocketAddr;
use std::time::Duration;

use expect_test::expect;
use seaway_model::{
    Algorithm, Backend, Family, Frontend, FrontendAddr, FrontendKind, PortRule, Protocol,
    ServiceRules, TrafficPolicy,
};

use super::*;
use crate::ebpf::maglev;

mod maglev_tables;

fn rule(address: &str, backends: &[&str], external: TrafficPolicy) -> PortRule {
    let cluster: Vec<Backend> = backends
        .iter()
        .map(|ip| Backend {
            addr: SocketAddr::new(ip.parse().expect("an address"), 8080),
            local: ip.starts_with("10.244.1."),
        })
        .collect();
    let frontend = |addr, port, kind| Frontend {
        addr,
        port,
        protocol: Protocol::Tcp,
        kind,
    };
    PortRule {
        port_name: "web".into(),
        protocol: Protocol::Tcp,
        family: Family::V4,
        frontends: vec![
            frontend(
                FrontendAddr::Ip(address.parse().expect("an address")),
                80,
                FrontendKind::ClusterIp,
            ),
            frontend(
                FrontendAddr::AnyNodeAddress(Family::V4),
                30080,
                FrontendKind::NodePort,
            ),
        ],
        local: cluster.iter().filter(|b| b.local).cloned().collect(),
        lingering: Vec::new(),
        any_endpoints: !cluster.is_empty(),
        cluster,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: external,
        affinity: None,
        source_ranges: Vec::new(),
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

/// Carries a plan out on the image, as the kernel would.
fn carry_out(image: &mut Image, owners: &mut Owners, plan: EbpfPlan) {
    for op in plan.ops {
        if let Op::WriteSet { set, .. } = &op {
            let mut frontends = image.frontends.values();
            let in_use = frontends.any(|f| f.near_set == *set || f.far_set == *set);
            assert!(!in_use, "a set in use was changed");
        }
        if let Op::WriteRanges { ranges, .. } = &op {
            let in_use = image.frontends.values().any(|f| f.ranges == *ranges);
            assert!(!in_use, "ranges in use were changed");
        }
        image.take_in(&op);
        for (frontend, value) in &image.frontends {
            for (set, count) in [
                (value.near_set, value.near_count),
                (value.far_set, value.far_count),
            ] {
                let there = image.sets.get(&set).map_or(0, Vec::len);
                let whole = there == count as usize;
                assert!(whole, "{} shows half a Service", super::frontend(frontend));
            }
            if value.flags & FRONTEND_MAGLEV != 0 {
                for set in [value.near_set, value.far_set] {
                    let needed = image.sets.get(&set).map_or(0, Vec::len) > 1;
                    let there = image.tables.get(&set).is_some_and(|made_of| *made_of != 0);
                    assert!(
                        there || !needed,
                        "{} shows no table",
                        super::frontend(frontend)
                    );
                }
            }
            let whole = value.ranges == 0 || image.ranges.contains_key(&value.ranges);
            assert!(whole, "{} shows no ranges", super::frontend(frontend));
        }
    }
    owners.update(plan.owners);
}

#[derive(Default)]
struct Kernel {
    image: Image,
    owners: Owners,
    desired: Desired,
    seed: u32,
}

impl Kernel {
    fn set(&mut self, name: &str, rules: Option<PortRule>) -> Change {
        match rules {
            Some(rule) => {
                let rules = ServiceRules {
                    ports: vec![rule],
                    ..ServiceRules::default()
                };
                self.desired.services.insert(key(name), rules);
            }
            None => _ = self.desired.services.remove(&key(name)),
        }
        Change::Services(BTreeSet::from([key(name)]))
    }

    fn step(&mut self, change: &Change) -> String {
        let plan = plan(
            &self.image,
            &self.owners,
            &self.desired,
            change,
            (
                &DetectLocal::ClusterCidr(vec!["10.244.0.0/16".parse().expect("a network")]),
                self.seed,
            ),
        );
        let text = plan.to_string();
        carry_out(&mut self.image, &mut self.owners, plan);
        text
    }
}

#[test]
fn a_service_comes_changes_and_goes() {
    let mut kernel = Kernel::default();
    let change = kernel.set(
        "a",
        Some(rule(
            "10.96.0.1",
            &["10.244.1.5", "10.244.2.5"],
            TrafficPolicy::Local,
        )),
    );
    expect![[r#"
        + set 1: 10.244.1.5:8080(local) 10.244.2.5:8080
        + set 2: 10.244.1.5:8080(local)
        + frontend node:30080/tcp NodePort -> inside set 1 (2), outside set 2 (1), clients keep their address
        + frontend 10.96.0.1, everything else ClusterIP -> reject
        + frontend 10.96.0.1:80/tcp ClusterIP -> set 1 (2)
    "#]]
    .assert_eq(&kernel.step(&change));
    expect![[r#"
        # nothing to do
    "#]]
    .assert_eq(&kernel.step(&change));
    // One endpoint leaves: a new set, two flips, and what nobody points to goes last.
    let change = kernel.set(
        "a",
        Some(rule("10.96.0.1", &["10.244.1.5"], TrafficPolicy::Local)),
    );
    expect![[r#"
        + frontend node:30080/tcp NodePort -> inside set 2 (1), outside set 2 (1), clients keep their address
        + frontend 10.96.0.1:80/tcp ClusterIP -> set 2 (1)
        - set 1 (2 backends)
    "#]]
    .assert_eq(&kernel.step(&change));
    let change = kernel.set("a", Some(rule("10.96.0.1", &[], TrafficPolicy::Cluster)));
    expect![[r#"
        + frontend node:30080/tcp NodePort -> reject
        + frontend 10.96.0.1:80/tcp ClusterIP -> reject
        - set 2 (1 backends)
    "#]]
    .assert_eq(&kernel.step(&change));
    let change = kernel.set("a", None);
    expect![[r#"
        - frontend node:30080/tcp
        - frontend 10.96.0.1, everything else
        - frontend 10.96.0.1:80/tcp
    "#]]
    .assert_eq(&kernel.step(&change));
    assert_eq!(kernel.image, Image::default());
}

#[test]
fn a_restart_adopts_what_is_there_and_removes_what_is_not_wanted() {
    let mut kernel = Kernel::default();
    kernel.set(
        "a",
        Some(rule("10.96.0.1", &["10.244.1.5"], TrafficPolicy::Cluster)),
    );
    let mut other = rule("10.96.0.2", &["10.244.2.5"], TrafficPolicy::Cluster);
    other.frontends.truncate(1);
    kernel.set("b", Some(other));
    kernel.step(&Change::Full);
    // Who owned what is forgotten.
    kernel.owners = Owners::default();
    assert_eq!(kernel.step(&Change::Full), "# nothing to do\n");
    kernel.owners = Owners::default();
    kernel.set("b", None);
    expect![[r#"
        - frontend 10.96.0.2, everything else
        - frontend 10.96.0.2:80/tcp
        - set 2 (1 backends)
    "#]]
    .assert_eq(&kernel.step(&Change::Full));
}

#[test]
fn a_change_touches_its_service_only() {
    let mut kernel = Kernel::default();
    for n in 1..100_u8 {
        let mut rules = rule(
            &format!("10.96.0.{n}"),
            &["10.244.1.5"],
            TrafficPolicy::Cluster,
        );
        rules.frontends.truncate(1);
        kernel.set(&format!("s{n}"), Some(rules));
    }
    kernel.step(&Change::Full);
    let mut rules = rule("10.96.0.7", &["10.244.2.9"], TrafficPolicy::Cluster);
    rules.frontends.truncate(1);
    let change = kernel.set("s7", Some(rules));
    let text = kernel.step(&change);
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn a_contested_frontend_goes_to_the_other_when_the_first_leaves() {
    let mut kernel = Kernel::default();
    kernel.set(
        "a",
        Some(rule("10.96.0.1", &["10.244.1.5"], TrafficPolicy::Cluster)),
    );
    kernel.set(
        "b",
        Some(rule("10.96.0.2", &["10.244.2.5"], TrafficPolicy::Cluster)),
    );
    let text = kernel.step(&Change::Full);
    assert!(
        text.contains("# default/b: node:30080/tcp belongs to default/a"),
        "{text}"
    );
    let change = kernel.set("a", None);
    let text = kernel.step(&change);
    assert!(
        text.contains("+ frontend node:30080/tcp NodePort -> set 2 (1)"),
        "{text}"
    );
}

#[test]
fn of_two_services_at_one_frontend_the_smaller_key_has_it() {
    let claim = |backend: &str| {
        (!backend.is_empty()).then(|| rule("10.96.0.1", &[backend], TrafficPolicy::Cluster))
    };
    let (of_a, of_b) = ("10.244.1.5", "10.244.2.5");
    // The steps, and whose backend then answers at both frontends.
    for (steps, expected) in [
        (&[("a", of_a), ("b", of_b)][..], Some(of_a)),
        (&[("b", of_b), ("a", of_a)], Some(of_a)),
        (&[("b", of_b), ("a", of_a), ("a", "")], Some(of_b)),
        (&[("a", of_a), ("b", of_b), ("b", "")], Some(of_a)),
        (
            &[("b", of_b), ("a", of_a), ("a", ""), ("a", of_a)],
            Some(of_a),
        ),
        (&[("b", of_b), ("a", of_a), ("b", ""), ("a", "")], None),
    ] {
        for restart in [false, true] {
            let mut kernel = Kernel::default();
            kernel.step(&Change::Full);
            for (name, backend) in steps {
                let change = kernel.set(name, claim(backend));
                if restart {
                    kernel.owners = Owners::default();
                    kernel.step(&Change::Full);
                } else {
                    kernel.step(&change);
                }
            }
            let found: Vec<_> = kernel.image.frontends.values().collect();
            assert_eq!(found.len(), 3 * expected.iter().len(), "{steps:?}");
            for value in found.into_iter().filter(|value| value.near_count > 0) {
                let set = kernel.image.sets.get(&value.near_set);
                let backend = set.and_then(|set| set.first()).map(|b| b.addr.ip());
                let expected = expected.map(|ip| ip.parse().expect("IP"));
                assert_eq!(backend, expected, "{steps:?}");
            }
            assert_eq!(
                kernel
                    .step(&Change::Full)
                    .lines()
                    .filter(|l| !l.starts_with('#'))
                    .count(),
                0
            );
        }
    }
}

#[test]
fn an_address_passes_from_one_service_to_another_in_one_change() {
    for (from, to) in [("a", "b"), ("b", "a")] {
        let mut kernel = Kernel::default();
        kernel.set(
            from,
            Some(rule("10.96.0.1", &["10.244.1.5"], TrafficPolicy::Cluster)),
        );
        kernel.step(&Change::Full);
        kernel.set(from, None);
        kernel.set(
            to,
            Some(rule("10.96.0.1", &["10.244.2.5"], TrafficPolicy::Cluster)),
        );
        let text = kernel.step(&Change::Services(BTreeSet::from([key("a"), key("b")])));
        assert!(
            !text.contains("- frontend") && !text.contains('#'),
            "{text}"
        );
        assert_eq!(kernel.image.frontends.len(), 3);
        assert_eq!(kernel.step(&Change::Full), "# nothing to do\n");
    }
}

#[test]
fn what_netfilter_carries_is_left_out() {
    let mut kernel = Kernel::default();
    let mut sctp = rule("10.96.0.1", &["10.244.1.5"], TrafficPolicy::Cluster);
    sctp.protocol = Protocol::Sctp;
    let change = kernel.set("a", Some(sctp));
    let text = kernel.step(&change);
    // But the cluster IP is known, so that its other ports are refused; not of the protocol that is carried elsewhere.
    expect![[r#"
        + frontend 10.96.0.1, everything else ClusterIP -> reject
        + frontend 10.96.0.1, all sctp ClusterIP -> left to netfilter
    "#]]
    .assert_eq(&text);
    assert!(kernel.image.frontends.values().all(|f| f.near_count == 0));
}

#[test]
fn source_ranges_and_affinity_are_written_and_go() {
    let mut kernel = Kernel::default();
    let with_ranges = |ranges: &[&str]| {
        let mut rule = rule("10.96.0.1", &["10.244.1.5"], TrafficPolicy::Cluster);
        rule.frontends.truncate(1);
        rule.frontends.push(Frontend {
            addr: FrontendAddr::Ip("203.0.113.1".parse().expect("an address")),
            port: 80,
            protocol: Protocol::Tcp,
            kind: FrontendKind::LoadBalancer,
        });
        rule.source_ranges = ranges
            .iter()
            .map(|r| r.parse().expect("a network"))
            .collect();
        rule.affinity = (!ranges.is_empty()).then(|| Duration::from_secs(10_800));
        Some(rule)
    };
    let change = kernel.set("a", with_ranges(&["192.0.2.7/24", "192.0.2.0/24"]));
    expect![[r#"
        + set 1: 10.244.1.5:8080(local)
        + ranges 1: 192.0.2.0/24
        + frontend 10.96.0.1, everything else ClusterIP -> reject
        + frontend 10.96.0.1:80/tcp ClusterIP -> set 1 (1), clients stay for 10800 s
        + frontend 203.0.113.1:80/tcp LoadBalancer -> set 1 (1), from ranges 1 only, clients stay for 10800 s
    "#]].assert_eq(&kernel.step(&change));
    kernel.owners = Owners::default();
    assert_eq!(kernel.step(&Change::Full), "# nothing to do\n");
    let change = kernel.set("a", with_ranges(&["192.0.2.0/24", "198.51.100.0/24"]));
    expect![[r#"
        + ranges 2: 192.0.2.0/24 198.51.100.0/24
        + frontend 203.0.113.1:80/tcp LoadBalancer -> set 1 (1), from ranges 2 only, clients stay for 10800 s
        - ranges 1 (1 networks)
    "#]].assert_eq(&kernel.step(&change));
    let change = kernel.set("a", with_ranges(&[]));
    expect![[r#"
        + frontend 10.96.0.1:80/tcp ClusterIP -> set 1 (1)
        + frontend 203.0.113.1:80/tcp LoadBalancer -> set 1 (1)
        - ranges 2 (2 networks)
    "#]]
    .assert_eq(&kernel.step(&change));
    assert_eq!(kernel.image.ranges.len(), 0);
}

#[test]
fn clients_are_remembered_by_service_port() {
    let mut kernel = Kernel::default();
    for (name, address) in [("a", "10.96.0.1"), ("b", "10.96.0.2")] {
        let mut rule = rule(address, &["10.244.1.5"], TrafficPolicy::Cluster);
        rule.frontends[1].port = if name == "a" { 30080 } else { 30081 };
        rule.affinity = Some(Duration::from_secs(1));
        kernel.set(name, Some(rule));
    }
    kernel.step(&Change::Full);
    let served = kernel.image.frontends.values().filter(|f| f.near_count > 0);
    let ids: Vec<u64> = served.map(|f| f.affinity).collect();
    let distinct: BTreeSet<u64> = ids.iter().copied().collect();
    assert_eq!((ids.len(), distinct.len()), (4, 2), "{ids:?}");
}

proptest::proptest! {
    /// Whatever the history, the image ends as a fresh start would make it, but for the ids of sets; and at no step does
    /// a frontend show half of a Service (`carry_out` looks).
    #[test]
    fn any_history_ends_in_the_desired_state(
        steps in proptest::collection::vec((0_u8..4, proptest::option::of(0_u8..5), proptest::bool::ANY), 1..30)
    ) {
        let mut kernel = Kernel::default();
        for (service, backends, full) in steps {
            let rules = backends.map(|count| {
                let backends: Vec<String> = (0..count).map(|n| format!("10.244.{}.{n}", n % 2 + 1)).collect();
                let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
                rule(&format!("10.96.0.{service}"), &backends, TrafficPolicy::Local)
            });
            let change = kernel.set(&format!("s{service}"), rules);
            if let (true, Some(rules)) = (service % 2 == 1, kernel.desired.services.get_mut(&key(&format!("s{service}")))) {
                rules.algorithm = if full { Algorithm::Maglev } else { Algorithm::Random };
            }
            kernel.step(if full { &Change::Full } else { &change });
        }
        let mut fresh = Kernel { desired: kernel.desired.clone(), ..Kernel::default() };
        fresh.step(&Change::Full);
        kernel.step(&Change::Full);
        proptest::prop_assert_eq!(resolved(&kernel.image), resolved(&fresh.image));
        proptest::prop_assert_eq!(kernel.image.sets.len(), fresh.image.sets.len());
        proptest::prop_assert_eq!(kernel.image.tables.len(), fresh.image.tables.len());
    }
}

type Resolved = BTreeMap<FrontendKey, (u8, u8, Vec<BackendValue>, Vec<BackendValue>)>;

fn resolved(image: &Image) -> Resolved {
    let set = |id| image.sets.get(&id).cloned().unwrap_or_default();
    let frontends = image.frontends.iter();
    frontends
        .map(|(key, v)| {
            let near = set(v.near_set);
            (*key, (v.kind, v.flags, near, set(v.far_set)))
        })
        .collect()
}
