//! Links, addresses, routes and neighbours against the real kernel, in namespaces that are thrown away.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::{
    Encap, Event, LinkKind, MacAddr, NetNs, Netlink, Route, RouteFilter, Scope, VethOptions, Watch,
    WatchGroups,
};

const PROTOCOL: u8 = 83;

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn pair(near: &NetNs, far: &NetNs) -> (Netlink, Netlink) {
    let here = Netlink::in_namespace(near).unwrap();
    let options = VethOptions {
        mtu: Some(1450),
        mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        peer_mac: Some(MacAddr([2, 0, 0, 0, 0, 2])),
        peer_netns: Some(far),
        up: true,
    };
    here.add_veth("near", "far", options).await.unwrap();
    let there = Netlink::in_namespace(far).unwrap();
    let peer = there.link("far").await.unwrap().unwrap();
    assert!(!peer.up);
    there.set_up(peer.index).await.unwrap();
    (here, there)
}

#[tokio::test]
async fn a_route_is_looked_up_as_packets_find_it() {
    let (near, far) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    let (here, _there) = pair(&near, &far).await;
    let link = here.link("near").await.unwrap().unwrap().index;
    here.add_address(link, net("192.0.2.1/24"), Scope::Global)
        .await
        .unwrap();
    here.add_address(link, net("2001:db8::1/64"), Scope::Global)
        .await
        .unwrap();
    let over = |route: Option<Route>| route.and_then(|route| route.link);
    for on_link in ["192.0.2.9", "2001:db8::9"] {
        let route = here.route_to(ip(on_link)).await.unwrap();
        assert_eq!(over(route), Some(link), "{on_link}");
    }
    for nowhere in ["198.51.100.1", "2001:db8:1::1"] {
        assert_eq!(here.route_to(ip(nowhere)).await.unwrap(), None, "{nowhere}");
    }
}

#[tokio::test]
async fn a_veth_pair_appears_in_both_namespaces_under_its_final_names() {
    let (near, far) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    let (here, there) = pair(&near, &far).await;

    let link = here.link("near").await.unwrap().unwrap();
    let peer = there.link("far").await.unwrap().unwrap();
    near.await_ready().unwrap();
    far.await_ready().unwrap();
    assert_eq!((link.mtu, peer.mtu), (1450, 1450));
    assert_eq!(link.mac, Some(MacAddr([2, 0, 0, 0, 0, 1])));
    assert_eq!(peer.mac, Some(MacAddr([2, 0, 0, 0, 0, 2])));
    assert!(link.up && peer.up);
    assert_eq!(link.kind, LinkKind::Veth);
    assert_eq!((link.peer, peer.peer), (Some(peer.index), Some(link.index)));
    assert!(link.peer_netns.is_some());
    assert!(here.link("far").await.unwrap().is_none());

    let twice = here
        .add_veth("near", "other", VethOptions::default())
        .await
        .unwrap_err();
    assert!(twice.is_present());
    assert_eq!(
        twice.to_string(),
        "cannot create veth pair near and other: File exists (os error 17)"
    );

    here.delete_link_named("near").await.unwrap();
    here.delete_link_named("near").await.unwrap();
    here.delete_link(link.index).await.unwrap();
    assert!(there.link("far").await.unwrap().is_none());
}

#[tokio::test]
async fn links_are_changed_and_enslaved() {
    let (near, far) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    let (here, _there) = pair(&near, &far).await;
    here.add_bridge("br0").await.unwrap();
    let bridge = here.link("br0").await.unwrap().unwrap();
    let index = here.link("near").await.unwrap().unwrap().index;

    here.set_master(index, Some(bridge.index)).await.unwrap();
    here.set_mtu(index, 1300).await.unwrap();
    here.set_mac(index, MacAddr([2, 0, 0, 0, 0, 9]))
        .await
        .unwrap();
    here.set_down(index).await.unwrap();
    here.rename(index, "port").await.unwrap();
    let port = here.link("port").await.unwrap().unwrap();
    assert_eq!(port.master, Some(bridge.index));
    assert_eq!(port.mtu, 1300);
    assert_eq!(port.mac, Some(MacAddr([2, 0, 0, 0, 0, 9])));
    assert!(!port.up && !port.running);
    assert_eq!((bridge.kind, bridge.up), (LinkKind::Bridge, true));

    here.set_master(index, None).await.unwrap();
    here.move_to(index, &far).await.unwrap();
    let names: Vec<_> = here.links().await.unwrap();
    assert!(names.iter().all(|link| link.name != "port"));
}

