//! Packets between pods past the stack: to a second pod of the node and to one behind the overlay. That they go past it shows in
//! rules that would drop them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use seaway_model::Desired;
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::{EbpfConfig, EbpfDataplane, PodFastPath};

use crate::world::{
    CLUSTER_IP, LOCAL_POD, LOCAL_POD6, NODE_IP, POD_LINK, REMOTE_POD, REMOTE_POD6, World, ask,
    service, sync,
};

pub(crate) const SECOND_POD: &str = "10.244.1.6";
const SECOND_POD6: &str = "fd00:10:244:1::6";
const SECOND_LINK: &str = "sw00000000006";
/// A busy machine is no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// In which nothing may come.
const SILENCE: Duration = Duration::from_secs(2);

/// The world with neighbours as the plugin sets them, and with a second pod on the node, in the namespace `out`.
pub(crate) fn world() -> World {
    let world = World::new();
    let pod = mac(&world);
    world.ip(
        "node",
        &format!(
            "neigh replace {LOCAL_POD} lladdr {pod} dev {POD_LINK} nud permanent
             neigh replace {LOCAL_POD6} lladdr {pod} dev {POD_LINK} nud permanent"
        ),
    );
    second_pod(&world, SECOND_LINK);
    for short in ["node", "pod", "out"] {
        world.netns(short).await_ready().unwrap();
    }
    world
}

