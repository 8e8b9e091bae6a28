//! Direct server return: the entry node sends a client's packets as they are to the node of the backend, which answers.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use seaway_ebpf_abi::BackendValue;
use seaway_kernel::cgroup;
use seaway_model::{Desired, TrafficPolicy};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::{EbpfConfig, EbpfDataplane, Forwarding, XdpMode};

use crate::packets::{ACK, Bench, OUTSIDE, REDIRECT, SHOT, SYN, Shape, shape};
use crate::world::{
    CLUSTER_IP, LARGE, LOCAL_POD, NODE_IP, NODE_IP6, REMOTE_POD, REMOTE_POD6, World, service, sync,
};
use crate::xdp::{self, XDP_PASS, XDP_TX};

pub(crate) fn dsr(config: EbpfConfig) -> EbpfConfig {
    EbpfConfig {
        forwarding: Forwarding::Dsr,
        ..config
    }
}

/// The data plane of the other node; what it attached is gone when dropped.
pub(crate) struct Peer<'a> {
    world: &'a World,
    pub(crate) plane: EbpfDataplane,
    config: EbpfConfig,
}

impl<'a> Peer<'a> {
    pub(crate) async fn new(world: &'a World, desired: &Desired) -> Self {
        Self::with(world, desired, |config| config).await
    }

    /// With other settings.
    pub(crate) async fn with(
        world: &'a World,
        desired: &Desired,
        settings: impl Fn(EbpfConfig) -> EbpfConfig,
    ) -> Self {
        let beside = |path: &PathBuf| PathBuf::from(format!("{}-peer", path.display()));
        let cgroup = beside(&world.cgroup);
        cgroup::create(&cgroup).unwrap();
        let config = EbpfConfig {
            bpffs_root: beside(&world.bpffs),
            cgroup_root: cgroup,
            ..settings(world.config())
        };
        let plane = {
            let netns = world.netns("peer");
            let _inside = netns.enter().unwrap();
            EbpfDataplane::new(config.clone()).unwrap()
        };
        let mut peer = Self {
            world,
            plane,
            config,
        };
        sync(&mut peer.plane, desired).await;
        peer
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        let netns = self.world.netns("peer");
        let config = &self.config;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _inside = netns.enter().unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let mut plane = EbpfDataplane::new(config.clone()).unwrap();
                let _ = runtime.block_on(plane.cleanup());
            });
        });
        let _ = fs::remove_dir(&self.config.bpffs_root);
        let _ = cgroup::delete(&self.config.cgroup_root);
    }
}

pub(crate) fn counter(plane: &EbpfDataplane, label: &str) -> u64 {
    let counters = plane.counters().unwrap();
    counters.iter().find(|(v, _)| v.label() == label).unwrap().1
}

/// A node with a client outside, and the backend at the other node.
pub(crate) async fn entry(world: &World, backend: &str) -> EbpfDataplane {
    world.serve("peerpod", "remote");
    let mut plane = world.plane(dsr(world.config()));
    sync(&mut plane, &service(&[(backend, false)])).await;
    plane
}

#[tokio::test]
async fn the_backend_sees_the_client_and_its_node_answers() {
    let world = World::new();
    for (backend, node, client) in [
        (REMOTE_POD, NODE_IP.to_owned(), OUTSIDE.to_owned()),
        (
            REMOTE_POD6,
            format!("[{NODE_IP6}]"),
            "[fd00:77::200]".to_owned(),
        ),
    ] {
        let mut plane = world.plane(dsr(world.config()));
        sync(&mut plane, &service(&[(backend, false)])).await;
        let peer = Peer::new(&world, &service(&[(backend, true)])).await;
        if backend == REMOTE_POD {
            world.serve("peerpod", "remote");
        }
        let before = ["sent_on", "reverse"].map(|label| counter(&plane, label));
        for protocol in ["udp", "tcp", "udp-connected"] {
            let answer = world.client("out", false, &format!("{protocol} {node}:30080"));
            let seen = format!("remote {client}:");
            let from = format!("| from {node}:30080");
            assert!(
                answer.starts_with(&seen) && answer.ends_with(&from),
                "{protocol}: {answer}\n{:?}\n{:?}",
                plane.counters().unwrap(),
                peer.plane.counters().unwrap()
            );
        }
        let [sent_on, reverse] = ["sent_on", "reverse"].map(|label| counter(&plane, label));
        assert!(sent_on >= before[0] + 9, "{:?}", plane.counters().unwrap());
        assert_eq!(reverse, before[1], "answers do not pass the entry node");
        assert_eq!(counter(&peer.plane, "new_flow"), 3);
    }
}