#[tokio::test]
async fn an_encapsulating_route_is_read_back_as_it_was_set() {
    let netns = NetNs::anonymous().unwrap();
    let netlink = Netlink::in_namespace(&netns).unwrap();
    let mac = MacAddr([2, 0, 192, 168, 0, 1]);
    netlink
        .add_vxlan_external("vx.0", 8472, mac, 1450)
        .await
        .unwrap();
    let link = netlink.link("vx.0").await.unwrap().unwrap();
    let LinkKind::Vxlan(vxlan) = link.kind else {
        panic!("not a VXLAN device: {link:?}");
    };
    assert!(vxlan.external && !vxlan.learning && vxlan.port == 8472 && vxlan.lower.is_none());
    assert_eq!((link.mtu, link.mac), (1450, Some(mac)));
    netlink.set_up(link.index).await.unwrap();
    netlink
        .add_address(link.index, net("10.244.1.0/32"), Scope::Link)
        .await
        .unwrap();

    let mut route = Route {
        gateway: Some(ip("10.244.2.0")),
        link: Some(link.index),
        onlink: true,
        encap: Some(Encap::new(1, ip("192.168.0.2"))),
        ..Route::new(net("10.244.2.0/24"), PROTOCOL)
    };
    let ours = RouteFilter {
        protocol: Some(PROTOCOL),
        link: Some(link.index),
        ..RouteFilter::default()
    };
    netlink.add_route(&route).await.unwrap();
    assert!(netlink.add_route(&route).await.unwrap_err().is_present());
    assert_eq!(netlink.routes(ours).await.unwrap(), [route.clone()]);

    let source = Some(ip("192.168.0.1"));
    for encap in [
        Encap::new(1, ip("192.168.0.3")),
        Encap {
            source,
            checksum: true,
            ..Encap::new(1, ip("192.168.0.3"))
        },
        Encap::new(1, ip("2001:db8::3")),
        Encap {
            source: Some(ip("2001:db8::1")),
            ..Encap::new(2, ip("2001:db8::3"))
        },
    ] {
        route.encap = Some(encap);
        route.mtu = route.mtu.map_or(Some(1400), |_| None);
        netlink.replace_route(&route).await.unwrap();
        assert_eq!(netlink.routes(ours).await.unwrap(), [route.clone()]);
    }

    netlink.delete_route(&route).await.unwrap();
    netlink.delete_route(&route).await.unwrap();
    assert_eq!(netlink.routes(ours).await.unwrap(), []);
}

#[tokio::test]
async fn a_second_vxlan_device_on_the_port_is_refused_with_its_name() {
    let netns = NetNs::anonymous().unwrap();
    let netlink = Netlink::in_namespace(&netns).unwrap();
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    netlink
        .add_vxlan_external("one", 8472, mac, 1450)
        .await
        .unwrap();
    let error = netlink
        .add_vxlan_external("two", 8472, mac, 1450)
        .await
        .unwrap_err();
    assert!(error.is_present());
    assert!(
        error
            .to_string()
            .contains("VXLAN device two (UDP port 8472)")
    );
}

#[tokio::test]
async fn permanent_neighbours_are_set_replaced_and_deleted() {
    let (near, far) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    let (here, _there) = pair(&near, &far).await;
    let index = here.link("near").await.unwrap().unwrap().index;
    for (address, last) in [("10.1.1.1", 7), ("10.1.1.1", 8), ("fd00::1", 9)] {
        here.replace_neighbour(index, ip(address), MacAddr([2, 0, 0, 0, 0, last]))
            .await
            .unwrap();
    }
    let mut seen: Vec<_> = here
        .neighbours(index)
        .await
        .unwrap()
        .into_iter()
        .map(|n| (n.address, n.mac.unwrap().0[5], n.permanent))
        .collect();
    seen.sort();
    assert_eq!(seen, [(ip("10.1.1.1"), 8, true), (ip("fd00::1"), 9, true)]);
    here.delete_neighbour(index, ip("10.1.1.1")).await.unwrap();
    here.delete_neighbour(index, ip("10.1.1.1")).await.unwrap();
    assert_eq!(here.neighbours(index).await.unwrap().len(), 1);
}

#[tokio::test]
async fn addresses_are_added_listed_and_deleted() {
    let (near, far) = (NetNs::anonymous().unwrap(), NetNs::anonymous().unwrap());
    let (here, _there) = pair(&near, &far).await;
    let index = here.link("near").await.unwrap().unwrap().index;
    let wanted = [net("192.168.7.1/24"), net("fd00::1/64")];
    for network in wanted {
        here.add_address(index, network, Scope::Global)
            .await
            .unwrap();
    }
    let listed = here.addresses(Some(index)).await.unwrap();
    for network in wanted {
        assert!(
            listed
                .iter()
                .any(|a| a.network == network && a.link == index)
        );
    }
    assert!(here.addresses(None).await.unwrap().len() > listed.len());
    for address in &listed {
        here.delete_address(address).await.unwrap();
        here.delete_address(address).await.unwrap();
    }
    assert_eq!(here.addresses(Some(index)).await.unwrap(), []);
}

#[tokio::test]
async fn changes_are_seen_by_a_watch() {
    let netns = NetNs::anonymous().unwrap();
    let groups = WatchGroups {
        links: true,
        ..WatchGroups::default()
    };
    let mut watch = Watch::in_namespace(&netns, groups).unwrap();
    let netlink = Netlink::in_namespace(&netns).unwrap();
    netlink.add_bridge("br7").await.unwrap();
    netlink.delete_link_named("br7").await.unwrap();
    let mut set = false;
    loop {
        match watch.next().await.expect("the subscription is lost") {
            Event::LinkSet(link) => set |= link.name == "br7",
            Event::LinkDeleted(link) if link.name == "br7" => break,
            _ => {}
        }
    }
    assert!(set);
}
