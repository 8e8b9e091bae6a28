use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;
use seaway_kernel::conntrack::{Status, Tuple};
use seaway_model::{
    Backend, Change, Desired, Family, Frontend, FrontendAddr, FrontendKind, InputEvent, Inputs,
    ObjectKey, PortRule, Protocol, ServiceRules, TrafficPolicy, derive_all, testing,
};

use super::*;

const TCP: u8 = 6;

/// An entry of a client that knocked at `destination` and is answered by `answers`.
pub(crate) fn flow(destination: SocketAddr, answers: SocketAddr) -> Flow {
    let client = match destination {
        SocketAddr::V4(_) => SocketAddr::from(([10, 244, 1, 9], 40_000)),
        SocketAddr::V6(_) => SocketAddr::from(([0xfd00, 0x10, 0x244, 1, 0, 0, 0, 9], 40_000)),
    };
    Flow {
        protocol: UDP,
        original: Tuple {
            source: client,
            destination,
        },
        reply: Tuple {
            source: answers,
            destination: client,
        },
        status: Status::CONFIRMED,
        tcp: None,
        mark: 0,
        zone: DEFAULT_ZONE,
        id: 1,
    }
}

/// One port of a Service with a cluster IP, a node port and a load balancer address.
fn port(protocol: Protocol, cluster_ip: &str, node_port: u16, endpoints: [&[&str]; 3]) -> PortRule {
    let frontend = |addr, port, kind| Frontend {
        addr,
        port,
        protocol,
        kind,
    };
    let ip = |text: &str| FrontendAddr::Ip(text.parse().unwrap());
    let node = FrontendAddr::AnyNodeAddress(Family::V4);
    let backends = |addrs: &[&str]| {
        let backend = |addr: &&str| Backend {
            addr: addr.parse().unwrap(),
            local: false,
        };
        addrs.iter().map(backend).collect()
    };
    let [cluster, local, lingering] = endpoints;
    PortRule {
        port_name: "dns".into(),
        protocol,
        family: Family::V4,
        frontends: vec![
            frontend(ip(cluster_ip), 53, FrontendKind::ClusterIp),
            frontend(node, node_port, FrontendKind::NodePort),
            frontend(ip("203.0.113.1"), node_port, FrontendKind::LoadBalancer),
        ],
        cluster: backends(cluster),
        local: backends(local),
        lingering: lingering.iter().map(|addr| addr.parse().unwrap()).collect(),
        any_endpoints: !cluster.is_empty(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Local,
        affinity: None,
        source_ranges: Vec::new(),
    }
}

fn node() -> NodeAddresses {
    let addresses = ["127.0.0.1", "192.168.100.1", "172.16.0.1"].map(|a| a.parse().unwrap());
    NodeAddresses::new(addresses, Some(&["192.168.0.0/16".parse().unwrap()]))
}

#[test]
fn what_goes_and_what_stays() {
    let ports = [
        port(
            Protocol::Udp,
            "10.96.0.10",
            30_053,
            [
                &["10.244.1.2:53", "10.244.2.2:53"],
                &["10.244.1.3:53"],
                &["10.244.2.4:53"],
            ],
        ),
        port(Protocol::Udp, "10.96.0.11", 30_054, [&[], &[], &[]]),
        port(
            Protocol::Tcp,
            "10.96.0.12",
            30_055,
            [&["10.244.1.2:53"], &[], &[]],
        ),
        // A process in the node's network: its node port leads to itself.
        port(
            Protocol::Udp,
            "10.96.0.13",
            30_056,
            [&["192.168.100.1:30056"], &[], &[]],
        ),
    ];
    let mut desired = Desired::default();
    for (i, port) in ports.into_iter().enumerate() {
        let rules = ServiceRules {
            ports: vec![port],
            ..ServiceRules::default()
        };
        let key = ObjectKey::new("default", format!("service-{i}"));
        desired.services.insert(key, rules);
    }
    let mut frontends = Frontends::default();
    frontends.update(&desired, &Change::Full);

    // Destination, who answers, whether the entry goes, why.
    let cases = [
        ("10.96.0.10:53", "10.244.1.2:53", false, "an endpoint"),
        ("10.96.0.10:53", "10.244.1.3:53", false, "of policy Local"),
        ("10.96.0.10:53", "10.244.2.4:53", false, "still answers"),
        ("10.96.0.10:53", "10.244.9.9:53", true, "no endpoint"),
        ("10.96.0.10:53", "10.244.1.2:54", true, "other port"),
        ("10.96.0.10:53", "10.96.0.10:53", true, "untranslated"),
        ("10.96.0.10:54", "10.244.9.9:53", false, "no port of ours"),
        ("10.96.0.99:53", "10.244.9.9:53", false, "no Service"),
        ("203.0.113.1:30053", "10.244.1.2:53", false, "an endpoint"),
        ("203.0.113.1:30053", "10.244.9.9:53", true, "no endpoint"),
        ("192.168.100.1:30053", "10.244.2.2:53", false, "an endpoint"),
        ("192.168.100.1:30053", "10.244.9.9:53", true, "no endpoint"),
        (
            "192.168.100.1:30053",
            "192.168.100.1:30053",
            true,
            "began before the Service",
        ),
        (
            "172.16.0.1:30053",
            "10.244.9.9:53",
            false,
            "no node ports at this address",
        ),
        (
            "127.0.0.1:30053",
            "127.0.0.1:30053",
            false,
            "nor on loopback",
        ),
        (
            "192.0.2.7:30053",
            "192.0.2.7:30053",
            false,
            "the number at a foreign address",
        ),
        ("192.168.100.1:8053", "10.244.9.9:53", false, "a host port"),
        (
            "10.96.0.11:53",
            "10.244.1.2:53",
            true,
            "the last endpoint is gone",
        ),
        ("10.96.0.11:53", "10.96.0.11:53", false, "nowhere to go"),
        (
            "192.168.100.1:30054",
            "10.244.1.2:53",
            true,
            "the last endpoint is gone",
        ),
        (
            "10.96.0.12:53",
            "10.244.9.9:53",
            false,
            "the Service is TCP's",
        ),
        (
            "192.168.100.1:30056",
            "192.168.100.1:30056",
            false,
            "an endpoint, translated to itself",
        ),
    ];
    for (destination, answers, expected, why) in cases {
        let flow = flow(destination.parse().unwrap(), answers.parse().unwrap());
        let got = stale(&[flow], &frontends, &node());
        let wanted = if expected { vec![flow] } else { Vec::new() };
        assert_eq!(got, wanted, "{destination} answered by {answers}: {why}");
        // Whatever it is in UDP of our zone: nothing else goes.
        for foreign in [
            Flow {
                protocol: TCP,
                ..flow
            },
            Flow {
                protocol: 132,
                ..flow
            },
            Flow { zone: 7, ..flow },
        ] {
            assert_eq!(stale(&[foreign], &frontends, &node()), [], "{foreign:?}");
        }
    }
}

/// Every address and port that an endpoint of this history ever had, and one that none has.
fn endpoints(events: &[InputEvent], family: Family) -> Vec<SocketAddr> {
    let foreign = match family {
        Family::V4 => SocketAddr::from(([198, 51, 100, 7], 8080)),
        Family::V6 => SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 8080)),
    };
    let mut all = BTreeSet::from([foreign]);
    for event in events {
        let InputEvent::Slice(_, Some(slice)) = event else {
            continue;
        };
        let addresses = slice.endpoints.iter().map(|e| &e.address);
        for &ip in addresses.filter(|ip| Family::of(**ip) == family) {
            all.extend(slice.ports.iter().map(|p| SocketAddr::new(ip, p.port)));
        }
    }
    all.into_iter().collect()
}

