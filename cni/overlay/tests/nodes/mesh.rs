//! Two nodes in namespaces, joined by a wire: the daemon, the plugin's pods, and packets between them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Pair, Pod, mended, sent, socket};
use nix::sys::socket::{getsockopt, sockopt};
use seaway_kernel::{Command, NetNs, RouteFilter, sysctl};
use seaway_model::ownership::VXLAN_LINK;
use seaway_overlay::guard;

/// One datagram there and one back.
fn echoes(from: &Pod, to: &Pod) -> bool {
    let (client, server) = (socket(&from.netns), socket(&to.netns));
    sent(&client, &server, to.address, 5) == Some(from.address)
        && sent(&server, &client, from.address, 5) == Some(to.address)
}

async fn nat_rules(netns: &NetNs) -> String {
    let save = Command::new("iptables-save")
        .args(["-t", "nat"])
        .netns(netns);
    let text = save.output().await.unwrap().text();
    let ours = text.lines().filter(|line| line.contains("SEAWAY"));
    ours.map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn pods_of_two_nodes_exchange_packets() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    assert_eq!(one.node_file().mtu, 1450);
    let (a, b) = (one.add_pod(), two.add_pod());
    assert!(echoes(&a, &b));

    // The largest packet: 1422 bytes, 8 of UDP, 20 of IP; with "don't fragment", which Linux sets on datagrams that fit.
    let (client, server) = (socket(&a.netns), socket(&b.netns));
    assert_eq!(sent(&client, &server, b.address, 1422), Some(a.address));
    client
        .connect((b.address, server.local_addr().unwrap().port()))
        .unwrap();
    assert_eq!(getsockopt(&client, sockopt::IpMtu).unwrap(), 1450);

    // Between a node and a remote pod, also from a socket bound to the node's own address.
    let host = socket(&one.netns);
    assert_eq!(
        sent(&host, &server, b.address, 9),
        Some("10.244.1.0".parse().unwrap())
    );
    let bound = one
        .netns
        .run(|| std::net::UdpSocket::bind("192.168.100.1:0").unwrap());
    assert!(sent(&bound.unwrap(), &server, b.address, 9).is_some());

    // What leaves the cluster has the node's address.
    let outside = socket(&two.netns);
    let client = socket(&a.netns);
    let address: IpAddr = "192.168.100.2".parse().unwrap();
    assert_eq!(
        sent(&client, &outside, address, 9),
        Some("192.168.100.1".parse().unwrap())
    );
    expect_test::expect![[r#"
        :SEAWAY-EGRESS - [0:0]
        -A POSTROUTING -j SEAWAY-EGRESS
        -A SEAWAY-EGRESS -d 10.244.0.0/16 -j RETURN
        -A SEAWAY-EGRESS -d 224.0.0.0/4 -j RETURN
        -A SEAWAY-EGRESS -s 10.244.1.0/24 -j MASQUERADE --random-fully
    "#]]
    .assert_eq(&nat_rules(&one.netns).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_and_its_restart_lose_no_packet() {
    let mut pair = Pair::start().await;
    let (a, b) = (pair.nodes[0].add_pod(), pair.nodes[1].add_pod());
    let device = pair.nodes[0]
        .netlink()
        .link(VXLAN_LINK)
        .await
        .unwrap()
        .unwrap();
    let (client, server) = (socket(&a.netns), socket(&b.netns));
    let stop = AtomicBool::new(false);
    let one = &mut pair.nodes[0];
    let (total, lost) = thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let (mut total, mut lost) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                total += 1;
                lost += u32::from(sent(&client, &server, b.address, 100).is_none());
                thread::sleep(Duration::from_millis(1));
            }
            (total, lost)
        });
        let runtime = tokio::runtime::Handle::current();
        let driver = scope.spawn(move || {
            one.daemon.kill();
            thread::sleep(Duration::from_millis(300));
            let before = one.log().len();
            one.start();
            runtime.block_on(one.wait(|status| status.in_sync));
            thread::sleep(Duration::from_millis(300));
            one.log()[before..].to_owned()
        });
        let log = tokio::task::block_in_place(|| driver.join()).unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(log.contains("in sync"), "{log}");
        for word in [
            "create",
            "set ",
            "add ",
            "delete",
            "sysctl",
            "iptables-restore",
        ] {
            assert!(!log.contains(word), "the restart did something:\n{log}");
        }
        traffic.join().unwrap()
    });
    assert!(total > 200, "{total}");
    assert_eq!(lost, 0, "of {total}");
    let after = pair.nodes[0].netlink().link(VXLAN_LINK).await.unwrap();
    assert_eq!(after, Some(device));
}

