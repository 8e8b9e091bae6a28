//! What nobody should do, and somebody does: it costs the one that it is about, is said once, and mended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use seaway_kernel::{Command, NetNs, RouteFilter, Scope, sysctl};
use seaway_model::ownership::VXLAN_LINK;
use seaway_overlay::admin::CONNECTED;
use seaway_overlay::guard::{Guard, Rules};

use crate::support::{Layout, Node, Pair, V4, V6, echoes_in_all_families, echoes_soon, mended};

async fn run(node: &Node, program: &str, args: &str) -> String {
    let command = Command::new(program).args(args.split(' '));
    let output = command.netns(&node.netns).output().await;
    output.unwrap().text()
}

#[tokio::test]
async fn a_pod_cidr_over_the_network_of_the_nodes_does_not_cut_them_off() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    for (address, cidr, why) in [
        (
            "192.168.100.3",
            "192.168.100.0/24",
            "covers address 192.168.100.",
        ),
        (
            "10.244.2.7",
            "10.244.3.0/24",
            "covers address 10.244.2.7 of node n3",
        ),
        (
            "192.168.100.3",
            "224.0.0.0/24",
            "pods cannot have addresses",
        ),
        ("127.0.0.1", "10.244.3.0/24", "no InternalIP address"),
    ] {
        pair.declare("n3", address, cidr);
        let status = one
            .wait(|status| {
                let mut states = status.peers.iter().map(|peer| &peer.state);
                states.any(|state| state.contains(why))
            })
            .await;
        assert!(status.in_sync, "{:?}", status.errors);
        mended(&a, &b, one);
    }
    let routes = one.netlink().routes(RouteFilter::default()).await.unwrap();
    // A route of ours would have taken its place, and it does not come back.
    let connected = "192.168.100.0/24".parse().unwrap();
    let mut routes = routes.iter().filter(|route| route.destination == connected);
    assert_eq!(routes.next().unwrap().gateway, None);
}

/// A bridge takes the least MTU of its ports; where it is the uplink, that made the device's MTU less and less.
#[tokio::test]
async fn a_device_that_somebody_put_into_a_bridge_leaves_it() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    for command in [
        "link add br0 type bridge",
        "link set br0 up",
        "link set eth0 master br0",
        "address flush dev eth0",
        "address add 192.168.100.1/24 dev br0",
    ] {
        run(one, "ip", command).await;
    }
    one.wait(|status| status.in_sync && status.uplink.as_deref() == Some("br0"))
        .await;
    run(one, "ip", &format!("link set {VXLAN_LINK} master br0")).await;
    let started = Instant::now();
    loop {
        let device = one.netlink().link(VXLAN_LINK).await.unwrap().unwrap();
        if device.master.is_none() && device.mtu == 1450 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{}", one.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    mended(&a, &b, one);
    one.wait(|status| status.in_sync && status.mtu == Some(1450))
        .await;
}

#[tokio::test]
async fn a_device_that_cannot_be_up_is_one_error() {
    let mut pair = Pair::start().await;
    pair.declare("n3", "192.168.100.3", "10.244.3.0/24");
    let one = &mut pair.nodes[0];
    one.wait(|status| status.peers.len() == 2).await;
    one.daemon.kill();
    run(one, "ip", &format!("link delete {VXLAN_LINK}")).await;
    run(
        one,
        "ip",
        "link add vx0 type vxlan id 5 dstport 8472 dev eth0",
    )
    .await;
    run(one, "ip", "link set vx0 up").await;
    one.start();
    let status = one.wait(|status| !status.errors.is_empty() && status.peers.len() == 2);
    let status = status.await;
    assert_eq!(status.errors.len(), 1, "{:#?}", status.errors);
    assert!(status.errors[0].contains("--port"), "{}", status.errors[0]);
    for peer in &status.peers {
        assert!(peer.state.contains("--port"), "{}", peer.state);
    }
    run(one, "ip", "link delete vx0").await;
    let status = one.wait(|status| status.in_sync).await;
    assert!(status.peers.iter().all(|peer| peer.state == CONNECTED));
}

#[tokio::test]
async fn an_uplink_too_narrow_for_ipv6_is_told() {
    let pair = Pair::with(Layout::of_both_families(&[V4])).await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    run(one, "ip", "link set eth0 mtu 1300").await;
    let status = one.wait(|status| !status.warnings.is_empty()).await;
    let what = "is 1250, and IPv6 needs 1280: its pod CIDRs cannot be served before that of the uplinks is raised by 30";
    assert!(status.warnings[0].contains(what), "{:?}", status.warnings);
    run(one, "ip", "link set eth0 mtu 1330").await;
    one.wait(|status| status.in_sync && status.warnings.is_empty())
        .await;
    mended(&a, &b, one);
}

