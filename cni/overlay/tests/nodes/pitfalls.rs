//! What flannel's users ran into, one test each: docs/overlay.md has the table.

use std::time::{Duration, Instant};

use crate::support::wire::Faults;
use crate::support::{Layout, Node, Pair, V4, V6, bound, echoes_in_all_families, mended, sent};
use seaway_cni::protocol::Code;
use seaway_kernel::{Address, LinkKind, MacAddr, Offload, RouteFilter, Scope, VethOptions};
use seaway_model::ownership::VXLAN_LINK;
use seaway_overlay::mesh::vtep_mac;
use seaway_overlay::probe::path::Health;
use serde_json::json;

async fn vxlan(node: &Node) -> seaway_kernel::Link {
    node.netlink().link(VXLAN_LINK).await.unwrap().unwrap()
}

/// What leads to peers: routes and neighbours, as text.
async fn ways(node: &Node) -> Vec<String> {
    let netlink = node.netlink();
    let link = vxlan(node).await.index;
    let filter = RouteFilter {
        link: Some(link),
        protocol: Some(83),
        ..RouteFilter::default()
    };
    let routes = netlink.routes(filter).await.unwrap().into_iter();
    let mut ways: Vec<_> = routes
        .map(|route| format!("{} by {}", route.destination, route.encap.unwrap().remote))
        .collect();
    for neighbour in netlink.neighbours(link).await.unwrap() {
        ways.push(format!(
            "{} is {}",
            neighbour.address,
            neighbour.mac.unwrap()
        ));
    }
    ways.sort();
    ways
}

#[tokio::test]
async fn pitfall_01_a_card_that_makes_wrong_checksums() {
    for underlay in [V4, V6] {
        let layout = Layout {
            wire: Some(Faults {
                checksums: true,
                mtu: None,
            }),
            ..Layout::of_both_families(&[underlay])
        };
        let pair = Pair::with(layout).await;
        let [one, two] = &pair.nodes;
        for node in &pair.nodes {
            let status = node
                .wait(|status| !status.checksum_offload && status.in_sync)
                .await;
            assert_eq!(status.peers[0].checksum_offload, Health::Broken);
            assert_eq!(status.peers[0].reachable, Health::Works);
        }
        let off = one
            .netns
            .run(|| Offload::open().unwrap().checksum(VXLAN_LINK).unwrap());
        assert!(!off.unwrap());
        // Datagrams of pods, whose checksums nobody has made before.
        let (a, b) = (one.add_pod(), two.add_pod());
        assert!(echoes_in_all_families(&a, &b, 1000), "{}", one.log());
    }

    // Where nothing is broken it is left on.
    let pair = Pair::start().await;
    let probed =
        |status: &seaway_overlay::admin::Status| status.peers[0].checksum_offload == Health::Works;
    assert!(pair.nodes[0].wait(probed).await.checksum_offload);
}

#[tokio::test]
async fn pitfall_02_somebody_changes_the_address_of_the_device() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    let device = vxlan(one).await;
    assert_eq!(device.mac, Some(vtep_mac("192.168.100.1".parse().unwrap())));
    let other = MacAddr([2, 0, 0, 0, 0, 9]);
    one.netlink().set_mac(device.index, other).await.unwrap();
    mended(&a, &b, one);
    assert_eq!(vxlan(one).await.mac, device.mac);
}

#[tokio::test]
async fn pitfall_03_nothing_is_left_of_a_peers_former_address() {
    let pair = Pair::start().await;
    let one = &pair.nodes[0];
    pair.declare("n3", "192.168.100.3", "10.244.3.0/24");
    one.wait(|status| status.peers.len() == 2 && status.in_sync)
        .await;
    pair.declare("n3", "192.168.100.33", "10.244.3.0/24");
    let moved = |status: &seaway_overlay::admin::Status| {
        let n3 = status.peers.iter().find(|peer| peer.name == "n3");
        status.in_sync && n3.is_some_and(|peer| peer.address.as_deref() == Some("192.168.100.33"))
    };
    let status = one.wait(moved).await;
    let change = status.peers[1].last_change.clone().unwrap();
    assert!(
        change.what.contains("192.168.100.3 to 192.168.100.33"),
        "{change:?}"
    );
    assert_eq!(
        ways(one).await,
        [
            "10.244.2.0 is 02:53:c0:a8:64:02",
            "10.244.2.0/24 by 192.168.100.2",
            "10.244.3.0 is 02:53:c0:a8:64:21",
            "10.244.3.0/24 by 192.168.100.33",
        ]
    );
}

