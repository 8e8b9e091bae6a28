//! Host ports and limits, with packets, in namespaces.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::support::{Namespace, Node, address, addresses};
use seaway_kernel::{Command, NetNs, Nftables, RouteSocket, sysctl};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(5);
const TABLE: &str = "seaway-cni";

/// A client on another machine, one hop away from the node.
struct Outside {
    space: Namespace,
}

impl Outside {
    async fn new(node: &Node) -> Self {
        let space = Namespace::new("outside");
        let options = seaway_kernel::VethOptions {
            peer_netns: Some(&node.space.netns),
            up: true,
            ..seaway_kernel::VethOptions::default()
        };
        let (here, there) = (space.netlink(), node.space.netlink());
        here.add_veth("up0", "down0", options).await.unwrap();
        for (netlink, link, addresses) in [
            (&here, "up0", ["192.0.2.2/24", "2001:db8::2/64"]),
            (&there, "down0", ["192.0.2.1/24", "2001:db8::1/64"]),
        ] {
            let index = netlink.link(link).await.unwrap().unwrap().index;
            netlink.set_up(index).await.unwrap();
            for address in addresses {
                let address = address.parse().unwrap();
                netlink
                    .add_address(index, address, seaway_kernel::Scope::Global)
                    .await
                    .unwrap();
            }
        }
        node.space
            .netns
            .run(|| {
                sysctl::write("net.ipv4.ip_forward", "1").unwrap();
                sysctl::write("net.ipv6.conf.all.forwarding", "1").unwrap();
            })
            .unwrap();
        for netns in [&space.netns, &node.space.netns] {
            let netns = netns.clone();
            tokio::task::spawn_blocking(move || netns.await_ready().unwrap())
                .await
                .unwrap();
        }
        Self { space }
    }
}

/// Whether a connection is answered by a listener of that namespace.
pub(crate) fn tcp_reaches(from: &NetNs, to: &NetNs, at: &str, port: u16) -> bool {
    let at: SocketAddr = at.parse().unwrap();
    let any: IpAddr = if at.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    };
    let listener = to.run(|| TcpListener::bind((any, port))).unwrap().unwrap();
    let connected = from.run(|| TcpStream::connect_timeout(&at, LIMIT)).unwrap();
    let Ok(client) = connected else { return false };
    let (server, _) = listener.accept().unwrap();
    // Both ends see each other by the addresses that the translation promises.
    server.local_addr().unwrap().port() == port && client.peer_addr().unwrap() == at
}

fn udp_reaches(from: &NetNs, to: &NetNs, at: &str, port: u16, source: u16) -> bool {
    let at: SocketAddr = at.parse().unwrap();
    let any: IpAddr = if at.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    };
    let server = to.run(|| UdpSocket::bind((any, port))).unwrap().unwrap();
    let client = from
        .run(|| UdpSocket::bind((any, source)))
        .unwrap()
        .unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
    }
    client.connect(at).unwrap();
    client.send(b"ask").unwrap();
    let mut buffer = [0; 8];
    let Ok((_, peer)) = server.recv_from(&mut buffer) else {
        return false;
    };
    server.send_to(b"answer", peer).unwrap();
    client.recv(&mut buffer).is_ok()
}

#[expect(clippy::needless_pass_by_value, reason = "`json!` gives a value")]
fn mappings(node: &Node, list: Value) -> Value {
    let mut config = node.config("1.0.0");
    config["runtimeConfig"] = json!({ "portMappings": list });
    config
}

fn elements(node: &Node, set: &str) -> usize {
    let mut nft = Nftables::in_namespace(&node.space.netns).unwrap();
    nft.elements(TABLE, set).unwrap().unwrap_or_default().len()
}

