//! What a Service says holds for clients whose packets are sent on as they are, too; and what the network says on their way.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4::DestUnreachableHeader};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};
use seaway_model::{Desired, Frontend, FrontendAddr, FrontendKind};
use seaway_proxy::dataplane::Dataplane;

use crate::dsr::{Peer, counter, dsr, entry};
use crate::packets::{Bench, OUTSIDE, REDIRECT, SHOT, SYN, shape};
use crate::world::{NODE_IP, NODE_IP6, REMOTE_POD, REMOTE_POD6, World, service, sync};

/// Longer than anything takes that happens at all.
const LIMIT: Duration = Duration::from_secs(20);

/// A backend, and the node port and the client of its family.
const FAMILIES: [(&str, &str, &str); 2] = [
    (REMOTE_POD, NODE_IP, OUTSIDE),
    (REMOTE_POD6, NODE_IP6, "fd00:77::200"),
];

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn change(desired: &mut Desired, change: impl Fn(&mut seaway_model::PortRule)) {
    for rules in desired.services.values_mut() {
        let mut ports = rules.ports.to_vec();
        ports.iter_mut().for_each(&change);
        rules.ports = ports;
    }
}

/// The backends of the flows that one client begins.
async fn backends_of(bench: &mut Bench, client: &str) -> BTreeSet<String> {
    for sport in 40000..40012 {
        let packet = shape((client, sport), (NODE_IP, 30080), Some(SYN));
        assert_eq!(bench.run("from_uplink", packet), (REDIRECT, packet));
    }
    let dump = bench.plane.dump().await.unwrap();
    let flow = |line: &str| Some(line.split_once(&format!("{client}:"))?.1.to_owned());
    let flows = dump.lines().filter_map(flow);
    let backend = |flow: String| flow.split("=> ").nth(1).map(|rest| rest.to_owned());
    let backends = flows.filter_map(backend);
    backends
        .filter_map(|rest| rest.split(' ').next().map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn a_client_stays_with_its_backend() {
    let pods: Vec<String> = (5..13).map(|last| format!("10.244.2.{last}")).collect();
    let backends: Vec<(&str, bool)> = pods.iter().map(|pod| (pod.as_str(), false)).collect();
    let mut desired = service(&backends);
    let mut bench = Bench::with(&desired, dsr).await;
    // Of eight twelve times the same by chance: once in eight billion runs.
    let chosen = backends_of(&mut bench, OUTSIDE).await;
    assert!(chosen.len() > 1, "{chosen:?}");
    change(&mut desired, |port| {
        port.affinity = Some(Duration::from_secs(3600));
    });
    sync(&mut bench.plane, &desired).await;
    for client in ["192.168.77.201", "192.168.77.202"] {
        let chosen = backends_of(&mut bench, client).await;
        assert_eq!(chosen.len(), 1, "{chosen:?}");
    }
    assert_eq!(bench.counter("sent_on"), 36);
}

#[tokio::test]
async fn only_clients_of_the_source_ranges_are_sent_on() {
    const LOAD_BALANCER: &str = "192.0.2.10";
    let mut desired = service(&[(REMOTE_POD, false)]);
    change(&mut desired, |port| {
        port.source_ranges = vec!["192.168.77.128/25".parse().unwrap()];
        port.frontends.push(Frontend {
            addr: FrontendAddr::Ip(LOAD_BALANCER.parse().unwrap()),
            port: 80,
            protocol: port.protocol,
            kind: FrontendKind::LoadBalancer,
        });
    });
    let mut bench = Bench::with(&desired, dsr).await;
    for (client, target, expected) in [
        (OUTSIDE, (LOAD_BALANCER, 80), REDIRECT),
        ("192.168.77.100", (LOAD_BALANCER, 80), SHOT),
        // They are the load balancer's alone.
        ("192.168.77.100", (NODE_IP, 30080), REDIRECT),
    ] {
        for flags in [None, Some(SYN)] {
            let packet = shape((client, 40000), target, flags);
            assert_eq!(bench.run("from_uplink", packet), (expected, packet));
        }
    }
    assert_eq!(bench.counter("sent_on"), 4);
    assert_eq!(bench.counter("dropped_source"), 2);
}

/// A socket outside that is connected to a node port.
fn outside(world: &World, node: &str) -> UdpSocket {
    let any = if node.contains(':') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let connect = || {
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(address(node, 30080)).unwrap();
        let pause = Duration::from_millis(50);
        socket.set_read_timeout(Some(pause)).unwrap();
        socket
    };
    world.netns("out").run(connect).unwrap()
}

/// Asks until there is an answer, or an error that says something.
fn ask(socket: &UdpSocket) -> Result<String, ErrorKind> {
    let started = Instant::now();
    loop {
        let mut buffer = [0; 256];
        let answer = socket.send(b"hello").and_then(|_| socket.recv(&mut buffer));
        match answer {
            Ok(length) => return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(started.elapsed() < LIMIT, "no answer");
            }
            Err(error) => return Err(error.kind()),
        }
    }
}

#[tokio::test]
async fn who_is_not_there_is_said_by_the_backends_node() {
    let world = World::new();
    let mut plane = world.plane(dsr(world.config()));
    for (backend, node, _) in FAMILIES {
        sync(&mut plane, &service(&[(backend, false)])).await;
        let peer = Peer::new(&world, &service(&[(backend, true)])).await;
        // Nobody listens in the pod.
        let client = outside(&world, node);
        assert_eq!(ask(&client), Err(ErrorKind::ConnectionRefused), "{backend}");
        assert!(counter(&peer.plane, "icmp_error") > 0);
        assert_eq!(
            counter(&plane, "icmp_error"),
            0,
            "the answer goes another way"
        );
    }
}

/// "Too big" for an answer, as a router on the way to the client says it to whom it takes for the sender.
fn too_big(node: &str, client: SocketAddr) -> Vec<u8> {
    let mut quoted = Vec::new();
    let mut packet = Vec::new();
    match (node.parse().unwrap(), client.ip()) {
        (IpAddr::V4(node), IpAddr::V4(to)) => {
            let answer = PacketBuilder::ipv4(node.octets(), to.octets(), 60);
            answer
                .udp(30080, client.port())
                .write(&mut quoted, &[0; 64])
                .unwrap();
            let says =
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu: MTU,
                });
            PacketBuilder::ipv4(to.octets(), node.octets(), 64)
                .icmpv4(says)
                .write(&mut packet, &quoted)
                .unwrap();
        }
        (IpAddr::V6(node), IpAddr::V6(to)) => {
            let answer = PacketBuilder::ipv6(node.octets(), to.octets(), 60);
            answer
                .udp(30080, client.port())
                .write(&mut quoted, &[0; 64])
                .unwrap();
            let says = Icmpv6Type::PacketTooBig { mtu: MTU.into() };
            PacketBuilder::ipv6(to.octets(), node.octets(), 64)
                .icmpv6(says)
                .write(&mut packet, &quoted)
                .unwrap();
        }
        other => panic!("{other:?}"),
    }
    packet
}

