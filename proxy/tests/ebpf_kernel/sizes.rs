//! Packets too large for their way: senders are told, or the packets arrive in fragments, as by the kernel's own forwarding.

use std::io::{ErrorKind, Result};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use seaway_proxy::ebpf::{EbpfConfig, EbpfDataplane, XdpMode};

use crate::dsr::{Peer, counter, dsr};
use crate::world::{
    LARGE, LOCAL_POD, LOCAL_POD6, NODE_IP, NODE_IP6, POD_LINK, REMOTE_POD, REMOTE_POD6, World, ask,
    service, sync,
};
use crate::xdp;

/// What a way takes that is narrower than all links.
const NARROW: usize = 1300;
/// With the headers of IP and UDP more than that, also with what the server puts in front; and less than links take.
const DATAGRAM: usize = 1340;
/// Many segments.
const STREAM: usize = 200_000;

/// A client that sends so many bytes, and sends a datagram again until it is answered: `at once NAME xxx`, or `later NAME xxx`.
pub(crate) fn ask_sized(what: &str, rest: &str) -> Result<String> {
    let (bytes, addr) = rest.split_once(' ').unwrap();
    let (text, addr) = ("x".repeat(bytes.parse().unwrap()), addr.parse().unwrap());
    if what.starts_with("tcp") {
        let mut stream = TcpStream::connect::<SocketAddr>(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        return ask(&mut stream, &text).map(|answer| format!("at once {answer}"));
    }
    let any = if addr.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket.connect(addr)?;
    for when in ["at once"].into_iter().chain(["later"; 20]) {
        let mut buffer = [0; 2 * LARGE];
        // That it was too large may be told at either call.
        let answered = socket
            .send(text.as_bytes())
            .and_then(|_| socket.recv(&mut buffer));
        if let Ok(len) = answered {
            let answer = String::from_utf8_lossy(&buffer[..len]).into_owned();
            return Ok(format!("{when} {answer}"));
        }
    }
    Err(ErrorKind::TimedOut.into())
}

/// Has what sockets of IPv4 send in a namespace cut by routers, or not: none has "don't fragment" then (`ip_no_pmtu_disc`).
pub(crate) fn may_cut(world: &World, short: &str, may: bool) {
    let value = if may { "1" } else { "0" };
    let write = || std::fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", value).unwrap();
    world.netns(short).run(write).unwrap();
}

/// Forgets what senders have been told.
fn forget(world: &World) {
    for short in ["out", "pod", "peerpod"] {
        for family in ["-4", "-6"] {
            let name = world.name(short);
            let flush = ["-n", &name, family, "route", "flush", "cache"];
            let done = std::process::Command::new("ip").args(flush).status();
            assert!(done.unwrap().success());
        }
    }
}

/// Routes of a namespace that take less than their link, of both families.
fn narrow(world: &World, short: &str, link: &str, addrs: [&str; 2]) {
    let lines = addrs.map(|addr| {
        let (from, length) = if addr.contains(':') {
            ("src fd00:77::1", 128)
        } else {
            ("", 32)
        };
        let from = if link == POD_LINK && short == "node" {
            from
        } else {
            ""
        };
        format!("route replace {addr}/{length} dev {link} {from} mtu lock {NARROW}")
    });
    world.ip(short, &lines.join("\n"));
}

struct Asked {
    v6: bool,
    /// Who answers, and at which address.
    name: &'static str,
    backend: &'static str,
    protocol: &'static str,
    /// Whether routers may cut what is sent.
    may_cut: bool,
}

/// Every backend, family and protocol, with "don't fragment" and, for IPv4, without.
fn all() -> Vec<Asked> {
    let mut all = Vec::new();
    for (v6, name, backend) in [
        (false, "local", LOCAL_POD),
        (false, "remote", REMOTE_POD),
        (true, "local", LOCAL_POD6),
        (true, "remote", REMOTE_POD6),
    ] {
        for protocol in ["udp", "tcp"] {
            for may_cut in [false, true] {
                if !(v6 && may_cut) {
                    all.push(Asked {
                        v6,
                        name,
                        backend,
                        protocol,
                        may_cut,
                    });
                }
            }
        }
    }
    all
}

impl Asked {
    /// Asks for the node port of the node.
    fn ask(&self, world: &World, bytes: usize) -> String {
        let node = if self.v6 {
            format!("[{NODE_IP6}]")
        } else {
            NODE_IP.to_owned()
        };
        let what = format!("{}-sized {bytes} {node}:30080", self.protocol);
        world.client("out", false, &what)
    }

    /// Has the plane serve the node port by the backend, and asks.
    async fn is_served(&self, world: &World, plane: &mut EbpfDataplane) {
        forget(world);
        sync(plane, &service(&[(self.backend, self.name == "local")])).await;
        let before = counters(plane);
        let answer = self.ask(world, self.bytes());
        self.check(&answer, before, plane);
    }

    fn about(&self) -> String {
        format!(
            "{} {} may be cut: {}",
            self.backend, self.protocol, self.may_cut
        )
    }

    fn bytes(&self) -> usize {
        match self.protocol {
            "udp" => DATAGRAM,
            _ => STREAM,
        }
    }

    /// Whether all arrived, and somebody was told or it went to the stack.
    fn check(&self, answer: &str, before: [u64; 3], plane: &EbpfDataplane) {
        let now = counters(plane);
        let about = format!("{}: {before:?} {now:?}", self.about());
        let start: String = answer.chars().take(60).collect();
        let when = match (self.protocol, self.may_cut) {
            ("udp", false) => "later",
            _ => "at once",
        };
        assert!(
            start.starts_with(&format!("{when} {} ", self.name)),
            "{about}: {start}"
        );
        assert_eq!(arrived(answer), self.bytes(), "{about}");
        let [told, cut, dropped] = [0, 1, 2].map(|i| now[i] - before[i]);
        assert_eq!(
            (told > 0, cut > 0, dropped),
            (!self.may_cut, self.may_cut, 0),
            "{about}"
        );
    }
}

/// How many of the bytes that were sent came back.
fn arrived(answer: &str) -> usize {
    answer.chars().filter(|c| *c == 'x').count()
}

fn counters(plane: &EbpfDataplane) -> [u64; 3] {
    ["too_large", "cut", "dropped_too_large"].map(|label| counter(plane, label))
}

/// A world with servers in both pods, whose answers routers may cut or not.
fn served(cut: bool) -> World {
    let world = World::new();
    for short in ["pod", "peerpod"] {
        may_cut(&world, short, cut);
    }
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    world
}

#[tokio::test]
async fn requests_larger_than_the_way_to_the_backend_arrive() {
    let world = served(false);
    let mut plane = world.plane(world.config());
    narrow(&world, "node", POD_LINK, [LOCAL_POD, LOCAL_POD6]);
    world.ip(
        "node",
        &format!(
            "route replace 10.244.2.0/24 encap ip id 1 dst 192.168.77.2 via 10.244.2.0 dev seaway.vxlan onlink mtu lock {NARROW}
             route replace fd00:10:244:2::/64 encap ip id 1 dst 192.168.77.2 via fd00:10:244:2:: dev seaway.vxlan onlink mtu lock {NARROW}"
        ),
    );
    for asked in all() {
        may_cut(&world, "out", asked.may_cut);
        asked.is_served(&world, &mut plane).await;
    }
}

#[tokio::test]
async fn replies_larger_than_the_way_to_the_client_arrive() {
    for cut in [false, true] {
        let world = served(cut);
        let mut plane = world.plane(world.config());
        narrow(&world, "node", "eth0", ["192.168.77.200", "fd00:77::200"]);
        for asked in all().into_iter().filter(|asked| asked.may_cut == cut) {
            asked.is_served(&world, &mut plane).await;
        }
    }
}

/// The link of a pod is narrower than that of a client, as the overlay is: datagrams in one piece, and in fragments of which each
/// one is too large.
#[tokio::test]
async fn datagrams_of_a_wider_network_arrive() {
    let world = served(false);
    let mut plane = world.plane(world.config());
    may_cut(&world, "out", true);
    for (backend, name) in [(LOCAL_POD, "local"), (REMOTE_POD, "remote")] {
        sync(&mut plane, &service(&[(backend, name == "local")])).await;
        for bytes in [1472, LARGE] {
            let before = counters(&plane);
            let what = format!("udp-sized {bytes} {NODE_IP}:30080");
            let answer = world.client("out", false, &what);
            let about = format!("{name} {bytes}: {:?}", plane.counters().unwrap());
            assert!(answer.starts_with(&format!("at once {name} ")), "{about}");
            assert_eq!(arrived(&answer), bytes, "{about}");
            assert!(counters(&plane)[1] > before[1], "{about}");
        }
    }
}

/// Where connection tracking puts fragments together, all of them have to come to it; and what it masquerades gets its own source back.
#[tokio::test]
async fn rules_of_the_node_do_not_change_what_it_sends_on() {
    let world = served(true);
    let rules = "table ip t {
        chain f { type filter hook forward priority 0; policy accept; ct state invalid drop; }
        chain p { type nat hook postrouting priority 100; ip saddr 10.244.0.0/16 masquerade; ip saddr 192.168.77.200 masquerade; }
    }";
    world
        .netns("node")
        .run(|| {
            let done = std::process::Command::new("nft").arg(rules).status();
            assert!(done.unwrap().success());
        })
        .unwrap();
    let mut plane = world.plane(world.config());
    narrow(&world, "node", "eth0", ["192.168.77.200", "fd00:77::200"]);
    may_cut(&world, "out", true);
    for (backend, name) in [(LOCAL_POD, "local"), (REMOTE_POD, "remote")] {
        sync(&mut plane, &service(&[(backend, name == "local")])).await;
        for (protocol, bytes) in [("udp", 1472), ("udp", LARGE), ("tcp", STREAM)] {
            let what = format!("{protocol}-sized {bytes} {NODE_IP}:30080");
            let answer = world.client("out", false, &what);
            let about = format!("{name} {bytes}: {:?}", plane.counters().unwrap());
            let start = format!("at once {name} 10.244.1.0:");
            assert!(answer.starts_with(&start), "{about}: {answer:.60}");
            assert_eq!(arrived(&answer), bytes, "{about}");
        }
    }
}

