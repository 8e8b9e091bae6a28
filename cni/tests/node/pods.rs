//! ADD, CHECK and DEL through the built binary, in namespaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::capabilities::tcp_reaches;
use crate::support::{Namespace, Node, address};
use futures::future::join_all;
use seaway_kernel::{MacAddr, Route, RouteFilter, RouteSocket};
use serde_json::{Value, json};

/// Whether a datagram from one namespace reaches an address in another, and the answer comes back.
pub(crate) fn reaches(from: &Namespace, to: &Namespace, address: &str) -> bool {
    let address: IpAddr = address.parse().unwrap();
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = |space: &Namespace| {
        let socket = space
            .netns
            .run(|| UdpSocket::bind((any, 0)))
            .unwrap()
            .unwrap();
        let limit = Some(Duration::from_secs(2));
        socket.set_read_timeout(limit).unwrap();
        socket
    };
    let (client, server) = (socket(from), socket(to));
    let mut buffer = [0; 16];
    client
        .send_to(b"hello", (address, server.local_addr().unwrap().port()))
        .unwrap();
    let Ok((_, peer)) = server.recv_from(&mut buffer) else {
        return false;
    };
    server.send_to(b"hello", peer).unwrap();
    client
        .recv_from(&mut buffer)
        .is_ok_and(|(n, source)| n == 5 && source.ip() == address)
}

fn ours() -> RouteFilter {
    RouteFilter {
        protocol: Some(83),
        ..RouteFilter::default()
    }
}

#[tokio::test]
async fn a_pod_is_connected_checked_and_disconnected() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let (one, two) = (Namespace::new("pod"), Namespace::new("pod"));
    node.space
        .netns
        .run(|| seaway_kernel::sysctl::write("net.ipv4.ip_forward", "1").unwrap())
        .unwrap();

    let result = node.add("one", &one).await.unwrap();
    assert_eq!(result["ips"][0]["address"], "10.244.1.1/32");
    assert_eq!(result["ips"][0]["gateway"], "169.254.1.1");
    assert_eq!(result["ips"][0]["interface"], 1);
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    assert_eq!(result["interfaces"][1]["sandbox"], one.path());
    assert_eq!(result["interfaces"][0].get("sandbox"), None);
    let other = node.add("two", &two).await.unwrap();
    assert_eq!(address(&other).to_string(), "10.244.1.2");

    let link = one.netlink().link("eth0").await.unwrap().unwrap();
    assert_eq!(link.mtu, 1450);
    assert_eq!(
        link.mac.unwrap().to_string(),
        result["interfaces"][1]["mac"]
    );
    // The node's end needs no address, and packets of its own would make the kernel take twice as long for DEL.
    let outside = node.space.netlink();
    let name = result["interfaces"][0]["name"].as_str().unwrap();
    let end = outside.link(name).await.unwrap().unwrap();
    let own = outside.addresses(Some(end.index)).await.unwrap();
    assert_eq!(own, []);
    assert!(reaches(&one, &two, "10.244.1.2"), "pod to pod");
    assert!(reaches(&node.space, &one, "10.244.1.1"), "node to pod");
    assert!(reaches(&one, &node.space, "10.244.1.0"), "pod to node");

    node.check("one", &one, &result).await.unwrap();
    node.check("two", &two, &other).await.unwrap();

    node.del("one", &one.path()).await.unwrap();
    assert!(one.netlink().link("eth0").await.unwrap().is_none());
    assert_eq!(node.pod_links().await.len(), 1);
    assert_eq!(node.leases().await, [address(&other)]);
    let leftover = tempfile::NamedTempFile::new().unwrap();
    let leftover = leftover.path().to_str().unwrap();
    for netns in [one.path().as_str(), "", "/run/netns/not-there", leftover] {
        node.del("one", netns).await.unwrap();
    }
    assert!(
        reaches(&node.space, &two, "10.244.1.2"),
        "the other pod is untouched"
    );
    node.del("two", "").await.unwrap();
    assert_eq!(node.pod_links().await, [""; 0]);
    let left = node.space.netlink().routes(ours()).await.unwrap();
    assert_eq!(left, [] as [Route; 0]);
}

#[tokio::test]
async fn a_dual_stack_pod_gets_both_families() {
    let node = Node::new(&["10.244.1.0/24", "fd00:1::/64"]).await;
    let pod = Namespace::new("pod");
    let result = node.add("one", &pod).await.unwrap();
    assert_eq!(result["ips"][1]["address"], "fd00:1::1/128");
    assert_eq!(
        result["routes"][1],
        json!({ "dst": "::/0", "gw": "fe80::1" })
    );
    node.check("one", &pod, &result).await.unwrap();
    assert!(reaches(&node.space, &pod, "fd00:1::1"));
    node.del("one", &pod.path()).await.unwrap();
    assert_eq!(node.leases().await.len(), 0);
}