#[tokio::test]
async fn pitfall_04_a_node_leaves_while_the_daemon_is_down() {
    let mut pair = Pair::start().await;
    pair.declare("n3", "192.168.100.3", "10.244.3.0/24");
    let both = |status: &seaway_overlay::admin::Status| status.peers.len() == 2 && status.in_sync;
    pair.nodes[0].wait(both).await;
    pair.nodes[0].daemon.kill();
    pair.withdraw("n3");
    pair.declare("n4", "192.168.100.4", "10.244.3.0/25");
    pair.nodes[0].start();
    pair.nodes[0].wait(both).await;
    assert_eq!(
        ways(&pair.nodes[0]).await,
        [
            "10.244.2.0 is 02:53:c0:a8:64:02",
            "10.244.2.0/24 by 192.168.100.2",
            "10.244.3.0 is 02:53:c0:a8:64:04",
            "10.244.3.0/25 by 192.168.100.4",
        ]
    );
}

#[tokio::test]
async fn pitfall_05_the_device_is_deleted() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    let before = ways(one).await;
    one.netlink().delete_link_named(VXLAN_LINK).await.unwrap();
    mended(&a, &b, one);
    one.wait(|status| status.in_sync).await;
    assert_eq!(ways(one).await, before);
}

#[tokio::test]
async fn pitfall_06_the_device_goes_down_and_up() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    let before = ways(one).await;
    let device = vxlan(one).await;
    one.netlink().set_down(device.index).await.unwrap();
    mended(&a, &b, one);
    one.netlink().set_down(device.index).await.unwrap();
    one.netlink().set_up(device.index).await.unwrap();
    mended(&a, &b, one);
    assert_eq!(ways(one).await, before);
    assert_eq!(vxlan(one).await.index, device.index);
}

