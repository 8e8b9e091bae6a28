use std::net::IpAddr;

use seaway_kernel::{LinkKind, MacAddr};

use super::*;

const POD: u32 = 7;
const OVERLAY: u32 = 3;
const UPLINK: u32 = 2;
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 5]);

fn links() -> Links {
    let link = |index, name: &str, role| {
        let name = name.to_owned();
        (
            index,
            NodeLink {
                name,
                role,
                bare: false,
            },
        )
    };
    Links::from([
        link(POD, "sw00000000007", Role::Pod),
        link(OVERLAY, "seaway.vxlan", Role::Overlay),
        link(UPLINK, "eth0", Role::Uplink),
    ])
}

fn link(index: u32) -> Link {
    Link {
        index,
        name: links()[&index].name.clone(),
        kind: LinkKind::Veth,
        mtu: 1450,
        mac: Some(MAC),
        up: true,
        running: true,
        master: None,
        peer: Some(2),
        framing: seaway_kernel::Framing::Ethernet,
        peer_netns: Some(0),
    }
}

fn route(destination: &str, index: u32) -> Route {
    Route {
        link: Some(index),
        ..Route::new(destination.parse().unwrap(), 83)
    }
}

fn neighbour(link: u32, address: &str, mac: Option<MacAddr>, permanent: bool) -> Neighbour {
    Neighbour {
        link,
        address: address.parse().unwrap(),
        mac,
        permanent,
    }
}

/// A pod at 10.244.1.5 is known, and 10.244.2.0/24 behind the overlay.
fn known() -> Pods {
    let address: IpAddr = "10.244.1.5".parse().unwrap();
    let side = Side {
        link: link(POD),
        ours: true,
        limited: false,
        addresses: BTreeMap::from([(address, Some(MAC))]),
        others: BTreeSet::new(),
    };
    let peer = crate::ebpf::tunnels::key(&"10.244.2.0/24".parse().unwrap());
    Pods {
        sides: BTreeMap::from([(POD, side)]),
        peers: Some(Peers::from([(peer, Default::default())])),
        ..Pods::default()
    }
}

#[test]
fn an_event_has_that_asked_which_it_concerns() {
    let smaller = Link {
        mtu: 1400,
        ..link(POD)
    };
    let encap = seaway_kernel::Encap::new(1, "192.168.77.2".parse().unwrap());
    let over = Route {
        encap: Some(encap),
        ..route("10.244.3.0/24", OVERLAY)
    };
    let (pod, overlay, nothing) = ((true, false), (false, true), (false, false));
    let address = "10.244.1.5";
    for (event, expected) in [
        (Event::LinkSet(link(POD)), nothing),
        (Event::LinkSet(smaller), pod),
        (Event::LinkSet(link(OVERLAY)), overlay),
        (Event::LinkSet(link(UPLINK)), nothing),
        (Event::RouteSet(route("10.244.1.6/32", POD)), pod),
        (Event::RouteDeleted(route("10.244.1.5/32", POD)), pod),
        (Event::RouteSet(route("fe80::/64", POD)), nothing),
        (Event::RouteSet(over.clone()), overlay),
        (Event::RouteDeleted(over), overlay),
        (Event::RouteSet(route("fe80::/64", OVERLAY)), nothing),
        (Event::RouteSet(route("10.244.2.7/32", UPLINK)), overlay),
        (Event::RouteSet(route("10.9.0.0/16", UPLINK)), nothing),
        (
            Event::NeighbourSet(neighbour(POD, address, Some(MAC), true)),
            nothing,
        ),
        (
            Event::NeighbourSet(neighbour(POD, address, None, true)),
            pod,
        ),
        (
            Event::NeighbourSet(neighbour(POD, address, Some(MAC), false)),
            pod,
        ),
        (
            Event::NeighbourDeleted(neighbour(POD, address, None, false)),
            pod,
        ),
        (
            Event::NeighbourSet(neighbour(POD, "10.244.1.9", None, false)),
            nothing,
        ),
        (
            Event::NeighbourSet(neighbour(OVERLAY, "10.244.2.0", Some(MAC), true)),
            overlay,
        ),
        (
            Event::NeighbourSet(neighbour(UPLINK, "192.0.2.1", Some(MAC), true)),
            nothing,
        ),
    ] {
        let mut pods = known();
        pods.notice(&event, &links());
        let due = (pods.due.contains(&POD), pods.overlay_due);
        assert_eq!(due, expected, "{event:?}");
        assert!(pods.due.iter().all(|link| *link == POD));
    }
}

#[test]
fn a_pod_that_came_is_asked_for_once_more() {
    let mut pods = known();
    pods.notice(&Event::RouteSet(route("10.244.1.6/32", POD)), &links());
    pods.due.clear();
    pods.ask_again();
    assert_eq!(pods.due, BTreeSet::from([POD]));
    pods.due.clear();
    pods.ask_again();
    assert!(pods.due.is_empty());
}

#[test]
fn an_answer_about_a_link_that_is_gone_is_void() {
    let dir = tempfile::tempdir().unwrap();
    let side = known().sides.remove(&POD);
    let answers = |side: &Option<Side>| Answers {
        sides: BTreeMap::from([(POD, side.clone())]),
        peers: None,
    };
    let mut pods = Pods::default();
    assert!(!pods.is_known());
    pods.take_in(dir.path(), answers(&side), &links()).unwrap();
    assert!(pods.is_known() && pods.sides.contains_key(&POD));
    let mut gone = links();
    gone.remove(&POD);
    pods.forget(dir.path(), POD, Role::Pod).unwrap();
    pods.take_in(dir.path(), answers(&side), &gone).unwrap();
    assert!(pods.sides.is_empty());
}

#[test]
fn links_that_changed_while_the_node_was_read_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut pods = known();
    pods.compare(dir.path(), &links(), &links()).unwrap();
    assert!(pods.due.is_empty() && !pods.overlay_due);
    let mut before = links();
    before.remove(&OVERLAY);
    pods.compare(dir.path(), &before, &links()).unwrap();
    assert!(pods.overlay_due);
    let mut now = links();
    now.remove(&POD);
    pods.compare(dir.path(), &links(), &now).unwrap();
    assert!(pods.sides.is_empty());
}