const MTU: u16 = 1320;

/// Sends a packet from outside.
fn send(world: &World, node: &str, packet: &[u8]) {
    let to = address(node, 0);
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let raw = || {
        socket(
            family,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        )
        .unwrap()
    };
    let mouth = world.netns("out").run(raw).unwrap();
    let to = SockaddrStorage::from(to);
    sendto(mouth.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap();
}

/// What the backend knows of the way to the client.
fn way_back(world: &World, client: &str) -> String {
    let route = || {
        let command = Command::new("ip").args(["route", "get", client]).output();
        String::from_utf8(command.unwrap().stdout).unwrap()
    };
    world.netns("peerpod").run(route).unwrap()
}

#[tokio::test]
async fn a_backend_hears_what_does_not_fit_the_way_to_the_client() {
    let world = World::new();
    let mut plane = entry(&world, REMOTE_POD).await;
    for (backend, node, client) in FAMILIES {
        sync(&mut plane, &service(&[(backend, false)])).await;
        let peer = Peer::new(&world, &service(&[(backend, true)])).await;
        let socket = outside(&world, node);
        assert!(ask(&socket).unwrap().starts_with("remote "));
        let packet = too_big(node, socket.local_addr().unwrap());
        send(&world, node, &packet);
        let started = Instant::now();
        let known = format!("mtu {MTU}");
        while !way_back(&world, client).contains(&known) {
            assert!(
                started.elapsed() < LIMIT,
                "{}\n{:?}\n{:?}",
                way_back(&world, client),
                plane.counters().unwrap(),
                peer.plane.counters().unwrap()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(counter(&plane, "icmp_error") > 0, "sent on like packets");
        assert!(ask(&socket).unwrap().starts_with("remote "));
    }
}

#[tokio::test]
async fn nodes_may_reach_each_other_by_ipv6() {
    let world = World::new();
    for (short, other) in [("node", 2), ("peer", 1)] {
        let way = |network: &str, via: &str| {
            format!(
                "route replace {network} encap ip6 id 1 dst fd00:77::{other} via {via} dev seaway.vxlan onlink"
            )
        };
        let v4 = way(
            &format!("10.244.{other}.0/24"),
            &format!("10.244.{other}.0"),
        );
        let v6 = way(
            &format!("fd00:10:244:{other}::/64"),
            &format!("fd00:10:244:{other}::"),
        );
        world.ip(short, &format!("{v4}\n{v6}"));
    }
    let mut plane = entry(&world, REMOTE_POD).await;
    for (backend, node, client) in FAMILIES {
        sync(&mut plane, &service(&[(backend, false)])).await;
        let peer = Peer::new(&world, &service(&[(backend, true)])).await;
        let before = ["sent_on", "reverse"].map(|label| counter(&plane, label));
        let node = address(node, 30080);
        let seen = format!("remote {}", address(client, 0));
        let seen = seen.trim_end_matches('0');
        for protocol in ["udp", "tcp"] {
            let answer = world.client("out", false, &format!("{protocol} {node}"));
            assert!(
                answer.starts_with(seen) && answer.ends_with(&format!("| from {node}")),
                "{protocol}: {answer}\n{:?}\n{:?}",
                plane.counters().unwrap(),
                peer.plane.counters().unwrap()
            );
        }
        let [sent_on, reverse] = ["sent_on", "reverse"].map(|label| counter(&plane, label));
        assert!(sent_on > before[0]);
        assert_eq!(reverse, before[1], "answers do not pass the entry node");
    }
}
