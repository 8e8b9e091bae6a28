//! Packet in, packet out: the loaded classifiers under `BPF_PROG_TEST_RUN`, with etherparse as the judge of checksums.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::world::{CLUSTER_IP, LOCAL_POD, NODE_IP, POD_LINK, REMOTE_POD, World, service, sync};
use aya::programs::{TestRun, TestRunOptions};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use seaway_kernel::{NetNs, Netlink};
use seaway_model::{Desired, TrafficPolicy};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::{EbpfConfig, EbpfDataplane, Programs};

pub(crate) const OUTSIDE: &str = "192.168.77.200";
pub(crate) const OVERLAY: &str = "10.244.1.0";

pub(crate) const PASS: i32 = -1;
pub(crate) const SHOT: i32 = 2;
pub(crate) const REDIRECT: i32 = 7;
pub(crate) const OK: i32 = 0;

pub(crate) const SYN: u8 = 2;
const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// Addresses and flags of a packet; no flags: UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) src: Ipv4Addr,
    pub(crate) sport: u16,
    pub(crate) dst: Ipv4Addr,
    pub(crate) dport: u16,
    pub(crate) tcp: Option<u8>,
    pub(crate) ttl: u8,
}

pub(crate) fn shape(src: (&str, u16), dst: (&str, u16), tcp: Option<u8>) -> Shape {
    Shape {
        src: src.0.parse().unwrap(),
        sport: src.1,
        dst: dst.0.parse().unwrap(),
        dport: dst.1,
        tcp,
        ttl: 64,
    }
}

impl Shape {
    pub(crate) fn bytes(self) -> Vec<u8> {
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(
            self.src.octets(),
            self.dst.octets(),
            self.ttl,
        );
        let mut bytes = Vec::new();
        match self.tcp {
            Some(flags) => {
                let mut tcp = ip.tcp(self.sport, self.dport, 1, 1024);
                for (bit, set) in [(1, 0), (SYN, 1), (RST, 2), (ACK, 3)] {
                    if flags & bit != 0 {
                        tcp = match set {
                            0 => tcp.fin(),
                            1 => tcp.syn(),
                            2 => tcp.rst(),
                            _ => tcp.ack(1),
                        };
                    }
                }
                tcp.write(&mut bytes, b"payload").unwrap();
            }
            None => ip
                .udp(self.sport, self.dport)
                .write(&mut bytes, b"payload")
                .unwrap(),
        }
        bytes
    }

    /// Reads a packet and checks its checksums.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
            panic!("not IPv4");
        };
        let header = ip.header().to_header();
        assert_eq!(
            header.calc_header_checksum(),
            header.header_checksum,
            "IPv4 checksum"
        );
        let (sport, dport, tcp) = match &sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                let computed = tcp
                    .to_header()
                    .calc_checksum_ipv4(&header, tcp.payload())
                    .unwrap();
                assert_eq!(computed, tcp.checksum(), "TCP checksum");
                let slice = tcp.slice();
                (tcp.source_port(), tcp.destination_port(), Some(slice[13]))
            }
            Some(TransportSlice::Udp(udp)) => {
                if udp.checksum() != 0 {
                    let computed = udp
                        .to_header()
                        .calc_checksum_ipv4(&header, udp.payload())
                        .unwrap();
                    assert_eq!(computed, udp.checksum(), "UDP checksum");
                }
                (udp.source_port(), udp.destination_port(), None)
            }
            _ => panic!("neither TCP nor UDP"),
        };
        Self {
            src: header.source.into(),
            sport,
            dst: header.destination.into(),
            dport,
            tcp,
            ttl: header.time_to_live,
        }
    }
}

/// The loaded programs beside a data plane that keeps their maps.
pub(crate) struct Bench {
    pub(crate) world: World,
    pub(crate) plane: EbpfDataplane,
    pub(crate) programs: Programs,
    node: NetNs,
    pub(crate) uplink: u32,
    pub(crate) pod: u32,
    overlay: u32,
}

impl Bench {
    pub(crate) async fn new(desired: &Desired) -> Self {
        Self::with(desired, |config| config).await
    }

    /// With other settings.
    pub(crate) async fn with(
        desired: &Desired,
        settings: impl Fn(EbpfConfig) -> EbpfConfig,
    ) -> Self {
        Self::over(World::new(), desired, settings).await
    }

