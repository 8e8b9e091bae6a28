//! Packets between pods of two nodes that the programs put into the tunnel and take out of it, past the overlay's device.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use nix::sys::socket::{setsockopt, sockopt};
use seaway_ebpf_logic::tunnel::{Outer4, ROOM4, headers4, source_port};
use seaway_kernel::{Netlink, Offload};
use seaway_model::Desired;
use seaway_proxy::dataplane::Dataplane as _;
use seaway_proxy::ebpf::EbpfDataplane;

use crate::dsr::Peer;
use crate::packets::{ACK, Bench, OUTSIDE, PASS, REDIRECT, SYN, shape};
use crate::pods::{
    ON, PATIENCE, SECOND_POD, address, connect, counter, datagram, mac, plane, send, until, world,
};
use crate::world::{LOCAL_POD, LOCAL_POD6, NODE_IP, POD_LINK, REMOTE_POD, REMOTE_POD6, World};

const PEER_IP: &str = "192.168.77.2";
/// The overlay's devices of the two nodes.
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOST_END: [u8; 6] = [2, 0, 0, 0, 1, 1];

fn hardware(text: &str) -> [u8; 6] {
    let parts = text.split(':').map(|part| u8::from_str_radix(part, 16));
    parts
        .collect::<Result<Vec<_>, _>>()
        .unwrap()
        .try_into()
        .unwrap()
}

/// The node with its programs, whose uplink knows the other node.
async fn bench() -> (Bench, [u8; 6]) {
    let world = world();
    world.ip(
        "node",
        &format!("neigh replace {PEER_IP} lladdr 02:00:00:00:77:02 dev eth0"),
    );
    let mut bench = Bench::over(world, &Desired::default(), |config| config).await;
    until(&mut bench.plane, ON).await;
    let netlink = Netlink::in_namespace(&bench.world.netns("node")).unwrap();
    let uplink = netlink.link("eth0").await.unwrap().unwrap();
    (bench, uplink.mac.unwrap().0)
}

fn word(ip: &str) -> u32 {
    let ip: std::net::Ipv4Addr = ip.parse().unwrap();
    u32::from_ne_bytes(ip.octets())
}

fn v6(hops: u8, udp: bool) -> Vec<u8> {
    let [from, to] = [REMOTE_POD6, LOCAL_POD6].map(|ip| ip.parse::<std::net::Ipv6Addr>().unwrap());
    let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(from.octets(), to.octets(), hops);
    let mut bytes = Vec::new();
    match udp {
        true => ip.udp(1000, 8080).write(&mut bytes, b"payload").unwrap(),
        false => ip
            .icmpv6_echo_request(1, 1)
            .write(&mut bytes, b"payload")
            .unwrap(),
    }
    bytes
}

/// A frame of the other node in the tunnel, as the uplink gets it.
struct Carried {
    to: [u8; 6],
    outer: Outer4,
    inner: Vec<u8>,
}

impl Carried {
    fn new(uplink: [u8; 6], mut inner: Vec<u8>) -> Self {
        inner[..6].copy_from_slice(&OURS);
        inner[6..12].copy_from_slice(&THEIRS);
        let outer = Outer4 {
            local: word(PEER_IP),
            remote: word(NODE_IP),
            from: source_port(1),
            to: 8472_u16.to_be(),
            vni: 1,
            ecn: 0,
            id: 0,
            whole: false,
        };
        Self {
            to: uplink,
            outer,
            inner,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let headers = headers4(&self.outer, self.inner.len() as u16);
        let mut bytes = self.to.to_vec();
        bytes.extend([2, 0, 0, 0, 0x77, 2, 8, 0]);
        bytes.extend(headers.iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(&self.inner);
        bytes
    }
}

/// The same IPv4 header with another value at an offset, and its checksum.
fn with(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame[14 + at] = value;
    frame[24..26].fill(0);
    let sum: u32 = frame[14..34]
        .chunks(2)
        .map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])))
        .sum();
    let check = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&check.to_be_bytes());
    frame
}

#[tokio::test]
async fn a_plain_packet_is_taken_out_of_the_tunnel_at_the_uplink() {
    let (mut bench, uplink) = bench().await;
    let pod = hardware(&mac(&bench.world));
    let link = bench.uplink;
    let from = |tcp| shape((REMOTE_POD, 1000), (LOCAL_POD, 8080), tcp).bytes();
    let inner = [from(None), from(Some(SYN)), from(Some(ACK)), v6(64, true)];
    for (number, inner) in (1..).zip(inner) {
        let carried = Carried::new(uplink, inner.clone());
        let (code, bytes) = bench.run_bytes("from_uplink", link, &carried.bytes());
        assert_eq!(code, REDIRECT);
        assert_eq!((&bytes[..6], &bytes[6..12]), (&pod[..], &HOST_END[..]));
        let mut expected = match inner[12] {
            8 => with(inner, 8, 63),
            _ => v6(63, true),
        };
        expected[..12].copy_from_slice(&bytes[..12]);
        assert_eq!(bytes, expected);
        assert_eq!(bench.counter("pod_unpacked"), number);
        assert_eq!(bench.counter("pod_local"), number);
    }
}