/// Every address and port at which a UDP port of this history was ever served, and one at which none was.
fn destinations(events: &[InputEvent]) -> Vec<SocketAddr> {
    let mut all = BTreeSet::from([SocketAddr::from(([192, 0, 2, 7], 53))]);
    for event in events {
        let InputEvent::Service(_, Some(service)) = event else {
            continue;
        };
        let ips = service.cluster_ips.iter().chain(&service.external_ips);
        let ips: Vec<_> = ips.chain(&service.load_balancer_ips).copied().collect();
        for port in service.ports.iter().filter(|p| p.protocol == Protocol::Udp) {
            all.extend(ips.iter().map(|ip| SocketAddr::new(*ip, port.port)));
            let node = testing::node_addresses().into_iter();
            all.extend(
                port.node_port
                    .into_iter()
                    .flat_map(|number| node.clone().map(move |ip| SocketAddr::new(ip, number))),
            );
        }
    }
    all.into_iter().collect()
}

/// Which destinations, and which endpoints answer (or none: not translated).
pub(crate) fn flows() -> impl Strategy<Value = Vec<(Index, Option<Index>)>> {
    let answers = prop::option::weighted(0.8, any::<Index>());
    prop::collection::vec((any::<Index>(), answers), 1..100)
}

pub(crate) fn resolve(flows: &[(Index, Option<Index>)], events: &[InputEvent]) -> Vec<Flow> {
    let destinations = destinations(events);
    let one = |(to, answers): &(Index, Option<Index>)| {
        let to = *to.get(&destinations);
        let endpoints = endpoints(events, Family::of(to.ip()));
        flow(to, answers.map_or(to, |index| *index.get(&endpoints)))
    };
    flows.iter().map(one).collect()
}

proptest! {
    /// Against the model's own search: a flow of a frontend goes exactly if its endpoint may not be used.
    #[test]
    fn exactly_the_flows_to_other_endpoints_go(events in testing::events(24), flows in flows()) {
        let mut inputs = Inputs::default();
        for event in events.clone() {
            inputs.apply(event);
        }
        let (desired, _) = derive_all(&inputs, &testing::settings());
        let mut frontends = Frontends::default();
        frontends.update(&desired, &Change::Full);
        let node = NodeAddresses::new(testing::node_addresses(), None);
        for flow in resolve(&flows, &events) {
            let (to, answers) = (flow.original.destination, flow.reply.source);
            let at_node = testing::node_addresses().contains(&to.ip());
            let wanted = match desired.find(to.ip(), to.port(), Protocol::Udp, at_node) {
                None => false,
                Some((_, rule, _)) => {
                    let sets = rule.cluster.iter().chain(&rule.local).map(|b| b.addr);
                    let mut usable = sets.chain(rule.lingering.iter().copied());
                    let mut any = usable.clone();
                    !usable.any(|addr| addr == answers) && (answers != to || any.next().is_some())
                }
            };
            prop_assert_eq!(is_stale(&flow, &frontends, &node), wanted, "{:?}", flow);
        }
    }
}