    /// In a world that has been made.
    pub(crate) async fn over(
        world: World,
        desired: &Desired,
        settings: impl Fn(EbpfConfig) -> EbpfConfig,
    ) -> Self {
        let config = settings(world.config());
        let mut plane = world.plane(config.clone());
        sync(&mut plane, desired).await;
        let node = world.netns("node");
        let netlink = Netlink::in_namespace(&node).unwrap();
        let mut index = Vec::new();
        for name in ["eth0", POD_LINK, "seaway.vxlan"] {
            index.push(netlink.link(name).await.unwrap().unwrap().index);
        }
        let pins = world
            .bpffs
            .join(format!("v{}", seaway_ebpf_abi::LAYOUT_VERSION));
        let programs = Programs::load(&pins, config.sizes).unwrap();
        Self {
            world,
            plane,
            programs,
            node,
            uplink: index[0],
            pod: index[1],
            overlay: index[2],
        }
    }

    pub(crate) fn run_bytes(
        &mut self,
        program: &str,
        ifindex: u32,
        input: &[u8],
    ) -> (i32, Vec<u8>) {
        let (code, output, _) = self.run_timed(program, ifindex, input);
        (code, output)
    }

    pub(crate) fn run_timed(
        &mut self,
        program: &str,
        ifindex: u32,
        input: &[u8],
    ) -> (i32, Vec<u8>, Duration) {
        self.run_repeated(program, ifindex, input, 1)
    }

    /// Lets a program run over and over, each time over what it made of the packet before; the time is that of one run.
    pub(crate) fn run_repeated(
        &mut self,
        program: &str,
        ifindex: u32,
        input: &[u8],
        repeat: u32,
    ) -> (i32, Vec<u8>, Duration) {
        let _inside = self.node.enter().unwrap();
        let mut output = vec![0; 2048];
        // struct __sk_buff: ifindex is the eleventh word.
        let mut context = vec![0_u8; 192];
        context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
        let result = self
            .programs
            .classifier(program_at(program))
            .unwrap()
            .test_run(TestRunOptions {
                data_in: Some(input),
                data_out: Some(&mut output),
                ctx_in: Some(&context),
                repeat,
                ..TestRunOptions::default()
            })
            .unwrap();
        let len = result.data_size_out as usize;
        output.truncate(len);
        (result.return_value as i32, output, result.duration)
    }

    pub(crate) fn run(&mut self, program: &str, input: Shape) -> (i32, Shape) {
        let ifindex = match program {
            "from_uplink" => self.uplink,
            "from_overlay" => self.overlay,
            _ => self.pod,
        };
        let (code, bytes) = self.run_bytes(program, ifindex, &input.bytes());
        (code, Shape::read(&bytes))
    }

    pub(crate) fn counter(&self, label: &str) -> u64 {
        let counters = self.plane.counters().unwrap();
        counters.iter().find(|(v, _)| v.label() == label).unwrap().1
    }
}

/// The program that runs where a test says; the overlay has that of uplinks.
fn program_at(place: &str) -> &str {
    match place {
        "from_overlay" => "from_uplink",
        program => program,
    }
}

#[tokio::test]
async fn a_node_port_is_translated_there_and_back() {
    for (backend, local, reply_at) in [
        (LOCAL_POD, true, "from_pod"),
        (REMOTE_POD, false, "from_overlay"),
    ] {
        let mut bench = Bench::new(&service(&[(backend, local)])).await;
        for tcp in [Some(SYN), None] {
            let sent = shape((OUTSIDE, 40000), (NODE_IP, 30080), tcp);
            let (code, seen) = bench.run("from_uplink", sent);
            assert_eq!(code, REDIRECT, "{backend} {tcp:?}");
            assert_eq!(seen.src, OVERLAY.parse::<Ipv4Addr>().unwrap());
            assert!((1024..32768).contains(&seen.sport), "{seen:?}");
            assert_eq!((seen.dst, seen.dport), (backend.parse().unwrap(), 8080));
            assert_eq!((seen.ttl, seen.tcp), (63, tcp));
            // The same flow again: the same translation.
            assert_eq!(bench.run("from_uplink", sent), (REDIRECT, seen));

            let flags = tcp.map(|_| SYN | ACK);
            let own = seen.src.to_string();
            let answer = shape((backend, 8080), (&own, seen.sport), flags);
            let (code, back) = bench.run(reply_at, answer);
            assert_eq!(code, REDIRECT);
            let expected = Shape {
                ttl: 63,
                ..shape((NODE_IP, 30080), (OUTSIDE, 40000), flags)
            };
            assert_eq!(back, expected);
        }
        assert_eq!(bench.counter("new_flow"), 2);
        assert_eq!(bench.counter("forward"), 4);
        assert_eq!(bench.counter("reverse"), 2);
    }
}