#[tokio::test]
async fn what_others_break_is_mended_as_it_is_heard() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    let netlink = one.netlink();
    netlink.delete_link_named(VXLAN_LINK).await.unwrap();
    mended(&a, &b, one);
    let link = netlink.link(VXLAN_LINK).await.unwrap().unwrap();
    netlink.set_down(link.index).await.unwrap();
    mended(&a, &b, one);
    let filter = RouteFilter {
        link: Some(link.index),
        protocol: Some(83),
        ..RouteFilter::default()
    };
    for route in netlink.routes(filter).await.unwrap() {
        netlink.delete_route(&route).await.unwrap();
    }
    mended(&a, &b, one);

    // The uplink's MTU is followed by the device and by the file that pods are made from.
    let uplink = netlink.link("eth0").await.unwrap().unwrap();
    netlink.set_mtu(uplink.index, 1400).await.unwrap();
    one.wait(|status| status.mtu == Some(1350) && status.in_sync)
        .await;
    let device = netlink.link(VXLAN_LINK).await.unwrap().unwrap();
    assert_eq!((device.mtu, one.node_file().mtu), (1350, 1350));
}

#[tokio::test]
async fn nodes_come_go_and_quarrel() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    pair.declare("n3", "192.168.100.3", "10.244.3.0/24");
    one.wait(|status| status.peers.len() == 2 && status.in_sync)
        .await;
    pair.declare("n4", "192.168.100.4", "10.244.0.0/22");
    pair.declare("n5", "192.168.100.2", "10.244.5.0/24");
    let status = one.wait(|status| status.peers.len() == 4).await;
    let states: Vec<_> = status.peers.iter().map(|p| p.state.as_str()).collect();
    assert_eq!(
        states,
        [
            "connected",
            "connected",
            "pod CIDR 10.244.0.0/22 of node n4 overlaps 10.244.3.0/24 of node n3; n4 is left out",
            "nodes n2 and n5 both have address 192.168.100.2; n5 is left out",
        ]
    );
    assert!(status.in_sync && echoes(&a, &b));
    let table = one.overlay(&["status".to_owned()]).await.unwrap();
    assert!(table.starts_with("node n1: in sync\n"), "{table}");

    for name in ["n3", "n4", "n5"] {
        pair.withdraw(name);
    }
    one.wait(|status| status.peers.len() == 1 && status.in_sync)
        .await;
    let netlink = one.netlink();
    let device = netlink.link(VXLAN_LINK).await.unwrap().unwrap();
    assert_eq!(netlink.neighbours(device.index).await.unwrap().len(), 1);
    assert!(echoes(&a, &b));
}

#[tokio::test]
async fn cleanup_removes_everything_but_the_pods() {
    let mut pair = Pair::start().await;
    let one = &mut pair.nodes[0];
    let pod = one.add_pod();
    assert!(
        one.second_daemon()
            .await
            .contains("another seaway-overlay runs on this node")
    );
    let mut args = vec!["cleanup".to_owned()];
    args.extend(one.args());
    let refused = one.overlay(&args).await.unwrap_err();
    assert!(
        refused.contains("overlay.lock); stop it first"),
        "{refused}"
    );
    assert!(one.conflist().exists());
    one.daemon.kill();
    let without_iptables = one.overlay_with("/nonexistent", &args).await.unwrap_err();
    assert!(
        without_iptables.contains(
            "chain SEAWAY-EGRESS (V4): iptables is not installed, or not in PATH (/nonexistent)"
        ),
        "{without_iptables}"
    );
    let chains = "removed chain SEAWAY-EGRESS (V4)\nremoved chain SEAWAY-POD-FORWARD (V4)\n";
    for said in [chains, "nothing to remove\n"] {
        assert_eq!(one.overlay(&args).await.unwrap(), said);
        assert!(one.netlink().link(VXLAN_LINK).await.unwrap().is_none());
        assert_eq!(nat_rules(&one.netns).await, "");
        assert!(!one.netns.run(|| guard::is_there().unwrap()).unwrap());
        assert!(!one.conflist().exists());
    }
    let (host, inside) = (socket(&one.netns), socket(&pod.netns));
    assert!(
        sent(&host, &inside, pod.address, 9).is_some(),
        "the pod's route is the plugin's"
    );
}

#[tokio::test]
async fn nothing_is_published_before_the_node_can_serve() {
    let mut pair = Pair::start().await;
    let one = &mut pair.nodes[0];
    one.daemon.kill();
    let mut args = vec!["cleanup".to_owned()];
    args.extend(one.args());
    one.overlay(&args).await.unwrap();
    pair.withdraw("n1");
    pair.nodes[0].start();
    let one = &pair.nodes[0];
    let status = one.wait(|status| !status.errors.is_empty()).await;
    assert_eq!(
        status.errors,
        ["this node (n1) is not among the Nodes; --node-name must be its name there"]
    );
    assert!(!one.conflist().exists());
    pair.declare("n1", "192.168.100.9", "10.244.1.0/24");
    let status = one.wait(|status| status.address.is_some()).await;
    assert_eq!(
        status.errors,
        [
            "address 192.168.100.9 of this node is on none of its links: correct status.addresses of Node n1, or --node-name"
        ]
    );
    assert!(!one.conflist().exists());
    pair.declare("n1", "192.168.100.1", "10.244.1.0/24");
    one.wait(|status| status.in_sync).await;
    assert!(one.conflist().exists());
    let forwarding = one
        .netns
        .run(|| sysctl::read("net.ipv4.ip_forward").unwrap());
    assert_eq!(forwarding.unwrap(), "1");
}
