use super::*;

const POD: MacAddr = MacAddr([2, 0, 0, 0, 0, 5]);
const HOST: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);

fn link(index: u32) -> Link {
    Link {
        index,
        name: "sw00000000005".to_owned(),
        kind: LinkKind::Veth,
        mtu: 1450,
        mac: Some(HOST),
        up: true,
        running: true,
        master: None,
        peer: Some(2),
        framing: seaway_kernel::Framing::Ethernet,
        peer_netns: Some(0),
    }
}

/// Behind a link of ours; neighbours as the plugin sets them.
fn side(index: u32, addresses: &[&str]) -> Side {
    let addresses = addresses
        .iter()
        .map(|text| (text.parse().unwrap(), Some(POD)));
    Side {
        link: link(index),
        ours: true,
        limited: false,
        addresses: addresses.collect(),
        others: BTreeSet::new(),
    }
}

fn local(sides: &[Side]) -> Local {
    let sides = sides.iter().map(|side| (side.link.index, side.clone()));
    Local::new(&sides.collect())
}

fn to(destination: &str) -> Route {
    Route {
        link: Some(7),
        ..Route::new(destination.parse().unwrap(), 83)
    }
}

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn found(link: Link, routes: &[Route]) -> Option<Side> {
    let neighbours = ["10.244.1.5", "fd00::5"].map(|ip| (ip.parse().unwrap(), POD));
    Side::new(link, (true, false), routes, &BTreeMap::from(neighbours))
}

#[test]
fn a_pod_is_known_by_the_routes_of_its_link() {
    let routes = [to("10.244.1.5/32"), to("fd00::5/128"), to("fe80::/64")];
    let pod = found(link(7), &routes).unwrap();
    assert_eq!(pod, side(7, &["10.244.1.5", "fd00::5"]));
    let second = found(link(7), &[to("10.244.1.5/32"), to("10.244.1.6/32")]).unwrap();
    let addresses = ["10.244.1.5", "10.244.1.6"].map(|ip| ip.parse().unwrap());
    let expected = BTreeMap::from([(addresses[0], Some(POD)), (addresses[1], None)]);
    assert_eq!(second.addresses, expected);
}

#[test]
fn only_routes_to_one_address_directly_behind_the_link_count() {
    let by_gateway = Route {
        gateway: Some("10.244.1.9".parse().unwrap()),
        ..to("10.244.1.5/32")
    };
    let other_table = Route {
        table: 100,
        ..to("10.244.1.5/32")
    };
    let blackhole = Route {
        kind: RouteKind::Blackhole,
        ..to("10.244.1.5/32")
    };
    for route in [to("10.244.1.4/31"), by_gateway, other_table, blackhole] {
        assert_eq!(
            found(link(7), std::slice::from_ref(&route)),
            None,
            "{route:?}"
        );
    }
}

#[test]
fn only_a_link_that_leads_into_another_namespace_has_a_pod() {
    let down = Link {
        up: false,
        ..link(7)
    };
    let here = Link {
        framing: seaway_kernel::Framing::Ethernet,
        peer_netns: None,
        ..link(7)
    };
    let bridge = Link {
        kind: LinkKind::Bridge,
        ..link(7)
    };
    for link in [down, here, bridge] {
        assert_eq!(
            found(link.clone(), &[to("10.244.1.5/32")]),
            None,
            "{link:?}"
        );
    }
}

#[test]
fn the_programs_know_addresses_and_the_link() {
    let found = local(&[side(7, &["10.244.1.5", "fd00::5"])]);
    let value = PodValue {
        ifindex: 7,
        flags: POD_FAST,
        mtu: 1450,
        ethernet: ethernet(POD, HOST),
    };
    let addresses = BTreeMap::from([(addr("10.244.1.5"), value), (addr("fd00::5"), value)]);
    assert_eq!(found.addresses, addresses);
    let place = PodLink {
        ifindex: 7,
        flags: POD_LINK_V4 | POD_LINK_V6 | POD_LINK_FAST,
        v4: addr("10.244.1.5").words[3],
        pad: 0,
        v6: addr("fd00::5"),
    };
    assert_eq!(found.links, BTreeMap::from([(7, place)]));
}

/// What becomes of a pod whose link is something else: the flags of its address and of its link.
#[test]
fn what_is_not_sure_is_left_to_the_stack() {
    let plain = side(7, &["10.244.1.5"]);
    let limited = Side {
        limited: true,
        ..plain.clone()
    };
    let foreign = Side {
        ours: false,
        ..plain.clone()
    };
    let mut unresolved = plain.clone();
    unresolved
        .addresses
        .values_mut()
        .for_each(|mac| *mac = None);
    for (side, expected) in [
        (plain, (POD_FAST, POD_LINK_V4 | POD_LINK_FAST)),
        (limited, (0, POD_LINK_V4)),
        (foreign, (POD_FAST, POD_LINK_FAST)),
        (unresolved, (0, POD_LINK_V4 | POD_LINK_FAST)),
    ] {
        let found = local(std::slice::from_ref(&side));
        let flags = (
            found.addresses[&addr("10.244.1.5")].flags,
            found.links[&7].flags,
        );
        assert_eq!(flags, expected, "{side:?}");
    }
}

#[test]
fn a_network_behind_a_pod_may_send_by_it() {
    let behind = Route {
        gateway: Some("10.244.1.5".parse().unwrap()),
        ..to("192.0.2.0/24")
    };
    let routes = [to("10.244.1.5/32"), to("fd00::5/128"), behind];
    let side = found(link(7), &routes).unwrap();
    assert_eq!(side.others, BTreeSet::from([Family::V4]));
    let found = local(&[side]);
    assert_eq!(found.links[&7].flags, POD_LINK_V6 | POD_LINK_FAST);
}

#[test]
fn two_links_with_one_address_or_one_place() {
    let (first, second) = (side(7, &["10.244.1.5"]), side(8, &["10.244.1.5"]));
    let found = local(&[first.clone(), second]);
    assert_eq!(found.addresses[&addr("10.244.1.5")].flags, 0);
    let far = 7 + seaway_ebpf_abi::pod::POD_LINKS_LEN;
    let found = local(&[first, side(far, &["10.244.1.6"])]);
    assert_eq!(found.links.len(), 1);
    assert_eq!(found.links[&7].ifindex, 7);
    assert_eq!(found.addresses[&addr("10.244.1.6")].ifindex, far);
}

#[test]
fn a_pod_whose_address_has_no_room_may_send_with_it() {
    let mut crowd = side(7, &[]);
    let addresses = (0..PODS_LEN).map(|n| (IpAddr::from((0x0a00_0000 + n).to_be_bytes()), None));
    crowd.addresses = addresses.collect();
    let late = side(8, &["10.244.1.5", "fd00::5"]);
    let found = local(&[crowd, late]);
    assert_eq!(found.addresses.len(), PODS_LEN as usize);
    assert_eq!(found.links[&7].flags, POD_LINK_V4 | POD_LINK_FAST);
    assert_eq!(found.links[&8].flags, POD_LINK_FAST);
}
