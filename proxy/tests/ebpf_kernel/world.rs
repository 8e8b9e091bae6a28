//! A node with a local pod, another node with a pod behind the overlay, and a client outside, all in network namespaces.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use seaway_cluster::direct::Answering;
use seaway_kernel::{NetNs, Spawn, cgroup};
use seaway_model::{
    Backend, Desired, DetectLocal, DirectAnswers, Family, Frontend, FrontendAddr, FrontendKind,
    ObjectKey, PortRule, Protocol, ServiceRules, TrafficPolicy,
};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::{EbpfConfig, EbpfDataplane};
use tokio::sync::watch;

use crate::sizes;

pub(crate) const CLUSTER_IP: &str = "10.96.0.10";
pub(crate) const NODE_IP: &str = "192.168.77.1";
pub(crate) const LOCAL_POD: &str = "10.244.1.5";
pub(crate) const REMOTE_POD: &str = "10.244.2.5";
pub(crate) const CLUSTER_IP6: &str = "fd00:10:96::10";
pub(crate) const NODE_IP6: &str = "fd00:77::1";
pub(crate) const LOCAL_POD6: &str = "fd00:10:244:1::5";
pub(crate) const REMOTE_POD6: &str = "fd00:10:244:2::5";
pub(crate) const OVERLAY6: &str = "fd00:10:244:1::";
pub(crate) const POD_LINK: &str = "sw00000000005";

/// How long a client waits for an answer; a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// Length of a datagram that takes several fragments.
pub(crate) const LARGE: usize = 4000;

/// Both nodes say that they answer clients of each other.
pub(crate) fn both_answer() -> watch::Receiver<Option<Answering>> {
    let nodes = ["192.168.77.1", "192.168.77.2", "fd00:77::1", "fd00:77::2"];
    let says = nodes.map(|node| (node.parse().unwrap(), DirectAnswers::All));
    watch::channel(Some(says.into())).1
}

/// Everything that a test makes; gone when dropped.
pub(crate) struct World {
    id: String,
    pub(crate) bpffs: PathBuf,
    pub(crate) cgroup: PathBuf,
}

const NAMESPACES: [&str; 6] = ["fabric", "node", "pod", "peer", "peerpod", "out"];

