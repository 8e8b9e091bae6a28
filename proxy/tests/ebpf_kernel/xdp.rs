//! XDP at the uplink: what it takes and what it leaves to tc, and that it comes and goes with the data plane. The uplink is
//! a veth here: its senders have to write checksums, and its other end has to take what XDP sends, which it does with an
//! XDP program of its own.

use aya::programs::xdp::XdpMode as AttachMode;
use aya::programs::{TestRun, TestRunOptions};
use seaway_ebpf_abi::programs::{XDP_IDLE, XDP_UPLINK};
use seaway_kernel::{NetNs, Offload};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::{EbpfConfig, EbpfDataplane, Programs, XdpMode};

use crate::packets::{ACK, Bench, OUTSIDE, REDIRECT, SYN, Shape, shape};
use crate::world::{LOCAL_POD, NODE_IP, World, service, sync};

/// A backend on the network of the node: its packets leave by the link where the client's come in.
const NEIGHBOUR: &str = "192.168.77.2";
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

fn with(world: &World, xdp: XdpMode) -> EbpfConfig {
    EbpfConfig {
        xdp,
        ..world.config()
    }
}

/// The mode in which an XDP program is attached to a link, as `ip` shows it.
fn attached(world: &World, link: &str) -> Option<&'static str> {
    let node = world.netns("node");
    let path = node.path().unwrap().display().to_string();
    let shown = std::process::Command::new("nsenter")
        .args([&format!("--net={path}"), "ip", "link", "show", link])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let words: Vec<&str> = shown.split_whitespace().collect();
    ["xdp", "xdpgeneric", "xdpoffload"]
        .into_iter()
        .find(|mode| words.contains(mode))
}

/// Runs the XDP program over a frame that came in by the uplink.
fn run(bench: &mut Bench, packet: Shape) -> (u32, Shape) {
    let (code, output) = run_bytes(bench, &packet.bytes());
    (code, Shape::read(&output))
}

pub(crate) fn run_bytes(bench: &mut Bench, input: &[u8]) -> (u32, Vec<u8>) {
    let _inside = bench.world.netns("node").enter().unwrap();
    let mut output = vec![0; 2048];
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context: Vec<u8> = [0, input.len() as u32, 0, bench.uplink, 0, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let program = bench.programs.xdp(XDP_UPLINK).unwrap();
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(input),
            data_out: Some(&mut output),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        })
        .unwrap();
    output.truncate(result.data_size_out as usize);
    (result.return_value, output)
}