#[tokio::test]
async fn a_second_add_is_refused_and_changes_nothing() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let result = node.add("one", &pod).await.unwrap();
    let (code, message) = node.add("one", &pod).await.unwrap_err();
    assert_eq!(code, 102);
    assert_eq!(
        message,
        "container one has address 10.244.1.1 on eth0 already; a second ADD needs a DEL first"
    );
    node.check("one", &pod, &result).await.unwrap();

    // Another container id, but the interface's name is taken in that namespace.
    let (code, message) = node.add("other", &pod).await.unwrap_err();
    assert_eq!(code, 102);
    assert_eq!(
        message,
        "interface eth0 exists in the pod's namespace already; it stays as it is"
    );
    node.check("one", &pod, &result).await.unwrap();
    assert_eq!(node.leases().await, [address(&result)]);
    node.del("other", &pod.path()).await.unwrap();
    node.check("one", &pod, &result).await.unwrap();
}

#[tokio::test]
async fn check_names_what_is_wrong() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let result = node.add("one", &pod).await.unwrap();
    let host_name = result["interfaces"][0]["name"].as_str().unwrap();
    let (inside, outside) = (pod.netlink(), node.space.netlink());
    let eth0 = inside.link("eth0").await.unwrap().unwrap().index;
    let host = outside.link(host_name).await.unwrap().unwrap().index;
    let wrong = async || node.check("one", &pod, &result).await.unwrap_err();
    let ip = address(&result);

    let mac = MacAddr([2, 9, 9, 9, 9, 9]);
    outside.replace_neighbour(host, ip, mac).await.unwrap();
    let (code, message) = wrong().await;
    assert_eq!(code, 104);
    assert!(
        message.contains("no permanent neighbour 10.244.1.1"),
        "{message}"
    );

    let routes = outside.routes(ours()).await.unwrap();
    outside.delete_route(&routes[0]).await.unwrap();
    assert!(
        wrong()
            .await
            .1
            .starts_with("the node has no route 10.244.1.1/32")
    );

    for route in inside.routes(ours()).await.unwrap() {
        inside.delete_route(&route).await.unwrap();
    }
    assert!(
        wrong()
            .await
            .1
            .starts_with("the pod has no route 169.254.1.1/32")
    );

    for address in inside.addresses(Some(eth0)).await.unwrap() {
        inside.delete_address(&address).await.unwrap();
    }
    assert_eq!(wrong().await.1, "eth0 has no address 10.244.1.1");

    outside.set_down(host).await.unwrap();
    assert_eq!(
        wrong().await.1,
        format!("link {host_name} on the node is down")
    );
    inside.delete_link(eth0).await.unwrap();
    assert_eq!(
        wrong().await.1,
        format!("link {host_name} on the node is missing")
    );
    node.del("one", &pod.path()).await.unwrap();
    assert_eq!(wrong().await.1, "no address is reserved for container one");
}

#[tokio::test]
async fn fifty_at_once_get_fifty_addresses() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pods: Vec<_> = (0..50).map(|_| Namespace::new("pod")).collect();
    let ids: Vec<_> = (0..50).map(|n| format!("c{n}")).collect();
    let adds = pods.iter().zip(&ids).map(|(pod, id)| node.add(id, pod));
    let results: Vec<Value> = join_all(adds)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let mut addresses: Vec<_> = results.iter().map(address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 50);
    for ((pod, id), result) in pods.iter().zip(&ids).zip(&results) {
        node.check(id, pod, result).await.unwrap();
    }
    let paths: Vec<_> = pods.iter().map(Namespace::path).collect();
    let dels = paths.iter().zip(&ids).map(|(path, id)| node.del(id, path));
    for answer in join_all(dels).await {
        answer.unwrap();
    }
    assert_eq!(node.leases().await.len(), 0);
    assert_eq!(node.pod_links().await, [""; 0]);
}

#[tokio::test]
async fn a_missing_node_file_means_try_again() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let file = node.run_dir().join("node.json");
    std::fs::remove_file(&file).unwrap();
    let (code, message) = node.add("one", &pod).await.unwrap_err();
    assert_eq!(code, 11);
    assert_eq!(
        message,
        format!(
            "the node cannot serve pods yet: {} is missing",
            file.display()
        )
    );
    let status = node.call("STATUS", "", "", node.config("1.1.0")).await;
    assert_eq!(status.unwrap_err().0, 50);
    node.del("one", &pod.path()).await.unwrap();
}