#[tokio::test]
async fn all_else_is_left_to_the_overlays_device() {
    let (mut bench, uplink) = bench().await;
    let link = bench.uplink;
    let plain = || shape((REMOTE_POD, 1000), (LOCAL_POD, 8080), None).bytes();
    let carried = |inner| Carried::new(uplink, inner);
    let changed = |change: fn(&mut Carried)| {
        let mut carried = carried(plain());
        change(&mut carried);
        carried.bytes()
    };
    let between = |src, dst| carried(shape((src, 1000), (dst, 8080), None).bytes()).bytes();
    // From the outer IP header on.
    let outer = |at, value| with(carried(plain()).bytes(), at, value);
    let mut arp = plain();
    arp[13] = 6;
    let mut large = Vec::new();
    let [from, to] = [REMOTE_POD, LOCAL_POD].map(|ip| word(ip).to_ne_bytes());
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64);
    builder
        .udp(1000, 8080)
        .write(&mut large, &[1; 1450 - 27])
        .unwrap();
    for (why, input) in [
        ("a stranger", changed(|c| c.outer.local = word(OUTSIDE))),
        (
            "to another node",
            changed(|c| c.outer.remote = word("192.168.77.9")),
        ),
        ("to another node's card", changed(|c| c.to[5] ^= 1)),
        (
            "to another port",
            changed(|c| c.outer.to = 4789_u16.to_be()),
        ),
        ("another network", changed(|c| c.outer.vni = 2)),
        (
            "a client of another node",
            changed(|c| c.outer.vni = 0x80_0001),
        ),
        ("to another device", changed(|c| c.inner[5] = 9)),
        ("to no pod", between(REMOTE_POD, "10.244.1.99")),
        ("to a pod elsewhere", between(REMOTE_POD, REMOTE_POD)),
        ("from no node", between("10.244.9.1", LOCAL_POD)),
        ("from a pod of ours", between(SECOND_POD, LOCAL_POD)),
        ("no hop left", carried(with(plain(), 8, 1)).bytes()),
        ("a fragment", carried(with(plain(), 6, 0x20)).bytes()),
        ("options", carried(with(plain(), 0, 0x46)).bytes()),
        ("neither TCP nor UDP", carried(with(plain(), 9, 1)).bytes()),
        ("the same of IPv6", carried(v6(64, false)).bytes()),
        ("no IP", carried(arp).bytes()),
        ("too large for the pod", carried(large).bytes()),
        ("the tunnel's packet in fragments", outer(6, 0x20)),
        ("congestion on the way", outer(1, 3)),
        ("no VNI", outer(28, 0)),
        ("cut off", carried(plain()).bytes()[..ROOM4 + 30].to_vec()),
    ] {
        let (code, bytes) = bench.run_bytes("from_uplink", link, &input);
        assert_eq!(code, PASS, "{why}");
        assert_eq!(bytes, input, "{why}");
    }
    assert_eq!(bench.counter("pod_unpacked"), 0);
}

#[tokio::test]
async fn a_packet_is_put_into_the_tunnel_where_the_pod_sends_it() {
    let (mut bench, _) = bench().await;
    let link = bench.pod;
    let frame = |tcp| shape((LOCAL_POD, 1000), (REMOTE_POD, 8080), tcp).bytes();
    for (number, inner) in (1..).zip([frame(None), frame(Some(SYN)), frame(Some(ACK))]) {
        let (code, bytes) = bench.run_bytes("from_pod", link, &inner);
        assert_eq!(code, REDIRECT);
        let (outer, sent) = bytes.split_at(ROOM4);
        let mut expected = with(inner, 8, 63);
        expected[..6].copy_from_slice(&THEIRS);
        expected[6..12].copy_from_slice(&OURS);
        assert_eq!(sent, expected);
        assert_eq!(outer[12..14], [8, 0]);
        assert_eq!(outer[26..34], [192, 168, 77, 1, 192, 168, 77, 2]);
        assert_eq!(outer[36..38], 8472_u16.to_be_bytes());
        assert_eq!(outer[46..50], [0, 0, 1, 0]);
        assert_eq!(bench.counter("pod_packed"), number);
        assert_eq!(bench.counter("pod_remote"), number);
    }
    // Who sums up before a packet goes into the tunnel does so for a reason.
    for on in [false, true] {
        offload(&bench.world, "node", |links| {
            links.set_checksum("seaway.vxlan", on)
        });
        until_packed(&mut bench, &frame(None), on).await;
    }
    // A packet of the pods' size does not fit the uplink any more.
    bench.world.ip("node", "link set eth0 mtu 1490");
    until_packed(&mut bench, &frame(None), false).await;
}