impl World {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "swebpf{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let world = Self {
            bpffs: PathBuf::from("/sys/fs/bpf/seaway-test").join(&id),
            cgroup: cgroup::mount_point().unwrap().join(&id),
            id,
        };
        for name in NAMESPACES {
            NetNs::create(&world.name(name)).unwrap();
        }
        cgroup::create(&world.cgroup.join("pods")).unwrap();
        world.wire();
        world
    }

    pub(crate) fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.id)
    }

    pub(crate) fn netns(&self, short: &str) -> NetNs {
        NetNs::named(&self.name(short)).unwrap()
    }

    /// Runs `ip` with a batch of commands in a namespace.
    pub(crate) fn ip(&self, short: &str, batch: &str) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name(short), "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let batch: String = batch.lines().map(|l| format!("{}\n", l.trim())).collect();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(batch.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success(), "ip {batch}");
    }

    fn wire(&self) {
        let [node, peer, out, pod, peerpod] =
            ["node", "peer", "out", "pod", "peerpod"].map(|n| self.name(n));
        self.ip(
            "fabric",
            &format!(
                "link add br0 type bridge
                 link set br0 up
                 link add dev porta type veth peer name eth0 netns {node}
                 link add dev portb type veth peer name eth0 netns {peer}
                 link add dev portc type veth peer name eth0 netns {out}
                 link set dev porta master br0 up
                 link set dev portb master br0 up
                 link set dev portc master br0 up"
            ),
        );
        self.ip(
            "out",
            "address add 192.168.77.200/24 dev eth0
             address add fd00:77::200/64 dev eth0 nodad
             link set eth0 up",
        );
        self.node_side("node", 1, 2, &pod);
        self.node_side("peer", 2, 1, &peerpod);
        for (short, addr, addr6) in [
            ("pod", LOCAL_POD, LOCAL_POD6),
            ("peerpod", REMOTE_POD, REMOTE_POD6),
        ] {
            self.pod_side(short, addr, addr6);
        }
        for short in ["node", "peer"] {
            self.netns(short)
                .run(|| {
                    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                        fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
                    }
                })
                .unwrap();
        }
        for short in NAMESPACES {
            self.netns(short).await_ready().unwrap();
        }
    }

    /// The overlay and the pod's route, as `seaway-overlay` and the CNI plugin make them.
    fn node_side(&self, short: &str, own: u8, other: u8, pod: &str) {
        self.ip(
            short,
            &format!(
                "address add 192.168.77.{own}/24 dev eth0
                 address add fd00:77::{own}/64 dev eth0 nodad
                 link set eth0 up
                 link add seaway.vxlan address 02:00:00:00:00:0{own} mtu 1450 type vxlan external dstport 8472
                 address add 10.244.{own}.0/32 dev seaway.vxlan
                 address add fd00:10:244:{own}::/128 dev seaway.vxlan nodad
                 link set seaway.vxlan up
                 neigh add 10.244.{other}.0 lladdr 02:00:00:00:00:0{other} dev seaway.vxlan nud permanent
                 route add 10.244.{other}.0/24 encap ip id 1 dst 192.168.77.{other} via 10.244.{other}.0 dev seaway.vxlan onlink
                 neigh add fd00:10:244:{other}:: lladdr 02:00:00:00:00:0{other} dev seaway.vxlan nud permanent
                 route add fd00:10:244:{other}::/64 encap ip id 1 dst 192.168.77.{other} via fd00:10:244:{other}:: dev seaway.vxlan onlink
                 link add {POD_LINK} mtu 1450 type veth peer name eth0 netns {pod}
                 link set {POD_LINK} address 02:00:00:00:01:01 up
                 route add 10.244.{own}.5/32 dev {POD_LINK} scope link
                 route add fd00:10:244:{own}::5/128 dev {POD_LINK} src fd00:77::{own}"
            ),
        );
    }

    pub(crate) fn pod_side(&self, short: &str, addr: &str, addr6: &str) {
        self.pod_side_of("eth0", short, addr, addr6);
    }

    /// The pod's side of that link of it.
    pub(crate) fn pod_side_of(&self, link: &str, short: &str, addr: &str, addr6: &str) {
        self.ip(
            short,
            &format!(
                "link set {link} mtu 1450 up
                 address add {addr}/32 dev {link}
                 route add 169.254.1.1 dev {link} scope link
                 neigh add 169.254.1.1 lladdr 02:00:00:00:01:01 dev {link} nud permanent
                 route add default via 169.254.1.1 dev {link}
                 address add {addr6}/128 dev {link} nodad
                 neigh add fe80::1 lladdr 02:00:00:00:01:01 dev {link} nud permanent
                 route add default via fe80::1 dev {link}"
            ),
        );
    }

    pub(crate) fn config(&self) -> EbpfConfig {
        EbpfConfig {
            bpffs_root: self.bpffs.clone(),
            detect_local: DetectLocal::ClusterCidr(vec![
                "10.244.0.0/16".parse().unwrap(),
                "fd00:10:244::/48".parse().unwrap(),
            ]),
            ..EbpfConfig::new("n1", &self.cgroup)
        }
    }

    /// A data plane of the node.
    pub(crate) fn plane(&self, config: EbpfConfig) -> EbpfDataplane {
        let node = self.netns("node");
        let _inside = node.enter().unwrap();
        EbpfDataplane::new(config).unwrap().hearing(both_answer())
    }

    /// Serves TCP and UDP port 8080 of both families in a namespace: each line or datagram is answered by
    /// `NAME PEER LINE`.
    pub(crate) fn serve(&self, short: &str, name: &'static str) {
        for any in [
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Ipv6Addr::UNSPECIFIED.into(),
        ] {
            let netns = self.netns(short);
            let (ready, is_ready) = mpsc::channel();
            thread::spawn(move || {
                let _inside = netns.enter().unwrap();
                // Beside the server of the other family.
                let only = |v| fs::write("/proc/sys/net/ipv6/bindv6only", v).unwrap();
                only("1");
                let tcp = TcpListener::bind((any, 8080)).unwrap();
                let udp = UdpSocket::bind((any, 8080)).unwrap();
                only("0");
                ready.send(()).unwrap();
                thread::spawn(move || serve_udp(&udp, name));
                for stream in tcp.incoming().flatten() {
                    thread::spawn(move || serve_tcp(stream, name));
                }
            });
            is_ready.recv().unwrap();
        }
    }

    /// Runs a client as a process of its own in a namespace, in the node's cgroup or outside of it. `what` is
    /// `tcp ADDR`, `udp ADDR`, `udp-connected ADDR`, `udp-large ADDR`, `many ADDR`, `tcp-sized BYTES ADDR` or `udp-sized BYTES ADDR`; the
    /// answer is what it printed.
    pub(crate) fn client(&self, short: &str, in_cgroup: bool, what: &str) -> String {
        self.start_client(short, in_cgroup, what).result()
    }

    /// The same without waiting for it; `udp-follow ADDR` is a client that goes on until something happens.
    pub(crate) fn start_client(&self, short: &str, in_cgroup: bool, what: &str) -> Client {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let out = std::env::temp_dir().join(format!("{}-{short}-{number}", self.id));
        let mut spawn = Spawn::new(std::env::current_exe().unwrap())
            .args(["--exact", "client", "--nocapture"])
            .env("SEAWAY_TEST_CLIENT", what)
            .env(
                "SEAWAY_TEST_STOP",
                out.with_extension("stop").display().to_string(),
            )
            .netns(&self.netns(short))
            .stdout(&out)
            .stderr(&out);
        if in_cgroup {
            spawn = spawn.cgroup(self.cgroup.join("pods"));
        }
        Client {
            child: spawn.start().unwrap(),
            out,
        }
    }
}

