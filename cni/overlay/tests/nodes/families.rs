//! Both families of pods over both families of underlay, with and without encapsulation, and who may send VXLAN.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use seaway_kernel::conntrack::{Conntrack, Family, Filter, Flow, UDP};
use seaway_kernel::{Command, Offload, RouteFilter, Scope};
use seaway_model::ownership::{NFT_TABLE_OVERLAY, VXLAN_LINK, VXLAN_PORT};
use seaway_overlay::probe::path::Health;

use crate::support::wire::Faults;
use crate::support::{
    Layout, Node, PODS_V4, PODS_V6, Pair, V4, V6, bound, echoes_in_all_families, join, mended, sent,
};

const V4_ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const V6_ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// How much of the underlay's MTU is left.
async fn mtu_over(addresses: &[&'static str]) -> u32 {
    let mut pair = Pair::with(Layout::of_both_families(addresses)).await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    assert_eq!(a.addresses.len(), 2);
    let mtu = one.node_file().mtu;
    // The largest packet, and a small one.
    for bytes in [mtu as usize - 28, 64] {
        assert!(echoes_in_all_families(&a, &b, bytes), "{}", one.log());
    }
    // What was made is read back as it was meant, by a daemon that has just been started.
    let device = one.netlink().link(VXLAN_LINK).await.unwrap().unwrap();
    assert_eq!(device.mtu, mtu);
    pair.nodes[0].daemon.kill();
    let before = pair.nodes[0].log().len();
    pair.nodes[0].start();
    pair.nodes[0].wait(|status| status.in_sync).await;
    let log = pair.nodes[0].log()[before..].to_owned();
    assert!(!log.contains("set ") && !log.contains("delete"), "{log}");
    mtu
}

#[tokio::test]
async fn pods_of_both_families_over_ipv4() {
    assert_eq!(mtu_over(&[V4]).await, 1450);
}

#[tokio::test]
async fn pods_of_both_families_over_ipv6() {
    assert_eq!(mtu_over(&[V6]).await, 1430);
}

#[tokio::test]
async fn nodes_of_both_families_use_the_first() {
    assert_eq!(mtu_over(&[V6, V4]).await, 1430);
    assert_eq!(mtu_over(&[V4, V6]).await, 1450);
}

#[tokio::test]
async fn a_peer_of_the_second_family_lowers_the_mtu_and_its_going_raises_it() {
    let layout = Layout {
        addresses: vec![V4, V6],
        ..Layout::default()
    };
    let pair = Pair::with(layout).await;
    let one = &pair.nodes[0];
    one.wait(|status| status.mtu == Some(1450)).await;
    pair.declare("n3", "fd00:64::3", "10.244.3.0/24");
    one.wait(|status| status.mtu == Some(1430) && status.in_sync)
        .await;
    assert_eq!(one.node_file().mtu, 1430);
    pair.withdraw("n3");
    one.wait(|status| status.mtu == Some(1450) && status.in_sync)
        .await;
    assert_eq!(one.node_file().mtu, 1450);
}

#[tokio::test]
async fn nodes_of_one_subnet_need_no_tunnel_where_asked() {
    let layout = Layout {
        addresses: vec![V4, V6],
        pod_cidrs: vec![PODS_V4, PODS_V6],
        flags: vec!["--direct-routing"],
        ..Layout::default()
    };
    let mut pair = Pair::with(layout).await;
    let (a, b) = (pair.nodes[0].add_pod(), pair.nodes[1].add_pod());
    // Neighbours of IPv6 are found when the links' own addresses are no longer tentative.
    let tries = (0..10).find(|_| echoes_in_all_families(&a, &b, 1000));
    assert!(tries.is_some(), "{}", pair.nodes[0].log());
    pair.declare("n3", "192.168.101.3", "10.244.3.0/24");
    let one = &pair.nodes[0];
    let status = one
        .wait(|status| status.peers.len() == 2 && status.in_sync)
        .await;
    let ways: Vec<_> = status
        .peers
        .iter()
        .map(|peer| peer.via.as_deref())
        .collect();
    assert_eq!(ways, [Some("direct"), Some("tunnel")]);
    let netlink = one.netlink();
    let device = netlink.link(VXLAN_LINK).await.unwrap().unwrap().index;
    assert_eq!(netlink.neighbours(device).await.unwrap().len(), 1);

    // The uplink goes down and up: its routes are gone, and come back.
    let uplink = netlink.link("eth0").await.unwrap().unwrap().index;
    netlink.set_down(uplink).await.unwrap();
    netlink.set_up(uplink).await.unwrap();
    mended(&a, &b, one);

    // Without the flag both go through the tunnel again, in one step, and nothing is left of the direct ways.
    for node in &mut pair.nodes {
        node.daemon.kill();
        node.flags.clear();
        node.start();
    }
    for node in &pair.nodes {
        node.wait(|status| status.in_sync && status.peers[0].via.as_deref() == Some("tunnel"))
            .await;
    }
    let ours = RouteFilter {
        protocol: Some(83),
        link: Some(uplink),
        ..RouteFilter::default()
    };
    assert_eq!(pair.nodes[0].netlink().routes(ours).await.unwrap(), []);
    assert!(echoes_in_all_families(&a, &b, 1000));
}

/// Three VXLAN packets from an address that a node has not had until now.
async fn intrude(from: &Node, network: &str, to: &str) {
    let netlink = from.netlink();
    let link = netlink.link("eth0").await.unwrap().unwrap().index;
    let network: IpNetwork = network.parse().unwrap();
    netlink
        .add_address(link, network, Scope::Global)
        .await
        .unwrap();
    let stranger = bound(&from.netns, &SocketAddr::new(network.ip(), 0).to_string());
    for _ in 0..3 {
        stranger.send_to(&[8, 0, 0, 0, 0, 0, 1, 0], to).unwrap();
    }
}

#[tokio::test]
async fn strangers_of_ipv6_are_dropped_and_counted_too() {
    let pair = Pair::with(Layout::of_both_families(&[V6])).await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    assert!(echoes_in_all_families(&a, &b, 64));
    let before = one.wait(|status| status.in_sync).await.strangers;
    intrude(two, "fd00:64::66/64", "[fd00:64::1]:8472").await;
    one.wait(|status| status.strangers == before + 3).await;
    assert!(echoes_in_all_families(&a, &b, 64));
}

/// What connection tracking of a node has of UDP, by destination port.
fn tracked(node: &Node) -> BTreeSet<u16> {
    let mut table = Conntrack::in_namespace(&node.netns).unwrap();
    let mut ports = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        let all = Filter::new(family, UDP);
        let take = |flows: &[Flow]| {
            ports.extend(flows.iter().map(|flow| flow.original.destination.port()));
        };
        table.list(&all, take).unwrap();
    }
    ports
}