#[tokio::test]
async fn what_is_not_a_service_passes_untouched() {
    let mut bench = Bench::new(&service(&[(LOCAL_POD, true)])).await;
    let mut options = shape((OUTSIDE, 1), (NODE_IP, 22), Some(SYN)).bytes();
    for (name, input) in [
        (
            "another port",
            shape((OUTSIDE, 1), (NODE_IP, 22), Some(SYN)).bytes(),
        ),
        (
            "another address",
            shape((OUTSIDE, 1), ("192.168.77.9", 30080), Some(SYN)).bytes(),
        ),
        (
            "mid-stream",
            shape((OUTSIDE, 1), (NODE_IP, 30080), Some(ACK)).bytes(),
        ),
        (
            "a reset of nothing",
            shape((OUTSIDE, 1), (NODE_IP, 30080), Some(RST)).bytes(),
        ),
        ("a fragment whose first one was not seen", {
            let mut bytes = shape((OUTSIDE, 1), (NODE_IP, 30080), None).bytes();
            bytes[21] = 1;
            bytes
        }),
        ("another protocol", {
            options[23] = 132;
            options
        }),
    ] {
        for program in ["from_uplink", "from_pod", "from_overlay", "to_link"] {
            let link = bench.uplink;
            let (code, output) = bench.run_bytes(program, link, &input);
            assert_eq!((code, &output), (PASS, &input), "{name} {program}");
        }
    }
    assert_eq!(bench.counter("new_flow"), 0);
    assert_eq!(bench.counter("fragment"), 4);
}

#[tokio::test]
async fn options_and_absent_checksums_are_respected() {
    let mut bench = Bench::new(&service(&[(LOCAL_POD, true)])).await;
    let mut none = shape((OUTSIDE, 5), (NODE_IP, 30080), None).bytes();
    none[40..42].copy_from_slice(&[0, 0]);
    let link = bench.uplink;
    let (code, output) = bench.run_bytes("from_uplink", link, &none);
    assert_eq!(code, REDIRECT);
    assert_eq!(output[40..42], [0, 0], "no checksum stays no checksum");
    assert_eq!(Shape::read(&output).dport, 8080);

    let mut header = etherparse::Ipv4Header::new(
        0,
        64,
        etherparse::ip_number::TCP,
        [192, 168, 77, 200],
        [192, 168, 77, 1],
    )
    .unwrap();
    header.options = [1, 1, 1, 1, 1, 1, 1, 1].into();
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        .tcp(6, 30080, 1, 100)
        .syn()
        .write(&mut bytes, b"payload")
        .unwrap();
    let (code, output) = bench.run_bytes("from_uplink", link, &bytes);
    assert_eq!(code, REDIRECT);
    assert_eq!(Shape::read(&output).dport, 8080);
}