#[tokio::test]
async fn a_host_port_answers_until_del() {
    let node = Node::new(&["10.244.1.0/24", "fd00:1::/64"]).await;
    let outside = Outside::new(&node).await;
    let pod = Namespace::new("pod");
    let config = mappings(
        &node,
        json!([
            { "hostPort": 8080, "containerPort": 80, "protocol": "TCP" },
            // As containerd writes it.
            { "HostPort": 8053, "ContainerPort": 53, "Protocol": "udp", "HostIP": "" },
            { "hostPort": 8081, "containerPort": 81, "hostIP": "192.0.2.1" },
            { "containerPort": 9999 },
        ]),
    );
    let result = node
        .call("ADD", "one", &pod.path(), config.clone())
        .await
        .unwrap();
    let (far, near, inside) = (&outside.space.netns, &node.space.netns, &pod.netns);
    for at in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
        assert!(tcp_reaches(far, inside, at, 80), "{at} from outside");
        assert!(tcp_reaches(near, inside, at, 80), "{at} from the node");
        assert!(
            tcp_reaches(inside, inside, at, 80),
            "{at} from the pod itself"
        );
    }
    assert!(tcp_reaches(near, inside, "127.0.0.1:8080", 80), "loopback");
    assert!(
        tcp_reaches(far, inside, "192.0.2.1:8081", 81),
        "one address"
    );
    for at in ["192.0.2.1:8053", "[2001:db8::1]:8053"] {
        assert!(udp_reaches(far, inside, at, 53, 40_000), "{at}");
    }
    let mut check = config.clone();
    check["prevResult"] = result.clone();
    node.call("CHECK", "one", &pod.path(), check.clone())
        .await
        .unwrap();

    // Another pod gets the UDP port, and a client that keeps its own reaches it.
    node.call("DEL", "one", &pod.path(), config.clone())
        .await
        .unwrap();
    let set = ["any4", "any6", "at4", "at6", "hairpin4", "hairpin6"];
    assert_eq!(set.map(|set| elements(&node, set)), [0; 6]);
    let two = Namespace::new("pod");
    let config = mappings(
        &node,
        json!([{ "hostPort": 8053, "containerPort": 53, "protocol": "udp" }]),
    );
    node.call("ADD", "two", &two.path(), config.clone())
        .await
        .unwrap();
    assert!(udp_reaches(far, &two.netns, "192.0.2.1:8053", 53, 40_000));

    // CHECK sees what is gone.
    let mut again = config.clone();
    again["prevResult"] = node
        .call("ADD", "three", &pod.path(), node.config("1.0.0"))
        .await
        .unwrap();
    let (code, message) = node
        .call("CHECK", "three", &pod.path(), again)
        .await
        .unwrap_err();
    assert_eq!(code, 104);
    assert!(
        message.starts_with("set any4 of the nftables table"),
        "{message}"
    );
}

#[tokio::test]
async fn a_host_port_in_use_is_refused_and_nothing_is_left() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let (one, two) = (Namespace::new("pod"), Namespace::new("pod"));
    let config = mappings(&node, json!([{ "hostPort": 8080, "containerPort": 80 }]));
    node.call("ADD", "one", &one.path(), config.clone())
        .await
        .unwrap();
    let (code, message) = node
        .call("ADD", "two", &two.path(), config.clone())
        .await
        .unwrap_err();
    assert_eq!(code, 102);
    assert!(
        message.starts_with("host port 8080 is in use: by the pod at link sw"),
        "{message}"
    );
    assert_eq!(node.leases().await.len(), 1);
    assert_eq!(node.pod_links().await.len(), 1);
    assert!(two.netlink().link("eth0").await.unwrap().is_none());
    node.call("DEL", "two", &two.path(), config.clone())
        .await
        .unwrap();
    assert_eq!(elements(&node, "any4"), 1);

    // GC of this network frees it, of another does not.
    let mut gc = node.config("1.1.0");
    gc["cni.dev/valid-attachments"] = json!([]);
    gc["name"] = "other".into();
    node.call("GC", "", "", gc.clone()).await.unwrap();
    assert_eq!(elements(&node, "any4"), 1);
    gc["name"] = "seaway".into();
    node.call("GC", "", "", gc).await.unwrap();
    assert_eq!(elements(&node, "any4"), 0);
    assert_eq!(node.pod_links().await.len(), 0);
}

#[tokio::test]
async fn limits_are_set_checked_and_removed() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let mut config = node.config("1.0.0");
    // The burst is what CRI-O sends.
    config["runtimeConfig"] = json!({ "bandwidth": {
        "ingressRate": 8_000_000, "ingressBurst": 34_359_738_359_u64,
        "egressRate": 80_000_000_000_u64, "egressBurst": 800_000,
    }});
    let result = node
        .call("ADD", "one", &pod.path(), config.clone())
        .await
        .unwrap();
    let mut host = RouteSocket::in_namespace(&node.space.netns).unwrap();
    let link = result["interfaces"][0]["name"].as_str().unwrap();
    let end = host.link(link).unwrap().unwrap().index;
    let device = host.link(&link.replacen("sw", "sb", 1)).unwrap().unwrap();
    assert_eq!(host.limit_of(end).unwrap(), Some(1_000_000));
    assert_eq!(host.limit_of(device.index).unwrap(), Some(10_000_000_000));
    assert!(device.up);
    assert_eq!(host.addresses(device.index).unwrap(), []);
    // What the pod sends still arrives.
    let at = format!("10.244.1.0:{}", 9000);
    assert!(udp_reaches(&pod.netns, &node.space.netns, &at, 9000, 0));

    let mut check = config.clone();
    check["prevResult"] = result.clone();
    node.call("CHECK", "one", &pod.path(), check.clone())
        .await
        .unwrap();
    check["runtimeConfig"]["bandwidth"]["ingressRate"] = 16_000_000.into();
    let (code, message) = node
        .call("CHECK", "one", &pod.path(), check)
        .await
        .unwrap_err();
    assert_eq!(
        (code, message.starts_with("what goes to the pod is limited")),
        (104, true),
        "{message}"
    );
    let unlimited = Command::new("tc").args(["qdisc", "del", "dev", link, "ingress"]);
    unlimited.netns(&node.space.netns).output().await.unwrap();
    let mut check = config.clone();
    check["prevResult"] = result.clone();
    let refused = node.call("CHECK", "one", &pod.path(), check).await;
    let (code, message) = refused.unwrap_err();
    assert_eq!(code, 104);
    assert!(
        message.starts_with("what comes from the pod does not go through sb"),
        "{message}"
    );

    drop(pod);
    node.call("DEL", "one", "", config).await.unwrap();
    let left: Vec<_> = host
        .links()
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect();
    assert!(
        !left
            .iter()
            .any(|name| name.starts_with("sw") || name.starts_with("sb")),
        "{left:?}"
    );
}

