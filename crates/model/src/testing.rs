//! Generators of clusters and packets, for property tests here and in the data planes.
//!
//! All pools are small on purpose: objects collide, sources are endpoints, ports belong to several Services.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::derive::Diagnostic;
use crate::inputs::{
    Algorithm, DirectAnswers, Endpoint, EndpointSlice, Family, InputEvent, Inputs, Kind, Node,
    ObjectKey, Protocol, Service, ServicePort, SlicePort, TrafficPolicy,
};
use crate::oracle::{NodeContext, Origin, Packet};
use crate::settings::{DetectLocal, NodeSettings};

pub mod classes;
pub mod plain;
mod pools;
pub mod scenes;

use pools::{cluster_ips, loopback, outsiders, pods, service_addresses};

/// The node on which everything is derived.
pub const NODE: &str = "n1";

/// What is set on [`NODE`]: some of the external IPs are allowed.
pub fn settings() -> NodeSettings {
    NodeSettings {
        external_ip_cidrs: networks(&["203.0.113.0/28", "2001:db8:1::/124"]),
        ..NodeSettings::new(NODE)
    }
}

/// Addresses of [`NODE`]: on its link, on its overlay device, and one of IPv6.
pub fn node_addresses() -> Vec<IpAddr> {
    let v6 = Ipv6Addr::new(0xfd00, 0x192, 0, 0, 0, 0, 0, 1);
    vec![
        Ipv4Addr::new(192, 168, 100, 1).into(),
        Ipv4Addr::new(10, 244, 1, 0).into(),
        v6.into(),
    ]
}

/// A node with some of the settings that matter.
pub fn node_context() -> impl Strategy<Value = NodeContext> {
    let cluster = |texts: &[&str]| DetectLocal::ClusterCidr(networks(texts));
    let detect_local = vec![
        cluster(&["10.244.0.0/16", "fd00:10:244::/56"]),
        cluster(&["10.244.1.0/24", "10.244.2.0/24"]),
        cluster(&[]),
        DetectLocal::NodeCidr(networks(&["10.244.1.0/24", "fd00:10:244:1::/64"])),
        DetectLocal::BridgeInterface("cni0".to_owned()),
        DetectLocal::InterfaceNamePrefix("sw".to_owned()),
        DetectLocal::None,
    ];
    let node_ports = vec![
        None,
        Some(networks(&[])),
        Some(networks(&["192.168.100.1/32", "fd00:192::1/128"])),
        Some(networks(&["10.0.0.0/8", "fd00:10::/32"])),
        Some(networks(&["0.0.0.0/0", "::/0"])),
    ];
    let settings = (
        select(detect_local),
        prop::bool::weighted(0.2),
        select(node_ports),
    );
    settings.prop_map(
        |(detect_local, masquerade_all, node_port_addresses)| NodeContext {
            addresses: node_addresses(),
            detect_local,
            masquerade_all,
            node_port_addresses,
            loopback_node_ports: false,
        },
    )
}

/// A history of a small cluster: Services, slices and the node itself come, change and go.
pub fn events(length: usize) -> impl Strategy<Value = Vec<InputEvent>> {
    let event = prop_oneof![
        4 => (service_key(), service()).prop_map(|(key, mut service)| {
            service.key = key.clone();
            InputEvent::Service(key, Some(service))
        }),
        6 => (slice_key(), slice()).prop_map(|(key, mut slice)| {
            slice.service = key.neighbour(slice.service.name());
            slice.key = key.clone();
            InputEvent::Slice(key, Some(slice))
        }),
        1 => service_key().prop_map(|key| InputEvent::Service(key, None)),
        1 => slice_key().prop_map(|key| InputEvent::Slice(key, None)),
        1 => option::weighted(0.9, node())
            .prop_map(|node| InputEvent::Node(NODE.into(), node)),
        1 => prop_oneof![service_key().prop_map(|key| (Kind::Service, key)),
            slice_key().prop_map(|key| (Kind::Slice, key)),
            Just((Kind::Node, ObjectKey::new("", NODE)))]
            .prop_flat_map(|(kind, key)| (Just(kind), Just(key), 0..3_usize))
            .prop_map(|(kind, key, count)| InputEvent::Findings(kind, key.clone(), findings(&key, count))),
    ];
    vec(event, 0..=length)
}