#[tokio::test]
async fn datagrams_in_fragments_arrive_whole() {
    let world = World::new();
    for short in ["out", "pod", "peerpod"] {
        world.ip(short, "link set eth0 mtu 1400");
    }
    let mut plane = entry(&world, REMOTE_POD).await;
    for (backend, to) in [
        (REMOTE_POD, format!("{NODE_IP}:30080")),
        (REMOTE_POD6, format!("[{NODE_IP6}]:30080")),
    ] {
        sync(&mut plane, &service(&[(backend, false)])).await;
        let _peer = Peer::new(&world, &service(&[(backend, true)])).await;
        let answer = world.client("out", false, &format!("udp-large {to}"));
        assert!(answer.starts_with("remote "), "{backend}: {answer}");
        let arrived = answer.chars().filter(|c| *c == 'x').count();
        assert_eq!(arrived, LARGE, "{backend}");
        assert!(counter(&plane, "sent_on") > 0);
    }
}

/// What leaves the entry node is what came, and the short way says the same.
#[tokio::test]
async fn packets_are_sent_on_as_they_are() {
    let mut bench = Bench::with(&service(&[(REMOTE_POD, false)]), dsr).await;
    for (sport, tcp) in [(40000, Some(SYN)), (40000, Some(ACK)), (40001, None)] {
        let packet = shape((OUTSIDE, sport), (NODE_IP, 30080), tcp);
        for _ in 0..3 {
            assert_eq!(bench.run("from_uplink", packet), (REDIRECT, packet));
        }
    }
    assert_eq!(bench.counter("new_flow"), 2);
    assert_eq!(bench.counter("sent_on"), 9);
    // Clients in the cluster are served as ever, and so is whoever comes to a cluster IP.
    let pod = shape((LOCAL_POD, 1), (NODE_IP, 30080), Some(SYN));
    let (code, seen) = bench.run("from_pod", pod);
    assert_eq!((code, seen.dst.to_string()), (REDIRECT, REMOTE_POD.into()));
    let outside = shape((OUTSIDE, 1), (CLUSTER_IP, 80), Some(SYN));
    let (_, seen) = bench.run("from_uplink", outside);
    assert_eq!(seen.dst.to_string(), REMOTE_POD);
    assert_ne!(seen.src.to_string(), OUTSIDE);
    assert_eq!(bench.counter("sent_on"), 9);
    // Nothing goes back to where it came from: from one node to the next and no further.
    let back = shape((OUTSIDE, 40000), (NODE_IP, 30080), Some(ACK));
    assert_eq!(bench.run("from_overlay", back).0, SHOT);
}

#[tokio::test]
async fn a_backend_of_this_node_sees_the_client_too() {
    let mut bench = Bench::with(&service(&[(LOCAL_POD, true)]), dsr).await;
    let (code, seen) = bench.run(
        "from_uplink",
        shape((OUTSIDE, 40000), (NODE_IP, 30080), None),
    );
    assert_eq!(code, REDIRECT);
    let expected = Shape {
        ttl: 63,
        ..shape((OUTSIDE, 40000), (LOCAL_POD, 8080), None)
    };
    assert_eq!(seen, expected);
    let answer = shape((LOCAL_POD, 8080), (OUTSIDE, 40000), None);
    let (code, back) = bench.run("from_pod", answer);
    assert_eq!((code, back.src.to_string()), (REDIRECT, NODE_IP.into()));
}

