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

use crate::inputs::{
    Endpoint, EndpointSlice, Family, InputEvent, Inputs, ObjectKey, Protocol, Service, ServicePort,
    SlicePort, TrafficPolicy,
};
use crate::oracle::{NodeContext, Origin, Packet};

/// The node on which everything is derived.
pub const NODE: &str = "n1";

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
    let network = |text: &str| text.parse::<IpNetwork>().ok();
    let cidrs = [
        vec!["10.244.0.0/16", "fd00:10:244::/56"],
        vec!["10.244.1.0/24", "10.244.2.0/24"],
        vec![],
    ]
    .map(|texts| texts.into_iter().filter_map(network).collect::<Vec<_>>());
    (select(cidrs.to_vec()), prop::bool::weighted(0.2)).prop_map(
        |(cluster_cidrs, masquerade_all)| NodeContext {
            addresses: node_addresses(),
            cluster_cidrs,
            masquerade_all,
        },
    )
}

/// A history of a small cluster: Services and slices come, change and go.
pub fn events(length: usize) -> impl Strategy<Value = Vec<InputEvent>> {
    let event = prop_oneof![
        4 => (service_key(), service()).prop_map(|(key, mut service)| {
            service.key = key.clone();
            InputEvent::Service(key, Some(service))
        }),
        6 => (slice_key(), slice()).prop_map(|(key, mut slice)| {
            slice.key = key.clone();
            InputEvent::Slice(key, Some(slice))
        }),
        1 => service_key().prop_map(|key| InputEvent::Service(key, None)),
        1 => slice_key().prop_map(|key| InputEvent::Slice(key, None)),
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
    for event in events {
        match event {
            InputEvent::Service(key, service) => {
                services.insert(key.clone(), service.clone());
            }
            InputEvent::Slice(key, slice) => {
                slices.insert(key.clone(), slice.clone());
            }
            InputEvent::Node(..) | InputEvent::Synced => {}
        }
    }
    let services = services
        .into_iter()
        .filter(|(_, service)| service.is_some())
        .map(|(key, service)| InputEvent::Service(key, service));
    let slices = slices
        .into_iter()
        .filter(|(_, slice)| slice.is_some())
        .map(|(key, slice)| InputEvent::Slice(key, slice));
    services.chain(slices).collect()
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
    let ranges = [
        "192.0.2.0/28",
        "10.244.1.0/24",
        "2001:db8::/124",
        "0.0.0.0/0",
    ];
    let ranges: Vec<IpNetwork> = ranges.iter().filter_map(|r| r.parse().ok()).collect();
    let rules = (
        policy(),
        policy(),
        option::weighted(0.2, Just(Duration::from_secs(10_800))),
        prop_oneof![
            3 => Just(Vec::new()),
            1 => subsequence(ranges, 0..=3)
        ],
    );
    (vec(service_port(), 1..=3), addresses, rules).prop_map(
        |(ports, (v4, v6, load_balancer_ips, external_ips), rules)| {
            let (internal_policy, external_policy, affinity, source_ranges) = rules;
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
                health_check_node_port: None,
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
            service: service.into(),
            family,
            ports,
            endpoints,
        })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (
        select(both(pods)),
        option::of(select(vec!["n1", "n2"])),
        prop::bool::weighted(0.7),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(address, node, ready, serving, terminating)| Endpoint {
            addresses: vec![address],
            ready,
            serving: ready || serving,
            terminating,
            node: node.map(Arc::from),
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
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

/// Cluster IPs that share their lowest bits, and ones that do not.
fn cluster_ips(family: Family) -> Vec<IpAddr> {
    let last = [1_u8, 2, 17, 18, 33, 255];
    let address = |last: u8| match family {
        Family::V4 => IpAddr::from([10, 96, 0, last]),
        Family::V6 => IpAddr::from([0xfd00, 0x10, 0x96, 0, 0, 0, 0, u16::from(last)]),
    };
    last.into_iter().map(address).collect()
}

/// Load balancer and external addresses.
fn service_addresses(family: Family) -> Vec<IpAddr> {
    let address = |last: u8| match family {
        Family::V4 => IpAddr::from([203, 0, 113, last]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(last)]),
    };
    [1, 2, 17].into_iter().map(address).collect()
}

/// Pods of this node and of another one.
fn pods(family: Family) -> Vec<IpAddr> {
    let address = |node: u8, last: u8| match family {
        Family::V4 => IpAddr::from([10, 244, node, last]),
        Family::V6 => IpAddr::from([
            0xfd00,
            0x10,
            0x244,
            u16::from(node),
            0,
            0,
            0,
            u16::from(last),
        ]),
    };
    let all = [(1, 2), (1, 3), (1, 4), (2, 2), (2, 3)];
    all.into_iter().map(|(n, l)| address(n, l)).collect()
}

fn outsiders(family: Family) -> Vec<IpAddr> {
    match family {
        Family::V4 => vec![[192, 0, 2, 1].into(), [192, 0, 2, 200].into()],
        Family::V6 => vec![
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xff].into(),
        ],
    }
}

fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}