/// A client at work.
pub(crate) struct Client {
    child: std::process::Child,
    out: PathBuf,
}

impl Client {
    /// Waits until it has had its first answer.
    pub(crate) fn wait_ready(&mut self) {
        for _ in 0..500 {
            let text = fs::read_to_string(&self.out).unwrap();
            if text.contains("READY") {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "{text}");
            thread::sleep(Duration::from_millis(10));
        }
        panic!("no answer");
    }

    /// Tells a client that goes on to end.
    pub(crate) fn stop(&self) {
        fs::write(self.out.with_extension("stop"), "").unwrap();
    }

    /// Waits for its end, and says what it has printed.
    pub(crate) fn result(mut self) -> String {
        self.child.wait().unwrap();
        let text = fs::read_to_string(&self.out).unwrap();
        fs::remove_file(&self.out).unwrap();
        let _ = fs::remove_file(self.out.with_extension("stop"));
        text.lines()
            .find_map(|line| line.split_once("RESULT ").map(|(_, r)| r.to_owned()))
            .unwrap_or(text)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let config = self.config();
        let node = self.netns("node");
        thread::scope(|scope| {
            scope.spawn(|| {
                let _inside = node.enter().unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let mut plane = EbpfDataplane::new(config).unwrap();
                let _ = runtime.block_on(plane.cleanup());
            });
        });
        let _ = fs::remove_dir("/sys/fs/bpf/seaway-test");
        for name in NAMESPACES {
            let _ = NetNs::delete(&self.name(name));
        }
        let _ = cgroup::kill(&self.cgroup);
        let _ = cgroup::wait_empty(&self.cgroup, Duration::from_secs(2));
        let _ = cgroup::delete(&self.cgroup);
    }
}

fn serve_tcp(stream: TcpStream, name: &str) {
    let peer = stream.peer_addr().unwrap();
    let mut writer = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if writeln!(writer, "{name} {peer} {line}").is_err() {
            return;
        }
    }
}

fn serve_udp(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 2 * LARGE];
    while let Ok((len, peer)) = socket.recv_from(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        let _ = socket.send_to(format!("{name} {peer} {text}").as_bytes(), peer);
    }
}

/// The body of the test `client`, which is only one when the environment says so.
pub(crate) fn run_client() {
    let Ok(what) = std::env::var("SEAWAY_TEST_CLIENT") else {
        return;
    };
    let result = match what.split_once(' ').unwrap() {
        ("tcp", addr) => tcp(addr.parse().unwrap()),
        ("udp", addr) => udp(addr.parse().unwrap(), false, b"hello"),
        ("udp-connected", addr) => udp(addr.parse().unwrap(), true, b"hello"),
        ("udp-large", addr) => udp(addr.parse().unwrap(), true, &[b'x'; LARGE]),
        ("udp-follow", addr) => udp_follow(addr.parse().unwrap()),
        ("many", addr) => many(addr.parse().unwrap()),
        ("tcp-sized" | "udp-sized", rest) => sizes::ask_sized(&what, rest),
        _ => panic!("{what}"),
    };
    match result {
        Ok(text) => println!("\nRESULT {text}"),
        Err(error) => println!("\nRESULT error {:?}", error.kind()),
    }
}

/// `ANSWER | from PEER`.
pub(crate) fn tcp(addr: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let peer = stream.peer_addr()?;
    ask(&mut stream, "hello").map(|answer| format!("{answer} | from {peer}"))
}

