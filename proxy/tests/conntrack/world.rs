//! A node with pods, a client outside of it, and the proxy at work between them.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use seaway_kernel::capabilities::IptablesVariant;
use seaway_kernel::{Capabilities, NetNs};
use seaway_model::testing::{self, plain};
use seaway_model::{Family, InputEvent, NodeSettings, ObjectKey, Protocol, ServicePort};
use seaway_proxy::conntrack::{self, Cleaner};
use seaway_proxy::health::Health;
use seaway_proxy::iptables::{IptablesConfig, IptablesDataplane};
use seaway_proxy::metrics::Metrics;
use seaway_proxy::reconcile::{Ended, Reconciler};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) const PORT: u16 = 53;
pub(crate) const NODE_PORT: u16 = 30_053;
const TARGET_PORT: u16 = 5353;

pub(crate) fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn pod(family: Family, host: u8) -> SocketAddr {
    SocketAddr::new(pod_ip(family, host), TARGET_PORT)
}

fn pod_ip(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 244, 1, host].into(),
        Family::V6 => [0xfd00, 0x10, 0x244, 0, 0, 0, 0, u16::from(host)].into(),
    }
}

fn cluster_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 96, 0, 10].into(),
        Family::V6 => [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 10].into(),
    }
}

pub(crate) fn service_at(family: Family) -> SocketAddr {
    SocketAddr::new(cluster_ip(family), PORT)
}

pub(crate) fn node_port_at(family: Family) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::V4 => [192, 168, 100, 1].into(),
        Family::V6 => [0xfd00, 0x192, 0, 0, 0, 0, 0, 1].into(),
    };
    SocketAddr::new(ip, NODE_PORT)
}

/// The address of the client outside.
pub(crate) fn outside(family: Family) -> IpAddr {
    match family {
        Family::V4 => [192, 168, 100, 200].into(),
        Family::V6 => [0xfd00, 0x192, 0, 0, 0, 0, 0, 0x200].into(),
    }
}

/// The namespaces of a test. `node` also holds the pods' addresses.
pub(crate) struct World {
    pub(crate) node: NetNs,
    pub(crate) outside: NetNs,
    pub(crate) variant: IptablesVariant,
}

impl World {
    /// Runs `test` for each variant and family, each in a world of its own.
    pub(crate) fn each(test: impl Fn(&World, Family) + Send + Sync) {
        for variant in [IptablesVariant::NfTables, IptablesVariant::Legacy] {
            for family in [Family::V4, Family::V6] {
                println!("{variant:?} {family:?}");
                let world = World::new(variant);
                world.node.clone().run(|| test(&world, family)).unwrap();
            }
        }
    }

    fn new(variant: IptablesVariant) -> Self {
        let (node, outside) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
        let world = Self {
            node,
            outside,
            variant,
        };
        // By pid: `ip` takes names or processes only.
        let holder = world
            .outside
            .run(|| Holder(Command::new("sleep").arg("60").spawn().unwrap()))
            .unwrap();
        world
            .node
            .run(|| {
                let peer = holder.0.id();
                run(&format!(
                    "ip link add eth0 type veth peer name eth0 netns {peer}"
                ));
                run("ip link set eth0 up");
                run("ip addr add 192.168.100.1/24 dev eth0");
                run("ip addr add fd00:192::1/64 dev eth0 nodad");
                for host in 2..=9 {
                    for family in [Family::V4, Family::V6] {
                        let ip = pod_ip(family, host);
                        run(&format!("ip addr add {ip} dev lo nodad"));
                    }
                }
                // What no rule takes leaves the node, and is lost.
                run("ip route add default via 192.168.100.200");
                run("ip -6 route add default via fd00:192::200");
            })
            .unwrap();
        world
            .outside
            .run(|| {
                run("ip link set eth0 up");
                run("ip addr add 192.168.100.200/24 dev eth0");
                run("ip addr add fd00:192::200/64 dev eth0 nodad");
            })
            .unwrap();
        drop(holder);
        for netns in [&world.node, &world.outside] {
            netns.await_ready().unwrap();
        }
        world
    }

    /// Runs the proxy while `test` feeds it.
    pub(crate) fn with_proxy(&self, cleans: bool, test: impl FnOnce(&Proxy)) {
        let (events, mut inbox) = mpsc::channel(64);
        let shutdown = CancellationToken::new();
        let stopping = shutdown.clone();
        let variant = self.variant;
        std::thread::scope(|scope| {
            // A thread of this namespace.
            let proxy = scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let mut machine = Capabilities::probe().await.unwrap();
                    machine.iptables.as_mut().unwrap().variant = variant;
                    let config = IptablesConfig {
                        ipv6: true,
                        ..IptablesConfig::default()
                    };
                    let dataplane = IptablesDataplane::new(&config, &machine);
                    let mut registry = Registry::default();
                    let metrics = Metrics::new(&mut registry);
                    let settings = NodeSettings::new(testing::NODE);
                    let mut reconciler =
                        Reconciler::new(settings, dataplane, Health::default(), metrics);
                    if cleans {
                        let metrics = conntrack::Metrics::new(&mut registry);
                        let cleaner = Cleaner::start(
                            conntrack::Settings::default(),
                            Arc::new(conntrack::Table::new(metrics)),
                        );
                        reconciler = reconciler.with_conntrack(cleaner);
                    }
                    let (_orders, mut orders) = mpsc::channel(1);
                    while let Ended::FirstSync =
                        reconciler.run(&mut inbox, &mut orders, &stopping).await
                    {
                    }
                });
            });
            let stop = shutdown.drop_guard();
            test(&Proxy { events });
            drop(stop);
            proxy.join().unwrap();
        });
    }
}