/// The pod's address of the link layer.
pub(crate) fn mac(world: &World) -> String {
    let output = Command::new("ip")
        .args(["-n", &world.name("pod"), "-o", "link", "show", "eth0"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace();
    words.find(|word| *word == "link/ether").unwrap();
    words.next().unwrap().to_owned()
}

/// The second pod behind a link of that name.
fn second_pod(world: &World, link: &str) {
    let out = world.name("out");
    world.ip(
        "node",
        &format!(
            "link add {link} mtu 1450 address 02:00:00:00:01:01 type veth peer name eth1 address 02:00:00:00:00:06 netns {out}
             link set {link} up"
        ),
    );
    world.pod_side_of("eth1", "out", SECOND_POD, SECOND_POD6);
    world.ip(
        "node",
        &format!(
            "neigh replace {SECOND_POD} lladdr 02:00:00:00:00:06 dev {link} nud permanent
             neigh replace {SECOND_POD6} lladdr 02:00:00:00:00:06 dev {link} nud permanent
             route replace {SECOND_POD}/32 dev {link} scope link
             route replace {SECOND_POD6}/128 dev {link}"
        ),
    );
}

pub(crate) async fn plane(world: &World, mode: PodFastPath, desired: &Desired) -> EbpfDataplane {
    let config = EbpfConfig {
        pod_fast_path: mode,
        ..world.config()
    };
    let mut plane = world.plane(config);
    sync(&mut plane, desired).await;
    plane
}

/// Lets the data plane follow the node until its dump says so.
pub(crate) async fn until(plane: &mut EbpfDataplane, says: &str) {
    let started = Instant::now();
    loop {
        let text = plane.dump().await.unwrap();
        if text.contains(says) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{says}: {text}");
        let watched = tokio::time::timeout(Duration::from_millis(50), plane.watch()).await;
        assert!(watched.is_err(), "{watched:?}");
    }
}

pub(crate) const ON: &str = "packets between pods: past the stack";
const OFF: &str = "packets between pods: through the stack";

pub(crate) fn counter(plane: &EbpfDataplane, label: &str) -> u64 {
    let counters = plane.counters().unwrap();
    counters.iter().find(|(v, _)| v.label() == label).unwrap().1
}

/// Runs a program with iptables' arguments in the node.
fn rule(world: &World, program: &str, args: &str) {
    let node = world.netns("node");
    let status = node
        .run(|| Command::new(program).args(args.split_whitespace()).status())
        .unwrap()
        .unwrap();
    assert!(status.success(), "{program} {args}");
}

/// Nothing between pods is forwarded.
fn forbid(world: &World) {
    rule(
        world,
        "iptables",
        "-A FORWARD -s 10.244.0.0/16 -d 10.244.0.0/16 -j DROP",
    );
    rule(
        world,
        "ip6tables",
        "-A FORWARD -s fd00:10:244::/48 -d fd00:10:244::/48 -j DROP",
    );
}

pub(crate) fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Sends so many bytes, each of which says where it is, and sees that they arrive.
pub(crate) fn send(world: &World, from: &str, to: &str, address: SocketAddr, bytes: usize) {
    let listener = world
        .netns(to)
        .run(|| TcpListener::bind(address))
        .unwrap()
        .unwrap();
    let taken = thread::spawn(move || {
        let mut all = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
        all
    });
    let mut stream = connect(world, from, address, PATIENCE).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let sent: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(taken.join().unwrap() == sent, "{from} to {address}");
}

pub(crate) fn connect(
    world: &World,
    from: &str,
    to: SocketAddr,
    limit: Duration,
) -> std::io::Result<TcpStream> {
    let stream = world
        .netns(from)
        .run(|| TcpStream::connect_timeout(&to, limit))
        .unwrap()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One datagram and its answer.
pub(crate) fn datagram(world: &World, from: &str, to: SocketAddr) -> String {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = world
        .netns(from)
        .run(|| UdpSocket::bind(any))
        .unwrap()
        .unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"hello", to).unwrap();
    let mut buffer = [0; 256];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[tokio::test]
async fn packets_between_pods_go_past_the_rules_of_others_only_where_that_is_wanted() {
    let world = world();
    world.serve("out", "second");
    world.serve("peerpod", "remote");
    let others = [
        (SECOND_POD, "second"),
        (REMOTE_POD, "remote"),
        (SECOND_POD6, "second"),
        (REMOTE_POD6, "remote"),
    ];
    let mut auto = plane(&world, PodFastPath::Auto, &Desired::default()).await;
    until(&mut auto, ON).await;
    // Rules of somebody else come, go, and come.
    forbid(&world);
    until(&mut auto, OFF).await;
    assert!(connect(&world, "pod", address(SECOND_POD, 8080), SILENCE).is_err());
    for program in ["iptables", "ip6tables"] {
        rule(&world, program, "-F FORWARD");
    }
    until(&mut auto, ON).await;
    forbid(&world);
    until(&mut auto, OFF).await;
    drop(auto);
    let mut on = plane(&world, PodFastPath::On, &Desired::default()).await;
    until(&mut on, ON).await;
    for (ip, name) in others {
        let mut stream = connect(&world, "pod", address(ip, 8080), PATIENCE).unwrap();
        assert!(ask(&mut stream, "hello").unwrap().starts_with(name), "{ip}");
        assert!(
            datagram(&world, "pod", address(ip, 8080)).starts_with(name),
            "{ip}"
        );
    }
    assert!(counter(&on, "pod_local") > 0 && counter(&on, "pod_remote") > 0);
    // A connection lives on where the rules let it, as soon as it goes through the stack.
    let mut stream = connect(&world, "pod", address(REMOTE_POD, 8080), PATIENCE).unwrap();
    assert!(ask(&mut stream, "past").unwrap().ends_with("past"));
    rule(&world, "iptables", "-F FORWARD");
    drop(on);
    let mut off = plane(&world, PodFastPath::Off, &Desired::default()).await;
    until(&mut off, OFF).await;
    let before = (counter(&off, "pod_local"), counter(&off, "pod_remote"));
    assert!(ask(&mut stream, "through").unwrap().ends_with("through"));
    forbid(&world);
    assert!(connect(&world, "pod", address(SECOND_POD, 8080), SILENCE).is_err());
    assert_eq!(
        (counter(&off, "pod_local"), counter(&off, "pod_remote")),
        before
    );
}

#[tokio::test]
async fn what_is_large_stays_whole_on_its_way() {
    const BYTES: usize = 8 << 20;
    let world = world();
    let mut plane = plane(&world, PodFastPath::Auto, &Desired::default()).await;
    until(&mut plane, ON).await;
    for (name, ip, label) in [
        ("out", SECOND_POD, "pod_local"),
        ("peerpod", REMOTE_POD, "pod_remote"),
        ("out", SECOND_POD6, "pod_local"),
        ("peerpod", REMOTE_POD6, "pod_remote"),
    ] {
        let before = counter(&plane, label);
        send(&world, "pod", name, address(ip, 9000), BYTES);
        // Cut to the link's size they would be some 6000.
        let packets = counter(&plane, label) - before;
        assert!(packets > 0 && packets < 4000, "{ip}: {packets}");
    }
}

#[tokio::test]
async fn a_pod_sends_with_its_own_addresses_only() {
    let world = world();
    world.serve("out", "second");
    let mut plane = plane(&world, PodFastPath::Auto, &Desired::default()).await;
    until(&mut plane, ON).await;
    let (other, other6) = ("10.244.1.77", "fd00:10:244:1::77");
    world.ip(
        "pod",
        &format!("address add {other}/32 dev eth0\naddress add {other6}/128 dev eth0 nodad"),
    );
    let mut expected = counter(&plane, "dropped_spoofed");
    for (own, to) in [(other, SECOND_POD), (other6, SECOND_POD6), (other, NODE_IP)] {
        let socket = world
            .netns("pod")
            .run(|| UdpSocket::bind(address(own, 0)))
            .unwrap()
            .unwrap();
        socket.send_to(b"hello", address(to, 8080)).unwrap();
        // What a veth takes has been through the program when the call returns, or is in the queue of a softirq.
        expected += 1;
        let started = Instant::now();
        while counter(&plane, "dropped_spoofed") < expected {
            assert!(started.elapsed() < PATIENCE, "{own} to {to}");
            thread::sleep(Duration::from_millis(5));
        }
    }
    // Its own still arrive, and a route makes another one its own.
    assert!(datagram(&world, "pod", address(SECOND_POD, 8080)).starts_with("second"));
    world.ip(
        "node",
        &format!(
            "neigh replace {other} lladdr {} dev {POD_LINK} nud permanent
             route add {other}/32 dev {POD_LINK} scope link",
            mac(&world)
        ),
    );
    until(&mut plane, &format!("{other} at")).await;
    let socket = world
        .netns("pod")
        .run(|| UdpSocket::bind(address(other, 0)))
        .unwrap()
        .unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"hello", address(SECOND_POD, 8080)).unwrap();
    let mut buffer = [0; 256];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"second"));
    assert_eq!(counter(&plane, "dropped_spoofed"), expected);
}