#[tokio::test]
async fn a_full_range_and_a_corrupt_entry_are_said_clearly() {
    let node = Node::new(&["10.244.1.0/30"]).await;
    let pods: Vec<_> = (0..3).map(|_| Namespace::new("pod")).collect();
    node.add("a", &pods[0]).await.unwrap();
    node.add("b", &pods[1]).await.unwrap();
    let (code, message) = node.add("c", &pods[2]).await.unwrap_err();
    assert_eq!(code, 101);
    assert_eq!(
        message,
        "no address is left in 10.244.1.0/30: all 2 are in use"
    );
    let status = node.call("STATUS", "", "", node.config("1.1.0")).await;
    assert_eq!(
        status.unwrap_err(),
        (50, "no address is left in 10.244.1.0/30".into())
    );
    node.del("b", "").await.unwrap();
    node.call("STATUS", "", "", node.config("1.1.0"))
        .await
        .unwrap();

    let entry = node.entry("10.244.1.1");
    std::fs::write(&entry, "garbage").unwrap();
    assert_eq!(
        address(&node.add("c", &pods[2]).await.unwrap()).to_string(),
        "10.244.1.2"
    );
    assert_eq!(std::fs::read(&entry).unwrap(), b"garbage");
    node.del("a", &pods[0].path()).await.unwrap();
    assert!(!entry.exists());
    node.del("c", "").await.unwrap();
}

#[tokio::test]
async fn gc_keeps_what_is_valid_only() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let (one, two) = (Namespace::new("pod"), Namespace::new("pod"));
    let kept = node.add("one", &one).await.unwrap();
    node.add("two", &two).await.unwrap();
    let mut config = node.config("1.1.0");
    assert_eq!(
        node.call("GC", "", "", config.clone()).await.unwrap_err().0,
        7
    );
    config["cni.dev/valid-attachments"] = json!([{ "containerID": "one", "ifname": "eth0" }]);
    node.call("GC", "", "", config.clone()).await.unwrap();
    assert_eq!(node.leases().await, [address(&kept)]);
    node.check("one", &one, &kept).await.unwrap();
    assert!(two.netlink().link("eth0").await.unwrap().is_none());
    config["cni.dev/valid-attachments"] = Value::Null;
    node.call("GC", "", "", config).await.unwrap();
    assert_eq!(node.pod_links().await, [""; 0]);
}

#[tokio::test]
async fn the_nodes_own_namespace_is_refused() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let (code, message) = node.add("one", &node.space).await.unwrap_err();
    assert_eq!(code, 8);
    assert!(
        message.contains("is the node's own network namespace"),
        "{message}"
    );
    assert_eq!(node.leases().await.len(), 0);
}

/// One verb for one interface of a pod in two networks.
async fn of_network(node: &Node, verb: &str, pod: &Namespace, nth: u8, previous: &Value) -> Value {
    let mut config = node.config("1.0.0");
    config["name"] = format!("net{nth}").into();
    config["ipam"] = json!({ "type": "seaway-cni", "ranges": [
        [{ "subnet": format!("10.9.{nth}.0/24") }], [{ "subnet": format!("fd00:9:{nth}::/64") }],
    ]});
    config["prevResult"] = previous.clone();
    let ifname = format!("eth{nth}");
    let (more, path) = ([("CNI_IFNAME", ifname.as_str())], pod.path());
    node.call_as("seaway-cni", verb, ("c", &path), &more, &config)
        .await
        .unwrap_or_else(|e| panic!("{verb} of {ifname}: {e:?}"))
}

#[tokio::test]
async fn a_pod_in_two_networks_answers_at_all_its_addresses() {
    let node = Node::new(&["10.244.1.0/24"]).await;
    let pod = Namespace::new("pod");
    let first = of_network(&node, "ADD", &pod, 0, &Value::Null).await;
    let second = of_network(&node, "ADD", &pod, 1, &Value::Null).await;
    let addresses = |result: &Value| -> Vec<String> {
        let ips = result["ips"].as_array().unwrap();
        let ip = |ip: &Value| {
            ip["address"]
                .as_str()
                .unwrap()
                .split('/')
                .next()
                .unwrap()
                .to_owned()
        };
        ips.iter().map(ip).collect()
    };
    // Not by UDP: there, whose socket has no address answers from the first link's.
    let answers = |address: &str| {
        let at = SocketAddr::new(address.parse().unwrap(), 80).to_string();
        tcp_reaches(&node.space.netns, &pod.netns, &at, 80)
    };
    for address in [addresses(&first), addresses(&second)].concat() {
        assert!(answers(&address), "{address}");
    }
    of_network(&node, "CHECK", &pod, 0, &first).await;
    of_network(&node, "CHECK", &pod, 1, &second).await;
    let mut inside = RouteSocket::in_namespace(&pod.netns).unwrap();
    let rules = inside.source_rules().unwrap();
    assert_eq!(rules.len(), 2, "the first link needs none: {rules:?}");

    // Either may go first.
    of_network(&node, "DEL", &pod, 1, &Value::Null).await;
    assert_eq!(inside.source_rules().unwrap(), []);
    of_network(&node, "CHECK", &pod, 0, &first).await;
    let second = of_network(&node, "ADD", &pod, 1, &Value::Null).await;
    of_network(&node, "DEL", &pod, 0, &Value::Null).await;
    of_network(&node, "CHECK", &pod, 1, &second).await;
    for address in addresses(&second) {
        assert!(answers(&address), "{address}, alone");
    }
    of_network(&node, "DEL", &pod, 1, &Value::Null).await;
    assert_eq!(inside.source_rules().unwrap(), []);
}