/// By routes: what has no tunnel is masqueraded as ever, and a route that comes or goes is followed.
#[tokio::test]
async fn only_what_the_overlay_leads_to_is_sent_on() {
    let mut bench = Bench::with(&service(&[(REMOTE_POD, false)]), dsr).await;
    let mut sport = 40000;
    let mut sent_on = async |bench: &mut Bench, expected: bool| {
        let started = Instant::now();
        loop {
            sport += 1;
            let packet = shape((OUTSIDE, sport), (NODE_IP, 30080), None);
            let (code, seen) = bench.run("from_uplink", packet);
            if (code == REDIRECT && seen == packet) == expected {
                return;
            }
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "{expected}: {seen:?}"
            );
            // Called away again and again, as by changes of Services: what the node has said is not lost.
            let _ = tokio::time::timeout(Duration::from_millis(1), bench.plane.watch()).await;
        }
    };
    sent_on(&mut bench, true).await;
    bench.world.ip("node", "route del 10.244.2.0/24");
    sent_on(&mut bench, false).await;
    bench.world.ip(
        "node",
        "route add 10.244.2.0/24 encap ip id 1 dst 192.168.77.2 via 10.244.2.0 dev seaway.vxlan onlink",
    );
    sent_on(&mut bench, true).await;
    // Another way: over a link of the node.
    bench.world.ip(
        "node",
        "route replace 10.244.2.0/24 via 192.168.77.2 dev eth0 onlink",
    );
    sent_on(&mut bench, false).await;
}

#[tokio::test]
async fn policies_hold() {
    let mut desired = service(&[(LOCAL_POD, true), (REMOTE_POD, false)]);
    for rules in desired.services.values_mut() {
        let mut ports = rules.ports.to_vec();
        for port in &mut ports {
            port.external_policy = TrafficPolicy::Local;
        }
        rules.ports = ports;
    }
    let mut bench = Bench::with(&desired, dsr).await;
    for sport in 0..20 {
        let packet = shape((OUTSIDE, 40000 + sport), (NODE_IP, 30080), None);
        let (_, seen) = bench.run("from_uplink", packet);
        assert_eq!(seen.dst.to_string(), LOCAL_POD);
    }
    assert_eq!(bench.counter("sent_on"), 0);
}

#[tokio::test]
async fn what_is_too_large_is_said() {
    let mut bench = Bench::with(&service(&[(REMOTE_POD, false)]), dsr).await;
    let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(
        [192, 168, 77, 200],
        [192, 168, 77, 1],
        64,
    );
    let mut bytes = Vec::new();
    let payload = [0; 1460];
    builder
        .udp(40000, 30080)
        .write(&mut bytes, &payload)
        .unwrap();
    assert_eq!(bytes[20] & 0x40, 0x40, "not to be cut");
    let link = bench.uplink;
    let (code, output) = bench.run_bytes("from_uplink", link, &bytes);
    assert_eq!(code, REDIRECT);
    // ICMP, fragmentation needed, to 1450.
    assert_eq!((output[23], output[34], output[35]), (1, 3, 4));
    assert_eq!(output[40..42], 1450_u16.to_be_bytes());
    assert_eq!(bench.counter("too_large"), 1);
    assert_eq!(bench.counter("sent_on"), 0);
}

/// Of the backend at the other node.
fn vni() -> u32 {
    let addr: IpAddr = REMOTE_POD.parse().unwrap();
    seaway_ebpf_logic::dsr::vni(&BackendValue {
        addr: addr.into(),
        port: 8080_u16.to_be(),
        flags: 0,
    })
}

/// Sends a frame through the tunnel to the other node, as an entry node would.
fn inject(world: &World, vni: u32, frame: &[u8]) {
    let [_, a, b, c] = vni.to_be_bytes();
    let mut packet = vec![8, 0, 0, 0, a, b, c, 0];
    packet.extend_from_slice(frame);
    world
        .netns("node")
        .run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(&packet, "192.168.77.2:8472").unwrap();
        })
        .unwrap();
}