/// Has senders write checksums, and the other end of the uplink take what XDP sends, for as long as the value lives.
pub(crate) fn prepare_veths(world: &World) -> (Programs, NetNs) {
    for name in ["peer", "out"] {
        let netns = world.netns(name);
        let path = netns.path().unwrap().display().to_string();
        let done = std::process::Command::new("nsenter")
            .args([
                &format!("--net={path}"),
                "ethtool",
                "-K",
                "eth0",
                "tx",
                "off",
            ])
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    let pins = world
        .bpffs
        .join(format!("v{}", seaway_ebpf_abi::LAYOUT_VERSION));
    let mut programs = Programs::load(&pins, world.config().sizes).unwrap();
    let idle = programs.xdp(XDP_IDLE).unwrap();
    idle.load().unwrap();
    let fabric = world.netns("fabric");
    fabric
        .run(|| idle.attach("porta", AttachMode::Driver).map(drop).unwrap())
        .unwrap();
    (programs, fabric)
}

#[tokio::test]
async fn established_flows_to_other_nodes_are_taken_and_all_else_is_left() {
    let native = |config| EbpfConfig {
        xdp: XdpMode::Native,
        ..config
    };
    let mut bench = Bench::with(&service(&[(NEIGHBOUR, false)]), native).await;
    for (ip, number) in [(NEIGHBOUR, 2), (OUTSIDE, 200)] {
        let neighbour = format!("neigh replace {ip} lladdr 02:00:00:00:77:{number:02x} dev eth0");
        bench.world.ip("node", &neighbour);
    }
    for tcp in [None, Some(ACK)] {
        let from = |flags| shape((OUTSIDE, 40000), (NODE_IP, 30080), flags);
        let opening = from(tcp.map(|_| SYN));
        assert_eq!(run(&mut bench, opening), (XDP_PASS, opening));
        let (code, first) = bench.run("from_uplink", opening);
        assert_eq!((code, first.dst.to_string()), (REDIRECT, NEIGHBOUR.into()));
        let own = first.src.to_string();
        let answer = |flags| shape((NEIGHBOUR, 8080), (&own, first.sport), flags);
        let (code, answered) = bench.run("from_uplink", answer(tcp.map(|_| SYN | ACK)));
        assert_eq!((code, answered.dst.to_string()), (REDIRECT, OUTSIDE.into()));
        let (_, long) = bench.run("from_uplink", from(tcp));
        assert_eq!(run(&mut bench, from(tcp)), (XDP_TX, long), "{tcp:?}");
        let back = Shape { tcp, ..answered };
        assert_eq!(run(&mut bench, answer(tcp)), (XDP_TX, back), "{tcp:?}");
        // Without hops left, of no flow, and to somebody else.
        let last = Shape {
            ttl: 1,
            ..from(tcp)
        };
        let stranger = shape((OUTSIDE, 40001), (NODE_IP, 30080), tcp);
        let other = shape((OUTSIDE, 40000), (NODE_IP, 22), tcp);
        for packet in [last, stranger, other] {
            assert_eq!(run(&mut bench, packet), (XDP_PASS, packet));
        }
    }
    assert_eq!(bench.counter("xdp"), 4);
    // The end of a connection is for tc to see.
    let reset = shape((OUTSIDE, 40000), (NODE_IP, 30080), Some(4));
    assert_eq!(run(&mut bench, reset), (XDP_PASS, reset));
    // A change of Services ends the short way here, too; a backend of the node is not for XDP.
    let local = service(&[(LOCAL_POD, true)]);
    sync(&mut bench.plane, &local).await;
    let packet = shape((OUTSIDE, 40000), (NODE_IP, 30080), None);
    assert_eq!(run(&mut bench, packet), (XDP_PASS, packet));
    for _ in 0..3 {
        assert_eq!(bench.run("from_uplink", packet).0, REDIRECT);
    }
    assert_eq!(run(&mut bench, packet), (XDP_PASS, packet));
}

/// A backend behind another uplink. Whether that takes frames is seen when it gets its program.
#[tokio::test]
async fn packets_leave_by_another_link_if_its_driver_takes_frames() {
    const BEHIND: &str = "198.51.100.2";
    let native = |config| EbpfConfig {
        xdp: XdpMode::Native,
        ..config
    };
    for takes in [true, false] {
        let mut bench = Bench::with(&service(&[(BEHIND, false)]), native).await;
        bench.world.ip(
            "node",
            &format!(
                "neigh replace {OUTSIDE} lladdr 02:00:00:00:77:c8 dev eth0
                 link add eth9 type veth peer name behind9
                 link set behind9 up
                 address add 198.51.100.1/24 dev eth9
                 link set eth9 mtu 1400 up
                 neigh replace {BEHIND} lladdr 02:00:00:00:99:02 dev eth9"
            ),
        );
        let node = bench.world.netns("node");
        node.run(|| Offload::open().unwrap().set_gro("behind9", takes).unwrap())
            .unwrap();
        // As after a restart.
        bench.plane = bench.world.plane(with(&bench.world, XdpMode::Native));
        sync(&mut bench.plane, &service(&[(BEHIND, false)])).await;
        let from = |flags| shape((OUTSIDE, 40000), (NODE_IP, 30080), flags);
        let (code, first) = bench.run("from_uplink", from(Some(SYN)));
        assert_eq!((code, first.dst.to_string()), (REDIRECT, BEHIND.into()));
        let own = first.src.to_string();
        let answer = shape((BEHIND, 8080), (&own, first.sport), Some(SYN | ACK));
        assert_eq!(bench.run("from_uplink", answer).0, REDIRECT);
        let (_, long) = bench.run("from_uplink", from(Some(ACK)));
        let expected = if takes {
            (XDP_REDIRECT, long)
        } else {
            (XDP_PASS, from(Some(ACK)))
        };
        assert_eq!(run(&mut bench, from(Some(ACK))), expected, "{takes}");
        // A byte more than that link takes.
        for (more, fits) in [(0, takes), (1, false)] {
            let mut bytes = from(Some(ACK)).bytes();
            let length: u16 = 1400 + more;
            bytes.resize(14 + usize::from(length), 0);
            bytes[16..18].copy_from_slice(&length.to_be_bytes());
            let code = if fits { XDP_REDIRECT } else { XDP_PASS };
            assert_eq!(run_bytes(&mut bench, &bytes).0, code, "{takes} {length}");
        }
    }
}

#[tokio::test]
async fn packets_go_there_and_back_by_xdp() {
    let world = World::new();
    world.serve("peer", "remote");
    let mut plane = world.plane(with(&world, XdpMode::Native));
    sync(&mut plane, &service(&[(NEIGHBOUR, false)])).await;
    assert_eq!(attached(&world, "eth0"), Some("xdp"));
    let _prepared = prepare_veths(&world);
    let counter = |plane: &EbpfDataplane| {
        let counters = plane.counters().unwrap();
        counters.iter().find(|(v, _)| v.label() == "xdp").unwrap().1
    };
    for protocol in ["udp", "tcp", "udp"] {
        let answer = world.client("out", false, &format!("{protocol} {NODE_IP}:30080"));
        let expected = format!("| from {NODE_IP}:30080");
        assert!(answer.starts_with("remote "), "{protocol}: {answer}");
        assert!(answer.ends_with(&expected), "{protocol}: {answer}");
    }
    assert!(counter(&plane) > 0, "{:?}", plane.counters().unwrap());
}

#[tokio::test]
async fn xdp_comes_and_goes_with_the_data_plane() {
    let world = World::new();
    let desired = service(&[(LOCAL_POD, true)]);
    for (mode, shown) in [
        (XdpMode::Off, None),
        (XdpMode::Native, Some("xdp")),
        // The next one after a kill -9 finds it there, and puts its own program behind the same link.
        (XdpMode::Native, Some("xdp")),
        (XdpMode::Generic, Some("xdpgeneric")),
        (XdpMode::Native, Some("xdp")),
        (XdpMode::Off, None),
        (XdpMode::Native, Some("xdp")),
    ] {
        let mut plane = world.plane(with(&world, mode));
        sync(&mut plane, &desired).await;
        assert_eq!(attached(&world, "eth0"), shown, "{mode:?}");
        assert_eq!(attached(&world, crate::world::POD_LINK), None);
    }
    let mut plane = world.plane(world.config());
    plane.cleanup().await.unwrap();
    assert_eq!(attached(&world, "eth0"), None);

    // What cannot be is said, by the link's name, or left with --xdp=auto.
    world.ip(
        "node",
        "link add br9 type bridge\naddress add 192.0.2.1/24 dev br9\nlink set br9 up",
    );
    let mut plane = world.plane(with(&world, XdpMode::Native));
    plane.observe().await.unwrap();
    let plan = plane.plan(&desired, &seaway_model::Change::Full);
    let refused = plane.apply(plan).await.unwrap_err().to_string();
    assert!(refused.contains("br9: its driver has no XDP"), "{refused}");
    let mut plane = world.plane(with(&world, XdpMode::Auto));
    sync(&mut plane, &desired).await;
}