#[tokio::test]
async fn ipv6_that_is_off_for_new_links_is_switched_on_for_the_device() {
    let mut pair = Pair::with(Layout::of_both_families(&[V4])).await;
    let (a, b) = (pair.nodes[0].add_pod(), pair.nodes[1].add_pod());
    let one = &mut pair.nodes[0];
    one.daemon.kill();
    run(one, "ip", &format!("link delete {VXLAN_LINK}")).await;
    let off = || sysctl::write("net.ipv6.conf.default.disable_ipv6", "1").map(drop);
    one.netns.run(off).unwrap().unwrap();
    one.start();
    one.wait(|status| status.in_sync).await;
    mended(&a, &b, one);
    assert!(echoes_in_all_families(&a, &b, 100));
}

#[tokio::test]
async fn a_family_that_the_node_no_longer_has_leaves_no_rules() {
    let pair = Pair::with(Layout::of_both_families(&[V4, V6])).await;
    let [one, _] = &pair.nodes;
    assert!(
        run(one, "ip6tables", "-t nat -S")
            .await
            .contains("SEAWAY-EGRESS")
    );
    let addresses = ["192.168.100.1".to_owned(), "fd00:64::1".to_owned()];
    pair.declare_all("n1", &addresses, &["10.244.1.0/24".to_owned()]);
    one.wait(|status| status.in_sync && status.pod_cidrs.len() == 1)
        .await;
    assert!(
        !run(one, "ip6tables", "-t nat -S")
            .await
            .contains("SEAWAY-EGRESS")
    );
    assert!(
        run(one, "iptables", "-t nat -S")
            .await
            .contains("SEAWAY-EGRESS")
    );
}

/// As Docker and firewalls leave it.
#[tokio::test]
async fn pods_are_forwarded_where_the_node_forwards_only_what_it_is_told_to() {
    let mut pair = Pair::with(Layout::of_both_families(&[V4])).await;
    let (a, b) = (pair.nodes[0].add_pod(), pair.nodes[1].add_pod());
    for node in &pair.nodes {
        for program in ["iptables", "ip6tables"] {
            run(node, program, "-P FORWARD DROP").await;
        }
    }
    assert!(echoes_in_all_families(&a, &b, 100));
    expect_test::expect![[r#"
        -N SEAWAY-POD-FORWARD
        -A SEAWAY-POD-FORWARD -s 10.244.0.0/16 -j ACCEPT
        -A SEAWAY-POD-FORWARD -d 10.244.0.0/16 -j ACCEPT
    "#]]
    .assert_eq(&run(&pair.nodes[0], "iptables", "-S SEAWAY-POD-FORWARD").await);

    // What stands before it counts.
    let one = &mut pair.nodes[0];
    run(one, "iptables", "-I FORWARD -s 10.244.1.0/24 -j DROP").await;
    assert!(!echoes_soon(&a, &b));
    run(one, "iptables", "-D FORWARD -s 10.244.1.0/24 -j DROP").await;
    assert!(echoes_in_all_families(&a, &b, 100));

    one.daemon.kill();
    one.flags.push("--iptables-forward-rules=false".into());
    one.start();
    one.wait(|status| status.in_sync).await;
    for program in ["iptables", "ip6tables"] {
        let rules = run(one, program, "-S FORWARD").await;
        assert_eq!(rules.trim(), "-P FORWARD DROP");
    }
    assert!(!echoes_soon(&a, &b));
}

#[tokio::test]
async fn the_address_of_a_node_may_be_on_loopback() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (a, b) = (one.add_pod(), two.add_pod());
    let own = "172.31.0.1/32".parse().unwrap();
    one.netlink()
        .add_address(1, own, Scope::Global)
        .await
        .unwrap();
    run(two, "ip", "route add 172.31.0.1/32 via 192.168.100.1").await;
    pair.declare("n1", "172.31.0.1", "10.244.1.0/24");
    let status = one
        .wait(|status| status.in_sync && status.address.as_deref() == Some("172.31.0.1"))
        .await;
    assert_eq!(
        (status.mtu, status.uplink.as_deref()),
        (Some(1450), Some("eth0"))
    );
    two.wait(|status| status.peers[0].address.as_deref() == Some("172.31.0.1"))
        .await;
    mended(&a, &b, one);
    run(one, "ip", "address delete 172.31.0.1/32 dev lo").await;
    one.wait(|status| !status.errors.is_empty()).await;
    one.netlink()
        .add_address(1, own, Scope::Global)
        .await
        .unwrap();
    one.wait(|status| status.in_sync).await;
}

#[test]
fn the_guard_sees_rules_and_sets_that_others_emptied() {
    let node = NetNs::anonymous().unwrap();
    let rules = Rules {
        port: 8472,
        known: ["192.168.0.2".parse().unwrap()].into(),
        own: vec!["192.168.0.1".parse().unwrap()],
        uplinks: BTreeMap::from([("lo".to_owned(), 1)]),
    };
    node.run(|| {
        let mut guard = Guard::open().unwrap();
        for damage in [
            "chain inet seaway-overlay input",
            "table inet seaway-overlay",
            "set inet seaway-overlay peers4",
        ] {
            assert!(guard.set(rules.clone()).unwrap());
            assert!(guard.audit().unwrap());
            let mut flush = std::process::Command::new("nft");
            flush.arg("flush").args(damage.split(' '));
            assert!(flush.status().unwrap().success());
            assert!(!guard.audit().unwrap(), "{damage}");
        }
    })
    .unwrap();
}