/// Waits until a counter has a value.
fn await_counter(plane: &EbpfDataplane, label: &str, expected: u64) {
    let started = Instant::now();
    while counter(plane, label) != expected {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{label}: {:?}",
            plane.counters().unwrap()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn the_far_side_serves_what_it_has_and_drops_the_rest() {
    let world = World::new();
    let peer = Peer::new(&world, &service(&[(REMOTE_POD, true)])).await;
    let plane = &peer.plane;
    let frame = |sport, flags| shape((OUTSIDE, sport), (NODE_IP, 30080), flags).bytes();
    let vni = vni();
    // Another backend than the ones that are here.
    inject(&world, vni ^ 1, &frame(1, None));
    await_counter(plane, "dropped_no_local", 1);
    // No such Service.
    let other = shape((OUTSIDE, 1), (NODE_IP, 30081), None).bytes();
    inject(&world, vni, &other);
    await_counter(plane, "dropped_no_local", 2);
    // In the middle of a connection that nobody knows.
    inject(&world, vni, &frame(2, Some(ACK)));
    await_counter(plane, "unknown_connection", 1);
    assert_eq!(counter(plane, "new_flow"), 0);
    inject(&world, vni, &frame(1, None));
    await_counter(plane, "new_flow", 1);
    // An ordinary packet of the overlay is no such thing: a node port of another node is none of ours.
    inject(&world, 1, &frame(3, None));
    inject(&world, vni, &frame(4, None));
    await_counter(plane, "new_flow", 2);
}

#[tokio::test]
async fn established_flows_are_put_into_the_tunnel_by_xdp() {
    let native = |config| EbpfConfig {
        xdp: XdpMode::Native,
        ..dsr(config)
    };
    let mut bench = Bench::with(&service(&[(REMOTE_POD, false)]), native).await;
    bench.world.ip(
        "node",
        "neigh replace 192.168.77.2 lladdr 02:00:00:00:77:02 dev eth0",
    );
    for tcp in [None, Some(ACK)] {
        let from = |flags| shape((OUTSIDE, 40000), (NODE_IP, 30080), flags);
        // What opens and settles a flow is for tc.
        let settling = tcp.map_or(vec![None], |_| vec![Some(SYN), tcp]);
        for flags in settling {
            let bytes = from(flags).bytes();
            assert_eq!(xdp::run_bytes(&mut bench, &bytes), (XDP_PASS, bytes));
            assert_eq!(bench.run("from_uplink", from(flags)).0, REDIRECT);
        }
        let frame = from(tcp).bytes();
        let (code, sent) = xdp::run_bytes(&mut bench, &frame);
        assert_eq!(code, XDP_TX, "{tcp:?}");
        let (outer, inner) = sent.split_at(50);
        assert_eq!(inner, frame);
        assert_eq!(outer[..6], [2, 0, 0, 0, 0x77, 2]);
        assert_eq!(outer[26..34], [192, 168, 77, 1, 192, 168, 77, 2]);
        assert_eq!(outer[36..38], 8472_u16.to_be_bytes());
        assert_eq!(outer[46..49], vni().to_be_bytes()[1..]);
    }
    assert_eq!(bench.counter("xdp"), 2);
    // The end of a connection, and another way: for tc to see.
    let reset = shape((OUTSIDE, 40000), (NODE_IP, 30080), Some(4)).bytes();
    assert_eq!(xdp::run_bytes(&mut bench, &reset).0, XDP_PASS);
    sync(&mut bench.plane, &service(&[(LOCAL_POD, true)])).await;
    let packet = shape((OUTSIDE, 40000), (NODE_IP, 30080), None).bytes();
    assert_eq!(xdp::run_bytes(&mut bench, &packet).0, XDP_PASS);
}

#[tokio::test]
async fn clients_are_answered_while_xdp_sends_on() {
    let world = World::new();
    world.serve("peerpod", "remote");
    let mut plane = world.plane(EbpfConfig {
        xdp: XdpMode::Native,
        ..dsr(world.config())
    });
    sync(&mut plane, &service(&[(REMOTE_POD, false)])).await;
    let _peer = Peer::new(&world, &service(&[(REMOTE_POD, true)])).await;
    let _prepared = xdp::prepare_veths(&world);
    for protocol in ["udp", "tcp", "udp"] {
        let answer = world.client("out", false, &format!("{protocol} {NODE_IP}:30080"));
        let (seen, from) = (
            format!("remote {OUTSIDE}:"),
            format!("| from {NODE_IP}:30080"),
        );
        assert!(
            answer.starts_with(&seen) && answer.ends_with(&from),
            "{protocol}: {answer}"
        );
    }
    assert!(
        counter(&plane, "xdp") > 0,
        "{:?}",
        plane.counters().unwrap()
    );
}
