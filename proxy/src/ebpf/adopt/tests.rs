use proptest::prelude::*;
use seaway_ebpf_abi::frontend::{KIND_CLUSTER_IP, KIND_NODE_PORT};
use seaway_ebpf_abi::{Cidr, config};

use super::*;

const NOW: u64 = 1_000_000_000_000;

/// A node with two Services in each family: one at a cluster IP, one at a node port as well.
struct World {
    image: Image,
    config: Config,
    addresses: BTreeMap<Addr, u32>,
    links: BTreeMap<IpAddr, Place>,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            image: Image::default(),
            config: Config {
                v4: config::Family {
                    cidr_count: 1,
                    ..config::Family::default()
                },
                v6: config::Family {
                    cidr_count: 1,
                    ..config::Family::default()
                },
                ..Config::default()
            },
            addresses: BTreeMap::new(),
            links: BTreeMap::new(),
        };
        world.config.v4.cidrs[0] = Cidr::new(ip("10.244.0.0"), 16);
        world.config.v6.cidrs[0] = Cidr::new(ip("fd00:244::"), 32);
        for (number, [service, node, local, remote, pod, outside]) in [
            [
                "10.96.0.10",
                "192.0.2.1",
                "10.244.1.6",
                "10.244.2.5",
                "10.244.1.5",
                "203.0.113.9",
            ],
            [
                "fd00:96::10",
                "2001:db8::1",
                "fd00:244:1::6",
                "fd00:244:2::5",
                "fd00:244:1::5",
                "2001:db8:9::9",
            ],
        ]
        .into_iter()
        .enumerate()
        {
            let set = 1 + number as u32;
            let backend = |at: &str| BackendValue {
                addr: ip(at).into(),
                port: 8080_u16.to_be(),
                flags: 0,
            };
            world
                .image
                .sets
                .insert(set, [local, remote, node, pod].map(backend).into());
            for protocol in [TCP, UDP] {
                for (addr, port, kind) in [
                    (Addr::from(ip(service)), 80_u16, KIND_CLUSTER_IP),
                    (Addr::from(ip(service)).any(), 30_080, KIND_NODE_PORT),
                ] {
                    let key = FrontendKey {
                        addr,
                        port: port.to_be(),
                        protocol,
                        pad: 0,
                    };
                    let value = FrontendValue {
                        near_set: set,
                        near_count: 4,
                        far_set: set,
                        far_count: 4,
                        kind,
                        ..FrontendValue::default()
                    };
                    world.image.frontends.insert(key, value);
                }
            }
            world
                .addresses
                .insert(ip(node).into(), NODE_ADDR_LOCAL | NODE_ADDR_NODE_PORTS);
            world.links.insert(
                ip(pod),
                Place {
                    index: 7,
                    role: Role::Pod,
                },
            );
            world.links.insert(
                ip(outside),
                Place {
                    index: 2,
                    role: Role::Uplink,
                },
            );
        }
        world.links.insert(
            ip("10.244.2.9"),
            Place {
                index: 3,
                role: Role::Overlay,
            },
        );
        world
    }

    fn node(&self) -> Node<'_> {
        Node {
            image: &self.image,
            config: &self.config,
            addresses: &self.addresses,
            links: &self.links,
        }
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An entry: who knocks where, who answers, and whom that one sees.
fn entry(protocol: u8, [client, service, backend, seen]: [&str; 4]) -> Flow {
    Flow {
        protocol,
        original: Tuple {
            source: at(client),
            destination: at(service),
        },
        reply: Tuple {
            source: at(backend),
            destination: at(seen),
        },
        status: Status(Status::CONFIRMED.0 | Status::SEEN_REPLY.0 | Status::DESTINATION_NAT.0),
        tcp: (protocol == TCP).then_some(TcpState::Established),
        mark: 0,
        zone: DEFAULT_ZONE,
        id: 1,
    }
}

const POD: [&str; 4] = [
    "10.244.1.5:4000",
    "10.96.0.10:80",
    "10.244.2.5:8080",
    "10.244.1.5:4000",
];
const HAIRPIN: [&str; 4] = [
    "10.244.1.5:4000",
    "10.96.0.10:80",
    "10.244.1.5:8080",
    "192.0.2.1:61000",
];
const NODE_PORT: [&str; 4] = [
    "203.0.113.9:4000",
    "192.0.2.1:30080",
    "10.244.2.5:8080",
    "10.244.1.0:61000",
];
const TO_NODE: [&str; 4] = [
    "10.244.1.5:4000",
    "10.96.0.10:80",
    "192.0.2.1:8080",
    "10.244.1.5:4000",
];
const POD6: [&str; 4] = [
    "[fd00:244:1::5]:4000",
    "[fd00:96::10]:80",
    "[fd00:244:1::6]:8080",
    "[fd00:244:1::5]:4000",
];
const NODE_PORT6: [&str; 4] = [
    "[2001:db8:9::9]:4000",
    "[2001:db8::1]:30080",
    "[fd00:244:2::5]:8080",
    "[fd00:244:1::]:61000",
];