#[tokio::test]
async fn what_connection_tracking_translates_stays_there() {
    let world = world();
    world.serve("out", "second");
    rule(
        &world,
        "iptables",
        &format!(
            "-t nat -A PREROUTING -d {NODE_IP} -p tcp --dport 7777 -j DNAT --to-destination {SECOND_POD}:8080"
        ),
    );
    let to = address(NODE_IP, 7777);
    // Begun before anybody could take note of it.
    let mut old = connect(&world, "pod", to, PATIENCE).unwrap();
    assert!(ask(&mut old, "first").unwrap().ends_with("first"));
    let mut plane = plane(&world, PodFastPath::Auto, &Desired::default()).await;
    until(&mut plane, ON).await;
    assert!(ask(&mut old, "again").unwrap().ends_with("again"));
    let mut new = connect(&world, "pod", to, PATIENCE).unwrap();
    for line in ["one", "two"] {
        assert!(ask(&mut new, line).unwrap().ends_with(line));
    }
    assert_eq!(counter(&plane, "pod_local"), 0);
    // The same pods without a translation.
    let mut direct = connect(&world, "pod", address(SECOND_POD, 8080), PATIENCE).unwrap();
    assert!(ask(&mut direct, "direct").unwrap().ends_with("direct"));
    assert!(counter(&plane, "pod_local") > 0);
    assert!(ask(&mut new, "three").unwrap().ends_with("three"));
}

/// Connection tracking knows what may come next of a connection that it has seen begin. Past it, it would take what comes
/// later for invalid, once rules serve again.
#[tokio::test]
async fn connections_that_began_in_the_stack_stay_there() {
    let world = world();
    world.serve("out", "second");
    rule(
        &world,
        "iptables",
        "-A INPUT -m conntrack --ctstate INVALID",
    );
    let to = address(SECOND_POD, 8080);
    let mut old = connect(&world, "pod", to, PATIENCE).unwrap();
    assert!(ask(&mut old, "first").unwrap().ends_with("first"));
    let mut plane = plane(&world, PodFastPath::On, &Desired::default()).await;
    until(&mut plane, ON).await;
    for line in ["one", "two"] {
        assert!(ask(&mut old, line).unwrap().ends_with(line));
    }
    assert_eq!(counter(&plane, "pod_local"), 0);
    let mut new = connect(&world, "pod", to, PATIENCE).unwrap();
    assert!(ask(&mut new, "new").unwrap().ends_with("new"));
    assert!(counter(&plane, "pod_local") > 0);
}

#[tokio::test]
async fn services_between_pods_are_served_as_before() {
    let world = world();
    world.serve("out", "second");
    world.serve("peerpod", "remote");
    for (backend, local, name) in [(SECOND_POD, true, "second"), (REMOTE_POD, false, "remote")] {
        let mut plane = plane(&world, PodFastPath::Auto, &service(&[(backend, local)])).await;
        until(&mut plane, ON).await;
        for in_cgroup in [true, false] {
            for kind in ["tcp", "udp"] {
                let answer = world.client("pod", in_cgroup, &format!("{kind} {CLUSTER_IP}:80"));
                assert!(
                    answer.starts_with(&format!("{name} {LOCAL_POD}:"))
                        && answer.ends_with(&format!("from {CLUSTER_IP}:80")),
                    "{kind}: {answer}"
                );
            }
        }
    }
}

#[tokio::test]
async fn an_address_goes_with_its_link_to_another_one() {
    let world = world();
    world.serve("out", "second");
    let mut plane = plane(&world, PodFastPath::Auto, &Desired::default()).await;
    until(&mut plane, ON).await;
    assert!(datagram(&world, "pod", address(SECOND_POD, 8080)).starts_with("second"));
    let before = counter(&plane, "pod_local");
    world.ip("node", &format!("link del {SECOND_LINK}"));
    let link = "sw00000000007";
    second_pod(&world, link);
    world.netns("out").await_ready().unwrap();
    let index = world
        .netns("node")
        .run(|| nix::net::if_::if_nametoindex(link))
        .unwrap()
        .unwrap();
    until(&mut plane, &format!("{SECOND_POD} at link {index}")).await;
    assert!(datagram(&world, "pod", address(SECOND_POD, 8080)).starts_with("second"));
    assert!(counter(&plane, "pod_local") > before);
}