#[tokio::test]
async fn behind_another_plugin_it_serves_that_ones_interface() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let outside = Outside::new(&node).await;
    let pod = Namespace::new("pod");
    // The first plugin of the list is one that knows nothing of host ports.
    let first = node
        .call("ADD", "one", &pod.path(), node.config("1.0.0"))
        .await
        .unwrap();
    let mut config = mappings(&node, json!([{ "hostPort": 8080, "containerPort": 80 }]));
    config["name"] = "second".into();
    config["prevResult"] = first.clone();
    config["ingressRate"] = 8_000_000.into();
    config["ingressBurst"] = 8_000_000.into();
    let result = node
        .call("ADD", "one", &pod.path(), config.clone())
        .await
        .unwrap();
    assert_eq!(result, first);
    assert!(tcp_reaches(
        &outside.space.netns,
        &pod.netns,
        "192.0.2.1:8080",
        80
    ));
    let mut host = RouteSocket::in_namespace(&node.space.netns).unwrap();
    let end = host
        .link(first["interfaces"][0]["name"].as_str().unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(host.limit_of(end.index).unwrap(), Some(1_000_000));
    assert_eq!(node.leases().await, [address(&first)]);
    node.call("DEL", "one", &pod.path(), config).await.unwrap();
    assert_eq!(elements(&node, "any4"), 0);
}

/// Whom somebody outside sees when the pod sends to each of its addresses.
fn seen_outside(outside: &Outside, pod: &Namespace) -> [IpAddr; 2] {
    ["192.0.2.2:9000", "[2001:db8::2]:9000"].map(|at| {
        let at: SocketAddr = at.parse().unwrap();
        let any = SocketAddr::new(
            match at {
                SocketAddr::V4(_) => [0; 4].into(),
                SocketAddr::V6(_) => [0; 16].into(),
            },
            0,
        );
        let bound = |netns: &NetNs, at| netns.run(|| UdpSocket::bind(at)).unwrap().unwrap();
        let server = bound(&outside.space.netns, at);
        server.set_read_timeout(Some(LIMIT)).unwrap();
        let client = bound(&pod.netns, any);
        client.send_to(b"hello", at).unwrap();
        server.recv_from(&mut [0; 8]).unwrap().1.ip()
    })
}

#[tokio::test]
async fn as_ptp_it_masquerades_what_leaves_the_subnet_where_asked() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let outside = Outside::new(&node).await;
    let mut config = node.config("1.0.0");
    config["type"] = "ptp".into();
    config["ipam"] = json!({
        "type": "host-local",
        "dataDir": node.state_dir(),
        "ranges": [[{ "subnet": "10.22.0.0/24" }], [{ "subnet": "fd00:22::/64" }]],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
    });
    let own: [IpAddr; 2] = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
    let (one, two) = (Namespace::new("pod"), Namespace::new("pod"));
    for (id, pod, masquerade) in [("one", &one, true), ("two", &two, false)] {
        config["ipMasq"] = masquerade.into();
        let path = pod.path();
        let result = node.call_as("ptp", "ADD", (id, &path), &[], &config).await;
        let addresses = addresses(&result.unwrap());
        let expected = if masquerade { &own[..] } else { &addresses[..] };
        assert_eq!(seen_outside(&outside, pod), expected, "{id}");
    }
    assert!(crate::pods::reaches(&one, &two, "10.22.0.3"), "pod to pod");
    for set in ["masquerade4", "masquerade6"] {
        assert_eq!(elements(&node, set), 1, "{set}");
    }
    for (id, pod) in [("one", &one), ("two", &two)] {
        let path = pod.path();
        let del = node.call_as("ptp", "DEL", (id, &path), &[], &config).await;
        del.unwrap();
    }
    for set in ["masquerade4", "masquerade6"] {
        assert_eq!(elements(&node, set), 0, "{set}");
    }
}
