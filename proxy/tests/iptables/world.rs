//! A node with two pods and a client outside of it, each in a network namespace, in both families.
//!
//! ```text
//! pod 2 ─ sw00000000002 ┐
//! pod 3 ─ sw00000000003 ┴─ node ─ eth0 ─ outside
//! ```
//!
//! The node has no default route until it is given one.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, socket};
use seaway_kernel::NetNs;
use seaway_model::{Desired, Family, InputEvent, Inputs, Protocol, Service, derive_all, testing};

use crate::machine::{Machine, PLACES, block_on, pod, run, service_events};

pub(crate) const PODS: [u8; 2] = [2, 3];
pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// How long silence has to last to count as such.
const SILENCE: Duration = Duration::from_millis(700);

/// Everything that a test makes; gone when dropped.
pub(crate) struct World {
    id: String,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// By this pod, which saw that peer.
    Served {
        by: IpAddr,
        peer: IpAddr,
    },
    Refused,
    Unreachable,
    Silence,
}

/// Runs `test` inside of the node of a fresh world, for each place that our tables can be in.
pub(crate) fn in_each_world<F, Fut>(test: F)
where
    F: Fn(Machine, World) -> Fut + Send + Sync,
    Fut: Future<Output = ()>,
{
    for machine in PLACES {
        in_world_of(machine, &test);
    }
}

/// The same for one of them.
pub(crate) fn in_world_of<F, Fut>(machine: Machine, test: F)
where
    F: Fn(Machine, World) -> Fut + Send + Sync,
    Fut: Future<Output = ()>,
{
    let world = World::new();
    let node = world.netns("node");
    node.run(|| block_on(test(machine, world))).unwrap();
}

impl World {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let world = Self {
            id: format!(
                "swipt{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            ),
        };
        for short in world.shorts() {
            let netns = NetNs::create(&world.name(&short)).unwrap();
            // Addresses of IPv6 can be used at once.
            let sysctls = [
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/default/dad_transmits", "0"),
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                // Each refusal is to be seen.
                ("ipv4/icmp_ratelimit", "0"),
                ("ipv6/icmp/ratelimit", "0"),
            ];
            netns
                .run(|| {
                    for (key, value) in sysctls {
                        fs::write(format!("/proc/sys/net/{key}"), value).unwrap();
                    }
                })
                .unwrap();
        }
        world.wire();
        for host in PODS {
            world.serve(host);
        }
        world
    }

    fn shorts(&self) -> Vec<String> {
        let pods = PODS.map(|host| format!("pod{host}"));
        ["node".to_owned(), "out".to_owned()]
            .into_iter()
            .chain(pods)
            .collect()
    }

    fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.id)
    }

    pub(crate) fn netns(&self, short: &str) -> NetNs {
        NetNs::named(&self.name(short)).unwrap()
    }

    /// Runs `ip` with a batch of commands in a namespace; those that begin with `-6` come last.
    pub(crate) fn ip(&self, short: &str, batch: &str) {
        let lines = batch.lines().map(str::trim);
        let (v6, v4): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("-6 "));
        let name = self.name(short);
        run("ip", &["-n", &name, "-batch", "-"], &v4.join("\n"));
        let v6: Vec<_> = v6
            .iter()
            .map(|line| line.trim_start_matches("-6 "))
            .collect();
        run("ip", &["-6", "-n", &name, "-batch", "-"], &v6.join("\n"));
    }

    fn wire(&self) {
        let out = self.name("out");
        self.ip(
            "node",
            &format!(
                "link add eth0 type veth peer name eth0 netns {out}
                 link set eth0 up
                 address add 192.168.77.1/24 dev eth0
                 address add 192.168.78.1/32 dev eth0
                 address add fd77::1/64 dev eth0
                 address add fd78::1/128 dev eth0"
            ),
        );
        self.ip(
            "out",
            "link set eth0 up
             address add 192.168.77.200/24 dev eth0
             address add fd77::c8/64 dev eth0
             route add default via 192.168.77.1
             -6 route add default via fd77::1",
        );
        for host in PODS {
            let (short, name) = (format!("pod{host}"), self.name(&format!("pod{host}")));
            let link = format!("sw{host:011x}");
            let [v4, v6] = FAMILIES.map(|family| pod(family, host));
            self.ip(
                "node",
                &format!(
                    "link add {link} type veth peer name eth0 netns {name}
                     link set {link} address 02:00:00:00:01:01 up
                     route add {v4}/32 dev {link} proto 83
                     -6 route add {v6}/128 dev {link} proto 83"
                ),
            );
            self.ip(
                &short,
                &format!(
                    "link set eth0 up
                     address add {v4}/32 dev eth0
                     address add {v6}/128 dev eth0
                     route add 169.254.1.1 dev eth0
                     neigh add 169.254.1.1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent
                     route add default via 169.254.1.1
                     neigh add fe80::1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent
                     -6 route add default via fe80::1 dev eth0"
                ),
            );
        }
    }

    pub(crate) fn add_default_routes(&self) {
        self.ip(
            "node",
            "route add default via 192.168.77.200
             -6 route add default via fd77::c8",
        );
    }

    /// A pod answers on port 8080 with whom it saw, over TCP and UDP.
    fn serve(&self, host: u8) {
        let netns = self.netns(&format!("pod{host}"));
        for family in FAMILIES {
            let addr = SocketAddr::new(pod(family, host), 8080);
            let (tcp, udp) = netns
                .run(|| {
                    (
                        patiently(|| TcpListener::bind(addr)),
                        patiently(|| UdpSocket::bind(addr)),
                    )
                })
                .unwrap();
            std::thread::spawn(move || {
                for stream in tcp.incoming() {
                    let mut stream = stream.unwrap();
                    let peer = stream.peer_addr().unwrap();
                    // A client that is gone already is no concern of ours.
                    let _ = write!(stream, "{} {}", addr.ip(), peer.ip());
                }
            });
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    let answer = format!("{} {}", addr.ip(), peer.ip());
                    let _ = udp.send_to(answer.as_bytes(), peer);
                }
            });
        }
    }

    /// One request from a namespace.
    pub(crate) fn ask(&self, short: &str, to: &str, protocol: Protocol) -> Answer {
        let to: SocketAddr = to.parse().unwrap();
        let answer = self.netns(short).run(|| match protocol {
            Protocol::Udp => ask_udp(to),
            _ => ask_tcp(to),
        });
        match answer.unwrap() {
            Ok(text) => {
                let (by, peer) = text.split_once(' ').unwrap();
                Answer::Served {
                    by: by.parse().unwrap(),
                    peer: peer.parse().unwrap(),
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused => Answer::Refused,
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Answer::Silence,
                ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => Answer::Unreachable,
                _ => panic!("{short} -> {to}: {error}"),
            },
        }
    }

    /// The pods that answer some requests over TCP.
    pub(crate) fn servers(&self, short: &str, to: &str, requests: usize) -> Vec<IpAddr> {
        let served = |_| match self.ask(short, to, Protocol::Tcp) {
            Answer::Served { by, .. } => by,
            other => panic!("{short} -> {to}: {other:?}"),
        };
        let mut servers: Vec<_> = (0..requests).map(served).collect();
        servers.sort();
        servers.dedup();
        servers
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for short in self.shorts() {
            let _ = NetNs::delete(&self.name(&short));
        }
    }
}

/// An address of IPv6 takes a moment to become usable.
fn patiently<T>(mut bind: impl FnMut() -> std::io::Result<T>) -> T {
    for _ in 0..100 {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other.unwrap(),
        }
    }
    panic!("an address does not become usable")
}

fn ask_tcp(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, SILENCE)?;
    let mut answer = String::new();
    stream.set_read_timeout(Some(SILENCE))?;
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ask_udp(to: SocketAddr) -> std::io::Result<String> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    let socket = UdpSocket::from(fd);
    socket.set_read_timeout(Some(SILENCE))?;
    match socket.send(b"x") {
        // What is refused or dropped on the way out of this host fails at once; the reason comes as an ICMP error.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
        other => _ = other?,
    }
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A cluster IP of [`crate::machine::service_events`].
pub(crate) fn cluster_ip(family: Family, last: u8, port: u16) -> String {
    match family {
        Family::V4 => format!("10.96.0.{last}:{port}"),
        Family::V6 => format!("[fd00:10:96::{last:x}]:{port}"),
    }
}

/// An address of the node: the first or the second.
pub(crate) fn node_address(family: Family, second: bool, port: u16) -> String {
    let net = if second { 78 } else { 77 };
    match family {
        Family::V4 => format!("192.168.{net}.1:{port}"),
        Family::V6 => format!("[fd{net}::1]:{port}"),
    }
}

/// Service `web` at `.10` with TCP and UDP port 80, node port 30080, and an endpoint on this node for each of
/// `hosts`; changed as the test wants it.
pub(crate) fn web_with(hosts: &[u8], change: impl Fn(&mut Service)) -> Desired {
    let mut inputs = Inputs::default();
    for mut event in service_events("web", 10, hosts) {
        match &mut event {
            InputEvent::Service(_, Some(service)) => {
                let mut udp = service.ports[0].clone();
                udp.name = "udp".into();
                udp.protocol = Protocol::Udp;
                service.ports.push(udp);
                change(service);
            }
            InputEvent::Slice(_, Some(slice)) => {
                let mut udp = slice.ports[0].clone();
                udp.name = "udp".into();
                udp.protocol = Protocol::Udp;
                slice.ports.push(udp);
            }
            _ => {}
        }
        inputs.apply(event);
    }
    derive_all(&inputs, &testing::settings()).0
}