#[tokio::test]
async fn the_far_node_of_direct_answers_does_the_same() {
    let world = served(false);
    let mut plane = world.plane(dsr(world.config()));
    narrow(
        &world,
        "peer",
        POD_LINK,
        [LOCAL_POD, LOCAL_POD6].map(|_| REMOTE_POD),
    );
    for asked in all()
        .into_iter()
        .filter(|asked| asked.name == "remote" && !asked.v6)
    {
        may_cut(&world, "out", asked.may_cut);
        forget(&world);
        sync(&mut plane, &service(&[(asked.backend, false)])).await;
        let peer = Peer::new(&world, &service(&[(asked.backend, true)])).await;
        let before = counters(&peer.plane);
        let answer = asked.ask(&world, asked.bytes());
        asked.check(&answer, before, &peer.plane);
        assert!(counter(&plane, "sent_on") > 0);
    }
}

/// XDP leaves to tc what does not fit.
#[tokio::test]
async fn xdp_leaves_large_packets_to_the_stack() {
    let world = World::new();
    world.serve("peer", "remote");
    let mut plane = world.plane(EbpfConfig {
        xdp: XdpMode::Native,
        ..world.config()
    });
    sync(&mut plane, &service(&[("192.168.77.2", false)])).await;
    let _prepared = xdp::prepare_veths(&world);
    narrow(&world, "node", "eth0", ["192.168.77.2", "fd00:77::2"]);
    may_cut(&world, "out", true);
    for bytes in [10, DATAGRAM, 10, DATAGRAM, 10] {
        let what = format!("udp-sized {bytes} {NODE_IP}:30080");
        let answer = world.client("out", false, &what);
        assert!(answer.starts_with("at once remote "), "{answer:.60}");
    }
    let [_, cut, dropped] = counters(&plane);
    assert_eq!((cut, dropped), (2, 0));
}