/// The cluster at the end of a history.
pub fn inputs() -> impl Strategy<Value = Inputs> {
    events(24).prop_map(|events| {
        let mut inputs = Inputs::default();
        for event in events {
            inputs.apply(event);
        }
        inputs
    })
}

/// The objects that are left at the end of a history, each as one event.
pub fn survivors(events: &[InputEvent]) -> Vec<InputEvent> {
    let mut services = BTreeMap::new();
    let mut slices = BTreeMap::new();
    let mut nodes = BTreeMap::new();
    let mut findings = BTreeMap::new();
    for event in events {
        match event {
            InputEvent::Service(key, service) => {
                services.insert(key, (service.is_some(), event));
            }
            InputEvent::Slice(key, slice) => {
                slices.insert(key, (slice.is_some(), event));
            }
            InputEvent::Node(name, node) => {
                nodes.insert(name, (node.is_some(), event));
            }
            InputEvent::Findings(kind, key, found) => {
                findings.insert((kind, key), (!found.is_empty(), event));
            }
            InputEvent::Synced => {}
        }
    }
    let all = services
        .into_values()
        .chain(slices.into_values())
        .chain(nodes.into_values())
        .chain(findings.into_values());
    all.filter(|(is_there, _)| *is_there)
        .map(|(_, event)| event.clone())
        .collect()
}

/// The first packet of a flow that may meet one of the generated Services.
pub fn packet() -> impl Strategy<Value = Packet> {
    family()
        .prop_flat_map(|family| {
            let mut sources = pods(family);
            sources.extend(of_family(node_addresses(), family));
            sources.extend(outsiders(family));
            let mut destinations = service_addresses(family);
            destinations.extend(cluster_ips(family));
            destinations.extend(of_family(node_addresses(), family));
            destinations.push(loopback(family));
            let mut ports = PORTS.to_vec();
            ports.extend(NODE_PORTS);
            (
                select(sources),
                select(destinations),
                select(ports),
                protocol(),
            )
        })
        .prop_map(|(source, destination, port, protocol)| Packet {
            source,
            destination: SocketAddr::new(destination, port),
            protocol,
            origin: if node_addresses().contains(&source) {
                Origin::NodeProcess
            } else if pods(Family::of(source)).contains(&source) {
                Origin::LocalPod
            } else {
                Origin::External
            },
        })
}

const PORTS: [u16; 3] = [53, 80, 8080];
const NODE_PORTS: [u16; 5] = [30_000, 30_001, 30_080, 30_127, 32_767];
const NAMES: [&str; 3] = ["api", "db", "web"];

fn service_key() -> impl Strategy<Value = ObjectKey> {
    (select(vec!["default", "prod"]), select(NAMES.to_vec()))
        .prop_map(|(namespace, name)| ObjectKey::new(namespace, name))
}

fn slice_key() -> impl Strategy<Value = ObjectKey> {
    (select(vec!["default", "prod"]), 0..6_u8)
        .prop_map(|(namespace, n)| ObjectKey::new(namespace, format!("slice-{n}")))
}