#[tokio::test]
async fn without_an_endpoint_it_is_refused_or_dropped() {
    let mut bench = Bench::new(&service(&[])).await;
    let outside = shape((OUTSIDE, 1), (NODE_IP, 30080), Some(SYN));
    let pod = shape((LOCAL_POD, 1), (CLUSTER_IP, 80), Some(SYN));
    let unknown = shape((LOCAL_POD, 1), (CLUSTER_IP, 81), Some(SYN));
    for (program, packet) in [
        ("from_uplink", outside),
        ("from_pod", pod),
        ("from_pod", unknown),
    ] {
        let (code, reset) = bench.run(program, packet);
        let expected = Shape {
            src: packet.dst,
            sport: packet.dport,
            dst: packet.src,
            dport: packet.sport,
            tcp: Some(RST | ACK),
            ttl: 64,
        };
        assert_eq!((code, reset), (REDIRECT, expected));
    }
    assert_eq!(bench.counter("rejected"), 3);
    // A datagram is answered by ICMP.
    let udp = shape((LOCAL_POD, 1), (CLUSTER_IP, 80), None).bytes();
    let link = bench.pod;
    let (code, answer) = bench.run_bytes("from_pod", link, &udp);
    assert_eq!((code, answer.len()), (REDIRECT, 70));
    assert_eq!(
        answer[..12],
        [udp[6..12].to_vec(), udp[..6].to_vec()].concat()
    );
    let sliced = SlicedPacket::from_ethernet(&answer).unwrap();
    let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else {
        panic!("not ICMP");
    };
    assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 3));
    let again = etherparse::Icmpv4Header::with_checksum(icmp.icmp_type(), icmp.payload());
    assert_eq!(icmp.checksum(), again.checksum);
    assert_eq!(icmp.payload(), &udp[14..42]);

    // There is an endpoint, but not one that the policy allows.
    let mut local = service(&[(REMOTE_POD, false)]);
    for rules in local.services.values_mut() {
        for port in &mut rules.ports {
            port.external_policy = TrafficPolicy::Local;
        }
    }
    sync(&mut bench.plane, &local).await;
    assert_eq!(bench.run("from_uplink", outside).0, SHOT);
    assert_eq!(bench.counter("dropped_no_local"), 1);
    // A pod is served by the whole cluster all the same, and keeps its address.
    let near = shape((LOCAL_POD, 2), (NODE_IP, 30080), Some(SYN));
    let (code, seen) = bench.run("from_pod", near);
    assert_eq!((code, seen.src, seen.sport), (REDIRECT, near.src, 2));
    // With one on this node, a client outside keeps its address, too.
    for rules in local.services.values_mut() {
        for port in &mut rules.ports {
            port.cluster[0].addr.set_ip(LOCAL_POD.parse().unwrap());
            port.cluster[0].local = true;
            port.local = port.cluster.clone();
        }
    }
    sync(&mut bench.plane, &local).await;
    let (code, seen) = bench.run("from_uplink", outside);
    assert_eq!((code, seen.src, seen.sport), (REDIRECT, outside.src, 1));
}

#[tokio::test]
async fn a_packet_without_hops_left_is_dropped() {
    let mut bench = Bench::new(&service(&[(LOCAL_POD, true)])).await;
    let last = Shape {
        ttl: 1,
        ..shape((OUTSIDE, 1), (NODE_IP, 30080), None)
    };
    assert_eq!(bench.run("from_uplink", last).0, SHOT);
    assert_eq!(bench.counter("dropped_ttl"), 1);
}

#[tokio::test]
async fn two_flows_never_share_the_addresses_of_their_replies() {
    let mut bench = Bench::new(&service(&[(REMOTE_POD, false)])).await;
    let other = "10.96.0.11";
    let mut desired = service(&[(REMOTE_POD, false)]);
    let mut second = desired.services.values().next().unwrap().clone();
    for port in &mut second.ports {
        port.frontends.truncate(1);
        port.frontends[0].addr = seaway_model::FrontendAddr::Ip(other.parse().unwrap());
    }
    desired
        .services
        .insert(seaway_model::ObjectKey::new("default", "other"), second);
    sync(&mut bench.plane, &desired).await;
    // A pod keeps its address and port, towards the first Service ...
    let (code, first) = bench.run(
        "from_pod",
        shape((LOCAL_POD, 9), (CLUSTER_IP, 80), Some(SYN)),
    );
    assert_eq!((code, first.sport), (REDIRECT, 9));
    // ... and has to take another port towards the second, whose backend is the same.
    let (code, seen) = bench.run("from_pod", shape((LOCAL_POD, 9), (other, 80), Some(SYN)));
    assert_eq!(code, REDIRECT);
    assert_eq!((seen.src, seen.dst), (first.src, first.dst));
    assert_ne!(seen.sport, 9);
    for (port, service) in [(9, CLUSTER_IP), (seen.sport, other)] {
        let answer = shape((REMOTE_POD, 8080), (LOCAL_POD, port), Some(SYN | ACK));
        let (code, back) = bench.run("from_overlay", answer);
        assert_eq!(code, REDIRECT);
        assert_eq!(back.src, service.parse::<Ipv4Addr>().unwrap());
        assert_eq!((back.dst, back.dport), (LOCAL_POD.parse().unwrap(), 9));
    }
}