#[test]
fn flows_of_services_are_adopted_with_the_translation_that_they_have() {
    let world = World::new();
    for protocol in [TCP, UDP] {
        for (flow, ifindex, flags, set) in [
            (POD, 7, 0, 1),
            (HAIRPIN, 7, 0, 1),
            (NODE_PORT, 2, FLOW_NODE_PORT | FLOW_FAR, 1),
            (POD6, 7, 0, 2),
            (NODE_PORT6, 2, FLOW_NODE_PORT | FLOW_FAR, 2),
        ] {
            let [client, service, backend, seen] = flow.map(at);
            let adopted = adopt(&entry(protocol, flow), &world.node(), NOW).unwrap();
            let (key, forward) = adopted.forward;
            let (reverse_key, reverse) = adopted.reverse.unwrap();
            let ends = |key: &FlowKey| (tuple(key).source, tuple(key).destination);
            assert_eq!(ends(&key), (client, service), "{flow:?}");
            assert_eq!(ends(&forward.translated(protocol)), (seen, backend));
            assert_eq!(ends(&reverse_key), (backend, seen));
            assert_eq!(ends(&reverse.translated(protocol)), (service, client));
            assert_eq!((forward.flags, forward.set), (flags, set));
            assert_eq!(
                (reverse.flags, reverse.ifindex),
                (flags | FLOW_REVERSE, ifindex)
            );
            // The programs lead from each entry to the other.
            assert_eq!(forward.translated(protocol).swapped(), reverse_key);
            assert_eq!(reverse.translated(protocol).swapped(), key);
            assert_eq!(forward.last_seen, NOW);
        }
    }
}

#[test]
fn what_is_not_taken_over_says_why() {
    let world = World::new();
    let with = |change: fn(&mut Flow)| {
        let mut flow = entry(TCP, POD);
        change(&mut flow);
        adopt(&flow, &world.node(), NOW).unwrap_err()
    };
    assert_eq!(with(|f| f.status = Status::CONFIRMED), Left::NotOurs);
    assert_eq!(with(|f| f.protocol = 132), Left::NotOurs);
    assert_eq!(with(|f| f.zone = 3), Left::NotOurs);
    assert_eq!(
        with(|f| f.original.destination = at("10.96.0.11:80")),
        Left::NotOurs
    );
    assert_eq!(
        with(|f| f.original.destination = at("10.96.0.10:81")),
        Left::NotOurs
    );
    // A node port at an address that is not the node's.
    assert_eq!(
        with(|f| f.original.destination = at("10.96.0.10:30080")),
        Left::NotOurs
    );
    assert_eq!(
        with(|f| f.original.source = at("192.0.2.1:4000")),
        Left::OwnSocket
    );
    assert_eq!(
        with(|f| f.original.source = at("10.244.1.77:4000")),
        Left::NoProgram
    );
    assert_eq!(
        with(|f| f.original.source = at("10.244.2.9:4000")),
        Left::NoProgram
    );
    assert_eq!(
        with(|f| f.reply.source = at("192.0.2.1:8080")),
        Left::NodeBackend
    );
    for over in [TcpState::TimeWait, TcpState::Close] {
        let flow = Flow {
            tcp: Some(over),
            ..entry(TCP, POD)
        };
        assert_eq!(adopt(&flow, &world.node(), NOW), Err(Left::Closed));
    }
}

/// The stack would find its own entry in the way of what the programs send up; a datagram has to be known nevertheless.
#[test]
fn datagrams_to_the_node_itself_stay_with_connection_tracking() {
    let world = World::new();
    let adopted = adopt(&entry(UDP, TO_NODE), &world.node(), NOW).unwrap();
    assert_eq!(adopted.reverse, None);
    let (key, value) = adopted.forward;
    assert_eq!(tuple(&key), entry(UDP, TO_NODE).original);
    assert_eq!(
        (value.flags, value.state),
        (FLOW_STACK, STATE_OPENED | STATE_REPLIED)
    );
    assert_eq!(hand_back(&key, &value, NOW), None, "it has it already");
}