#[tokio::test]
async fn pitfall_07_the_mtu_is_not_reduced_twice() {
    let pair = Pair::start().await;
    let one = &pair.nodes[0];
    for _ in 0..2 {
        let before = vxlan(one).await;
        assert_eq!(before.mtu, 1450);
        one.netlink().delete_link_named(VXLAN_LINK).await.unwrap();
        let limit = Instant::now() + Duration::from_secs(20);
        while one
            .netlink()
            .link(VXLAN_LINK)
            .await
            .unwrap()
            .is_none_or(|link| link.index == before.index)
        {
            assert!(Instant::now() < limit, "{}", one.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    one.wait(|status| status.mtu == Some(1450) && status.in_sync)
        .await;
    assert_eq!(one.node_file().mtu, 1450);
}

#[tokio::test]
async fn pitfall_08_ipv6_outside_takes_twenty_bytes_more() {
    let pair = Pair::with(Layout::of_both_families(&[V6])).await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    assert_eq!((vxlan(one).await.mtu, one.node_file().mtu), (1430, 1430));
    let inside = seaway_kernel::Netlink::in_namespace(&a.netns).unwrap();
    assert_eq!(inside.link("eth0").await.unwrap().unwrap().mtu, 1430);
    assert!(echoes_in_all_families(&a, &b, 1430 - 28));
}

#[tokio::test]
async fn pitfall_09_the_mtu_of_the_uplink_is_followed() {
    for (underlay, headers) in [(V4, 50), (V6, 70)] {
        let pair = Pair::with(Layout::of_both_families(&[underlay])).await;
        let one = &pair.nodes[0];
        let uplink = one.netlink().link("eth0").await.unwrap().unwrap().index;
        for uplink_mtu in [1400, 1380, 1500] {
            let mtu = uplink_mtu - headers;
            one.netlink().set_mtu(uplink, uplink_mtu).await.unwrap();
            one.wait(|status| status.mtu == Some(mtu) && status.in_sync)
                .await;
            assert_eq!((vxlan(one).await.mtu, one.node_file().mtu), (mtu, mtu));
        }
    }
}

#[tokio::test]
async fn pitfall_10_the_address_of_a_node_changes() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    let device = vxlan(two).await;
    let netlink = two.netlink();
    let link = netlink.link("eth0").await.unwrap().unwrap().index;
    let new = "192.168.100.22/24".parse().unwrap();
    let old = Address {
        link,
        network: "192.168.100.2/24".parse().unwrap(),
        scope: Scope::Global,
    };
    // The other way round the kernel would delete both: the second of a subnet goes with the first.
    netlink.delete_address(&old).await.unwrap();
    netlink.add_address(link, new, Scope::Global).await.unwrap();
    pair.declare("n2", "192.168.100.22", "10.244.2.0/24");
    two.wait(|status| status.address.as_deref() == Some("192.168.100.22") && status.in_sync)
        .await;
    one.wait(|status| {
        status.peers[0].address.as_deref() == Some("192.168.100.22") && status.in_sync
    })
    .await;
    // The same daemons, the same device and the same pods.
    mended(&a, &b, one);
    let after = vxlan(two).await;
    assert_eq!(after.index, device.index);
    assert_eq!(after.mac, Some(vtep_mac("192.168.100.22".parse().unwrap())));
}

#[tokio::test]
async fn pitfall_11_one_family_of_a_node_changes() {
    let pair = Pair::with(Layout::of_both_families(&[V4])).await;
    let one = &pair.nodes[0];
    let far = |four: &str, six: &str| {
        let cidrs = [four.to_owned(), six.to_owned()];
        pair.declare_all("n3", &["192.168.100.3".to_owned()], &cidrs);
    };
    for (four, six) in [
        ("10.244.3.0/24", "fd01:3::/64"),
        ("10.244.33.0/24", "fd01:3::/64"),
        ("10.244.33.0/24", "fd01:33::/64"),
    ] {
        far(four, six);
        let there = |status: &seaway_overlay::admin::Status| {
            let n3 = status.peers.iter().find(|peer| peer.name == "n3");
            status.in_sync && n3.is_some_and(|peer| peer.pod_cidrs == [four, six])
        };
        one.wait(there).await;
        let ways: Vec<_> = ways(one).await;
        let routes: Vec<_> = ways.iter().filter(|way| way.ends_with("100.3")).collect();
        assert_eq!(routes.len(), 2, "{ways:?}");
        assert!(
            routes
                .iter()
                .all(|way| way.starts_with(four) || way.starts_with(six))
        );
        assert_eq!(ways.len(), 8, "{ways:?}");
    }
}

#[tokio::test]
async fn pitfall_12_the_port_is_taken() {
    let mut pair = Pair::idle(Layout::default()).await;
    pair.declare_own(1);
    let netlink = pair.nodes[0].netlink();
    let mac = MacAddr([2, 0, 0, 0, 0, 9]);
    netlink
        .add_vxlan_external("vx.other", 8472, mac, 1450)
        .await
        .unwrap();
    let other = netlink.link("vx.other").await.unwrap().unwrap().index;
    netlink.set_up(other).await.unwrap();
    pair.nodes[0].start();
    let one = &pair.nodes[0];
    let status = one.wait(|status| !status.errors.is_empty()).await;
    let error = &status.errors[0];
    assert!(
        error.contains("--port") && error.contains("another VXLAN device"),
        "{error}"
    );
    assert!(!one.conflist().exists());
    netlink.delete_link_named("vx.other").await.unwrap();
    one.wait(|status| status.in_sync).await;
    assert!(one.conflist().exists());
}

#[tokio::test]
async fn pitfall_13_a_node_with_several_interfaces() {
    let mut pair = Pair::idle(Layout::default()).await;
    // The first interface, with the default route, is not the one that the Node names.
    for node in &pair.nodes {
        let netlink = node.netlink();
        let options = VethOptions {
            up: true,
            ..VethOptions::default()
        };
        netlink.add_veth("aaa0", "aaa1", options).await.unwrap();
        let decoy = netlink.link("aaa0").await.unwrap().unwrap().index;
        let peer = netlink.link("aaa1").await.unwrap().unwrap().index;
        netlink.set_up(peer).await.unwrap();
        netlink.set_mtu(decoy, 1400).await.unwrap();
        let network = "10.0.2.15/24".parse().unwrap();
        netlink
            .add_address(decoy, network, Scope::Global)
            .await
            .unwrap();
        let default = seaway_kernel::Route {
            gateway: "10.0.2.2".parse().ok(),
            link: Some(decoy),
            ..seaway_kernel::Route::new("0.0.0.0/0".parse().unwrap(), 4)
        };
        netlink.add_route(&default).await.unwrap();
    }
    for number in [1, 2] {
        pair.declare_own(number);
        pair.nodes[number - 1].start();
    }
    for node in &pair.nodes {
        let status = node
            .wait(|status| status.in_sync && status.peers.len() == 1)
            .await;
        assert_eq!(
            (status.uplink.as_deref(), status.mtu),
            (Some("eth0"), Some(1450))
        );
    }
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    mended(&a, &b, one);
    // An address that is nowhere on the node is said to be so.
    pair.declare("n1", "192.168.100.77", "10.244.1.0/24");
    let status = one.wait(|status| !status.in_sync).await;
    assert_eq!(
        status.errors,
        [
            "address 192.168.100.77 of this node is on none of its links: correct status.addresses of Node n1, or --node-name"
        ]
    );
}

#[tokio::test]
async fn pitfall_14_another_port() {
    let mut pair = Pair::start().await;
    let (a, b) = (pair.nodes[0].add_pod(), pair.nodes[1].add_pod());
    for node in &mut pair.nodes {
        node.daemon.kill();
        node.flags = vec!["--port=4789".to_owned(), "--vni=7".to_owned()];
        node.start();
    }
    for node in &pair.nodes {
        node.wait(|status| status.in_sync && status.port == 4789 && status.vni == 7)
            .await;
        let LinkKind::Vxlan(settings) = vxlan(node).await.kind else {
            panic!("no VXLAN device");
        };
        assert_eq!(settings.port, 4789);
    }
    let one = &pair.nodes[0];
    mended(&a, &b, one);
    let table = one.overlay(&["status".to_owned()]).await.unwrap();
    assert!(table.contains("VXLAN 7 at UDP port 4789"), "{table}");
}

#[tokio::test]
async fn pitfall_15_packets_of_one_node_pass_no_bridge() {
    let pair = Pair::start().await;
    let one = &pair.nodes[0];
    let (a, b) = (one.add_pod(), one.add_pod());
    // With their own addresses, so past every masquerade.
    assert!(echoes_in_all_families(&a, &b, 1400));
    let links = one.netlink().links().await.unwrap();
    assert!(
        links
            .iter()
            .all(|link| link.kind != LinkKind::Bridge && link.master.is_none())
    );
    assert_eq!(
        links
            .iter()
            .filter(|link| link.name.starts_with("sw"))
            .count(),
        2
    );
}

#[tokio::test]
async fn pitfall_16_a_pod_comes_before_the_overlay_is_ready() {
    let mut pair = Pair::idle(Layout::default()).await;
    let one = &mut pair.nodes[0];
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "seaway",
        "type": "seaway-cni",
        "runDir": one.run_dir(),
        "stateDir": one.state_dir(),
    });
    let Err(error) = one.attach(&config) else {
        panic!("a pod without an overlay");
    };
    assert_eq!(error.code, Code::TryAgainLater, "{error:?}");
    one.start();
    pair.declare_own(1);
    let one = &pair.nodes[0];
    one.wait(|status| status.in_sync).await;
    one.attach(&config).unwrap();
}

#[tokio::test]
async fn pitfall_17_nobody_has_to_answer_for_the_gateway() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    // No default route, so proxy_arp would not answer.
    let gateway: std::net::IpAddr = "169.254.1.1".parse().unwrap();
    assert_eq!(
        one.netlink()
            .route_to("198.51.100.1".parse().unwrap())
            .await
            .unwrap(),
        None
    );
    let inside = seaway_kernel::Netlink::in_namespace(&a.netns).unwrap();
    let link = inside.link("eth0").await.unwrap().unwrap().index;
    let neighbours = inside.neighbours(link).await.unwrap();
    assert!(
        neighbours
            .iter()
            .any(|n| n.address == gateway && n.permanent),
        "{neighbours:?}"
    );
    let (client, server) = (bound(&a.netns, "0.0.0.0:0"), bound(&b.netns, "0.0.0.0:0"));
    assert_eq!(sent(&client, &server, b.address, 9), Some(a.address));
}