#[tokio::test]
async fn connection_tracking_leaves_tunnels_alone() {
    for addresses in [&[V4], &[V6]] {
        let pair = Pair::with(Layout::of_both_families(addresses)).await;
        let [one, two] = &pair.nodes;
        let (a, b) = (one.add_pod(), two.add_pod());
        for (here, there) in a.addresses.iter().zip(&b.addresses) {
            let any = SocketAddr::new(if here.is_ipv4() { V4_ANY } else { V6_ANY }, 0).to_string();
            let (client, server) = (bound(&a.netns, &any), bound(&b.netns, &any));
            assert_eq!(sent(&client, &server, *there, 64), Some(*here));
            let inside = server.local_addr().unwrap().port();
            for node in &pair.nodes {
                let ports = tracked(node);
                assert!(ports.contains(&inside), "{inside}: {ports:?}");
                assert!(!ports.contains(&VXLAN_PORT), "{ports:?}");
            }
        }
    }
}

#[tokio::test]
async fn vxlan_of_strangers_is_dropped_and_counted() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    assert!(echoes_in_all_families(&a, &b, 64));
    // The other node sends from an address that no Node has.
    let before = one.wait(|status| status.in_sync).await.strangers;
    intrude(two, "192.168.100.66/24", "192.168.100.1:8472").await;
    one.wait(|status| status.strangers == before + 3).await;
    assert!(echoes_in_all_families(&a, &b, 64));

    // Somebody takes all tables away: ours is back soon, without a change of any Node.
    let flush = Command::new("nft").args(["flush", "ruleset"]);
    flush.netns(&one.netns).output().await.unwrap();
    let guarded = || one.netns.run(|| seaway_overlay::guard::is_there().unwrap());
    let limit = Instant::now() + Duration::from_secs(20);
    while !guarded().unwrap() {
        assert!(Instant::now() < limit, "no table {NFT_TABLE_OVERLAY}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mended(&a, &b, one);

    // A Node that takes the address over is heard.
    pair.declare("n2", "192.168.100.66", "10.244.2.0/24");
    one.wait(|status| {
        status.peers[0].address.as_deref() == Some("192.168.100.66") && status.in_sync
    })
    .await;
    mended(&a, &b, one);
}

#[tokio::test]
async fn egress_is_masqueraded_but_for_what_is_excluded() {
    let layout = Layout {
        flags: vec!["--no-masquerade-cidr=192.168.200.0/24,2001:db8::/64"],
        ..Layout::of_both_families(&[V4])
    };
    let pair = Pair::with(layout).await;
    let [one, two] = &pair.nodes;
    let pod = one.add_pod();
    let networks = [
        ["192.168.200.N/24", "192.168.201.N/24"],
        ["2001:db8::N/64", "2001:db8:0:1::N/64"],
    ];
    for (number, node) in [("1", one), ("2", two)] {
        let netlink = node.netlink();
        let link = netlink.link("eth0").await.unwrap().unwrap().index;
        for network in networks.iter().flatten() {
            let network = network.replace('N', number).parse().unwrap();
            netlink
                .add_address(link, network, Scope::Global)
                .await
                .unwrap();
        }
        let netns = node.netns.clone();
        tokio::task::spawn_blocking(move || netns.await_ready().unwrap())
            .await
            .unwrap();
    }
    // The far end has no way to pods but through the tunnel, and needs none: it only says whom it sees.
    for ([excluded, other], own) in networks.iter().zip(&pod.addresses) {
        let of = |network: &str, number: &str| -> IpAddr {
            let network: IpNetwork = network.replace('N', number).parse().unwrap();
            network.ip()
        };
        let any = SocketAddr::new(if own.is_ipv4() { V4_ANY } else { V6_ANY }, 0).to_string();
        let outside = bound(&two.netns, &any);
        for (network, seen) in [(other, of(other, "1")), (excluded, *own)] {
            let client = bound(&pod.netns, &any);
            // Neighbours of IPv6 are found when the links' own addresses are no longer tentative.
            let source = (0..10).find_map(|_| sent(&client, &outside, of(network, "2"), 9));
            assert_eq!(source, Some(seen), "{network}");
        }
    }
}

#[tokio::test]
async fn a_narrow_way_over_ipv6_is_found_and_a_silent_peer_is_told() {
    let layout = Layout {
        wire: Some(Faults {
            mtu: Some(1380),
            ..Faults::default()
        }),
        ..Layout::of_both_families(&[V6])
    };
    let pair = Pair::with(layout).await;
    // What the wire carries, less 70 bytes of headers.
    for node in &pair.nodes {
        let status = node
            .wait(|status| status.peers[0].mtu == Some(1310) && status.in_sync)
            .await;
        let peer = &status.peers[0];
        assert_eq!((status.mtu, status.checksum_offload), (Some(1430), true));
        assert_eq!(peer.reachable, Health::Works);
        assert_eq!(peer.checksum_offload, Health::Works);
        assert_eq!(peer.last_change.as_ref().unwrap().what, "probed");
    }
    pair.declare("n3", "fd00:64::3", "10.244.3.0/24");
    let one = &pair.nodes[0];
    let silent = |status: &seaway_overlay::admin::Status| {
        let n3 = status.peers.iter().find(|peer| peer.name == "n3");
        n3.is_some_and(|peer| peer.reachable == Health::Broken)
    };
    let status = one.wait(silent).await;
    assert_eq!(status.peers[0].reachable, Health::Works);
    assert_eq!(status.peers[1].state, "connected");
    let change = status.peers[1].last_change.as_ref().unwrap();
    assert_eq!(change.what, "does not answer probes");
    let log = one.log();
    let line = "peer n3 does not answer probes any more";
    assert_eq!(log.matches(line).count(), 1, "{log}");
    let table = one.overlay(&["status".to_owned()]).await.unwrap();
    assert!(table.contains(" NO "), "{table}");
}

#[tokio::test]
async fn a_narrow_way_to_one_peer_is_found_and_worked_around_for_it_alone() {
    let layout = Layout {
        wire: Some(Faults {
            mtu: Some(1380),
            ..Faults::default()
        }),
        ..Layout::default()
    };
    let pair = Pair::with(layout).await;
    let [one, two] = &pair.nodes;
    // What the wire carries, less 50 bytes of headers.
    let status = one
        .wait(|status| status.peers[0].mtu == Some(1330) && status.in_sync)
        .await;
    assert_eq!(status.mtu, Some(1450), "{status:?}");
    assert_eq!(status.peers[0].checksum_offload, Health::Works);
    assert!(status.checksum_offload);
    two.wait(|status| status.peers[0].mtu == Some(1330) && status.in_sync)
        .await;
    // Larger packets are cut by the sender now, and arrive.
    let (a, b) = (one.add_pod(), two.add_pod());
    let (client, server) = (bound(&a.netns, "0.0.0.0:0"), bound(&b.netns, "0.0.0.0:0"));
    client
        .connect((b.address, server.local_addr().unwrap().port()))
        .unwrap();
    let limit = Instant::now() + Duration::from_secs(20);
    // The first one is answered by "too large" of the node.
    loop {
        let _ = client.send(&[7; 1400]);
        if server.recv(&mut [0; 2000]).is_ok() {
            break;
        }
        assert!(Instant::now() < limit, "{}", one.log());
    }
    let table = one.overlay(&["status".to_owned()]).await.unwrap();
    assert!(table.contains(" yes "), "{table}");
    assert!(table.contains(" 1330 "), "{table}");
}

#[tokio::test]
async fn checksums_are_left_to_the_card_or_not_as_told() {
    let layout = Layout {
        flags: vec!["--checksum-offload=off"],
        ..Layout::default()
    };
    let mut pair = Pair::with(layout).await;
    let offload = |pair: &Pair| {
        let read = || Offload::open().unwrap().checksum(VXLAN_LINK).unwrap();
        pair.nodes[0].netns.run(read).unwrap()
    };
    assert!(!offload(&pair));
    for (flag, on) in [("auto", false), ("on", true), ("auto", true)] {
        let node = &mut pair.nodes[0];
        node.daemon.kill();
        node.flags = vec![format!("--checksum-offload={flag}")];
        node.start();
        node.wait(|status| status.in_sync && status.checksum_offload == on)
            .await;
        assert_eq!(offload(&pair), on, "{flag}");
    }
}

#[tokio::test]
async fn packets_are_taken_together_where_nobody_did_so_before() {
    let mut pair = Pair::start().await;
    // Uplinks are veths here.
    for (flag, encrypted, on) in [
        ("auto", false, false),
        ("on", false, true),
        ("auto", false, false),
        ("auto", true, true),
        // A policy stays.
        ("off", true, false),
    ] {
        let node = &mut pair.nodes[0];
        if encrypted {
            let policy = "xfrm policy update src 192.0.2.1 dst 192.0.2.2 dir fwd action block";
            Command::new("ip")
                .args(policy.split(' '))
                .netns(&node.netns)
                .output()
                .await
                .unwrap();
        }
        node.daemon.kill();
        node.flags = vec![format!("--receive-offload={flag}")];
        node.start();
        node.wait(|status| status.in_sync).await;
        let read = || Offload::open().unwrap().gro(VXLAN_LINK).unwrap();
        assert_eq!(node.netns.run(read).unwrap(), on, "{flag}");
    }
}

#[tokio::test]
async fn another_uplink_is_followed() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    // The same address, over another wire with another MTU.
    for node in &pair.nodes {
        let netlink = node.netlink();
        let old = netlink.link("eth0").await.unwrap().unwrap();
        netlink
            .rename(old.index, "old0")
            .await
            .unwrap_or_else(|_| panic!("rename"));
    }
    join(&one.netns, &two.netns, "eth0").await;
    for (number, node) in [(1, one), (2, two)] {
        let netlink = node.netlink();
        let [old, new] = [netlink.link("old0").await, netlink.link("eth0").await];
        let (old, new) = (old.unwrap().unwrap().index, new.unwrap().unwrap().index);
        let network = format!("192.168.100.{number}/24").parse().unwrap();
        let address = seaway_kernel::Address {
            link: old,
            network,
            scope: Scope::Global,
        };
        netlink.delete_address(&address).await.unwrap();
        netlink.set_mtu(new, 1300).await.unwrap();
        netlink
            .add_address(new, network, Scope::Global)
            .await
            .unwrap();
    }
    for node in &pair.nodes {
        node.wait(|status| {
            status.in_sync && status.mtu == Some(1250) && status.uplink.as_deref() == Some("eth0")
        })
        .await;
    }
    mended(&a, &b, one);
}