#[test]
fn a_backend_that_has_left_is_kept_by_a_connection_and_told_from_the_set() {
    let world = World::new();
    let gone = [
        "10.244.1.5:4000",
        "10.96.0.10:80",
        "10.244.2.99:8080",
        "10.244.1.5:4000",
    ];
    let (_, forward) = adopt(&entry(TCP, gone), &world.node(), NOW)
        .unwrap()
        .forward;
    assert_eq!(forward.set, 0);
}

#[test]
fn half_of_a_flow_and_what_is_over_is_not_handed_back() {
    let world = World::new();
    let adopted = adopt(&entry(TCP, POD), &world.node(), NOW).unwrap();
    let (key, forward) = adopted.forward;
    let (reverse_key, reverse) = adopted.reverse.unwrap();
    assert!(hand_back(&key, &forward, NOW).is_some());
    assert_eq!(hand_back(&reverse_key, &reverse, NOW), None);
    let reset = FlowValue {
        state: forward.state | STATE_RESET,
        ..forward
    };
    assert_eq!(hand_back(&key, &reset, NOW), None);
    let day = 86_400 * 1_000_000_000;
    let left = hand_back(&key, &forward, NOW + day / 2)
        .unwrap()
        .entry
        .timeout;
    assert_eq!(left, Duration::from_secs(43_200));
    assert_eq!(hand_back(&key, &forward, NOW + day + 1), None);
    for held in [on_the_way(&forward), handed_over(&forward)] {
        // Nothing of the short way is left: every packet looks at the flags.
        assert_eq!(held.hop, Hop::default());
    }
    assert_eq!(
        handed_over(&on_the_way(&forward)).flags & (FLOW_HELD | FLOW_STACK),
        FLOW_STACK
    );
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let flows = prop::sample::select(vec![POD, HAIRPIN, NODE_PORT, POD6, NODE_PORT6]);
    let states = prop::sample::select(vec![
        TcpState::SynSent,
        TcpState::SynReceived,
        TcpState::Established,
        TcpState::FinWait,
        TcpState::CloseWait,
        TcpState::LastAck,
    ]);
    (
        flows,
        states,
        any::<bool>(),
        any::<bool>(),
        any::<u16>(),
        any::<u16>(),
    )
        .prop_map(|(ends, state, tcp, answered, port, masquerade)| {
            let mut flow = entry(if tcp { TCP } else { UDP }, ends);
            let kept = flow.original.source == flow.reply.destination;
            flow.original.source.set_port(port);
            flow.reply
                .destination
                .set_port(if kept { port } else { masquerade });
            flow.tcp = tcp.then_some(state);
            if !answered {
                flow.status.0 &= !Status::SEEN_REPLY.0;
            }
            flow
        })
}

proptest! {
    /// There and back: the same packets are translated in the same way.
    #[test]
    fn what_is_adopted_and_handed_back_is_what_it_was(flow in any_flow()) {
        let world = World::new();
        let (key, value) = adopt(&flow, &world.node(), NOW).unwrap().forward;
        let back = hand_back(&key, &value, NOW).unwrap();
        prop_assert!(!back.to_node);
        prop_assert_eq!(back.entry.protocol, flow.protocol);
        prop_assert_eq!(back.entry.original, flow.original);
        prop_assert_eq!(back.entry.reply, flow.reply);
        // One that waits for the other side's FIN is the same on both sides of it.
        let expected = flow.tcp.map(|state| match state {
            TcpState::FinWait => TcpState::CloseWait,
            other => other,
        });
        prop_assert_eq!(back.entry.tcp, expected);
        if flow.protocol == UDP {
            prop_assert_eq!(back.entry.answered, flow.status.contains(Status::SEEN_REPLY));
        }
        // And once more the other way round: nothing is lost in a hundred changes.
        let again = Flow {
            original: back.entry.original,
            reply: back.entry.reply,
            tcp: back.entry.tcp,
            ..flow
        };
        prop_assert_eq!(adopt(&again, &world.node(), NOW).unwrap().forward, (key, value));
    }

    /// Whatever connection tracking holds: no panic, and what is adopted is a flow of a Service.
    #[test]
    fn foreign_entries_are_left_alone(
        protocol in any::<u8>(),
        status in any::<u32>(),
        ends in any::<[u32; 4]>(),
        ports in any::<[u16; 4]>(),
    ) {
        let world = World::new();
        let end = |i: usize| SocketAddr::new(std::net::Ipv4Addr::from(ends[i]).into(), ports[i]);
        let flow = Flow {
            protocol,
            original: Tuple { source: end(0), destination: end(1) },
            reply: Tuple { source: end(2), destination: end(3) },
            status: Status(status),
            ..entry(TCP, POD)
        };
        prop_assert!(adopt(&flow, &world.node(), NOW).is_err());
    }
}