fn service() -> impl Strategy<Value = Service> {
    let addresses = (
        subsequence(cluster_ips(Family::V4), 0..=1),
        subsequence(cluster_ips(Family::V6), 0..=1),
        subsequence(both(service_addresses), 0..=2),
        subsequence(both(service_addresses), 0..=2),
    );
    let ranges = networks(&[
        "192.0.2.0/28",
        "192.168.100.0/24",
        "10.244.1.0/24",
        "2001:db8::/124",
        "0.0.0.0/0",
    ]);
    let rules = (
        policy(),
        policy(),
        (
            option::weighted(0.2, Just(Duration::from_secs(10_800))),
            option::weighted(0.2, Just(30_500)),
            option::weighted(0.3, select(vec![Algorithm::Random, Algorithm::Maglev])),
        ),
        prop_oneof![
            3 => Just(Vec::new()),
            1 => subsequence(ranges, 0..=3)
        ],
    );
    (vec(service_port(), 1..=3), addresses, rules).prop_map(
        |(ports, (v4, v6, load_balancer_ips, external_ips), rules)| {
            let (internal_policy, external_policy, others, source_ranges) = rules;
            let (affinity, health_check_node_port, algorithm) = others;
            Service {
                key: ObjectKey::new("", ""),
                cluster_ips: v4.into_iter().chain(v6).collect(),
                ports,
                internal_policy,
                external_policy,
                affinity,
                load_balancer_ips,
                external_ips,
                source_ranges,
                health_check_node_port,
                algorithm,
            }
        },
    )
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    (
        port_name(),
        protocol(),
        select(PORTS.to_vec()),
        option::of(select(NODE_PORTS.to_vec())),
    )
        .prop_map(|(name, protocol, port, node_port)| ServicePort {
            name,
            protocol,
            port,
            node_port,
        })
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let port = (port_name(), protocol(), select(vec![0, 8080, 9090])).prop_map(
        |(name, protocol, port)| SlicePort {
            name,
            protocol,
            port,
        },
    );
    (
        select(NAMES.to_vec()),
        family(),
        vec(port, 1..=6),
        vec(endpoint(), 0..=4),
    )
        .prop_map(|(service, family, ports, endpoints)| EndpointSlice {
            key: ObjectKey::new("", ""),
            service: ObjectKey::new("", service),
            family,
            ports,
            endpoints,
            last_change: None,
        })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (
        select(both(pods)),
        option::of(select(vec!["n1", "n2"])),
        prop::bool::weighted(0.7),
        (any::<bool>(), any::<bool>()),
        (hints(&["a", "b"]), hints(&[NODE, "n2"])),
    )
        .prop_map(|(address, node, ready, others, hints)| Endpoint {
            address,
            ready,
            serving: ready || others.0,
            terminating: others.1,
            node: node.map(Arc::from),
            zone_hints: hints.0.into(),
            node_hints: hints.1.into(),
        })
}

/// Mostly there, as hints count only when all have one.
fn hints(names: &[&'static str]) -> impl Strategy<Value = Vec<Arc<str>>> + use<> {
    let names: Vec<Arc<str>> = names.iter().copied().map(Arc::from).collect();
    prop_oneof![
        1 => Just(Vec::new()),
        3 => subsequence(names, 1..=2),
    ]
}

fn findings(key: &ObjectKey, count: usize) -> Vec<Diagnostic> {
    let finding = |i| Diagnostic {
        object: key.clone(),
        field: format!("spec.unreadable[{i}]"),
        consequence: "left out".to_owned(),
    };
    (0..count).map(finding).collect()
}

fn node() -> impl Strategy<Value = Node> {
    (
        option::of(select(vec!["a", "b", "c"])),
        subsequence(node_addresses(), 0..=2),
        any::<bool>(),
    )
        .prop_map(|(zone, addresses, draining)| Node {
            name: NODE.into(),
            addresses,
            pod_cidrs: Vec::new(),
            zone: zone.map(Arc::from),
            draining,
            direct_answers: DirectAnswers::No,
        })
}

fn family() -> impl Strategy<Value = Family> {
    select(vec![Family::V4, Family::V6])
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local])
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        3 => Just(Protocol::Tcp),
        2 => Just(Protocol::Udp),
        1 => Just(Protocol::Sctp)
    ]
}

fn port_name() -> impl Strategy<Value = Arc<str>> {
    select(vec!["", "http"]).prop_map(Arc::from)
}

fn both(pool: fn(Family) -> Vec<IpAddr>) -> Vec<IpAddr> {
    let mut all = pool(Family::V4);
    all.extend(pool(Family::V6));
    all
}

fn of_family(addresses: Vec<IpAddr>, family: Family) -> impl Iterator<Item = IpAddr> {
    addresses
        .into_iter()
        .filter(move |ip| Family::of(*ip) == family)
}

fn networks(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