/// What changes is followed by the data plane: after that packets are left to the device, or are not.
async fn until_packed(bench: &mut Bench, frame: &[u8], wanted: bool) {
    let started = Instant::now();
    let link = bench.pod;
    loop {
        let before = [bench.counter("pod_packed"), bench.counter("pod_remote")];
        let (code, _) = bench.run_bytes("from_pod", link, frame);
        let packed = bench.counter("pod_packed") > before[0];
        assert_eq!(
            (code, bench.counter("pod_remote")),
            (REDIRECT, before[1] + 1)
        );
        if packed == wanted {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{wanted}");
        let _ = tokio::time::timeout(Duration::from_millis(50), bench.plane.watch()).await;
    }
}

/// Both nodes with programs, and pods that know them.
async fn both<'a>(world: &'a World) -> (EbpfDataplane, Peer<'a>) {
    let output = std::process::Command::new("ip")
        .args(["-n", &world.name("peerpod"), "-br", "link", "show", "eth0"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let pod = text.split_whitespace().nth(2).unwrap();
    world.ip(
        "peer",
        &format!(
            "neigh replace {REMOTE_POD} lladdr {pod} dev {POD_LINK} nud permanent
             neigh replace {REMOTE_POD6} lladdr {pod} dev {POD_LINK} nud permanent"
        ),
    );
    let mut here = plane(world, Default::default(), &Desired::default()).await;
    let mut there = Peer::new(world, &Desired::default()).await;
    until(&mut here, ON).await;
    until(&mut there.plane, ON).await;
    // From here on the nodes know each other.
    world.serve("peerpod", "remote");
    assert!(datagram(world, "pod", address(REMOTE_POD, 8080)).starts_with("remote"));
    (here, there)
}

/// Of a plane: packets sent through the overlay, those of them that the program has packed, those that it has unpacked.
fn counts(plane: &EbpfDataplane) -> [u64; 3] {
    ["pod_remote", "pod_packed", "pod_unpacked"].map(|label| counter(plane, label))
}

#[tokio::test]
async fn pods_of_two_nodes_talk_past_the_overlays_device() {
    let world = world();
    let (here, there) = both(&world).await;
    let before = [counts(&here), counts(&there.plane)];
    for ip in [REMOTE_POD, REMOTE_POD6] {
        let to = address(ip, 8080);
        assert!(datagram(&world, "pod", to).starts_with("remote"), "{ip}");
        let mut stream = connect(&world, "pod", to, PATIENCE).unwrap();
        let answer = crate::world::ask(&mut stream, "hello").unwrap();
        assert!(answer.ends_with("hello"), "{ip}: {answer}");
    }
    for (plane, before) in [(&here, before[0]), (&there.plane, before[1])] {
        let [sent, packed, unpacked] = counts(plane);
        // A datagram, and what opens a connection and carries a line, of two families.
        assert!(packed >= before[1] + 6 && unpacked >= before[2] + 6);
        assert_eq!(sent - before[0], packed - before[1]);
    }
}

/// Of a stream.
const BYTES: usize = 6 << 20;

fn offload(
    world: &World,
    short: &str,
    change: impl Fn(&Offload) -> Result<(), seaway_kernel::Error> + Sync,
) {
    let netns = world.netns(short);
    netns
        .run(|| change(&Offload::open().unwrap()).unwrap())
        .unwrap();
}

#[tokio::test]
async fn streams_arrive_whole_whoever_cuts_and_sums_them_up() {
    let world = world();
    let (here, there) = both(&world).await;
    let mut port = 9100;
    let mut all_ways = |largest: u64, least: u64| {
        for (from, to, ip) in [
            ("pod", "peerpod", REMOTE_POD),
            ("pod", "peerpod", REMOTE_POD6),
            ("peerpod", "pod", LOCAL_POD),
            ("peerpod", "pod", LOCAL_POD6),
        ] {
            port += 1;
            let (sender, receiver) = match from {
                "pod" => (&here, &there.plane),
                _ => (&there.plane, &here),
            };
            let before = (counts(sender)[1], counts(receiver)[2]);
            send(&world, from, to, address(ip, port), BYTES);
            let packed = counts(sender)[1] - before.0;
            let unpacked = counts(receiver)[2] - before.1;
            // A pod does not cut: there is less to do for those on the way.
            assert!(packed > 0 && packed < 4000, "{from} to {ip}: {packed}");
            assert!(
                (least..largest).contains(&unpacked),
                "{from} to {ip}: {unpacked}"
            );
        }
    };
    // Nobody does, and nothing is summed up.
    all_ways(4000, 1);
    // The uplink's queue does both for it, behind the inner headers; the receivers sum up themselves.
    for node in ["node", "peer"] {
        offload(&world, node, |links| links.set_checksum("eth0", false));
    }
    all_ways(u64::MAX, BYTES as u64 / 1450);
    // The receiver's card takes together what was cut.
    for node in ["node", "peer"] {
        offload(&world, node, |links| links.set_gro("eth0", true));
    }
    all_ways(u64::MAX, 1);
}

#[tokio::test]
async fn datagrams_that_are_cut_later_arrive_as_the_sender_meant_them() {
    const SIZE: usize = 1000;
    let world = world();
    let (here, there) = both(&world).await;
    for ip in [REMOTE_POD, REMOTE_POD6] {
        for summed in [true, false] {
            offload(&world, "node", |links| links.set_checksum("eth0", summed));
            let to = address(ip, 9200);
            let receiver = world
                .netns("peerpod")
                .run(|| UdpSocket::bind(to))
                .unwrap()
                .unwrap();
            receiver.set_read_timeout(Some(PATIENCE)).unwrap();
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let sender = world
                .netns("pod")
                .run(|| UdpSocket::bind(any))
                .unwrap()
                .unwrap();
            setsockopt(&sender, sockopt::UdpGsoSegment, &(SIZE as i32)).unwrap();
            let before = (counts(&here)[1], counts(&there.plane)[2]);
            let all: Vec<u8> = (0..20 * SIZE + 7).map(|n| (n / SIZE) as u8).collect();
            sender.send_to(&all, to).unwrap();
            for part in all.chunks(SIZE) {
                let mut buffer = [0; 2 * SIZE];
                let (length, _) = receiver.recv_from(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], part, "{ip}");
            }
            assert_eq!(counts(&here)[1], before.0 + 1, "{ip}");
            // What is still one packet there is left to the device.
            let unpacked = if summed { 0 } else { 21 };
            assert_eq!(counts(&there.plane)[2], before.1 + unpacked, "{ip}");
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_is_answered_by_the_stack() {
    let world = world();
    let (here, _there) = both(&world).await;
    let before = counts(&here)[0];
    // Of 3000 bytes: cut by the pod into fragments, which take the old way, both there and back.
    let answer = world.client("pod", false, &format!("udp-large {REMOTE_POD}:8080"));
    assert!(answer.starts_with("remote"), "{answer}");
    assert_eq!(counts(&here)[0], before);
}

#[tokio::test]
async fn a_pod_may_send_on_what_it_was_handed() {
    let world = world();
    let (here, there) = both(&world).await;
    // Behind the pod there is another one, on a link that has everything done for it.
    let (deep, deep_name) = ("10.244.1.100", world.name("out"));
    world.ip(
        "pod",
        &format!(
            "link add inner type veth peer name inner0 netns {deep_name}
             link set inner up
             address add 172.30.0.1/24 dev inner
             route add {deep}/32 via 172.30.0.2"
        ),
    );
    world.ip(
        "out",
        &format!(
            "link set inner0 up
             address add 172.30.0.2/24 dev inner0
             address add {deep}/32 dev lo
             route add {REMOTE_POD}/32 via 172.30.0.1"
        ),
    );
    world.ip(
        "node",
        &format!(
            "neigh replace {deep} lladdr {} dev {POD_LINK} nud permanent
             route add {deep}/32 dev {POD_LINK} scope link",
            mac(&world)
        ),
    );
    let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    world.netns("pod").run(forward).unwrap();
    let mut here = here;
    until(&mut here, &format!("{deep} at")).await;
    let mut port = 9300;
    for summed in [true, false] {
        offload(&world, "pod", |links| links.set_checksum("inner", summed));
        for gro in [false, true] {
            offload(&world, "node", |links| links.set_gro("eth0", gro));
            offload(&world, "peer", |links| links.set_checksum("eth0", summed));
            port += 1;
            let before = counts(&here)[2];
            send(&world, "peerpod", "out", address(deep, port), BYTES);
            assert!(counts(&here)[2] > before);
        }
    }
    drop(there);
}
