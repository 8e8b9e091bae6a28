use std::net::IpAddr;

use seaway_ebpf_abi::Addr;
use seaway_model::{
    Backend, Change, Desired, Family, Frontend, FrontendAddr, FrontendKind, ObjectKey, PortRule,
    Protocol, ServiceRules, TrafficPolicy,
};

use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A Service of UDP at 10.96.0.10:53 and node port 30053, with these backends and those that end but still answer.
fn service(backends: &[&str], lingering: &[&str]) -> Desired {
    let frontend = |addr, port, kind| Frontend {
        addr,
        port,
        protocol: Protocol::Udp,
        kind,
    };
    let cluster_ip = IpAddr::from([10, 96, 0, 10]);
    let rule = PortRule {
        port_name: "".into(),
        protocol: Protocol::Udp,
        family: Family::V4,
        frontends: vec![
            frontend(FrontendAddr::Ip(cluster_ip), 53, FrontendKind::ClusterIp),
            frontend(
                FrontendAddr::AnyNodeAddress(Family::V4),
                30_053,
                FrontendKind::NodePort,
            ),
        ],
        cluster: backends
            .iter()
            .map(|to| Backend {
                addr: addr(to),
                local: false,
            })
            .collect(),
        local: Vec::new(),
        lingering: lingering.iter().map(|to| addr(to)).collect(),
        any_endpoints: !backends.is_empty(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
    };
    let mut desired = Desired::default();
    let rules = ServiceRules {
        ports: vec![rule],
        ..ServiceRules::default()
    };
    desired
        .services
        .insert(ObjectKey::new("kube-system", "dns"), rules);
    desired
}

fn entry(cookie: u64, asked: &str, backend: &str, netns: u64) -> (SocketKey, SocketValue) {
    let (asked, backend) = (addr(asked), addr(backend));
    let key = SocketKey {
        cookie,
        addr: Addr::from(backend.ip()),
        port: backend.port().to_be(),
        pad: [0; 3],
    };
    let value = SocketValue {
        addr: Addr::from(asked.ip()),
        port: asked.port().to_be(),
        pad: [0; 3],
        netns,
    };
    (key, value)
}

const A: &str = "10.244.1.5:5353";
const B: &str = "10.244.2.5:5353";

#[test]
fn a_socket_is_stale_when_its_backend_left_what_it_asked() {
    let node = || {
        let own = ["192.168.1.1".parse().expect("an address")];
        NodeAddresses::new(own, None)
    };
    for (what, entry, after, expected) in [
        (
            "still there",
            entry(1, "10.96.0.10:53", A, 7),
            service(&[A, B], &[]),
            false,
        ),
        (
            "left",
            entry(1, "10.96.0.10:53", A, 7),
            service(&[B], &[]),
            true,
        ),
        (
            "ends, but answers",
            entry(1, "10.96.0.10:53", A, 7),
            service(&[B], &[A]),
            false,
        ),
        (
            "no backend is left",
            entry(1, "10.96.0.10:53", A, 7),
            service(&[], &[]),
            true,
        ),
        (
            "the Service is gone",
            entry(1, "10.96.0.10:53", A, 7),
            Desired::default(),
            true,
        ),
        (
            "at a node port",
            entry(1, "192.168.1.1:30053", A, 7),
            service(&[B], &[]),
            true,
        ),
        (
            "at a loopback address",
            entry(1, "127.0.0.1:30053", A, 7),
            service(&[B], &[]),
            true,
        ),
        (
            "at an unspecified one",
            entry(1, "0.0.0.0:30053", A, 7),
            service(&[B], &[]),
            true,
        ),
        (
            "at an address of others",
            entry(1, "192.168.1.9:30053", A, 7),
            service(&[B], &[]),
            false,
        ),
        (
            "of another port",
            entry(1, "10.96.0.10:54", A, 7),
            service(&[B], &[]),
            false,
        ),
    ] {
        let mut frontends = Frontends::default();
        frontends.update(&service(&[A, B], &[]), &Change::Full);
        frontends.update(&after, &Change::Full);
        let found = stale(&[entry], &frontends, &node().and_loopback());
        assert_eq!(!found.is_empty(), expected, "{what}");
    }
}

#[test]
fn sockets_are_looked_for_where_they_are() {
    let entries = [
        entry(1, "10.96.0.10:53", A, 7),
        entry(2, "10.96.0.10:53", B, 7),
        entry(3, "[fd00::10]:54", "[fd00::5]:5354", 8),
    ];
    let namespaces = by_namespace(&entries);
    assert_eq!(namespaces[&7], BTreeSet::from([(1, addr(A)), (2, addr(B))]));
    assert_eq!(
        namespaces[&8],
        BTreeSet::from([(3, addr("[fd00::5]:5354"))])
    );
    assert_eq!(common_port(&namespaces[&7]), Some(5353));
    let both: BTreeSet<Bound> = namespaces.into_values().flatten().collect();
    assert_eq!(common_port(&both), None);
}