#[tokio::test]
async fn a_flow_moves_on_only_as_long_as_it_is_not_bound() {
    let mut bench = Bench::new(&service(&[(LOCAL_POD, true)])).await;
    let udp = shape((OUTSIDE, 7), (NODE_IP, 30080), None);
    let silent = shape((OUTSIDE, 8), (NODE_IP, 30080), Some(SYN));
    let bound = shape((OUTSIDE, 9), (NODE_IP, 30080), Some(SYN));
    for packet in [udp, silent, bound] {
        let (_, seen) = bench.run("from_uplink", packet);
        assert_eq!(seen.dst, LOCAL_POD.parse::<Ipv4Addr>().unwrap());
        if packet == bound {
            let own = seen.src.to_string();
            let answer = shape((LOCAL_POD, 8080), (&own, seen.sport), Some(SYN | ACK));
            assert_eq!(bench.run("from_pod", answer).0, REDIRECT);
        }
    }
    // Another endpoint beside it: everybody stays.
    sync(
        &mut bench.plane,
        &service(&[(LOCAL_POD, true), (REMOTE_POD, false)]),
    )
    .await;
    for packet in [udp, silent, bound] {
        assert_eq!(
            bench.run("from_uplink", packet).1.dst,
            LOCAL_POD.parse::<Ipv4Addr>().unwrap()
        );
    }
    // The endpoint leaves.
    sync(&mut bench.plane, &service(&[(REMOTE_POD, false)])).await;
    for packet in [udp, silent] {
        let seen = bench.run("from_uplink", packet).1;
        assert_eq!(
            seen.dst,
            REMOTE_POD.parse::<Ipv4Addr>().unwrap(),
            "{packet:?}"
        );
    }
    let more = Shape {
        tcp: Some(ACK),
        ..bound
    };
    assert_eq!(
        bench.run("from_uplink", more).1.dst,
        LOCAL_POD.parse::<Ipv4Addr>().unwrap()
    );
    assert_eq!(bench.counter("repicked"), 2);
    // A reset closes it; a SYN with the same addresses begins anew.
    let reset = Shape {
        tcp: Some(RST),
        ..bound
    };
    assert_eq!(bench.run("from_uplink", reset).0, REDIRECT);
    assert_eq!(
        bench.run("from_uplink", bound).1.dst,
        REMOTE_POD.parse::<Ipv4Addr>().unwrap()
    );
    // The Service is gone: so are its flows that are not bound.
    let plan = bench
        .plane
        .plan(&Desired::default(), &seaway_model::Change::Full);
    bench.plane.apply(plan).await.unwrap();
    assert_eq!(bench.run("from_uplink", udp), (PASS, udp));
    assert!(bench.world.bpffs.exists());
}

/// A pod's first SYN was translated here, for want of a frontend when it connected; later its sockets are translated by
/// the hooks, and one of them happens upon the same port and backend.
#[tokio::test]
async fn a_direct_connection_takes_over_the_addresses_of_an_old_flow() {
    let mut bench = Bench::new(&service(&[(REMOTE_POD, false)])).await;
    for tcp in [Some(SYN), None] {
        let old = shape((LOCAL_POD, 45000), (CLUSTER_IP, 80), tcp);
        let (code, seen) = bench.run("from_pod", old);
        assert_eq!((code, seen.sport), (REDIRECT, 45000), "{tcp:?}");
        let direct = shape((LOCAL_POD, 45000), (REMOTE_POD, 8080), tcp);
        let answer = shape(
            (REMOTE_POD, 8080),
            (LOCAL_POD, 45000),
            tcp.map(|_| SYN | ACK),
        );
        assert_eq!(bench.run("from_overlay", answer).0, REDIRECT, "{tcp:?}");
        if tcp.is_some() {
            // Packets of the old connection may still be on their way: only a SYN begins a new one.
            let late = Shape {
                tcp: Some(ACK),
                ..direct
            };
            assert_eq!(bench.run("from_pod", late), (PASS, late));
            assert_eq!(bench.run("from_overlay", answer).0, REDIRECT);
        }
        assert_eq!(bench.run("from_pod", direct), (PASS, direct), "{tcp:?}");
        assert_eq!(bench.run("from_overlay", answer), (PASS, answer), "{tcp:?}");
    }
}