/// Ends a process that was only needed for its namespace, also when a test fails.
struct Holder(std::process::Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The inputs of a running proxy.
pub(crate) struct Proxy {
    events: mpsc::Sender<InputEvent>,
}

impl Proxy {
    pub(crate) fn send(&self, event: InputEvent) {
        self.events.blocking_send(event).unwrap();
    }

    /// Creates or changes the Service `dns`, with an endpoint for each host: lower case state letters as in
    /// `EndpointSlice` conditions (ready, serving, terminating).
    pub(crate) fn service(&self, endpoints: &[(u8, &str)]) {
        for family in [Family::V4, Family::V6] {
            self.send(slice(family, endpoints));
        }
        self.send(service());
    }

    pub(crate) fn synced(&self) {
        self.send(InputEvent::Synced);
    }

    pub(crate) fn delete_service(&self) {
        self.send(InputEvent::Service(key(), None));
    }
}

fn key() -> ObjectKey {
    ObjectKey::new("default", "dns")
}

fn service() -> InputEvent {
    let port = ServicePort {
        node_port: Some(NODE_PORT),
        ..plain::port("", Protocol::Udp, PORT)
    };
    let cluster_ips = vec![cluster_ip(Family::V4), cluster_ip(Family::V6)];
    let service = plain::service("dns", cluster_ips, vec![port]);
    InputEvent::Service(service.key.clone(), Some(service))
}

fn slice(family: Family, endpoints: &[(u8, &str)]) -> InputEvent {
    let endpoints = endpoints.iter().map(|(host, conditions)| {
        plain::endpoint(pod_ip(family, *host), conditions, Some(testing::NODE))
    });
    let name = format!("dns-{family:?}");
    let target = plain::target("", Protocol::Udp, TARGET_PORT);
    let slice = plain::slice(&name, "dns", family, target, endpoints.collect());
    InputEvent::Slice(slice.key.clone(), Some(slice))
}

/// A pod that answers each datagram with its own address, until it dies.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(at: SocketAddr) -> Self {
        let socket = UdpSocket::bind(at).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut datagram = [0; 64];
            // The socket stays: a pod that is gone does not answer with errors either.
            loop {
                match socket.recv_from(&mut datagram) {
                    Ok((_, peer)) if !stopping.load(Ordering::Relaxed) => {
                        let _ = socket.send_to(at.to_string().as_bytes(), peer);
                    }
                    _ if Arc::strong_count(&stopping) == 1 => return,
                    _ => {}
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn die(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn revive(&self) {
        self.stop.store(false, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = Arc::default();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a client hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    From(SocketAddr),
    Refused,
    Nothing,
}

/// A client that sends from one port to one destination.
pub(crate) struct Client {
    socket: UdpSocket,
}

impl Client {
    /// In the namespace of the calling thread.
    pub(crate) fn new(to: SocketAddr) -> Self {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => "0.0.0.0:0".parse().unwrap(),
            SocketAddr::V6(_) => "[::]:0".parse().unwrap(),
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(to).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        Self { socket }
    }

    pub(crate) fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    /// One datagram, and what comes back within 20 ms.
    pub(crate) fn ask(&self) -> Heard {
        // Refused at once (a REJECT in OUTPUT), or the error that a datagram before this one has met.
        let refused = [ErrorKind::PermissionDenied, ErrorKind::ConnectionRefused];
        if let Err(error) = self.socket.send(b"?")
            && refused.contains(&error.kind())
        {
            std::thread::sleep(Duration::from_millis(20));
            return Heard::Refused;
        }
        let mut answer = [0; 64];
        match self.socket.recv(&mut answer) {
            Ok(length) => {
                let text = std::str::from_utf8(&answer[..length]).unwrap();
                Heard::From(text.parse().unwrap())
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Heard::Refused,
            Err(_) => Heard::Nothing,
        }
    }

    /// Asks on until it hears what `wanted` says, for at most this long; returns what it took.
    #[track_caller]
    pub(crate) fn until(&self, limit: Duration, wanted: impl Fn(Heard) -> bool) -> Duration {
        let started = Instant::now();
        let mut heard = Heard::Nothing;
        while started.elapsed() < limit {
            heard = self.ask();
            if wanted(heard) {
                return started.elapsed();
            }
        }
        panic!("last heard {heard:?} after {limit:?}");
    }

    /// Asks until somebody answers; whom.
    #[track_caller]
    pub(crate) fn somebody(&self) -> SocketAddr {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(5) {
            if let Heard::From(server) = self.ask() {
                return server;
            }
        }
        panic!("nobody answers within 5 s");
    }
}