/// One line over an open connection.
pub(crate) fn ask(stream: &mut TcpStream, line: &str) -> std::io::Result<String> {
    writeln!(stream, "{line}")?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        answer.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Three datagrams from one socket; they must come from one backend.
pub(crate) fn udp(addr: SocketAddr, connected: bool, payload: &[u8]) -> std::io::Result<String> {
    let any = if addr.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    if connected {
        socket.connect(addr)?;
    }
    let mut answers = Vec::new();
    for _ in 0..3 {
        if connected {
            socket.send(payload)?;
        } else {
            socket.send_to(payload, addr)?;
        }
        let mut buffer = [0; 2 * LARGE];
        let (len, from) = socket.recv_from(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        answers.push(format!("{text} | from {from}"));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "not steady: {answers:?}");
    Ok(answers.remove(0))
}

/// Sockets of each kind that [`many`] opens.
pub(crate) const MANY: u64 = 400;

/// Connections, and as many unconnected sockets that send two datagrams each.
fn many(addr: SocketAddr) -> std::io::Result<String> {
    for _ in 0..MANY {
        TcpStream::connect_timeout(&addr, PATIENCE)?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..2 {
            socket.send_to(b"hello", addr)?;
        }
    }
    Ok("done".to_owned())
}

/// A connected socket that goes on asking. `aborted | ANSWER` when it was ended and has connected anew, `steady | ANSWER`
/// when it was told to stop.
fn udp_follow(addr: SocketAddr) -> std::io::Result<String> {
    let any = if addr.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let connect = || {
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        socket.connect(addr)?;
        Ok::<_, std::io::Error>(socket)
    };
    let stop = PathBuf::from(std::env::var("SEAWAY_TEST_STOP").unwrap());
    let ask = |socket: &UdpSocket| {
        let mut buffer = [0; 2 * LARGE];
        socket.send(b"hello")?;
        let len = socket.recv(&mut buffer)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&buffer[..len]).into_owned())
    };
    let ask_patiently = |socket: &UdpSocket| {
        let limit = std::time::Instant::now() + PATIENCE;
        loop {
            match ask(socket) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if std::time::Instant::now() > limit {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
        }
    };
    let socket = connect()?;
    let first = ask_patiently(&socket)?;
    println!("\nREADY {first}");
    while !stop.exists() {
        match ask_patiently(&socket) {
            Ok(_) => {}
            Err(error) if was_ended(&error) => {
                // A new one: the old one's queue may hold a last answer.
                return ask_patiently(&connect()?).map(|answer| format!("aborted | {answer}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(format!("steady | {first}"))
}

/// What whoever uses a socket that was ended is told: who waits for an answer by the error left for it, who sends first by
/// the kernel's finding that the socket is connected to nothing (`udp_sendmsg` does not look for that error).
fn was_ended(error: &std::io::Error) -> bool {
    [Errno::ECONNABORTED, Errno::EDESTADDRREQ]
        .map(|errno| Some(errno as i32))
        .contains(&error.raw_os_error())
}

/// A Service `default/echo`: cluster IP port 80 and node port 30080, TCP and UDP, of the family of its backends.
pub(crate) fn service(backends: &[(&str, bool)]) -> Desired {
    let mut cluster: Vec<Backend> = backends
        .iter()
        .map(|(ip, local)| Backend {
            addr: SocketAddr::new(ip.parse().unwrap(), 8080),
            local: *local,
        })
        .collect();
    cluster.sort();
    let v6 = cluster.iter().any(|backend| backend.addr.is_ipv6());
    let (family, cluster_ip) = match v6 {
        true => (Family::V6, CLUSTER_IP6),
        false => (Family::V4, CLUSTER_IP),
    };
    let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| PortRule {
        port_name: "".into(),
        protocol,
        family,
        frontends: vec![
            Frontend {
                addr: FrontendAddr::Ip(cluster_ip.parse().unwrap()),
                port: 80,
                protocol,
                kind: FrontendKind::ClusterIp,
            },
            Frontend {
                addr: FrontendAddr::AnyNodeAddress(family),
                port: 30080,
                protocol,
                kind: FrontendKind::NodePort,
            },
        ],
        local: cluster.iter().filter(|b| b.local).cloned().collect(),
        lingering: Vec::new(),
        any_endpoints: !cluster.is_empty(),
        cluster: cluster.clone(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
    });
    let mut desired = Desired::default();
    desired.services.insert(
        ObjectKey::new("default", "echo"),
        ServiceRules {
            ports: ports.into(),
            ..ServiceRules::default()
        },
    );
    desired
}

/// Plans and applies everything.
pub(crate) async fn sync(plane: &mut EbpfDataplane, desired: &Desired) -> String {
    plane.observe().await.unwrap();
    let plan = plane.plan(desired, &seaway_model::Change::Full);
    let text = plan.to_string();
    plane.apply(plan).await.unwrap();
    text
}
